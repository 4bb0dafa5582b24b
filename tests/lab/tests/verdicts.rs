//! The lab tested with rules written by hand: probes must report what the rules do.
#![allow(clippy::unwrap_used, reason = "this is how a test fails")]

use std::collections::BTreeSet;
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::process::Stdio;
use std::time::Instant;

use fairlead_lab::{
    Conversation, Feature, Hammer, Lab, Options, Outcome, PORTS, Place, Seen, cluster_ip, external_ip, needs, probe,
    probe_set, probe_with,
};
use fairlead_plan::{Family, Protocol};

const PORT: u16 = 80;
const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// Two endpoints, one on each node, behind ClusterIP 1; ClusterIP 2 refuses, ClusterIP 3 drops. External IP 1 is
/// ClusterIP 1 with masquerade. The endpoint's own connections to the service are masqueraded.
fn rules(lab: &Lab, family: Family) -> String {
    let ip = if family == Family::V4 { "ip" } else { "ip6" };
    let [near, far] = ["a1", "b1"].map(|pod| lab.place(pod).addr(family));
    let forward = format!("numgen random mod 2 map {{ 0 : {near} . {0}, 1 : {far} . {0} }}", PORTS[0]);
    let (service, refused, dropped) = (cluster_ip(1).of(family), cluster_ip(2).of(family), cluster_ip(3).of(family));
    let outside = external_ip(1).of(family);
    let dispatch = format!(
        "{ip} daddr {service} meta l4proto {{ tcp, udp }} th dport {PORT} dnat {ip} addr . port to {forward}
         {ip} daddr {outside} meta l4proto {{ tcp, udp }} th dport {PORT} meta mark set 0x4000 dnat {ip} addr . port to {forward}"
    );
    let verdicts = format!("{ip} daddr {refused} reject\n {ip} daddr {dropped} drop");
    format!(
        "table {ip} byhand {{
            chain pre {{ type nat hook prerouting priority dstnat; jump services; }}
            chain out {{ type nat hook output priority -100; jump services; }}
            chain services {{ {dispatch}
 }}
            chain forward {{ type filter hook forward priority filter; jump verdicts; }}
            chain output {{ type filter hook output priority filter; jump verdicts; }}
            chain verdicts {{ {verdicts}
 }}
            chain post {{ type nat hook postrouting priority srcnat; mark 0x4000 masquerade
                ct status dnat {ip} saddr {near} {ip} daddr {near} masquerade
 }}
        }}"
    )
}

fn load(node: &Place, rules: &str) {
    let mut command = node.command("nft");
    let mut child = command.args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(rules.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft refuses:\n{rules}");
}

fn each(test: impl Fn(&Lab, Family, Protocol)) {
    if !needs(&[Feature::Namespaces, Feature::NfTables]) {
        return;
    }
    let lab = lab_with_rules();
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            test(&lab, family, protocol);
        }
    }
}

fn each_at_once(test: impl Fn(&Lab, Family, Protocol) + Sync) {
    if !needs(&[Feature::Namespaces, Feature::NfTables]) {
        return;
    }
    let lab = lab_with_rules();
    let (lab, test) = (&lab, &test);
    std::thread::scope(|scope| {
        for family in Family::BOTH {
            for protocol in PROTOCOLS {
                scope.spawn(move || test(lab, family, protocol));
            }
        }
    });
}

fn lab_with_rules() -> Lab {
    let lab = Lab::new().unwrap();
    for family in Family::BOTH {
        load(lab.node("a"), &rules(&lab, family));
    }
    lab
}

fn service(index: u8, family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(index).of(family), PORT)
}

