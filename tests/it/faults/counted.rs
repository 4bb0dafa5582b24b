//! Figures of the iptables mode, held against what `iptables-save` shows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_iptables::is_ours;
use fairlead_kernel::conntrack::{Conntrack, Flow};
use fairlead_lab::objects::{Port, Service};
use fairlead_lab::{Conversation, Options, Outcome, cluster_ip, probe};
use fairlead_plan::{Family, Protocol};

use super::iptables::{VARIANTS, can_run, flags};
use super::{PORT, TARGET, slice, until_answered_by};
use crate::laws::holdings::{load_foreign, shell};
use crate::packets::programs::Mode;
use crate::program::{Cluster, Program, eventually};

const NODE_PORT: u16 = 30_081;
const TABLES: [&str; 2] = ["nat", "filter"];

/// On loopback too.
fn service() -> Service {
    let tcp = Port::tcp(PORT).named("t").node_port(NODE_PORT);
    Service::new("web").cluster_ip(1).port(tcp).port(Port::udp(PORT).named("u"))
}

/// Rules of ours in a table: by chain, in order.
fn rules(cluster: &Cluster, mode: Mode, family: Family, table: &str) -> BTreeMap<String, Vec<String>> {
    let tool = mode.tool(family).expect("the mode has a program");
    let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for rule in shell(cluster.node(), &format!("{tool}-save -t {table}")).lines() {
        let words: Vec<&str> = rule.split(' ').collect();
        let leads_to_us = words.windows(2).any(|pair| pair[0] == "-j" && is_ours(pair[1]));
        if words[0] == "-A" && (is_ours(words[1]) || leads_to_us && words[1] == words[1].to_uppercase()) {
            chains.entry(words[1].to_owned()).or_default().push(rule.to_owned());
        }
    }
    chains
}

fn figure(program: &Program, name: &str, family: Family, table: &str) -> usize {
    let (_, text) = program.get(crate::program::METRICS_PORT, "/metrics").unwrap();
    let series = format!("{name}{{ip_family=\"{}\",table=\"{table}\"}} ", family.label());
    let value = text.lines().find_map(|line| line.strip_prefix(&series));
    value.unwrap_or_else(|| panic!("there is no {series}:\n{text}")).parse().unwrap()
}

/// Every table with how many rules of ours it has.
fn counted(cluster: &Cluster, mode: Mode) -> Vec<usize> {
    let tables = Family::BOTH.into_iter().flat_map(|family| TABLES.map(|table| (family, table)));
    tables.map(|(family, table)| rules(cluster, mode, family, table).values().map(Vec::len).sum()).collect()
}

fn figures(program: &Program, name: &str) -> Vec<usize> {
    let tables = Family::BOTH.into_iter().flat_map(|family| TABLES.map(|table| (family, table)));
    tables.map(|(family, table)| figure(program, name, family, table)).collect()
}

/// A connection through the node that conntrack forgets, so that its end belongs to nothing.
fn end_what_nobody_knows(cluster: &Cluster, family: Family) {
    let to = SocketAddr::new(cluster.lab.place("a1").addr(family), TARGET);
    let mut talk =
        Conversation::open(cluster.lab.place("b1"), Protocol::Tcp, to, &Options::default()).expect("it is answered");
    assert!(matches!(talk.ask(), Outcome::Reached { .. }));
    let client = cluster.lab.place("b1").addr(family);
    let forgotten = cluster.node().run(|| {
        let mut conntrack = Conntrack::open().unwrap();
        let mut flows: Vec<Flow> = Vec::new();
        let tcp = Protocol::Tcp.number();
        conntrack.flows(family == Family::V6, tcp, &mut |flow| flows.push(*flow)).unwrap();
        flows.retain(|flow| flow.original.src == client && flow.original.dst == to.ip());
        conntrack.delete_all(&flows).unwrap()
    });
    assert!(forgotten > 0, "conntrack of the node does not know the connection");
}

/// What the rules that drop such packets have counted.
fn dropped(cluster: &Cluster, mode: Mode) -> u64 {
    let of = |family| {
        let tool = mode.tool(family).expect("the mode has a program");
        let saved = shell(cluster.node(), &format!("{tool}-save -c -t filter"));
        let rule = saved.lines().find(|line| line.contains("--ctstate INVALID -j DROP")).expect("the rule is there");
        rule.trim_start_matches('[').split(':').next().unwrap().parse::<u64>().unwrap()
    };
    Family::BOTH.map(of).iter().sum()
}

