use fairlead_kernel::route::{Encap, HopObject, NextHop, Write};
use fairlead_plan::Family;
use serde_json::json;

use super::build::{addr, annotate, facts, local, mac, node, settings};
use crate::overlay::desired::{Apart, Key, Tunnel, Value, derived_mac, devices, external_reach, reach};
use crate::overlay::diff::{self, PROTOCOL};
use crate::overlay::reach::Reach;
use crate::overlay::{Backend, ExternalVtep, Settings};
use crate::resolve::Note;

const V4: Tunnel = Tunnel::Main(Family::V4);

fn of(settings: &Settings, node: &serde_json::Value) -> Result<Vec<(Key, Value)>, Apart> {
    reach(settings, &local(), &facts(node), Family::V4).map(|reach| reach.objects().collect())
}

#[test]
fn a_peer_is_a_neighbour_an_entry_and_a_route_in_flannels_order() {
    let (base, net) = (addr("10.244.2.0"), "10.244.2.0/24".parse().unwrap());
    let wanted = vec![
        (Key::Neighbour(V4, base), Value::Mac(mac(2))),
        (Key::Forwarding(V4, mac(2)), Value::End(addr("192.168.0.2"))),
        (Key::Route(net), Value::Through(V4)),
    ];
    assert_eq!(of(&settings(Backend::Vxlan), &node(2)), Ok(wanted));
}

#[test]
fn a_peer_on_the_link_is_routed_to_and_another_is_refused_or_tunnelled() {
    let direct = vec![(Key::Route("10.244.2.0/24".parse().unwrap()), Value::Direct(2, addr("192.168.0.2")))];
    let mut far = node(2);
    annotate(&mut far, "public-ip", "192.168.9.2");
    for backend in [Backend::HostGw, Backend::DirectRouting] {
        assert_eq!(of(&settings(backend), &node(2)), Ok(direct.clone()));
    }
    assert_eq!(of(&settings(Backend::DirectRouting), &far).map(|objects| objects.len()), Ok(3));
    let Err(Apart::Trouble(reason, text)) = of(&settings(Backend::HostGw), &far) else { panic!("it is out of reach") };
    assert_eq!(reason, Note::OVERLAY_MISMATCH);
    assert!(text.contains("192.168.9.2 is not on the link of eth0") && text.contains("use direct-routing"), "{text}");
    let mut converted = node(2);
    annotate(&mut converted, "backend-type", "host-gw");
    annotate(&mut converted, "backend-data", "null");
    assert_eq!(of(&settings(Backend::Vxlan), &converted), Ok(direct), "a node that was converted already");
}

#[test]
fn an_encapsulating_nexthop_needs_no_forwarding_entry_and_over_ipv6_a_checksum() {
    let settings = settings(Backend::VxlanLwt);
    for (family, end, checksummed) in [(Family::V4, "192.168.0.2", false), (Family::V6, "fd00:168::2", true)] {
        let reach = reach(&settings, &local(), &facts(&node(2)), family).unwrap();
        let objects: Vec<_> = reach.objects().collect();
        let [(Key::Neighbour(V4, base), _), (hop, packed), (route, by)] = objects[..] else { panic!("{objects:?}") };
        let rendered = |key, value| diff::rendered(key, value, &[(V4, 7)].into());
        let encap = Some(Encap { id: 1, destination: addr(end), checksum: checksummed });
        let through = NextHop::Unicast { index: 7, gateway: Some(base), onlink: true, encap };
        assert_eq!(rendered(hop, packed), Some(Write::AddHop(HopObject { id: 0, protocol: PROTOCOL, hop: through })));
        let Some(Write::SetRoute(route)) = rendered(route, by) else { panic!("{route:?} {by:?}") };
        assert_eq!((route.hop, route.destination.network()), (NextHop::Object(0), base));
    }
}

#[test]
fn a_node_that_takes_no_part_is_passed_over_in_silence() {
    let mut unmanaged = node(2);
    annotate(&mut unmanaged, "kube-subnet-manager", "false");
    let mut homeless = node(2);
    homeless["spec"] = json!({});
    for node in [unmanaged, homeless] {
        assert_eq!(of(&settings(Backend::Vxlan), &node), Err(Apart::Silent));
    }
    assert_eq!(of(&settings(Backend::None), &node(2)), Err(Apart::Silent));
}