#[test]
fn every_place_reaches_every_pod_and_node_by_address_and_shows_its_own() {
    if !needs(&[Feature::Namespaces]) {
        return;
    }
    let lab = Lab::new().unwrap();
    for family in Family::BOTH {
        for from in lab.places() {
            for to in lab.places().iter().filter(|to| to.name() != "outside" && to.name() != from.name()) {
                let target = SocketAddr::new(to.addr(family), PORTS[0]);
                for protocol in PROTOCOLS {
                    // Pods are not known outside of the cluster, as in life.
                    if from.name() == "outside" && to.pod_cidrs().is_empty() {
                        continue;
                    }
                    let outcome = probe(from, protocol, target);
                    let Outcome::Reached { endpoint, source } = &outcome else {
                        panic!("{protocol} from {} to {} {target}: {outcome:?}", from.name(), to.name());
                    };
                    assert_eq!(endpoint, to.name());
                    let own = from.all_addresses().iter().any(|addresses| addresses.contains(source.ip()));
                    assert!(own, "{} showed {source}", from.name());
                }
            }
        }
    }
}

#[test]
fn a_pod_reaches_both_endpoints_with_its_own_address() {
    each(|lab, family, protocol| {
        let pod = lab.place("a2");
        let seen = probe_set(pod, protocol, service(1, family), &Options::default());
        assert_eq!(seen.endpoints(), BTreeSet::from(["a1", "b1"]), "{seen:?}");
        assert_eq!(seen.sources(), BTreeSet::from([pod.addr(family)]));
        assert_eq!((seen.refused, seen.silence, seen.failed.len()), (0, 0, 0));
    });
}

#[test]
fn masquerade_shows_an_address_of_the_node() {
    each(|lab, family, protocol| {
        let frontend = SocketAddr::new(external_ip(1).of(family), PORT);
        for from in ["outside", "a", "a2", "b"] {
            let seen = probe_set(lab.place(from), protocol, frontend, &Options::default());
            assert_eq!(seen.endpoints(), BTreeSet::from(["a1", "b1"]), "{from}: {seen:?}");
            let ours = |source: &IpAddr| lab.node("a").all_addresses().iter().any(|own| own.contains(*source));
            assert!(seen.sources().iter().all(ours), "{from}: {seen:?}");
        }
    });
}

#[test]
fn an_endpoint_that_reaches_itself_sees_the_node() {
    each(|lab, family, protocol| {
        let seen = probe_set(lab.place("a1"), protocol, service(1, family), &Options::default());
        let own = lab.place("a1").addr(family);
        assert!(seen.reached.contains_key("a1"), "{seen:?}");
        assert!(!seen.reached["a1"].contains(&own), "{seen:?}");
        assert!(seen.reached["b1"].contains(&own), "{seen:?}");
    });
}

#[test]
fn answers_to_a_client_that_is_not_masqueraded_come_back_through_the_first_node() {
    each(|lab, family, protocol| {
        let outside = lab.place("outside");
        let seen = probe_set(outside, protocol, service(1, family), &Options::default());
        assert_eq!(seen.endpoints(), BTreeSet::from(["a1", "b1"]), "{seen:?}");
        assert_eq!(seen.sources(), BTreeSet::from([outside.addr(family)]));
    });
}

#[test]
fn reject_is_refused_and_drop_is_silence_whoever_asks() {
    each_at_once(|lab, family, protocol| {
        let ask =
            |from: &str, index: u8| probe_set(lab.place(from), protocol, service(index, family), &Options::default());
        for from in ["a2", "a", "outside"] {
            let [rejected, dropped] = std::thread::scope(|scope| {
                [2, 3].map(|index| scope.spawn(move || ask(from, index))).map(|thread| thread.join().unwrap())
            });
            let all = rejected.refused;
            assert_eq!(rejected, Seen { refused: all, ..Seen::default() }, "{from} {protocol}");
            assert_eq!(dropped, Seen { silence: all, ..Seen::default() }, "{from} {protocol}");
        }
    });
}

