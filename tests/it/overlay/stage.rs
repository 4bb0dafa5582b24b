//! Three nodes and an API server that is none of them.

use std::io::Write;
use std::net::TcpListener;
use std::process::Output;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_kernel::route::{Link, NextHop, Route, RouteFilter, Rtnl, TABLE_MAIN, Vxlan};

use fairlead_lab::api::{ApiServer, Settings};
use fairlead_lab::{Feature, Lab, Options, Outcome, Place, Size, needs, probe_with};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

use crate::program::{Directory, NEVER, Program, eventually};

/// What every test here needs.
pub fn can_run() -> bool {
    needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan])
}

/// The pods of the lab, by node.
pub const PODS: [(&str, &[&str]); 3] = [("a", &["a1", "a2"]), ("b", &["b1", "b2"]), ("c", &["c1"])];

/// Nodes `a`, `b` and `c`; a client `outside`; the API server has a machine of its own on the switch.
pub struct Stage {
    pub server: ApiServer,
    pub lab: Lab,
    pub directory: Directory,
}

impl Stage {
    pub fn new() -> Self {
        let size = Size { nodes: &[("a", 2), ("b", 2), ("c", 1)], clients: &["outside", "api"] };
        let lab = Lab::of_size(&size).unwrap();
        lab.forget_pod_routes().unwrap();
        let api = lab.place("api").clone();
        for node in ["b", "c"] {
            for family in Family::BOTH {
                // The way through `a` is for answers of services.
                lab.node(node).ip(&format!("route del {}", api.addresses().host_net(family))).unwrap();
            }
        }
        let addr = api.addr(Family::V4);
        let listener = api.run(move || TcpListener::bind((addr, 0))).unwrap();
        let server = ApiServer::start_with(listener, Settings::default()).unwrap();
        let stage = Self { server, lab, directory: Directory::new() };
        stage.apply(stage.lab.cluster_manifests());
        stage
    }

    /// Creates or replaces objects.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            self.server.apply(object).unwrap();
        }
    }

    pub fn node(&self, name: &str) -> &Place {
        self.lab.node(name)
    }

    /// Starts the program on a node and waits for nothing.
    pub fn launch(&self, node: &str, flags: &[&str]) -> Program {
        let kubeconfig = self.directory.path().join("kubeconfig");
        if !kubeconfig.exists() {
            self.server.kubeconfig(&kubeconfig).unwrap();
        }
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let flags: Vec<&str> = [kubeconfig.as_str()].into_iter().chain(flags.iter().copied()).collect();
        Program::launch(self.node(node), &self.directory, &flags)
    }

    /// Starts it on these nodes with this backend and waits until all pods reach each other.
    pub fn start(&self, nodes: &[&str], backend: &str) -> Vec<Program> {
        self.start_with(nodes, &[&format!("--overlay-backend={backend}")])
    }

    /// The same with these flags.
    pub fn start_with(&self, nodes: &[&str], flags: &[&str]) -> Vec<Program> {
        let programs: Vec<_> = nodes.iter().map(|node| self.launch(node, flags)).collect();
        programs.iter().for_each(|program| _ = program.wait_until_ready());
        self.until_connected(nodes);
        programs
    }

    /// A Node as the API server has it.
    pub fn node_object(&self, name: &str) -> Value {
        let mut object = self.server.get("Node", "", name).expect("the Node is there");
        (object["apiVersion"], object["kind"]) = ("v1".into(), "Node".into());
        // As an operator would write it.
        object["metadata"].as_object_mut().unwrap().remove("resourceVersion");
        object
    }

    /// An annotation of flannel's, as the API server has it.
    pub fn annotation(&self, node: &str, name: &str) -> String {
        let object = self.node_object(node);
        object["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Waits until every pod of these nodes reaches every other, both families.
    pub fn until_connected(&self, nodes: &[&str]) {
        for (from, to, family) in pairs(nodes) {
            eventually(&format!("{from} reaches {to} over {}", family.label()), || self.reaches(from, to, family));
        }
    }

    /// Whether a packet comes there and back now.
    pub fn reaches(&self, from: &str, to: &str, family: Family) -> bool {
        let options = Options { resend: false, patience: Duration::from_millis(250), ..Options::default() };
        let (from, to) = (self.lab.place(from), self.lab.place(to));
        let address = (to.addr(family), fairlead_lab::PORTS[0]).into();
        match probe_with(from, Protocol::Udp, address, &options) {
            Outcome::Reached { endpoint, source } => {
                assert_eq!(endpoint, to.name());
                assert_eq!(source.ip(), from.addr(family), "{} sees its peer as it is", to.name());
                true
            }
            _ => false,
        }
    }
}

/// Every two pods of different nodes among these, both ways, both families.
pub fn pairs<'a>(nodes: &'a [&str]) -> impl Iterator<Item = (&'static str, &'static str, Family)> + 'a {
    let pods = |node: &str| PODS.iter().find(|(name, _)| *name == node).map(|(_, pods)| *pods).unwrap_or_default();
    let ordered =
        nodes.iter().flat_map(move |from| nodes.iter().filter(move |to| *to != from).map(move |to| (*from, *to)));
    ordered.flat_map(move |(from, to)| {
        let ways = pods(from).iter().flat_map(move |from| pods(to).iter().map(move |to| (*from, *to)));
        ways.flat_map(|(from, to)| Family::BOTH.map(|family| (from, to, family)))
    })
}

