use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_plan::{Family, LocalTraffic};
use ipnet::IpNet;

use super::both;
use super::build::{node_ip, pods};
use crate::object::{NodeAddress, NodeObject, Taint};
use crate::resolve::{
    DetectMode, NodeFacts, NodeModel, NodePortAddresses, PerFamily, Settings, facts, missing_addresses,
};

fn node(addresses: &[(&str, IpAddr)]) -> NodeObject {
    let mut node = NodeObject::default();
    node.metadata.name = "node-a".into();
    let address = |(type_, ip): &(&str, IpAddr)| NodeAddress { type_: (*type_).into(), address: ip.to_string() };
    node.status.addresses = addresses.iter().map(address).collect();
    node
}

fn both_addresses() -> Vec<(&'static str, IpAddr)> {
    Family::BOTH.map(|f| ("InternalIP", node_ip(f))).to_vec()
}

fn facts_of(settings: &Settings, object: &NodeObject) -> (NodeFacts, fairlead_plan::Node) {
    let (model, notes) = NodeModel::parse(object);
    assert_eq!(notes, []);
    facts(settings, Some(&model), &BTreeSet::new())
}

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

#[test]
fn internal_addresses_come_before_external_ones_and_the_first_of_each_family_counts() {
    let object = node(&[
        ("Hostname", ip("192.0.2.99")),
        ("ExternalIP", ip("203.0.113.1")),
        ("ExternalIP", ip("2001:db8::1")),
        ("InternalIP", ip("192.0.2.1")),
        ("InternalIP", ip("192.0.2.2")),
    ]);
    let addresses = facts_of(&Settings::default(), &object).0.addresses;
    assert_eq!(addresses, PerFamily { v4: Some(ip("192.0.2.1")), v6: Some(ip("2001:db8::1")) });
}

#[test]
fn the_bind_address_is_the_nodes_own_address_of_its_family() {
    both(|f| {
        let bind = super::build::external(f, 50);
        let settings = Settings { bind_address: Some(bind), ..Settings::default() };
        let addresses = facts_of(&settings, &node(&both_addresses())).0.addresses;
        let other = if f == Family::V4 { Family::V6 } else { Family::V4 };
        assert_eq!((addresses[f], addresses[other]), (Some(bind), Some(node_ip(other))));
    });
}

#[test]
fn an_unspecified_or_loopback_bind_address_is_no_address() {
    for (bind, expected) in [("0.0.0.0", Some(node_ip(Family::V4))), ("127.0.0.1", None)] {
        let settings = Settings { bind_address: Some(ip(bind)), ..Settings::default() };
        assert_eq!(facts_of(&settings, &node(&both_addresses())).0.addresses.v4, expected);
    }
}

#[test]
fn primary_node_port_addresses_are_the_nodes_own() {
    let (_, plan) = facts_of(&Settings::default(), &node(&both_addresses()));
    assert_eq!(plan.node_port_addresses, Family::BOTH.map(|f| IpNet::from(node_ip(f))));
}

#[test]
fn a_family_without_address_gets_no_node_ports_and_this_is_said_where_it_matters() {
    both(|f| {
        let other = if f == Family::V4 { Family::V6 } else { Family::V4 };
        let settings = Settings::default();
        let object = node(&[("InternalIP", node_ip(f))]);
        let (facts, plan) = facts_of(&settings, &object);
        assert_eq!(plan.node_port_addresses, [IpNet::from(node_ip(f))]);
        let (model, _) = NodeModel::parse(&object);
        let mut node_ports = PerFamily::default();
        assert_eq!(missing_addresses(&settings, &model, &facts, node_ports), []);
        node_ports[other] = 1;
        let [note] = <[_; 1]>::try_from(missing_addresses(&settings, &model, &facts, node_ports)).unwrap();
        assert_eq!(note.reason, "NoNodeAddress");
        assert!(note.message.contains(other.label()));
    });
}

#[test]
fn node_port_prefixes_of_one_family_leave_the_other_one_open() {
    let everywhere = |v4: Option<&str>, v6: Option<&str>| {
        let nets = [v4, v6].into_iter().flatten().map(net).collect();
        let settings = Settings { node_port_addresses: NodePortAddresses::Cidrs(nets), ..Settings::default() };
        facts_of(&settings, &node(&[])).1.node_port_addresses
    };
    assert_eq!(everywhere(Some("192.0.2.0/24"), None), [net("192.0.2.0/24"), net("::/0")]);
    assert_eq!(everywhere(None, Some("2001:db8::/64")), [net("0.0.0.0/0"), net("2001:db8::/64")]);
    assert_eq!(everywhere(None, None), [net("0.0.0.0/0"), net("::/0")]);
}

#[test]
fn prefixes_that_are_meant_alone_leave_no_family_open() {
    let only = |nets: &[&str]| {
        let nets = nets.iter().map(|text| net(text)).collect();
        let settings = Settings { node_port_addresses: NodePortAddresses::Only(nets), ..Settings::default() };
        facts_of(&settings, &node(&[])).1
    };
    assert_eq!(only(&["192.0.2.0/24"]).node_port_addresses, [net("192.0.2.0/24")]);
    assert_eq!(only(&["2001:db8::/64"]).node_port_addresses, [net("2001:db8::/64")]);
    let nowhere = only(&[]);
    assert_eq!(nowhere.node_port_addresses, []);
    both(|f| assert!(!nowhere.has_node_ports(node_ip(f))));
}

