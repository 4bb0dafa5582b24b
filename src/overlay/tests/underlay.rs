use fairlead_plan::Family;
use regex::Regex;

use super::build::{addr, address, default_route, link};
use crate::overlay::UnderlaySettings;
use crate::overlay::underlay::{Machine, OnLink, Underlay, choose, is_on_link};
use crate::resolve::PerFamily;

/// Two interfaces with default routes; `eth1` has the better one for IPv4, `eth0` for IPv6.
fn machine() -> Machine {
    Machine {
        links: vec![link(1, "lo"), link(2, "eth0"), link(3, "eth1"), link(4, "flannel.1")],
        addresses: vec![
            address(1, "127.0.0.1"),
            address(2, "192.168.61.95"),
            address(2, "fd00:61::95"),
            address(3, "192.168.122.215"),
            address(3, "fd00:122::215"),
            address(4, "10.244.1.0"),
        ],
        defaults: vec![
            default_route(Family::V4, 2, 2048),
            default_route(Family::V4, 3, 1024),
            default_route(Family::V6, 2, 1024),
            default_route(Family::V6, 3, 2048),
        ],
        reaching: None,
    }
}

fn chosen(settings: &UnderlaySettings, family: Family) -> Result<Underlay, String> {
    choose(settings, None, family, &machine(), &["flannel.1".to_owned()])
}

fn name(settings: &UnderlaySettings, family: Family) -> String {
    chosen(settings, family).map(|underlay| underlay.name).unwrap_or_else(|why| why)
}

#[test]
fn the_best_default_route_of_each_family_tells_its_interface() {
    let plain = UnderlaySettings::default();
    let underlay = chosen(&plain, Family::V4).unwrap();
    assert_eq!((underlay.name.as_str(), underlay.local), ("eth1", addr("192.168.122.215")));
    let underlay = chosen(&plain, Family::V6).unwrap();
    assert_eq!((underlay.name.as_str(), underlay.local), ("eth0", addr("fd00:61::95")));
}

#[test]
fn a_named_interface_is_taken_by_name_and_by_address_and_serves_both_families() {
    for named in ["eth0", "192.168.61.95"] {
        let settings =
            UnderlaySettings { interfaces: vec!["gone".into(), named.into()], ..UnderlaySettings::default() };
        assert_eq!([Family::V4, Family::V6].map(|family| name(&settings, family)), ["eth0", "eth0"]);
    }
}

#[test]
fn an_expression_matches_addresses_before_names() {
    for (expression, wanted) in [("^192\\.168\\.61\\.", "eth0"), ("^eth1$", "eth1")] {
        let expressions = vec![Regex::new(expression).unwrap()];
        let settings = UnderlaySettings { expressions, ..UnderlaySettings::default() };
        assert_eq!(name(&settings, Family::V4), wanted);
    }
}

#[test]
fn the_operators_address_tells_its_interface_and_is_what_peers_hear() {
    let public = PerFamily { v4: Some(addr("192.168.61.95")), v6: None };
    let settings = UnderlaySettings { public, ..UnderlaySettings::default() };
    let underlay = chosen(&settings, Family::V4).unwrap();
    assert_eq!((underlay.name.as_str(), underlay.public), ("eth0", addr("192.168.61.95")));
    let by_annotation = choose(&settings, Some(addr("192.168.122.215")), Family::V4, &machine(), &[]).unwrap();
    assert_eq!(by_annotation.name, "eth1", "the annotation is stronger than the flag");
    let foreign = PerFamily { v4: Some(addr("203.0.113.7")), v6: None };
    let settings = UnderlaySettings { public: foreign, interfaces: vec!["eth0".into()], ..UnderlaySettings::default() };
    let underlay = chosen(&settings, Family::V4).unwrap();
    assert_eq!((underlay.local, underlay.public), (addr("192.168.61.95"), addr("203.0.113.7")));
}

#[test]
fn an_interface_that_reaches_an_address_is_taken() {
    let settings = UnderlaySettings { can_reach: Some(addr("192.0.2.1")), ..UnderlaySettings::default() };
    let machine = Machine { reaching: Some(2), ..machine() };
    assert_eq!(choose(&settings, None, Family::V4, &machine, &[]).unwrap().name, "eth0");
}

#[test]
fn what_cannot_be_found_is_said_in_one_sentence() {
    let settings = UnderlaySettings { interfaces: vec!["wlan0".into()], ..UnderlaySettings::default() };
    assert!(name(&settings, Family::V4).contains("--iface=wlan0"));
    let public = PerFamily { v4: Some(addr("203.0.113.7")), v6: None };
    let settings = UnderlaySettings { public, ..UnderlaySettings::default() };
    assert!(name(&settings, Family::V4).contains("no interface has the address 203.0.113.7"));
    let no_routes = Machine { defaults: Vec::new(), ..machine() };
    let why = choose(&UnderlaySettings::default(), None, Family::V6, &no_routes, &[]).unwrap_err();
    assert!(why.contains("no IPv6 default route") && why.contains("--iface"), "{why}");
    let down = Machine { links: vec![], ..machine() };
    assert!(choose(&UnderlaySettings::default(), None, Family::V4, &down, &[]).is_err());
}

#[test]
fn our_own_device_is_never_the_underlay() {
    let settings = UnderlaySettings { interfaces: vec!["flannel.1".into()], ..UnderlaySettings::default() };
    assert!(chosen(&settings, Family::V4).is_err());
}

#[test]
fn the_longest_route_decides_what_is_on_the_link() {
    let route = |net: &str, direct| OnLink { destination: net.parse().unwrap(), direct };
    let routes = [route("0.0.0.0/0", false), route("192.168.0.0/24", true), route("192.168.0.128/25", false)];
    for (text, wanted) in [("192.168.0.5", true), ("192.168.0.200", false), ("10.0.0.1", false)] {
        assert_eq!(is_on_link(addr(text), &routes), wanted, "{text}");
    }
    assert!(!is_on_link(addr("fd00::1"), &routes) && !is_on_link(addr("10.0.0.1"), &[]));
}
