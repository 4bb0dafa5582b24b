use std::collections::BTreeSet;
use std::sync::Arc;

use fairlead_plan::Family;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::build::{addr, annotate, facts, local, mac, node, settings};
use crate::overlay::desired::{self, Key, Local};
use crate::overlay::peers::Peers;
use crate::overlay::{Backend, Settings};
use crate::resolve::Note;

/// Who has what, in a fixed order.
fn placed(peers: &Peers) -> Vec<String> {
    let mut all: Vec<_> = peers.wanted().map(|(_, object, peer)| format!("{object:?} of {peer:?}")).collect();
    all.sort();
    all
}

fn apply(peers: &mut Peers, node: &Value) -> Vec<Note> {
    peers.apply(&settings(Backend::Vxlan), &local(), Arc::new(facts(node))).notes
}

fn owner(peers: &Peers, net: &str) -> Option<String> {
    peers.get(&Key::Route(net.parse().unwrap())).map(|(_, peer)| peer.name.to_string())
}

/// Another node with the same pods.
fn twin(number: u8, of: u8) -> Value {
    let mut twin = node(number);
    twin["spec"] = node(of)["spec"].clone();
    twin
}

const NET: &str = "10.244.2.0/24";

#[test]
fn of_two_nodes_with_one_prefix_the_older_ready_one_has_it_in_whatever_order_they_come() {
    for order in [[node(2), twin(3, 2)], [twin(3, 2), node(2)]] {
        let mut peers = Peers::default();
        let notes: Vec<_> = order.iter().flat_map(|node| apply(&mut peers, node)).collect();
        assert_eq!(owner(&peers, NET).as_deref(), Some("n2"));
        assert_eq!(notes.len(), 2, "one for each family: {notes:?}");
        assert!(notes.iter().all(|note| note.reason == Note::OVERLAY_CONFLICT && &*note.object.name == "n3"));
        assert_eq!(peers.troubles().count(), 2);
    }
}

#[test]
fn a_replaced_node_takes_over_when_the_old_one_is_gone_or_not_ready() {
    let (settings, local) = (settings(Backend::Vxlan), local());
    let mut peers = Peers::default();
    apply(&mut peers, &node(2));
    apply(&mut peers, &twin(3, 2));
    let mut ill = node(2);
    ill["status"]["conditions"][0]["status"] = json!("Unknown");
    apply(&mut peers, &ill);
    assert_eq!(owner(&peers, NET).as_deref(), Some("n3"));
    apply(&mut peers, &node(2));
    assert_eq!(owner(&peers, NET).as_deref(), Some("n2"));
    let difference = peers.delete(&settings, &local, "n2");
    assert_eq!(owner(&peers, NET).as_deref(), Some("n3"));
    assert!(
        !difference.remove.iter().any(|(key, _)| matches!(key, Key::Route(_))),
        "the route is replaced, not removed"
    );
    assert_eq!(peers.troubles().count(), 0);
}

#[test]
fn a_list_that_names_the_new_node_before_the_old_one_is_gone_removes_nothing_of_the_new() {
    let (settings, local) = (settings(Backend::Vxlan), local());
    let mut peers = Peers::default();
    peers.begin_list();
    apply(&mut peers, &node(2));
    peers.end_list(&settings, &local);
    peers.begin_list();
    let mut new = node(2);
    new["metadata"]["name"] = json!("m2");
    new["metadata"]["uid"] = json!("uid-900");
    apply(&mut peers, &new);
    let difference = peers.end_list(&settings, &local);
    assert_eq!(owner(&peers, NET).as_deref(), Some("m2"));
    assert_eq!((difference.set, difference.remove), (vec![], vec![]), "the kernel holds the same for both");
}

