//! Turns places into namespaces, links, addresses and routes.

use std::sync::atomic::{AtomicU32, Ordering};
use std::{fs, process, thread};

use anyhow::{Context, Result, ensure};
use fairlead_plan::Family;

use crate::addresses::{pod_nets, switch_address};
use crate::{Addresses, EXTERNAL_NETS, Kind, Place, SERVICE_NETS, ip, place};

/// How the names of our namespaces begin; the process id follows.
const PREFIX: &str = "fllab";

/// Where `ip netns` keeps namespaces.
const NETNS_DIRECTORY: &str = "/run/netns";

/// The last host number on the switch: the default gateway of all, which forwards nothing.
const DEAD_END: u8 = 254;

/// Written in each namespace before any link is made, so that links inherit the defaults.
const SYSCTLS: [(&str, &str); 12] = [
    // Addresses must work at once.
    ("net/ipv6/conf/all/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv6/conf/default/accept_ra", "0"),
    // Pods of one node talk through it on purpose; nobody shall tell them of a shorter way.
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    ("net/ipv6/conf/all/accept_redirects", "0"),
    ("net/ipv6/conf/default/accept_redirects", "0"),
    // A probe is refused by an ICMP error, and each of forty must be.
    ("net/ipv4/icmp_ratelimit", "0"),
    ("net/ipv6/icmp/ratelimit", "0"),
    ("net/ipv4/icmp_msgs_per_sec", "100000"),
    ("net/ipv4/icmp_msgs_burst", "10000"),
    // Below those that probes take in turn: a program that is started often leaves many of its own in TIME-WAIT.
    ("net/ipv4/ip_local_port_range", "16384 32767"),
];

/// What a node does besides.
const NODE_SYSCTLS: [(&str, &str); 3] =
    [("net/ipv4/ip_forward", "1"), ("net/ipv6/conf/all/forwarding", "1"), ("net/ipv6/conf/default/forwarding", "1")];

/// A name for this lab that no other has: `fllab<process>-<number>`.
pub(crate) fn new_tag() -> String {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    format!("{PREFIX}{}-{}", process::id(), NUMBER.fetch_add(1, Ordering::Relaxed))
}

/// Makes everything. What was made is removed by [`remove`], also after an error.
pub(crate) fn make(switch: &str, places: &[Place]) -> Result<()> {
    let all = || places.iter().map(|place| place.namespace.as_str()).chain([switch]);
    let lines: Vec<_> = all().map(|name| format!("netns add {name}")).collect();
    ip::batch(None, &lines).context("cannot make namespaces; the lab needs root")?;
    write_sysctls(switch, places)?;
    ip::batch(None, &links(switch, places))?;
    ip::batch(Some(switch), &switch_lines(places))?;
    for place in places {
        ip::batch(Some(&place.namespace), &lines_of(place, places))?;
    }
    Ok(())
}

/// Deletes the namespaces of a lab and all that is in them.
pub(crate) fn remove(tag: &str) -> Result<()> {
    let lines: Vec<_> = namespaces(&format!("{tag}-"))?.iter().map(|name| format!("netns del {name}")).collect();
    if lines.is_empty() { Ok(()) } else { ip::batch(None, &lines) }
}

/// Deletes what labs of dead processes left behind.
pub(crate) fn remove_leftovers() -> Result<()> {
    for name in namespaces(PREFIX)? {
        let owner = name[PREFIX.len()..].split('-').next().unwrap_or_default();
        if owner.parse::<u32>().is_ok_and(|pid| !fs::exists(format!("/proc/{pid}")).unwrap_or(true)) {
            // Another process may be cleaning up the same leftovers.
            let _ = ip::batch(None, &[format!("netns del {name}")]);
        }
    }
    Ok(())
}

fn namespaces(prefix: &str) -> Result<Vec<String>> {
    let Ok(entries) = fs::read_dir(NETNS_DIRECTORY) else { return Ok(Vec::new()) };
    let mut names = Vec::new();
    for entry in entries {
        let name = entry?.file_name().to_string_lossy().into_owned();
        if name.starts_with(prefix) {
            names.push(name);
        }
    }
    Ok(names)
}

/// `/proc/sys/net` shows the namespace of the thread that opens it, so one thread walks through all of them.
fn write_sysctls(switch: &str, places: &[Place]) -> Result<()> {
    thread::scope(|scope| {
        let walk = || -> Result<()> {
            place::enter(switch)?;
            write_all(&SYSCTLS)?;
            for place in places {
                place.enter()?;
                write_all(&SYSCTLS)?;
                if let Kind::Node { .. } = place.kind {
                    write_all(&NODE_SYSCTLS)?;
                }
            }
            Ok(())
        };
        scope.spawn(walk).join().expect("writing sysctls does not panic")
    })
}

fn write_all(sysctls: &[(&str, &str)]) -> Result<()> {
    for (name, value) in sysctls {
        let path = format!("/proc/sys/{name}");
        // Kernels before 6.11 have one limit of ICMP messages for all namespaces and show it in the first one only.
        if fs::exists(&path)? {
            fs::write(&path, value).with_context(|| format!("cannot write {value} to {path}"))?;
        }
    }
    Ok(())
}

fn links(switch: &str, places: &[Place]) -> Vec<String> {
    let far_end = |place: &Place| match &place.kind {
        Kind::Pod { node } => places.iter().find(|node_of| node_of.name == *node).map(|node| node.namespace.clone()),
        Kind::Node { .. } | Kind::Client => Some(switch.to_owned()),
    };
    let line = |place: &Place| {
        let far = far_end(place).expect("every pod is made with its node");
        format!("link add eth0 netns {} type veth peer name p-{} netns {far}", place.namespace, place.name)
    };
    places.iter().map(line).collect()
}