#[test]
fn all_node_port_addresses_are_both_families() {
    let settings = Settings { node_port_addresses: NodePortAddresses::All, ..Settings::default() };
    assert_eq!(facts_of(&settings, &node(&[])).1.node_port_addresses, [net("0.0.0.0/0"), net("::/0")]);
}

#[test]
fn a_family_that_the_node_does_not_carry_is_left_out_of_everything() {
    both(|f| {
        let settings = Settings {
            families: vec![f],
            node_port_addresses: NodePortAddresses::All,
            detect: DetectMode::ClusterCidr(Family::BOTH.map(pods).to_vec()),
            ..Settings::default()
        };
        let cidrs = [net("10.96.0.0/12"), net("fd00:96::/108")].into();
        let (_, plan) = facts(&settings, None, &cidrs);
        let of_f = |nets: &[IpNet]| nets.iter().all(|net| Family::of(net.addr()) == f) && nets.len() == 1;
        assert!(of_f(&plan.node_port_addresses) && of_f(&plan.service_cidrs));
        assert_eq!(plan.local_traffic, LocalTraffic::Sources(vec![pods(f)]));
    });
}

#[test]
fn the_first_prefix_of_each_family_detects_pods() {
    let nets = ["10.0.0.0/16", "10.9.0.0/16", "fd00::/64", "fd01::/64"].map(net);
    let expected = LocalTraffic::Sources(vec![nets[0], nets[2]]);
    let by_cluster = Settings { detect: DetectMode::ClusterCidr(nets.to_vec()), ..Settings::default() };
    assert_eq!(facts_of(&by_cluster, &node(&[])).1.local_traffic, expected);
    let by_node = Settings { detect: DetectMode::NodeCidr, ..Settings::default() };
    let mut object = node(&[]);
    object.spec.pod_cidrs = nets.map(|net| net.to_string()).to_vec();
    let (facts, plan) = facts_of(&by_node, &object);
    assert_eq!(plan.local_traffic, expected);
    assert_eq!(facts.detector, PerFamily { v4: true, v6: true });
}

#[test]
fn a_family_without_prefix_has_no_detector() {
    both(|f| {
        let settings = Settings { detect: DetectMode::ClusterCidr(vec![pods(f)]), ..Settings::default() };
        let detector = facts_of(&settings, &node(&[])).0.detector;
        assert!(detector[f]);
        assert!(detector.v4 != detector.v6);
    });
}

#[test]
fn interfaces_detect_pods_of_both_families() {
    for (detect, expected) in [
        (DetectMode::BridgeInterface("cni0".into()), LocalTraffic::Interface("cni0".into())),
        (DetectMode::InterfaceNamePrefix("veth".into()), LocalTraffic::InterfacePrefix("veth".into())),
    ] {
        let (facts, plan) = facts_of(&Settings { detect, ..Settings::default() }, &node(&[]));
        assert_eq!(plan.local_traffic, expected);
        assert_eq!(facts.detector, PerFamily { v4: true, v6: true });
    }
}

#[test]
fn service_prefixes_are_disjoint_and_sorted() {
    let cidrs = ["10.96.0.0/16", "10.96.5.0/24", "10.97.0.0/16", "fd00:96::/112"].map(net).into();
    let (_, plan) = facts(&Settings::default(), None, &cidrs);
    assert_eq!(plan.service_cidrs, [net("10.96.0.0/15"), net("fd00:96::/112")]);
}

#[test]
fn a_node_that_is_being_removed_is_not_eligible() {
    let eligible = |object: &NodeObject| NodeModel::parse(object).0.eligible;
    let mut object = node(&[]);
    object.spec.taints = vec![Taint { key: "node.kubernetes.io/unschedulable".into() }];
    assert!(eligible(&object));
    object.spec.taints.push(Taint { key: "ToBeDeletedByClusterAutoscaler".into() });
    assert!(!eligible(&object));
    let mut object = node(&[]);
    object.metadata.deletion_timestamp = Some("2026-01-01T00:00:00Z".into());
    assert!(!eligible(&object));
}

#[test]
fn bad_prefixes_and_addresses_of_a_node_cost_only_themselves() {
    let mut object = node(&both_addresses());
    object.status.addresses.insert(0, NodeAddress { type_: "InternalIP".into(), address: "nowhere".into() });
    object.spec.pod_cidrs = vec!["10.0.0.0".into(), "10.0.0.0/24".into()];
    let (model, notes) = NodeModel::parse(&object);
    assert_eq!(model.pod_cidrs, [net("10.0.0.0/24")]);
    assert_eq!(model.addresses.v4, Some(node_ip(Family::V4)));
    assert_eq!(notes.iter().map(|note| note.reason).collect::<Vec<_>>(), ["InvalidAddress", "InvalidCIDR"]);
}

#[test]
fn the_masquerade_mark_is_the_configured_bit() {
    let settings = Settings { masquerade_bit: 31, ..Settings::default() };
    assert_eq!(facts_of(&settings, &node(&[])).1.masquerade_mark, 0x8000_0000);
}