#[test]
fn rules_are_counted_by_table_as_they_are_and_those_of_the_last_change() {
    if !can_run() {
        return;
    }
    const TOTAL: &str = "kubeproxy_sync_proxy_rules_iptables_total";
    const LAST: &str = "kubeproxy_sync_proxy_rules_iptables_last";
    for mode in VARIANTS {
        let cluster = Cluster::new();
        load_foreign(cluster.node(), mode);
        cluster.put(&service());
        cluster.put_slice(&slice("web", &["a1", "b1"]));
        let program = cluster.launch(flags(mode));
        program.wait_until_ready();
        assert_eq!(figures(&program, TOTAL), counted(&cluster, mode));
        assert_eq!(figures(&program, LAST), counted(&cluster, mode), "a start writes all");
        let was = rules(&cluster, mode, Family::V4, "nat");
        cluster.apply(slice("web", &["a1", "b1", "a3"]).manifests(&cluster.lab, &[Family::V4]));
        let is_there = |now: &BTreeMap<String, Vec<String>>| {
            let address = cluster.lab.place("a3").addr(Family::V4).to_string();
            now.values().flatten().any(|rule| rule.contains(&address))
        };
        eventually("the endpoint is there", || is_there(&rules(&cluster, mode, Family::V4, "nat")));
        let now = rules(&cluster, mode, Family::V4, "nat");
        let written: usize =
            now.iter().filter(|(chain, rules)| was.get(*chain) != Some(rules)).map(|(_, rules)| rules.len()).sum();
        assert!(written > 2, "{now:#?}");
        eventually("the change is counted", || figures(&program, LAST) == [written, 0, 0, 0]);
        assert_eq!(figures(&program, TOTAL), counted(&cluster, mode));
        for failures in ["restore", "partial_restore"] {
            let name = format!("kubeproxy_sync_proxy_rules_iptables_{failures}_failures_total");
            let (_, text) = program.get(crate::program::METRICS_PORT, "/metrics").unwrap();
            let none = Family::BOTH.map(|family| format!("{name}{{ip_family=\"{}\"}} 0\n", family.label()));
            assert!(none.iter().all(|line| text.contains(line)), "{text}");
        }
    }
}

#[test]
fn packets_that_conntrack_cannot_place_are_counted_as_the_kernel_counts_them() {
    if !can_run() {
        return;
    }
    const DROPPED: &str = "kubeproxy_iptables_ct_state_invalid_dropped_packets_total";
    for mode in VARIANTS {
        let cluster = Cluster::new();
        cluster.put(&service());
        cluster.put_slice(&slice("web", &["a1", "b1"]));
        let program = cluster.launch(flags(mode));
        program.wait_until_ready();
        assert_eq!(program.metric(DROPPED, ""), 0.0);
        for family in Family::BOTH {
            let before = dropped(&cluster, mode);
            end_what_nobody_knows(&cluster, family);
            eventually("the packet is dropped", || dropped(&cluster, mode) > before);
            // It is sent again and again, so both figures grow.
            let agree = || {
                let (least, shown) = (dropped(&cluster, mode), program.metric(DROPPED, ""));
                least as f64 <= shown && shown <= dropped(&cluster, mode) as f64
            };
            eventually("the figure is that of the kernel", agree);
        }
        // A change of services takes nothing away.
        let shown = program.metric(DROPPED, "");
        cluster.put_slice(&slice("web", &["a3"]));
        until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
        assert!(shown > 0.0 && program.metric(DROPPED, "") >= shown);
    }
}

#[test]
fn connections_to_node_ports_on_loopback_are_counted() {
    if !can_run() {
        return;
    }
    const ACCEPTED: &str = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total";
    for mode in VARIANTS {
        let cluster = Cluster::new();
        cluster.put(&service());
        cluster.put_slice(&slice("web", &["a1", "b1"]));
        let flags: Vec<&str> = flags(mode).iter().copied().chain(["--nodeport-addresses=primary,localhost"]).collect();
        let program = cluster.launch(&flags);
        program.wait_until_ready();
        assert_eq!(program.metric(ACCEPTED, ""), 0.0);
        let mut made = 0.0;
        for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let to = SocketAddr::new(loopback, NODE_PORT);
            eventually("the node port answers on loopback", || {
                let outcome = probe(cluster.node(), Protocol::Tcp, to);
                made += f64::from(u8::from(!matches!(outcome, Outcome::Refused)));
                matches!(outcome, Outcome::Reached { .. })
            });
            // Through a ClusterIP nothing of that is counted.
            let other = SocketAddr::new(cluster_ip(1).of(Family::V4), PORT);
            assert!(matches!(probe(cluster.node(), Protocol::Tcp, other), Outcome::Reached { .. }));
            assert_eq!(program.metric(ACCEPTED, ""), made);
        }
    }
}
