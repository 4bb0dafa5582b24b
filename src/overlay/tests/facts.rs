use fairlead_plan::Family;
use serde_json::json;

use super::build::{addr, annotate, facts, mac, node, object};
use crate::overlay::annotation::{self, Prefix, Said, Vtep};
use crate::overlay::facts::{Facts, Own};
use crate::resolve::Note;

#[test]
fn a_node_of_flannel_is_read_in_both_families() {
    let facts = facts(&node(7));
    assert_eq!(facts.pods.v4, "10.244.7.0/24".parse().ok());
    assert_eq!(facts.pods.v6, "fd00:244:0:7::/64".parse().ok());
    assert_eq!((facts.public.v4, facts.public.v6), (Some(addr("192.168.0.7")), Some(addr("fd00:168::7"))));
    assert_eq!(facts.vtep.v6, Some(Vtep { vni: Some(1), mac: mac(7) }));
    assert!(facts.managed && *facts.backend == *"vxlan");
}

#[test]
fn the_singular_pod_cidr_counts_where_it_is_alone() {
    let mut node = node(7);
    node["spec"] = json!({ "podCIDR": "10.244.7.0/24" });
    assert_eq!(facts(&node).pods.v4, "10.244.7.0/24".parse().ok());
    node["spec"] = json!({ "podCIDR": "10.0.0.0/24", "podCIDRs": ["fd00::/64"] });
    assert_eq!((facts(&node).pods.v4, facts(&node).pods.v6), (None, "fd00::/64".parse().ok()));
}

#[test]
fn a_bad_annotation_costs_itself_and_is_said() {
    for (name, value) in [
        ("public-ip", "nonsense"),
        ("public-ip", "fd00::1"),
        ("public-ipv6", "192.168.0.7"),
        ("public-ip", "127.0.0.1"),
        ("backend-data", "{"),
        ("backend-v6-data", r#"{"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#),
    ] {
        let mut node = node(7);
        annotate(&mut node, name, value);
        let (facts, notes) = Facts::parse(&object(&node), &Prefix::default());
        assert_eq!(notes.len(), 1, "{name}={value}");
        assert_eq!(notes[0].reason, Note::INVALID_ANNOTATION);
        assert!(notes[0].message.contains(name) && notes[0].message.contains("left out"), "{}", notes[0].message);
        let left =
            [facts.public.v4.is_some(), facts.public.v6.is_some(), facts.vtep.v4.is_some(), facts.vtep.v6.is_some()];
        assert_eq!(left.iter().filter(|there| **there).count(), 3, "{name}={value}");
    }
}

#[test]
fn only_the_own_node_says_which_address_it_wants() {
    let mut node = node(1);
    annotate(&mut node, "node-public-ip", "192.168.0.77");
    annotate(&mut node, "public-ipv6-overwrite", "2001:db8::1");
    node["status"]["conditions"] = json!([{ "type": "NetworkUnavailable", "status": "True" }]);
    let (own, notes) = Own::parse(&object(&node), &Prefix::default());
    assert_eq!(notes, []);
    assert_eq!((own.wanted.v4, own.wanted.v6), (Some(addr("192.168.0.77")), None));
    assert_eq!((own.overwrite.v4, own.overwrite.v6), (None, Some(addr("2001:db8::1"))));
    assert!(own.network_unavailable);
}

#[test]
fn what_is_written_about_a_node_is_what_is_read_of_it() {
    let prefix = Prefix::new("example.org/overlay");
    let said = |addr| Some(Said { public_ip: addr, vtep: Some(Vtep { vni: Some(1), mac: mac(3) }) });
    let annotations = annotation::write(&prefix, "vxlan", said(addr("192.0.2.3")), said(addr("2001:db8::3")));
    assert_eq!(annotations.len(), 6);
    assert!(annotations.keys().all(|key| key.starts_with("example.org/overlay-")));
    let mut node = node(3);
    node["metadata"]["annotations"] = json!(annotations);
    let (facts, notes) = Facts::parse(&object(&node), &prefix);
    assert_eq!(notes, []);
    for (family, public) in [(Family::V4, "192.0.2.3"), (Family::V6, "2001:db8::3")] {
        assert_eq!((facts.public[family], facts.vtep[family].map(|vtep| vtep.mac)), (Some(addr(public)), Some(mac(3))));
    }
}
