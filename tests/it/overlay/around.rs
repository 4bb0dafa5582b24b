//! What documents show around the overlay: the commands that tell how a node does, other tunnels beside ours, and kube-proxy's
//! names. Each test is named after its acceptance check.

use std::net::SocketAddr;

use fairlead_iptables::chains_of;
use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Feature, Options, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol, ServiceKey};
use serde_json::{Value, json};

use super::stage::{DEVICES, Stage, can_run, run};
use crate::program::{self, eventually};

const NODES: [&str; 3] = ["a", "b", "c"];

/// What a command prints on node `a`, and its exit code.
fn says(stage: &Stage, args: &[&str]) -> (String, String, Option<i32>) {
    let output = program::run(stage.node("a"), args);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

#[test]
fn ac0_6_one_command_tells_every_decision_about_a_packet() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt", "host-gw"] {
        let stage = Stage::new();
        let mut programs = stage.start(&NODES, backend);
        for family in Family::BOTH {
            let (pod, other) = (stage.lab.place("b1").addr(family), stage.node("b"));
            let (text, said, code) = says(&stage, &["overlay", "trace", &pod.to_string()]);
            eprintln!("{text}");
            assert_eq!(code, Some(0), "{text}{said}");
            let prefix = other.pod_cidrs()[family as usize].clone();
            let device = if backend == "vxlan-lwt" { DEVICES[0] } else { DEVICES[family as usize] };
            let mac = || run(other, &format!("cat /sys/class/net/{device}/address")).trim().to_owned();
            let end = other.addr(family);
            let card = run(other, "cat /sys/class/net/eth0/address").trim().to_owned();
            let mut wanted = vec![("route", prefix)];
            match backend {
                "host-gw" => wanted.push(("neighbour", format!("{end} lladdr {card} dev eth0"))),
                _ => wanted.push(("neighbour", format!("lladdr {} dev {device} PERMANENT", mac()))),
            }
            if backend == "vxlan" {
                wanted.push(("forwarding entry", format!("{} dst {end} dev {device}", mac())));
            }
            if backend != "host-gw" {
                wanted.push(("tunnel", format!("to {end} port 8472, VXLAN network 1")));
                wanted.push(("underlay route", "dev eth0".to_owned()));
                wanted.push(("underlay neighbour", format!("{end} lladdr {card} dev eth0")));
            }
            let lines: Vec<&str> = text.lines().skip(1).collect();
            assert_eq!(lines.len(), wanted.len(), "{text}");
            for (line, (step, words)) in lines.iter().zip(&wanted) {
                assert!(line.starts_with(step) && line.contains(words), "{line:?} lacks {step} {words}");
            }
            let json = says(&stage, &["overlay", "trace", "--json", &pod.to_string()]).0;
            let hops: Vec<Value> = serde_json::from_str(&json).unwrap();
            assert!(hops.len() == wanted.len() && hops.iter().all(|hop| hop["ends"] == json!(false)), "{json}");
        }
        if backend == "vxlan" {
            programs.remove(0).kill();
            let mac = run(stage.node("b"), "cat /sys/class/net/flannel.1/address");
            run(stage.node("a"), &format!("bridge fdb del {} dev flannel.1 dst 192.168.50.2", mac.trim()));
            let (text, said, code) = says(&stage, &["overlay", "trace", "10.244.2.11"]);
            assert!(text.contains(&format!("has none for {}", mac.trim())), "{text}");
            assert!(code == Some(1) && said.contains("ends at the forwarding entry"), "{said}");
        }
    }
}

#[test]
fn ac2_1_status_tells_mode_underlay_prefixes_masquerade_controllers_and_peers() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&NODES, "vxlan");
    let (text, said, code) = says(&stage, &["status"]);
    // How many connections there are depends on what else was said on this node.
    let text: String =
        text.lines().filter(|line| !line.starts_with("conntrack")).map(|line| format!("{line}\n")).collect();
    let wanted = "\
mode         nftables
overlay      IPv4: vxlan over eth0 192.168.50.1, pods 10.244.1.0/24, masqueraded outside of the cluster
overlay      IPv6: vxlan over eth0 fd00:50::1, pods fd00:244:0:1::/64, masqueraded outside of the cluster
controllers  5/5 healthy
peers        4/4 reachable
";
    assert_eq!((text.as_str(), code), (wanted, Some(0)), "{said}");
    run(stage.node("b"), "nft add table inet block");
    run(stage.node("b"), "nft add chain inet block input { type filter hook input priority -300 ; }");
    run(stage.node("b"), "nft add rule inet block input udp dport 8472 drop");
    let (text, said, code) = says(&stage, &["status", "--timeout=200ms"]);
    assert!(text.contains("peers        2/4 reachable"), "{text}");
    assert!(code == Some(1) && said.contains("2 ways to peers do not carry packets"), "{said}");
    programs.remove(0).kill();
    let (_, said, code) = says(&stage, &["status"]);
    assert!(code == Some(1) && said.contains("does not answer on 127.0.0.1:10249"), "{said}");
}

