use std::sync::Arc;

use fairlead_kernel::route::{
    Forwarding, HopObject, Neighbour, NextHop, PROTOCOL_BOOT, Route, TABLE_MAIN, Vxlan, Write,
};
use fairlead_plan::Family;

use super::build::{addr, facts, link, local, mac, node, settings};
use crate::overlay::desired::{self, Key, Tunnel, devices};
use crate::overlay::diff::{Comparison, DeviceStep, Drift, Indices, PROTOCOL, device_step, rendered};
use crate::overlay::peers::Peers;
use crate::overlay::{Backend, Settings};
use crate::resolve::PerFamily;

/// The index of `flannel.1`, and of `flannel-v6.1`.
const INDICES: [u32; 2] = [10, 11];

fn indices() -> Indices {
    Family::BOTH.into_iter().map(Tunnel::Main).zip(INDICES).collect()
}

/// What was found on our devices, and our routes.
#[derive(Default)]
struct Observed {
    neighbours: Vec<Neighbour>,
    forwarding: Vec<Forwarding>,
    routes: Vec<Route>,
    hops: Vec<HopObject>,
    learning: bool,
}

fn drift(peers: &Peers, fallbacks: &[Route], observed: &Observed, indices: &Indices) -> Drift {
    let mut comparison = Comparison::new(peers, fallbacks, indices, observed.learning);
    observed.routes.iter().for_each(|route| comparison.route(route));
    observed.neighbours.iter().for_each(|entry| comparison.neighbour(entry));
    observed.forwarding.iter().for_each(|entry| comparison.forwarding(entry));
    observed.hops.iter().for_each(|object| comparison.hop(object));
    comparison.drift()
}

fn peers() -> Peers {
    peers_of(Backend::Vxlan)
}

fn peers_of(backend: Backend) -> Peers {
    let mut peers = Peers::default();
    for number in 2..5 {
        peers.apply(&settings(backend), &local(), Arc::new(facts(&node(number))));
    }
    peers
}

/// A kernel that holds exactly what is wanted.
fn perfect(peers: &Peers) -> Observed {
    let mut observed = Observed::default();
    for (_, (key, value), _) in peers.wanted() {
        match rendered(key, value, &indices()).unwrap() {
            Write::SetNeighbour(index, addr, mac) => {
                observed.neighbours.push(Neighbour { index, addr, mac: Some(mac), permanent: true });
            }
            Write::SetForwarding(index, mac, end) => {
                observed.forwarding.push(Forwarding {
                    index,
                    mac,
                    destination: Some(end),
                    permanent: true,
                    special: false,
                });
            }
            Write::SetRoute(route) => observed.routes.push(route),
            Write::AddHop(object) => observed.hops.push(object),
            other => panic!("{other:?}"),
        }
    }
    observed
}

#[test]
fn a_kernel_that_holds_what_is_wanted_has_no_drift_and_an_empty_one_lacks_everything_in_order() {
    for backend in [Backend::Vxlan, Backend::VxlanLwt] {
        let peers = peers_of(backend);
        assert_eq!(drift(&peers, &[], &perfect(&peers), &indices()), Drift::default());
        let missing = drift(&peers, &[], &Observed::default(), &indices()).missing;
        assert_eq!(missing.len(), 3 * 3 * 2);
        let kind = |key: &Key| match key {
            Key::Neighbour(..) => 0,
            Key::Forwarding(..) | Key::Hop(_) => 1,
            Key::Route(_) => 2,
        };
        assert!(missing.is_sorted_by_key(kind), "{missing:?}");
    }
}

#[test]
fn a_wrong_nexthop_object_is_put_right_alone_and_one_of_nobody_goes_after_its_route() {
    let peers = peers_of(Backend::VxlanLwt);
    let right = perfect(&peers);
    let of = |change: &dyn Fn(&mut Observed)| {
        let mut observed = perfect(&peers);
        change(&mut observed);
        drift(&peers, &[], &observed, &indices())
    };
    let key = Key::Hop(right.hops[0].id);
    let other = |protocol, hop| HopObject { protocol, hop, ..right.hops[0] };
    let elsewhere = right.hops[1].hop;
    let wrong = [other(PROTOCOL, elsewhere), other(0, right.hops[0].hop), other(PROTOCOL, NextHop::Blackhole)];
    for wrong in wrong {
        let found = of(&|observed| observed.hops[0] = wrong);
        assert_eq!(found, Drift { missing: vec![key], ..Drift::default() }, "{wrong:?}");
    }
    // Deleted, the kernel takes its route along.
    let found = of(&|observed| {
        let through = NextHop::Object(observed.hops.remove(0).id);
        observed.routes.retain(|route| route.hop != through);
    });
    assert!(matches!(found.missing[..], [of, Key::Route(_)] if of == key), "{found:?}");
    let stale = HopObject { id: 1 << 31, protocol: PROTOCOL, hop: elsewhere };
    let destination = "10.244.77.0/24".parse().unwrap();
    let route = Route { destination, metric: 0, table: TABLE_MAIN, protocol: PROTOCOL, hop: NextHop::Object(stale.id) };
    let foreign = HopObject { id: 7, protocol: 0, hop: elsewhere };
    let found = of(&|observed| {
        observed.hops.extend([foreign, stale]);
        observed.routes.push(route);
    });
    assert_eq!(found.extra, [Write::DeleteRoute(route), Write::DeleteHop(stale.id)]);
    assert_eq!(found.missing, []);
}

