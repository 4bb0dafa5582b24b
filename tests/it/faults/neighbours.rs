//! The iptables mode beside the chains of others: who stands in front of whom, and where packets go.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use fairlead_iptables::is_ours;
use fairlead_lab::objects::{Port, Service};
use fairlead_lab::{Lab, Outcome, POD_NETS, Place, cluster_ip, probe};
use fairlead_plan::{Family, Protocol};

use super::iptables::{VARIANTS, can_run, flags};
use super::{PORT, TARGET, answers, slice, until_answered_by};
use crate::laws::holdings::{foreign, held, ruleset, shell};
use crate::packets::programs::Mode;
use crate::program::{Cluster, eventually};

const NODE_PORT: u16 = 30_082;
/// Of the CNI plugin for host ports, and of docker.
const HOST_PORTS: [u16; 2] = [8_088, 8_089];
/// The kubelet drops what carries it.
const KUBELET_MARK: &str = "0x8000/0x8000";

/// What the CNI plugin for host ports, docker, firewalld and the kubelet have on a node: host ports that lead to pod a3, one of
/// them where a Service has its node port; a policy that forwards nothing and a rule that lets nobody in.
fn others(lab: &Lab, family: Family) -> String {
    let pod = |port| SocketAddr::new(lab.place("a3").addr(family), port);
    let (one, other) = (pod(TARGET), pod(TARGET + 1));
    let (pods, icmp) = match family {
        Family::V4 => (POD_NETS[0], "icmp"),
        Family::V6 => (POD_NETS[1], "ipv6-icmp"),
    };
    let [cni, docker] = HOST_PORTS;
    let marked = cluster_ip(2).of(family);
    format!(
        "*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-HOSTPORT-SETMARK - [0:0]
:CNI-DN-a3 - [0:0]
:DOCKER - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports {cni},{NODE_PORT} -j CNI-DN-a3
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-HOSTPORT-SETMARK -j MARK --set-xmark 0x2000/0x2000
-A CNI-DN-a3 -s {pods} -p tcp -m tcp --dport {cni} -j CNI-HOSTPORT-SETMARK
-A CNI-DN-a3 -p tcp -m tcp --dport {cni} -j DNAT --to-destination {one}
-A CNI-DN-a3 -p tcp -m tcp --dport {NODE_PORT} -j DNAT --to-destination {one}
-A DOCKER -p tcp -m tcp --dport {docker} -j DNAT --to-destination {other}
COMMIT
*filter
:INPUT ACCEPT [0:0]
:FORWARD DROP [0:0]
:KUBE-FIREWALL - [0:0]
:DOCKER-USER - [0:0]
:DOCKER - [0:0]
:FORWARD_direct - [0:0]
-A INPUT -j KUBE-FIREWALL
-A INPUT -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
-A INPUT -i lo -j ACCEPT
-A INPUT -p {icmp} -j ACCEPT
-A INPUT -p tcp -j REJECT --reject-with tcp-reset
-A INPUT -j REJECT
-A FORWARD -j DOCKER-USER
-A FORWARD -j DOCKER
-A FORWARD -j FORWARD_direct
-A FORWARD -s {pods} -j ACCEPT
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark {KUBELET_MARK} -j DROP
-A DOCKER-USER -j RETURN
-A DOCKER -d {} -p tcp -m conntrack --ctstate DNAT -j ACCEPT
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
-A OUTPUT -d {marked} -j MARK --set-xmark {KUBELET_MARK}
COMMIT
",
        one.ip()
    )
}

fn node_service() -> Service {
    super::service("web", 1).port(Port::tcp(PORT + 1).named("n").node_port(NODE_PORT))
}

fn cluster(mode: Mode) -> Cluster {
    let cluster = Cluster::new();
    for family in Family::BOTH {
        let tool = mode.tool(family).expect("the mode has a program");
        let file = cluster.directory.write("others.rules", &others(&cluster.lab, family));
        shell(cluster.node(), &format!("{tool}-restore < {}", file.display()));
    }
    cluster.put(&node_service());
    cluster.put_slice(&slice("web", &["a1", "b1"]).tcp("n", TARGET));
    cluster.serve("marked", 2, &["a1", "b1"]);
    cluster
}

/// The chains that rules of one of the kernel's own chains lead to, in order; targets as such.
fn order(node: &Place, mode: Mode, family: Family, table: &str, chain: &str) -> Vec<String> {
    let tool = mode.tool(family).expect("the mode has a program");
    let rules = shell(node, &format!("{tool} -t {table} -S {chain}"));
    let target = |rule: &str| Some(rule.split_once(" -j ")?.1.split(' ').next()?.to_owned());
    rules.lines().filter_map(target).collect()
}