#[test]
fn a_mac_that_two_nodes_claim_costs_one_of_them_this_family_alone() {
    let mut peers = Peers::default();
    apply(&mut peers, &node(2));
    let mut copy = node(3);
    annotate(&mut copy, "backend-data", &format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", mac(2)));
    let notes = apply(&mut peers, &copy);
    assert_eq!(notes.len(), 1, "{notes:?}");
    assert!(notes[0].message.contains("Ethernet address 0a:00:00:00:00:02"), "{}", notes[0].message);
    assert_eq!(owner(&peers, "10.244.3.0/24"), None);
    assert_eq!(owner(&peers, "fd00:244:0:3::/64").as_deref(), Some("n3"));
}

#[test]
fn the_same_node_again_changes_nothing_and_a_new_prefix_removes_the_old() {
    let mut peers = Peers::default();
    apply(&mut peers, &node(2));
    let again = peers.apply(&settings(Backend::Vxlan), &local(), Arc::new(facts(&node(2))));
    assert_eq!((again.set, again.remove), (vec![], vec![]));
    let mut moved = node(2);
    moved["spec"]["podCIDRs"] = json!(["10.244.40.0/21", "fd00:244:0:2::/64"]);
    let difference = peers.apply(&settings(Backend::Vxlan), &local(), Arc::new(facts(&moved)));
    let gone: Vec<_> = difference.remove.iter().map(|(key, _)| *key).collect();
    assert!(gone.contains(&Key::Route(NET.parse().unwrap())) && gone.len() == 2, "route and neighbour: {gone:?}");
    assert_eq!(difference.set.len(), 2, "the forwarding entry stays: {:?}", difference.set);
}

#[test]
fn a_peer_whose_nexthop_object_is_somebody_elses_gets_another_and_keeps_it() {
    let (settings, local) = (settings(Backend::VxlanLwt), local());
    let mut peers = Peers::default();
    for number in 2..5 {
        peers.apply(&settings, &local, Arc::new(facts(&node(number))));
    }
    let hop = |peers: &Peers| match peers.get(&Key::Route(NET.parse().unwrap())) {
        Some((desired::Value::By(hop), _)) => hop,
        other => panic!("{other:?}"),
    };
    let before = placed(&peers);
    let first = hop(&peers);
    peers.avoid(first);
    let second = hop(&peers);
    assert_ne!(first, second);
    assert!(peers.get(&Key::Hop(first)).is_none() && peers.get(&Key::Hop(second)).is_some());
    let others = |all: &[String]| all.iter().filter(|line| !line.contains("10.244.2.0")).cloned().collect::<Vec<_>>();
    assert_eq!(others(&placed(&peers)), others(&before), "nobody else is touched");
    peers.redecide(&settings, &local);
    assert_eq!(hop(&peers), second);
    // A program that starts anew is told by the kernel.
    let mut again = Peers::default();
    again.remember(addr("10.244.2.0"), second);
    again.apply(&settings, &local, Arc::new(facts(&node(2))));
    assert_eq!(hop(&again), second);
}

#[test]
fn another_address_of_a_peer_replaces_its_nexthop_object_and_nothing_else() {
    let (settings, local) = (settings(Backend::VxlanLwt), local());
    let mut peers = Peers::default();
    peers.apply(&settings, &local, Arc::new(facts(&node(2))));
    let mut moved = node(2);
    annotate(&mut moved, "public-ip", "192.168.0.22");
    let difference = peers.apply(&settings, &local, Arc::new(facts(&moved)));
    assert!(matches!(difference.set[..], [Key::Hop(_)]) && difference.remove.is_empty(), "{difference:?}");
    let gone = peers.delete(&settings, &local, "n2").remove;
    let order: Vec<_> = gone.iter().filter(|(key, _)| !matches!(key, Key::Neighbour(..))).collect();
    assert!(
        matches!(order[..], [(Key::Route(_), _), (Key::Route(_), _), (Key::Hop(_), _), (Key::Hop(_), _)]),
        "{gone:?}"
    );
}

/// A node that may share its prefix, device address or readiness with others.
fn any_node() -> impl Strategy<Value = Value> {
    (2u8..8, 2u8..6, 2u8..6, any::<bool>()).prop_map(|(number, prefix, device, ready)| {
        let mut node = twin(number, prefix);
        annotate(&mut node, "backend-data", &format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", mac(device)));
        node["status"]["conditions"][0]["status"] = json!(if ready { "True" } else { "False" });
        node
    })
}

#[derive(Debug, Clone)]
enum Step {
    Apply(Value),
    Delete(u8),
    Redecide,
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => any_node().prop_map(Step::Apply),
        2 => (2u8..8).prop_map(Step::Delete),
        1 => Just(Step::Redecide),
    ]
}

/// What the differences of all steps come to.
fn written(steps: &[Step], settings: &Settings, local: &Local) -> (Peers, BTreeSet<Key>) {
    let mut peers = Peers::default();
    let mut kernel = BTreeSet::new();
    for step in steps {
        let difference = match step {
            Step::Apply(node) => peers.apply(settings, local, Arc::new(facts(node))),
            Step::Delete(number) => peers.delete(settings, local, &format!("n{number}")),
            Step::Redecide => {
                peers.redecide(settings, local);
                continue;
            }
        };
        for (key, _) in difference.remove {
            assert!(kernel.remove(&key), "{key:?} is removed only if it was there");
        }
        kernel.extend(difference.set);
    }
    (peers, kernel)
}

proptest! {
    #[test]
    fn the_way_to_a_set_of_nodes_does_not_matter(
        steps in prop::collection::vec(any_step(), 1..30),
        backend in prop_oneof![Just(Backend::Vxlan), Just(Backend::VxlanLwt)],
    ) {
        let (settings, local) = (settings(backend), local());
        let (peers, kernel) = written(&steps, &settings, &local);
        let mut fresh = Peers::default();
        for number in 2u8..8 {
            if let Some(known) = peers.facts(&format!("n{number}")) {
                fresh.apply(&settings, &local, Arc::clone(known));
            }
        }
        prop_assert_eq!(placed(&peers), placed(&fresh));
        prop_assert_eq!(kernel, peers.wanted().map(|(_, (key, _), _)| key).collect());
        let troubles = |peers: &Peers| peers.troubles().map(|(peer, reason, _)| (peer.clone(), reason)).collect::<Vec<_>>();
        prop_assert_eq!(troubles(&peers), troubles(&fresh));
        for family in Family::BOTH {
            let of_family: BTreeSet<_> =
                peers.wanted().map(|(.., peer)| peer).filter(|peer| peer.family == family).collect();
            prop_assert_eq!(peers.counts()[family], of_family.len());
        }
    }
}