#[test]
fn a_route_that_packs_by_itself_is_led_through_the_object_that_is_made_first() {
    let peers = peers_of(Backend::VxlanLwt);
    let mut observed = perfect(&peers);
    let hops = std::mem::take(&mut observed.hops);
    for route in &mut observed.routes {
        route.hop = hops.iter().find(|object| route.hop == NextHop::Object(object.id)).unwrap().hop;
    }
    let found = drift(&peers, &[], &observed, &indices());
    assert_eq!((found.missing.len(), &found.extra[..]), (2 * 3 * 2, &[][..]), "nothing goes first: {found:?}");
    assert!(found.missing.is_sorted_by_key(|key| matches!(key, Key::Route(_))), "{found:?}");
}

#[test]
fn each_wrong_value_is_found_and_nothing_else_is_written() {
    let peers = peers();
    let key = Key::Neighbour(Tunnel::Main(Family::V4), addr("10.244.2.0"));
    let of = |change: &dyn Fn(&mut Observed)| {
        let mut observed = perfect(&peers);
        change(&mut observed);
        drift(&peers, &[], &observed, &indices())
    };
    let at = |observed: &mut Observed| {
        observed.neighbours.iter().position(|entry| entry.addr == addr("10.244.2.0")).unwrap()
    };
    let cases: [&dyn Fn(&mut Observed); 3] = [
        &|observed| {
            _ = {
                let at = at(observed);
                observed.neighbours.remove(at)
            }
        },
        &|observed| {
            let at = at(observed);
            observed.neighbours[at].mac = Some(mac(99))
        },
        &|observed| {
            let at = at(observed);
            observed.neighbours[at].permanent = false
        },
    ];
    for change in cases {
        assert_eq!(of(change), Drift { missing: vec![key], ..Drift::default() });
    }
    let entry = |change: fn(&mut Forwarding)| {
        of(&move |observed: &mut Observed| change(&mut observed.forwarding[0])).missing.len()
    };
    assert_eq!(entry(|entry| entry.destination = Some(addr("192.168.0.99"))), 1);
    assert_eq!(entry(|entry| entry.special = true), 1);
    assert_eq!(entry(|entry| entry.permanent = false), 1);
    let route = |change: fn(&mut Route)| of(&move |observed: &mut Observed| change(&mut observed.routes[0]));
    let gateway = |route: &mut Route| {
        route.hop = NextHop::Unicast { index: INDICES[0], gateway: Some(addr("10.9.9.9")), onlink: true, encap: None };
    };
    assert_eq!((route(gateway).missing.len(), route(gateway).extra.len()), (1, 0), "it is replaced, not removed first");
    assert_eq!(route(|route| route.protocol = PROTOCOL_BOOT).missing.len(), 1, "a route of flannel's is taken over");
}

