//! Nexthop objects on a real kernel, compared with what `ip` says.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod machine;

use fairlead_kernel::route::{
    Change, Encap, HopObject, Listener, NextHop, Route, RouteFilter, Rtnl, TABLE_MAIN, VXLAN_PORT, Vxlan, VxlanSpec,
    Write,
};

use machine::{addr, all, in_namespace, index, ip};

const PROTOCOL: u8 = 86;
const ID: u32 = 0x8000_0001;

/// An external VXLAN device of this index, beside the interface.
fn with_device(work: impl FnOnce(&mut Rtnl, u32) + Send) {
    in_namespace(|rtnl, _| {
        let vxlan = Vxlan { external: true, vnifilter: true, port: VXLAN_PORT, ..Vxlan::default() };
        let mac = "0e:00:00:00:00:01".parse().unwrap();
        let spec = VxlanSpec { name: "flannel.1".into(), mac, mtu: 1430, vxlan };
        all(rtnl, &[Write::CreateVxlan(spec)]);
        let device = index(rtnl, "flannel.1");
        work(rtnl, device);
    });
}

fn packed(id: u32, gateway: &str, index: u32, end: &str) -> HopObject {
    let encap = Some(Encap { id: 1, destination: addr(end), checksum: end.contains(':') });
    HopObject {
        id,
        protocol: PROTOCOL,
        hop: NextHop::Unicast { index, gateway: Some(addr(gateway)), onlink: true, encap },
    }
}

fn by(destination: &str, id: u32) -> Route {
    let metric = if destination.contains(':') { 1024 } else { 0 };
    let destination = destination.parse().unwrap();
    Route { destination, metric, table: TABLE_MAIN, protocol: PROTOCOL, hop: NextHop::Object(id) }
}

/// An object and a route through it in each family, and one that packs IPv6 in IPv4.
fn peers(index: u32) -> ([HopObject; 3], [Route; 3]) {
    let objects = [
        packed(ID, "10.42.1.0", index, "192.168.205.3"),
        packed(ID + 1, "fd00:42:0:1::", index, "fd00:205::3"),
        packed(ID + 2, "fd00:42:0:2::", index, "192.168.205.3"),
    ];
    (objects, [by("10.42.1.0/24", ID), by("fd00:42:0:1::/64", ID + 1), by("fd00:42:0:2::/64", ID + 2)])
}