#[test]
fn many_silent_probes_cost_one_deadline() {
    each_at_once(|lab, family, protocol| {
        let began = Instant::now();
        let seen = probe_set(lab.place("a2"), protocol, service(3, family), &Options::default());
        assert!(seen.silence > 1, "{seen:?}");
        // In a row they would take this long; the bound is no measure of speed.
        assert!(began.elapsed() < fairlead_lab::SILENCE * u32::try_from(seen.silence).unwrap());
    });
}

#[test]
fn a_probe_sends_from_the_address_and_port_it_is_told() {
    each(|lab, family, protocol| {
        let from = lab.place("b");
        let source = SocketAddr::new(from.second().of(family), 4_321);
        let options =
            Options { bind: Some(source.ip()), source_port: source.port(), abort: true, ..Options::default() };
        for _ in 0..2 {
            let to = SocketAddr::new(lab.place("a2").addr(family), PORTS[1]);
            let reached = Outcome::Reached { endpoint: format!("a2:{}", PORTS[1]), source };
            assert_eq!(probe_with(from, protocol, to, &options), reached);
        }
    });
}

#[test]
fn large_payloads_come_back_whole() {
    each(|lab, family, protocol| {
        let options = Options { payload: 20_000, ..Options::default() };
        let outcome = probe_with(lab.place("a2"), protocol, service(1, family), &options);
        assert!(matches!(outcome, Outcome::Reached { .. }), "{protocol}: {outcome:?}");
    });
}

#[test]
fn a_conversation_stays_with_its_endpoint_when_the_service_is_gone() {
    each(|lab, family, protocol| {
        let mut conversation =
            Conversation::open(lab.place("a2"), protocol, service(1, family), &Options::default()).unwrap();
        let first = conversation.ask();
        assert!(matches!(first, Outcome::Reached { .. }), "{first:?}");
        let ip = if family == Family::V4 { "ip" } else { "ip6" };
        load(lab.node("a"), &format!("flush chain {ip} byhand services"));
        assert_eq!(conversation.ask(), first);
        load(lab.node("a"), &format!("delete table {ip} byhand\n{}", rules(lab, family)));
    });
}

#[test]
fn a_hammer_counts_answers_and_each_failure() {
    each(|lab, family, protocol| {
        let hammer = Hammer::start(lab.place("a2"), &[(protocol, service(1, family))]).unwrap();
        hammer.wait_for(20);
        let tally = hammer.stop();
        assert!(tally.failures.is_empty(), "{:?}", tally.failures.first());
        assert!(tally.successes >= 20);
        let hammer = Hammer::start(lab.place("a2"), &[(protocol, service(2, family))]).unwrap();
        hammer.wait_for(1);
        let tally = hammer.stop();
        assert_eq!(tally.successes, 0);
        // ECONNREFUSED
        assert_eq!(tally.failures[0].errno, Some(111), "{:?}", tally.failures[0]);
    });
}

#[test]
fn a_lab_leaves_nothing_behind_even_when_a_test_panics() {
    if !needs(&[Feature::Namespaces]) {
        return;
    }
    let lab = Lab::new().unwrap();
    let namespaces: Vec<_> = lab.places().iter().map(|place| place.namespace().to_owned()).collect();
    let there = |name: &String| std::path::Path::new("/run/netns").join(name).exists();
    assert!(namespaces.iter().all(there));
    let panicked = std::thread::spawn(move || {
        let _lab = lab;
        panic!("on purpose");
    });
    assert!(panicked.join().is_err());
    assert!(!namespaces.iter().any(there));
}

#[test]
fn leftovers_of_dead_processes_are_removed() {
    if !needs(&[Feature::Namespaces]) {
        return;
    }
    // The largest process id of Linux is 4,194,304, so nobody has this one.
    let ip = |args: [&str; 3]| std::process::Command::new("ip").args(args).status().unwrap().success();
    assert!(ip(["netns", "add", "fllab4194999-0-a"]));
    let _lab = Lab::new().unwrap();
    assert!(!std::path::Path::new("/run/netns/fllab4194999-0-a").exists());
}