/// Ours come first, each where kube-proxy has it, and those of others follow in the order in which they came.
fn is_in_order(node: &Place, mode: Mode) {
    for family in Family::BOTH {
        for (table, chain, wanted) in [
            ("nat", "PREROUTING", &["KUBE-SERVICES", "CNI-HOSTPORT-DNAT", "DOCKER"][..]),
            ("nat", "OUTPUT", &["KUBE-SERVICES", "CNI-HOSTPORT-DNAT"]),
            ("nat", "POSTROUTING", &["KUBE-POSTROUTING", "CNI-HOSTPORT-MASQ"]),
            ("filter", "INPUT", &["KUBE-SERVICES", "KUBE-FIREWALL", "ACCEPT", "ACCEPT", "ACCEPT", "REJECT", "REJECT"]),
            (
                "filter",
                "FORWARD",
                &["KUBE-FORWARD", "KUBE-SERVICES", "DOCKER-USER", "DOCKER", "FORWARD_direct", "ACCEPT"],
            ),
            ("filter", "OUTPUT", &["KUBE-SERVICES", "KUBE-FIREWALL"]),
        ] {
            assert_eq!(order(node, mode, family, table, chain), wanted, "{mode:?} {family:?} {table} {chain}");
        }
    }
}

fn reached(from: &Place, to: SocketAddr) -> String {
    match probe(from, Protocol::Tcp, to) {
        Outcome::Reached { endpoint, .. } => endpoint,
        other => format!("{other:?}"),
    }
}

/// Everybody's packets go where their rules say, whoever stands beside them.
fn packets_go_where_they_should(cluster: &Cluster, when: &str) {
    let place = |name| cluster.lab.place(name);
    for family in Family::BOTH {
        let at = |ip: IpAddr, port| SocketAddr::new(ip, port);
        let node = cluster.node().addr(family);
        let [cni, docker] = HOST_PORTS;
        let second = format!("a3:{}", TARGET + 1);
        for (from, to, endpoint) in [
            ("outside", at(node, cni), "a3"),
            ("b1", at(node, cni), "a3"),
            ("outside", at(node, docker), &*second),
            // The firewall of the node lets nobody in, and goes on to do so.
            ("outside", at(node, TARGET), "Refused"),
            // The kubelet drops what carries its mark, translated or not.
            ("a", at(cluster_ip(2).of(family), PORT), "Silence"),
        ] {
            assert_eq!(reached(place(from), to), endpoint, "{when}: {from} to {to}");
        }
        // The node port is the Service's, as with kube-proxy, although a host port has the same number. The policy forwards
        // nothing: packets of outsiders pass by the mark that the node port gave them.
        for from in ["outside", "b1"] {
            let who = answers(place(from), Protocol::Tcp, at(node, NODE_PORT));
            assert_eq!(who, ["a1", "b1"], "{when}: {from} to the node port, {family:?}");
        }
        let who = answers(place("a2"), Protocol::Tcp, at(cluster_ip(2).of(family), PORT));
        assert_eq!(who, ["a1", "b1"], "{when}: a2 to a ClusterIP");
    }
    until_answered_by(place("a2"), 1, &["a1", "b1"]);
}

#[test]
fn chains_of_others_keep_their_order_behind_ours_and_their_packets() {
    if !can_run() {
        return;
    }
    for mode in VARIANTS {
        let cluster = cluster(mode);
        let node = cluster.node();
        let theirs = foreign(node, mode);
        let program = cluster.launch(flags(mode));
        program.wait_until_ready();
        is_in_order(node, mode);
        packets_go_where_they_should(&cluster, "after the start");
        assert_eq!(foreign(node, mode), theirs);

        // Whatever changes here, theirs stays as it is.
        cluster.serve("third", 3, &["a1"]);
        until_answered_by(cluster.lab.place("a2"), 3, &["a1"]);
        cluster.forget("third");
        cluster.put_slice(&slice("web", &["a3"]).tcp("n", TARGET));
        until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
        cluster.put_slice(&slice("web", &["a1", "b1"]).tcp("n", TARGET));
        until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
        is_in_order(node, mode);
        assert_eq!(foreign(node, mode), theirs);

        // docker puts its rule on top whenever it starts. Two that both insist would never come to rest.
        for family in Family::BOTH {
            let tool = mode.tool(family).expect("the mode has a program");
            shell(node, &format!("{tool} -D FORWARD -j DOCKER-USER && {tool} -I FORWARD -j DOCKER-USER"));
        }
        let settled = || {
            let before = ruleset(node, mode);
            std::thread::sleep(Duration::from_secs(1));
            ruleset(node, mode) == before
        };
        eventually("both have come to rest", settled);
        for family in Family::BOTH {
            let first = order(node, mode, family, "filter", "FORWARD");
            assert_eq!(first[..3], ["DOCKER-USER", "KUBE-FORWARD", "KUBE-SERVICES"], "{mode:?} {family:?}");
        }
        packets_go_where_they_should(&cluster, "after docker started again");

        drop(program);
        shell(node, &format!("{} cleanup", crate::program::BINARY));
        assert!(held(node, mode).iter().all(|held| !held.split([' ', '"']).any(is_ours)), "{:?}", held(node, mode));
        for (port, endpoint) in [(HOST_PORTS[0], "a3"), (NODE_PORT, "a3")] {
            for family in Family::BOTH {
                let rule = format!(
                    "{} -I FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
                    mode.tool(family).expect("the mode has a program")
                );
                shell(node, &rule);
                let to = SocketAddr::new(node.addr(family), port);
                assert_eq!(reached(cluster.lab.place("outside"), to), endpoint, "without us, {to}");
            }
        }
    }
}