fn ours(rtnl: &mut Rtnl) -> Vec<Route> {
    let filter = RouteFilter { ipv6: false, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
    let mut found = rtnl.routes(filter).unwrap();
    found.extend(rtnl.routes(RouteFilter { ipv6: true, ..filter }).unwrap());
    found
}

#[test]
fn objects_and_routes_through_them_are_read_back_equal_and_are_what_ip_shows() {
    with_device(|rtnl, index| {
        let (objects, routes) = peers(index);
        all(rtnl, &objects.map(Write::AddHop));
        all(rtnl, &routes.map(Write::SetRoute));
        let shown = ip(&format!("nexthop show proto {PROTOCOL}"));
        for words in [
            format!("id {ID}  encap ip id 1 src 0.0.0.0 dst 192.168.205.3 ttl 0 tos 0 via 10.42.1.0 dev flannel.1"),
            format!("id {}  encap ip6 id 1 src :: dst fd00:205::3 hoplimit 0 tc 0 csum via fd00:42:0:1::", ID + 1),
        ] {
            assert!(shown.contains(&words), "{words}: {shown}");
        }
        assert_eq!(ip("route show 10.42.1.0/24").split(" encap ").next(), Some(&*format!("10.42.1.0/24 nhid {ID} ")));
        // What a route says beside the number must not matter.
        for compatible in ["1", "0"] {
            fairlead_kernel::sysctl::set("net/ipv4/nexthop_compat_mode", compatible).unwrap();
            assert_eq!(rtnl.hops(index).unwrap(), objects);
            assert_eq!(ours(rtnl), routes);
            assert_eq!(rtnl.hop(ID + 1).unwrap(), Some(objects[1]));
            assert_eq!(rtnl.route_towards(addr("10.42.1.9")).unwrap(), Some(routes[0]));
            assert_eq!(rtnl.route_towards(addr("fd00:42:0:1::9")).unwrap(), Some(routes[1]));
            assert_eq!(rtnl.resolve(routes[1].hop).unwrap(), objects[1].hop);
        }
        let by_device = RouteFilter { ipv6: false, table: TABLE_MAIN, protocol: None, index: Some(index) };
        assert_eq!(rtnl.routes(by_device).unwrap(), [routes[0]]);
        all(rtnl, &routes.map(Write::DeleteRoute));
        all(rtnl, &[ID, ID + 1, ID + 2, ID + 3].map(Write::DeleteHop));
        assert_eq!((rtnl.hops(index).unwrap(), ours(rtnl), rtnl.hop(ID).unwrap()), (vec![], vec![], None));
        assert_eq!(rtnl.resolve(NextHop::Object(ID)).unwrap(), NextHop::Other);
    });
}

#[test]
fn an_object_is_replaced_only_if_it_is_there_and_made_only_if_it_is_not() {
    with_device(|rtnl, index| {
        let (objects, routes) = peers(index);
        let moved = packed(ID, "10.42.1.0", index, "192.168.205.33");
        let refused = rtnl.write(&[Write::ReplaceHop(moved)]).unwrap();
        assert_eq!(refused.len(), 1, "{refused:?}");
        all(rtnl, &[Write::AddHop(objects[0]), Write::SetRoute(routes[0])]);
        let refused = rtnl.write(&[Write::AddHop(moved)]).unwrap();
        assert!(refused.len() == 1 && refused[0].is_taken(), "{refused:?}");
        assert_eq!(rtnl.hop(ID).unwrap(), Some(objects[0]));
        all(rtnl, &[Write::ReplaceHop(moved)]);
        assert_eq!((rtnl.hop(ID).unwrap(), ours(rtnl)), (Some(moved), vec![routes[0]]));
        // With it the kernel takes the routes away.
        all(rtnl, &[Write::DeleteHop(ID)]);
        assert_eq!(ours(rtnl), []);
        assert_eq!(rtnl.write(&[Write::SetRoute(routes[0])]).unwrap().len(), 1, "there is no such object");
    });
}

#[test]
fn a_route_that_packs_by_itself_is_replaced_in_place_and_the_other_way_round() {
    with_device(|rtnl, index| {
        let (objects, routes) = peers(index);
        let inline: Vec<Route> =
            objects.iter().zip(&routes).map(|(object, route)| Route { hop: object.hop, ..*route }).collect();
        for route in &inline {
            all(rtnl, &[Write::SetRoute(*route)]);
        }
        assert_eq!(ours(rtnl), inline);
        all(rtnl, &objects.map(Write::AddHop));
        all(rtnl, &routes.map(Write::SetRoute));
        assert_eq!(ours(rtnl), routes);
        for route in &inline {
            all(rtnl, &[Write::SetRoute(*route)]);
        }
        assert_eq!(ours(rtnl), inline);
    });
}

#[test]
fn what_others_do_to_objects_is_heard_and_our_own_doing_is_not() {
    with_device(|rtnl, index| {
        let (objects, routes) = peers(index);
        let mut listener = Listener::open(rtnl.port_id()).unwrap();
        all(rtnl, &objects.map(Write::AddHop));
        all(rtnl, &routes.map(Write::SetRoute));
        let moved = packed(ID, "10.42.1.0", index, "192.168.205.33");
        // The kernel announces the routes through it as well.
        all(rtnl, &[Write::ReplaceHop(moved)]);
        let first = listener.next().unwrap().expect("nothing was lost");
        let is_ours = |change: &Change| matches!(change, Change::Hop { .. } | Change::Route { protocol: PROTOCOL, .. });
        assert!(!first.iter().any(is_ours), "{first:?}");
        ip(&format!("nexthop replace id {ID} via 10.42.1.0 dev flannel.1 onlink"));
        ip(&format!("nexthop del id {}", ID + 1));
        ip(&format!("nexthop add id 5 group {}", ID + 2));
        ip("link set flannel.1 down");
        let others = [
            Change::Hop { id: ID, protocol: 0, deleted: false },
            Change::Hop { id: ID + 1, protocol: PROTOCOL, deleted: true },
            Change::Hop { id: 5, protocol: 0, deleted: false },
            Change::Link { index, name: "flannel.1".into() },
        ];
        let mut heard = Vec::new();
        while !others.iter().all(|change| heard.contains(change)) {
            let changes = listener.next().unwrap().expect("nothing was lost");
            assert!(!changes.is_empty(), "heard only {heard:?}");
            heard.extend(changes);
        }
        // Of them nothing was said.
        assert_eq!(rtnl.hops(index).unwrap(), [], "they are gone with their device");
    });
}