/// Runs a program in a place and gives back what it prints.
///
/// # Panics
/// If it fails, with what it says.
pub fn run(place: &Place, line: &str) -> String {
    let output = output(place, line);
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs a program in a place.
pub fn output(place: &Place, line: &str) -> Output {
    let mut words = line.split_whitespace();
    place.command(words.next().unwrap()).args(words).output().unwrap()
}

/// The protocol of our routes, as `ip` takes it.
pub const PROTOCOL: u8 = fairlead::overlay::diff::PROTOCOL;
/// The device of each family.
pub const DEVICES: [&str; 2] = ["flannel.1", "flannel-v6.1"];

/// All that is ours in a node's kernel, without numbers of interfaces and nexthop objects, from dumps: `ip` and `bridge` would
/// take a hundred times as long as most repairs.
pub fn listing(node: &Place) -> Vec<String> {
    node.run(|| {
        let mut kernel = Rtnl::open().unwrap();
        let links = kernel.links().unwrap();
        let name = |index: u32| links.iter().find(|link| link.index == index).map_or("?", |link| link.name.as_str());
        let mut lines = Vec::new();
        for ipv6 in [false, true] {
            let ours = RouteFilter { ipv6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
            for route in kernel.routes(ours).unwrap() {
                let by_object = if matches!(route.hop, NextHop::Object(_)) { " by object" } else { "" };
                let hop = kernel.resolve(route.hop).unwrap();
                lines.push(shown(&Route { hop, ..route }, name) + by_object);
            }
        }
        let addresses = kernel.addresses().unwrap();
        for device in links.iter().filter(|link| DEVICES.contains(&link.name.as_str())) {
            let Link { name: own, mac, mtu, up, vxlan, kind, .. } = device;
            let lower = vxlan.as_ref().map(|vxlan| name(vxlan.lower));
            let vxlan = vxlan.clone().map(|vxlan| Vxlan { lower: 0, ..vxlan });
            lines.push(format!("{own} {kind} mtu {mtu} {mac:?} up {up} over {lower:?} {vxlan:?}"));
            let permanent = kernel.neighbours(device.index).unwrap().into_iter().filter(|entry| entry.permanent);
            lines.extend(permanent.map(|entry| format!("{} lladdr {:?} dev {own}", entry.addr, entry.mac)));
            let entries = kernel.forwarding(device.index).unwrap().into_iter();
            lines.extend(entries.map(|entry| {
                let end = entry.destination.map(|end| end.to_string()).unwrap_or_default();
                format!("{} dst {end} permanent {} special {} dev {own}", entry.mac, entry.permanent, entry.special)
            }));
            let hops = kernel.hops(device.index).unwrap().into_iter().filter(|object| object.protocol == PROTOCOL);
            lines.extend(hops.map(|object| match object.hop {
                NextHop::Unicast { gateway: Some(gateway), onlink, encap: Some(encap), .. } => {
                    format!("object via {gateway} onlink {onlink} {encap:?} dev {own}")
                }
                other => format!("object {other:?} dev {own}"),
            }));
            let own_addresses = addresses.iter().filter(|addr| addr.index == device.index && addr.is_global());
            lines.extend(own_addresses.map(|address| format!("{}/{} dev {own}", address.addr, address.prefix)));
        }
        lines.sort();
        lines
    })
}

/// As `ip route` prints it.
fn shown<'a>(route: &Route, name: impl Fn(u32) -> &'a str) -> String {
    let Route { destination, metric, .. } = route;
    match route.hop {
        NextHop::Unicast { index, gateway: Some(gateway), onlink, encap } => {
            let onlink = if onlink { " onlink" } else { "" };
            let encap = encap.map(|encap| format!(" encap {encap:?}")).unwrap_or_default();
            format!("{destination} via {gateway} dev {}{onlink} metric {metric}{encap}", name(index))
        }
        ref hop => format!("{destination} {hop:?}"),
    }
}

/// Waits until a node's kernel holds this again, and says how long that took.
pub fn until_listed(node: &Place, wanted: &[String], since: Instant) -> Duration {
    let start = Instant::now();
    loop {
        let now = listing(node);
        let seen = Instant::now();
        if now == wanted {
            return seen - since;
        }
        if start.elapsed() > NEVER {
            let missing: Vec<_> = wanted.iter().filter(|line| !now.contains(line)).collect();
            let extra: Vec<_> = now.iter().filter(|line| !wanted.contains(line)).collect();
            panic!("node {} is not repaired; missing {missing:#?}, extra {extra:#?}", node.name());
        }
        thread::sleep(Duration::from_millis(2));
    }
}

/// Prints how long a repair took, also when the test passes.
pub fn say(check: &str, fault: &str, took: Duration) {
    let _ = writeln!(std::io::stderr(), "{check}: {fault}: repaired after {took:.1?}");
}