#[test]
fn ac3_13_a_blocked_tunnel_port_is_reported_after_the_start_without_being_asked() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    run(stage.node("b"), "nft add table inet block");
    run(stage.node("b"), "nft add chain inet block input { type filter hook input priority -300 ; }");
    run(stage.node("b"), "nft add rule inet block input udp dport 8472 drop");
    let launch = |node| stage.launch(node, &["--overlay-backend=vxlan"]);
    let programs = NODES.map(launch);
    for prefix in ["10.244.2.0/24", "fd00:244:0:2::/64"] {
        programs[0].wait_for_line(&[&format!("the way to the pods {prefix}"), "UDP port 8472 is blocked"]);
    }
    let silent = |silent: f64| programs[0].metric("fairlead_overlay_peers_silent", "") == silent;
    assert!(silent(2.0));
    run(stage.node("b"), "nft delete table inet block");
    programs[0].wait_for_line(&["all peers answer now"]);
    assert!(silent(0.0));
}

#[test]
fn ac2_4_a_point_to_point_tunnel_of_the_operators_works_beside_ours_and_stays() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let programs = stage.start(&["a", "b"], "vxlan");
    // The document's own lines, between our nodes.
    for (node, local, remote, own) in
        [("a", "192.168.50.1", "192.168.50.2", "10.20.1.1/24"), ("b", "192.168.50.2", "192.168.50.1", "10.20.1.2/24")]
    {
        let place = stage.node(node);
        run(place, &format!("ip link add vxlan0 type vxlan id 5 dstport 4789 remote {remote} local {local} dev eth0"));
        run(place, &format!("ip addr add {own} dev vxlan0"));
        run(place, "ip link set vxlan0 up");
    }
    let shown = || run(stage.node("a"), "ip -d link show vxlan0") + &run(stage.node("a"), "bridge fdb show dev vxlan0");
    let before = shown();
    assert!(before.contains("id 5 remote 192.168.50.2") && before.contains("dst 192.168.50.2"), "{before}");
    run(stage.node("a"), "ping -c 2 -W 5 10.20.1.2");
    let repairs = || programs[0].metric("fairlead_overlay_repairs_total", "device");
    let was = repairs();
    run(stage.node("a"), "ip link del flannel.1");
    eventually("ours is repaired", || repairs() > was);
    stage.until_connected(&["a", "b"]);
    assert_eq!(shown(), before, "the operator's is as it was");
    run(stage.node("a"), "ping -c 2 -W 5 10.20.1.2");
}

#[test]
fn ac3_2_chains_have_the_names_that_kube_proxy_gives() {
    let key = ServiceKey {
        namespace: "default".into(),
        name: "nginx-test".into(),
        port_name: "80-80".into(),
        protocol: Protocol::Tcp,
        family: Family::V4,
    };
    for (endpoint, chain) in [
        ("10.42.1.6:80", "KUBE-SEP-U2YYZT2C3O6VM4EV"),
        ("10.42.2.6:80", "KUBE-SEP-GWUIQWA2TNZI4ESX"),
        ("10.42.0.65:80", "KUBE-SEP-KFY4SZB25ZLTM5M6"),
        ("10.42.1.9:80", "KUBE-SEP-HPYELGPUSBJ2TZPX"),
    ] {
        assert_eq!(chains_of(&key, endpoint.parse().unwrap()), ["KUBE-SVC-7CWUT4JBGBRVUN2L", chain]);
    }
}

#[test]
fn ac3_7_in_mode_ipvs_device_sets_and_servers_are_there_and_lead_through_the_tunnel() {
    if !can_run() || !needs(&[Feature::IpVs, Feature::Ipset, Feature::Dummy, Feature::Iptables]) {
        return;
    }
    for scheduler in ["rr", "lc", "sh"] {
        let stage = Stage::new();
        let flags = ["--overlay-backend=vxlan", "--mode=ipvs", &format!("--ipvs-scheduler={scheduler}")];
        let _programs = ["a", "b"].map(|node| stage.launch(node, &flags));
        stage.until_connected(&["a", "b"]);
        let service = Service::new("web").cluster_ip(1).port(Port::tcp(80).named("t").node_port(32_506));
        stage.apply([service.manifest(&stage.lab, &Family::BOTH)]);
        stage.apply(Slice::of("web").tcp("t", 8080).ready(&["b1"]).manifests(&stage.lab, &Family::BOTH));
        let node = stage.node("a");
        for (family, sets) in [
            (Family::V4, ["KUBE-CLUSTER-IP", "KUBE-NODE-PORT-TCP"]),
            (Family::V6, ["KUBE-6-CLUSTER-IP", "KUBE-6-NODE-PORT-TCP"]),
        ] {
            let vip = SocketAddr::new(cluster_ip(1).of(family), 80);
            let port = SocketAddr::new(node.addr(family), 32_506);
            for to in [vip, port] {
                let seen = || probe_set(stage.lab.place("outside"), Protocol::Tcp, to, &Options::default());
                eventually(&format!("{scheduler}: {to} leads to the other node"), || seen().reached.contains_key("b1"));
            }
            let held = |set: &str| run(node, &format!("ipset list {set}"));
            assert!(held(sets[0]).contains(&format!("{},tcp:80", vip.ip())), "{}", held(sets[0]));
            assert!(held(sets[1]).lines().any(|line| line.starts_with("32506")), "{}", held(sets[1]));
        }
        assert!(run(node, "ip -d link show kube-ipvs0").contains("dummy"));
        let table = run(node, "cat /proc/net/ip_vs");
        assert!(table.lines().any(|line| line.starts_with("TCP") && line.contains(scheduler)), "{table}");
    }
}
