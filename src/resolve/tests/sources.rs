use fairlead_plan::{Family, Frontend};
use ipnet::IpNet;

use super::build::{Case, external, node_ip, ready};
use super::{both, service};

/// The sources of the first load-balancer frontend; `None` if there is no such frontend.
fn allowed(case: &Case) -> Option<Vec<IpNet>> {
    let (resolved, _) = case.resolve_all();
    resolved.services[0].frontends.iter().find_map(|frontend| match frontend {
        Frontend::LoadBalancer { allow, .. } => Some(allow.clone()),
        _ => None,
    })
}

fn nets<const N: usize>(texts: [&str; N]) -> Option<Vec<IpNet>> {
    Some(texts.map(|text| text.parse().unwrap()).to_vec())
}

fn vip(f: Family) -> Case {
    service(f).vip(1).with([ready(1)])
}

#[test]
fn without_ranges_everybody_may_come() {
    both(|f| assert_eq!(allowed(&vip(f)), nets([])));
}

#[test]
fn ranges_are_read_with_spaces_and_leading_zeros_and_written_canonically() {
    assert_eq!(allowed(&vip(Family::V4).ranges([" 203.0.113.077/24 "])), nets(["203.0.113.0/24"]));
    assert_eq!(allowed(&vip(Family::V6).ranges(["\t2001:DB8:0:0::5/64"])), nets(["2001:db8::/64"]));
}

#[test]
fn ranges_of_the_other_family_do_not_count() {
    let mixed = ["203.0.113.0/24", "2001:db8::/64"];
    assert_eq!(allowed(&vip(Family::V4).ranges(mixed)), nets(["203.0.113.0/24"]));
    assert_eq!(allowed(&vip(Family::V6).ranges(mixed)), nets(["2001:db8::/64"]));
}

#[test]
fn a_family_without_ranges_is_open_and_this_is_said() {
    let case = vip(Family::V6).ranges(["203.0.113.0/24"]);
    assert_eq!(allowed(&case), nets([]));
    assert_eq!(case.complaints(), ["UnrestrictedFamily"]);
    let case = vip(Family::V4).ranges(["2001:db8::/64"]);
    assert_eq!(allowed(&case), nets([]));
    assert_eq!(case.complaints(), ["UnrestrictedFamily"]);
}

#[test]
fn a_range_of_all_addresses_among_others_opens_the_family() {
    assert_eq!(allowed(&vip(Family::V4).ranges(["192.0.2.0/24", "0.0.0.0/0"])), nets([]));
    assert_eq!(allowed(&vip(Family::V6).ranges(["2001:db8::/64", "::/0"])), nets([]));
    let other_family = vip(Family::V4).ranges(["192.0.2.0/24", "::/0"]);
    assert_eq!(allowed(&other_family), nets(["192.0.2.0/24"]));
}

#[test]
fn two_halves_are_everything() {
    assert_eq!(allowed(&vip(Family::V4).ranges(["0.0.0.0/1", "128.0.0.0/1"])), nets([]));
    assert_eq!(allowed(&vip(Family::V6).ranges(["::/1", "8000::/1"])), nets([]));
}

#[test]
fn ranges_are_disjoint_and_neighbours_are_joined() {
    let case = vip(Family::V4).ranges(["192.0.2.128/25", "192.0.2.0/25", "192.0.2.7/32", "198.51.100.0/24"]);
    assert_eq!(allowed(&case), nets(["192.0.2.0/24", "198.51.100.0/24"]));
    let case = vip(Family::V6).ranges(["2001:db8:0:1::/64", "2001:db8::/64", "2001:db8::5/128"]);
    assert_eq!(allowed(&case), nets(["2001:db8::/63"]));
}

#[test]
fn a_node_that_may_come_may_come_with_the_address_of_the_load_balancer() {
    both(|f| {
        let node = IpNet::from(node_ip(f));
        let case = vip(f).vip(9).ranges([node.to_string().as_str()]);
        let mut expected = vec![node, external(f, 1).into(), external(f, 9).into()];
        expected.sort();
        assert_eq!(allowed(&case), Some(expected));
    });
}

#[test]
fn a_bad_range_is_left_out() {
    let case = vip(Family::V4).ranges(["192.0.2.0/24", "192.0.2.0/33"]);
    assert_eq!(allowed(&case), nets(["192.0.2.0/24"]));
    assert_eq!(case.complaints(), ["InvalidSourceRange"]);
}

#[test]
fn ranges_of_which_none_can_be_read_close_the_load_balancer() {
    both(|f| {
        let case = vip(f).ranges(["office", "192.0.2.0"]);
        assert_eq!(allowed(&case), None);
        assert_eq!(case.complaints().len(), 3);
        assert_eq!(case.resolve_all().0.services[0].frontends.len(), 1, "the ClusterIP stays");
    });
}

#[test]
fn only_load_balancers_have_sources() {
    both(|f| {
        let case = service(f).external_ip(3).node_port(30080).ranges(["192.0.2.0/24", "2001:db8::/64"]);
        assert_eq!(allowed(&case), None);
        assert_eq!(case.resolve().frontends.len(), 3);
    });
}
