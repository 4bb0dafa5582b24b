//! Short ways to write what the tests are about.

use std::net::IpAddr;

use fairlead_kernel::route::{Address, Link, Mac, NextHop, PROTOCOL_BOOT, Route, TABLE_MAIN};
use fairlead_plan::Family;
use serde_json::{Value, json};

use crate::object::NodeObject;
use crate::overlay::annotation::Prefix;
use crate::overlay::desired::{Half, Local};
use crate::overlay::facts::Facts;
use crate::overlay::underlay::{OnLink, Underlay};
use crate::overlay::{Backend, Settings};
use crate::resolve::PerFamily;

pub fn addr(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub fn mac(number: u8) -> Mac {
    Mac([0x0a, 0, 0, 0, 0, number])
}

/// Node `n<number>`: pods 10.244.<number>.0/24, address 192.168.0.<number>, MAC number <number>; IPv6 alike.
pub fn node(number: u8) -> Value {
    let name = format!("n{number}");
    json!({
        "metadata": {
            "name": name,
            "uid": format!("uid-{number:03}"),
            "creationTimestamp": format!("2026-01-01T00:00:{number:02}Z"),
            "annotations": {
                "flannel.alpha.coreos.com/kube-subnet-manager": "true",
                "flannel.alpha.coreos.com/backend-type": "vxlan",
                "flannel.alpha.coreos.com/public-ip": format!("192.168.0.{number}"),
                "flannel.alpha.coreos.com/public-ipv6": format!("fd00:168::{number:x}"),
                "flannel.alpha.coreos.com/backend-data": format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", mac(number)),
                "flannel.alpha.coreos.com/backend-v6-data": format!("{{\"VNI\":1,\"VtepMAC\":\"{}\"}}", mac(number)),
            },
        },
        "spec": { "podCIDRs": [format!("10.244.{number}.0/24"), format!("fd00:244:0:{number:x}::/64")] },
        "status": { "conditions": [{ "type": "Ready", "status": "True" }] },
    })
}

pub fn annotate(node: &mut Value, name: &str, value: &str) {
    node["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{name}")] = value.into();
}

pub fn object(node: &Value) -> NodeObject {
    serde_json::from_value(node.clone()).unwrap()
}

pub fn facts(node: &Value) -> Facts {
    let (facts, notes) = Facts::parse(&object(node), &Prefix::default());
    assert_eq!(notes, []);
    facts
}

pub fn settings(backend: Backend) -> Settings {
    Settings { backend, node_name: "n1".into(), ..Settings::default() }
}

/// Node 1 on `eth0`, index 2, with a /24 and a /64 on the link.
pub fn local() -> Local {
    let half = |pods: &str, own: &str, link: &str| Half {
        pods: pods.parse().unwrap(),
        underlay: Underlay { index: 2, name: "eth0".into(), mtu: 1500, local: addr(own), public: addr(own) },
        mac: mac(1),
        on_link: vec![OnLink { destination: link.parse().unwrap(), direct: true }],
    };
    Local {
        halves: PerFamily {
            v4: Some(half("10.244.1.0/24", "192.168.0.1", "192.168.0.0/24")),
            v6: Some(half("fd00:244:0:1::/64", "fd00:168::1", "fd00:168::/64")),
        },
    }
}

pub fn link(index: u32, name: &str) -> Link {
    let (name, kind) = (name.to_owned(), String::new());
    Link { index, name, up: true, running: true, carrier: true, mtu: 1500, mac: Some(mac(100)), kind, vxlan: None }
}

pub fn address(index: u32, text: &str) -> Address {
    let addr = addr(text);
    Address::global(index, addr, if addr.is_ipv4() { 24 } else { 64 })
}

pub fn default_route(family: Family, index: u32, metric: u32) -> Route {
    let (destination, gateway) = match family {
        Family::V4 => ("0.0.0.0/0", "192.168.0.254"),
        Family::V6 => ("::/0", "fd00:168::fe"),
    };
    let hop = NextHop::Unicast { index, gateway: Some(addr(gateway)), onlink: false, encap: None };
    Route { destination: destination.parse().unwrap(), metric, table: TABLE_MAIN, protocol: PROTOCOL_BOOT, hop }
}