#[test]
fn a_node_that_claims_what_is_ours_or_speaks_otherwise_is_refused_with_the_reason() {
    let changed = |name, value| {
        let mut node = node(2);
        annotate(&mut node, name, value);
        node
    };
    let mut our_prefix = node(2);
    our_prefix["spec"]["podCIDRs"] = json!(["10.244.0.0/16"]);
    let data = |vni, number| format!("{{\"VNI\":{vni},\"VtepMAC\":\"{}\"}}", mac(number));
    for (node, words) in [
        (our_prefix, "also this node's (10.244.1.0/24)"),
        (changed("public-ip", "192.168.0.1"), "192.168.0.1 is also this node's"),
        (changed("backend-data", &data(1, 1)), "same Ethernet address"),
        (changed("backend-data", &data(9, 2)), "VXLAN network 9"),
        (changed("backend-data", "null"), "no VXLAN device"),
    ] {
        let Err(Apart::Trouble(_, text)) = of(&settings(Backend::Vxlan), &node) else { panic!("{words}") };
        assert!(text.contains(words), "{text}");
    }
}

#[test]
fn ac4_1_devices_are_flannels_and_leave_room_for_the_tunnels_headers() {
    let devices = devices(&settings(Backend::Vxlan), &local());
    let shown: Vec<_> = devices.iter().map(|device| (device.spec.name.as_str(), device.spec.mtu)).collect();
    assert_eq!(shown, [("flannel.1", 1450), ("flannel-v6.1", 1430)]);
    assert_eq!(devices[0].addresses, ["10.244.1.0/32".parse().unwrap()]);
    assert_eq!(devices[1].addresses, ["fd00:244:0:1::/128".parse().unwrap()]);
    assert_eq!(devices[0].spec.vxlan.local, Some(addr("192.168.0.1")));
    let jumbo = Settings { mtu: Some(9000), ..settings(Backend::Vxlan) };
    assert_eq!(super::super::desired::devices(&jumbo, &local())[0].spec.mtu, 1450, "more than the interface has");
    let small = Settings { mtu: Some(1400), ..settings(Backend::Vxlan) };
    assert_eq!(super::super::desired::devices(&small, &local())[1].spec.mtu, 1330);
    assert_eq!(local().pod_mtu(&settings(Backend::Vxlan)), Some(1430));
    assert_eq!(local().pod_mtu(&settings(Backend::HostGw)), Some(1500));
}

#[test]
fn one_external_device_serves_both_families_and_takes_our_network_alone() {
    let devices = devices(&settings(Backend::VxlanLwt), &local());
    assert_eq!(devices.len(), 1);
    assert!(devices[0].spec.vxlan.external && devices[0].spec.vxlan.vnifilter);
    assert_eq!(
        (devices[0].vnis.as_slice(), devices[0].addresses.len(), devices[0].spec.mtu),
        ([1].as_slice(), 2, 1430)
    );
}

#[test]
fn an_external_tunnel_end_with_another_network_has_a_device_of_its_own() {
    let vtep =
        ExternalVtep { cidr: "10.1.1.0/24".parse().unwrap(), endpoint: addr("192.168.0.9"), mac: mac(9), vni: 2 };
    let settings = Settings { external: vec![vtep], ..settings(Backend::Vxlan) };
    let names: Vec<_> = devices(&settings, &local()).into_iter().map(|d| (d.spec.name, d.answers_for_pods)).collect();
    assert_eq!(names, [("flannel.1".into(), false), ("flannel.2".into(), true), ("flannel-v6.1".into(), false)]);
    let tunnel = Tunnel::Vni(Family::V4, 2);
    assert_eq!(
        external_reach(&settings, &local(), &vtep).into_iter().flat_map(Reach::objects).nth(1).unwrap(),
        (Key::Forwarding(tunnel, mac(9)), Value::End(addr("192.168.0.9")))
    );
}

#[test]
fn a_derived_address_is_of_one_device_and_of_no_manufacturer() {
    let (a, b) = (derived_mac("a", "flannel.1"), derived_mac("b", "flannel.1"));
    assert_ne!(a, b);
    assert_ne!(a, derived_mac("a", "flannel-v6.1"));
    assert!(a.is_unicast() && a.is_local());
    assert_eq!(a, derived_mac("a", "flannel.1"));
}