fn switch_lines(places: &[Place]) -> Vec<String> {
    let on_switch = |place: &&Place| !matches!(place.kind, Kind::Pod { .. });
    let ports = places.iter().filter(on_switch).map(|place| place.name.as_str());
    let mut lines = bridge("switch", &switch_address(DEAD_END), ports);
    // Without a route, Linux answers an IPv6 packet that it does not forward with an ICMP error.
    lines.extend(["0.0.0.0/0", "::/0"].map(|net| format!("route add blackhole {net}")));
    lines
}

/// A bridge with an address and ports. Without snooping, multicast (neighbour discovery) passes from the first moment.
fn bridge<'a>(name: &str, addresses: &Addresses, ports: impl Iterator<Item = &'a str>) -> Vec<String> {
    let mut lines = vec![
        "link set lo up".to_owned(),
        format!("link add {name} type bridge mcast_snooping 0"),
        format!("link set {name} up"),
    ];
    lines.extend(ports.map(|port| format!("link set p-{port} master {name} up")));
    lines.extend(with_address(name, addresses, 24, 64));
    lines
}

pub(crate) fn with_address(link: &str, addresses: &Addresses, bits_v4: u8, bits_v6: u8) -> [String; 2] {
    [
        format!("addr add {}/{bits_v4} dev {link}", addresses.v4),
        format!("addr add {}/{bits_v6} dev {link} nodad", addresses.v6),
    ]
}

fn lines_of(place: &Place, places: &[Place]) -> Vec<String> {
    match &place.kind {
        Kind::Node { second, gateway, .. } => node_lines(place, second, gateway, places),
        Kind::Pod { node } => {
            let node = places.iter().find(|candidate| candidate.name == *node).expect("every pod has its node");
            let Kind::Node { gateway, .. } = &node.kind else { unreachable!("only nodes have pods") };
            pod_lines(place, gateway)
        }
        Kind::Client => client_lines(place, places),
    }
}

fn node_lines(place: &Place, second: &Addresses, gateway: &Addresses, places: &[Place]) -> Vec<String> {
    let is_ours = |pod: &&Place| pod.kind == Kind::Pod { node: place.name.clone() };
    let pods = places.iter().filter(is_ours).map(|pod| pod.name.as_str());
    let mut lines = bridge("cni0", gateway, pods.clone());
    // With br_netfilter a pod's connection to itself through a service never leaves the bridge and must go out at the
    // port where it came in (hairpinMode of the bridge CNI plugin, which flannel sets).
    lines.extend(pods.map(|pod| format!("link set p-{pod} type bridge_slave hairpin on")));
    lines.push("link set eth0 up".to_owned());
    lines.extend(with_address("eth0", &place.addresses, 24, 64));
    // Deprecated, so that the kernel does not choose it as a source where two would do.
    lines.extend(with_address("eth0", second, 24, 64).map(|line| format!("{line} preferred_lft 0")));
    lines.extend(default_routes_of_switch());
    for other in places.iter().filter(|other| other.name != place.name) {
        match &other.kind {
            Kind::Node { number, .. } => {
                lines.extend(pod_nets(*number).iter().map(|net| via(net, &other.addresses)));
            }
            Kind::Client if !is_entry(place, places) => {
                let nets = Family::BOTH.map(|family| other.addresses.host_net(family).to_string());
                lines.extend(nets.iter().map(|net| via(net, &entry(places).addresses)));
            }
            Kind::Client | Kind::Pod { .. } => {}
        }
    }
    if !is_entry(place, places) {
        lines.extend(EXTERNAL_NETS.iter().map(|net| via(net, &entry(places).addresses)));
    }
    lines
}

fn pod_lines(place: &Place, gateway: &Addresses) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    lines.extend(with_address("eth0", &place.addresses, 32, 128));
    lines.push(format!("route add {} dev eth0", gateway.v4));
    lines.push(format!("route add {} dev eth0", gateway.v6));
    lines.extend(default_routes(gateway));
    lines
}

fn client_lines(place: &Place, places: &[Place]) -> Vec<String> {
    let mut lines = vec!["link set lo up".to_owned(), "link set eth0 up".to_owned()];
    lines.extend(with_address("eth0", &place.addresses, 24, 64));
    lines.extend(default_routes_of_switch());
    let nets = SERVICE_NETS.iter().chain(&EXTERNAL_NETS);
    lines.extend(nets.map(|net| via(net, &entry(places).addresses)));
    lines
}

fn default_routes(gateway: &Addresses) -> [String; 2] {
    ["0.0.0.0/0", "::/0"].map(|net| via(net, gateway))
}

/// The default routes of all nodes and clients.
pub(crate) fn default_routes_of_switch() -> [String; 2] {
    default_routes(&switch_address(DEAD_END))
}

fn via(net: &str, gateway: &Addresses) -> String {
    let family = if net.contains(':') { Family::V6 } else { Family::V4 };
    format!("route add {net} via {}", gateway.of(family))
}

/// The node through which clients reach services: the first.
fn entry(places: &[Place]) -> &Place {
    places.iter().find(|place| matches!(place.kind, Kind::Node { .. })).expect("a lab has a node")
}

fn is_entry(place: &Place, places: &[Place]) -> bool {
    place.name == entry(places).name
}

/// # Errors
/// If a name does not fit into the name of a link (15 characters).
pub(crate) fn check_names(places: &[Place]) -> Result<()> {
    for place in places {
        ensure!(place.name.len() <= 13, "the name {} is longer than 13 characters", place.name);
        let same = places.iter().filter(|other| other.name == place.name).count();
        ensure!(same == 1, "two places are called {}", place.name);
    }
    Ok(())
}