#[test]
fn what_nobody_wants_goes_if_it_is_ours_and_stays_if_it_is_not() {
    let peers = peers();
    let mut observed = perfect(&peers);
    let through =
        |index, gateway: &str| NextHop::Unicast { index, gateway: Some(addr(gateway)), onlink: true, encap: None };
    let route = |net: &str, protocol, hop| Route {
        destination: net.parse().unwrap(),
        metric: 0,
        table: TABLE_MAIN,
        protocol,
        hop,
    };
    let stale = [
        route("10.244.77.0/24", PROTOCOL, through(2, "192.168.0.77")),
        route("10.244.78.0/24", PROTOCOL_BOOT, through(INDICES[0], "10.244.78.0")),
        route("10.244.79.0/24", PROTOCOL, NextHop::Blackhole),
    ];
    let foreign = [
        route("10.244.80.0/24", PROTOCOL_BOOT, through(2, "192.168.0.80")),
        route("10.244.81.0/24", 4, through(INDICES[0], "10.244.81.0")),
        route("fe80::/64", 2, NextHop::Unicast { index: INDICES[0], gateway: None, onlink: false, encap: None }),
    ];
    observed.routes.extend(stale.iter().chain(&foreign));
    observed.forwarding.push(Forwarding {
        index: INDICES[1],
        mac: mac(77),
        destination: Some(addr("fd00:168::77")),
        permanent: true,
        special: false,
    });
    observed.neighbours.push(Neighbour {
        index: INDICES[0],
        addr: addr("10.244.77.0"),
        mac: Some(mac(77)),
        permanent: true,
    });
    observed.neighbours.push(Neighbour { index: 2, addr: addr("192.168.0.9"), mac: Some(mac(9)), permanent: true });
    let drift = drift(&peers, &[], &observed, &indices());
    assert_eq!(drift.missing, []);
    let mut wanted: Vec<_> = stale.iter().map(|route| Write::DeleteRoute(*route)).collect();
    wanted.push(Write::DeleteForwarding(INDICES[1], mac(77)));
    wanted.push(Write::DeleteNeighbour(INDICES[0], addr("10.244.77.0")));
    assert_eq!(drift.extra, wanted);
}

#[test]
fn a_device_is_altered_where_the_kernel_can_and_made_again_where_it_cannot() {
    let device = devices(&settings(Backend::Vxlan), &local()).remove(0);
    let spec = &device.spec;
    let mut right = link(10, "flannel.1");
    (right.mtu, right.mac, right.vxlan) = (spec.mtu, Some(spec.mac), Some(spec.vxlan.clone()));
    let step = |change: fn(&mut fairlead_kernel::route::Link)| {
        let mut link = right.clone();
        change(&mut link);
        device_step(&device, &[link])
    };
    assert_eq!(device_step(&device, &[]), DeviceStep::Create);
    assert_eq!(step(|_| {}), DeviceStep::Fine);
    assert_eq!(step(|link| link.up = false), DeviceStep::Alter(vec![Write::Up(10)]));
    assert_eq!(step(|link| link.mtu = 1400), DeviceStep::Alter(vec![Write::SetMtu(10, 1450)]));
    assert_eq!(step(|link| link.mac = Some(mac(9))), DeviceStep::Alter(vec![Write::SetMac(10, mac(1))]));
    let local_changed = step(|link| link.vxlan.as_mut().unwrap().local = Some(addr("192.168.0.50")));
    assert_eq!(local_changed, DeviceStep::Alter(vec![Write::AlterVxlan(10, spec.vxlan.clone())]));
    let again: [fn(&mut Vxlan); 5] = [
        |vxlan| vxlan.vni = 2,
        |vxlan| vxlan.port = 4789,
        |vxlan| vxlan.external = true,
        |vxlan| vxlan.special = true,
        |vxlan| vxlan.local = Some(addr("fd00::1")),
    ];
    for change in again {
        let mut link = right.clone();
        change(link.vxlan.as_mut().unwrap());
        assert_eq!(device_step(&device, &[link]), DeviceStep::Recreate(10));
    }
    assert_eq!(device_step(&device, &[link(10, "flannel.1")]), DeviceStep::Recreate(10), "it is no VXLAN device");
}

#[test]
fn a_last_route_that_is_missing_is_made_and_one_that_is_not_wanted_any_more_goes() {
    let net = |text: &str| Some(text.parse().unwrap());
    let networks = PerFamily { v4: net("10.244.0.0/16"), v6: net("fd00:244::/32") };
    let settings = Settings { blackhole: true, networks, ..settings(Backend::Vxlan) };
    let peers = Peers::default();
    let wanted = desired::fallbacks(&settings, &local());
    assert!(
        !wanted.is_empty()
            && desired::fallbacks(&Settings { blackhole: false, ..settings.clone() }, &local()).is_empty()
    );
    let first = drift(&peers, &wanted, &Observed::default(), &indices());
    assert_eq!(first.fallbacks, wanted.iter().map(|route| Write::SetRoute(*route)).collect::<Vec<_>>());
    let observed = Observed { routes: wanted.clone(), ..Observed::default() };
    assert_eq!(drift(&peers, &wanted, &observed, &indices()), Drift::default());
    let gone: Vec<_> = wanted.iter().map(|route| Write::DeleteRoute(*route)).collect();
    assert_eq!(drift(&peers, &[], &observed, &indices()).extra, gone);
}
