//! Links, addresses, neighbours, forwarding entries and routes on a real kernel, compared with what `ip` and `bridge` say.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod machine;

use fairlead_kernel::route::{
    Change, Encap, Listener, Mac, NextHop, Route, RouteFilter, Rtnl, TABLE_MAIN, VXLAN_PORT, Vxlan, VxlanSpec, Write,
};

use machine::{addr, all, in_namespace, index, ip, program};

const PROTOCOL: u8 = 86;

fn mac(text: &str) -> Mac {
    text.parse().unwrap()
}

fn device(name: &str, local: &str, mtu: u32, lower: u32) -> VxlanSpec {
    let vxlan = Vxlan { vni: 1, lower, local: Some(addr(local)), port: VXLAN_PORT, ..Vxlan::default() };
    VxlanSpec { name: name.into(), mac: mac("0e:00:00:00:00:01"), mtu, vxlan }
}

fn onlink(destination: &str, gateway: &str, index: u32, encap: Option<Encap>) -> Route {
    Route {
        destination: destination.parse().unwrap(),
        metric: if destination.contains(':') { 1024 } else { 0 },
        table: TABLE_MAIN,
        protocol: PROTOCOL,
        hop: NextHop::Unicast { index, gateway: Some(addr(gateway)), onlink: true, encap },
    }
}

/// The devices `flannel.1` and `flannel-v6.1`, with an address each, and one peer in each family.
fn tunnels(rtnl: &mut Rtnl, eth0: u32) -> (u32, u32) {
    let devices = [device("flannel.1", "192.168.205.4", 1450, eth0), device("flannel-v6.1", "fd00:205::4", 1430, eth0)];
    all(rtnl, &devices.map(Write::CreateVxlan));
    let (v4, v6) = (index(rtnl, "flannel.1"), index(rtnl, "flannel-v6.1"));
    let peer = mac("62:c8:a9:ce:ca:4e");
    all(
        rtnl,
        &[
            Write::AddAddress(v4, "10.42.0.0/32".parse().unwrap()),
            Write::AddAddress(v6, "fd00:42::/128".parse().unwrap()),
            Write::SetNeighbour(v4, addr("10.42.1.0"), peer),
            Write::SetNeighbour(v6, addr("fd00:42:0:1::"), peer),
            Write::SetForwarding(v4, peer, addr("192.168.205.3")),
            Write::SetForwarding(v6, peer, addr("fd00:205::3")),
            Write::SetRoute(onlink("10.42.1.0/24", "10.42.1.0", v4, None)),
            Write::SetRoute(onlink("fd00:42:0:1::/64", "fd00:42:0:1::", v6, None)),
        ],
    );
    (v4, v6)
}

#[test]
fn a_tunnel_is_listed_by_ip_and_bridge_as_it_was_asked_for() {
    in_namespace(|rtnl, eth0| {
        tunnels(rtnl, eth0);
        let link = ip("-d link show flannel.1");
        for words in ["mtu 1450", "state UNKNOWN", "vxlan id 1 local 192.168.205.4 dev eth0", "dstport 8472 nolearning"]
        {
            assert!(link.contains(words), "{words}: {link}");
        }
        assert!(ip("-d link show flannel-v6.1").contains("vxlan id 1 local fd00:205::4 dev eth0"));
        assert_eq!(ip("neigh show dev flannel.1").trim(), "10.42.1.0 lladdr 62:c8:a9:ce:ca:4e PERMANENT");
        assert_eq!(ip("-6 neigh show dev flannel-v6.1").trim(), "fd00:42:0:1:: lladdr 62:c8:a9:ce:ca:4e PERMANENT");
        let fdb = "62:c8:a9:ce:ca:4e dst 192.168.205.3 self permanent";
        assert_eq!(program("bridge", "fdb show dev flannel.1").trim(), fdb);
        let route = ip(&format!("route show proto {PROTOCOL}"));
        assert_eq!(route.trim(), "10.42.1.0/24 via 10.42.1.0 dev flannel.1 onlink");
        let route = ip(&format!("-6 route show proto {PROTOCOL}"));
        assert_eq!(route.trim(), "fd00:42:0:1::/64 via fd00:42:0:1:: dev flannel-v6.1 metric 1024 onlink pref medium");
    });
}

#[test]
fn ac2_3_what_was_written_is_read_back_equal() {
    in_namespace(|rtnl, eth0| {
        let (v4, v6) = tunnels(rtnl, eth0);
        for (index, spec) in [
            (v4, device("flannel.1", "192.168.205.4", 1450, eth0)),
            (v6, device("flannel-v6.1", "fd00:205::4", 1430, eth0)),
        ] {
            let link = rtnl.links().unwrap().into_iter().find(|link| link.index == index).unwrap();
            assert_eq!((link.vxlan, link.mtu, link.mac), (Some(spec.vxlan), spec.mtu, Some(spec.mac)));
            assert!(link.up && link.running);
        }
        let neighbours: Vec<_> = rtnl.neighbours(v4).unwrap().into_iter().filter(|n| n.permanent).collect();
        assert_eq!(neighbours.len(), 1);
        assert_eq!((neighbours[0].addr, neighbours[0].mac), (addr("10.42.1.0"), Some(mac("62:c8:a9:ce:ca:4e"))));
        let entries = rtnl.forwarding(v6).unwrap();
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].destination, entries[0].special), (Some(addr("fd00:205::3")), false));
        for (ipv6, index, route) in [
            (false, v4, onlink("10.42.1.0/24", "10.42.1.0", v4, None)),
            (true, v6, onlink("fd00:42:0:1::/64", "fd00:42:0:1::", v6, None)),
        ] {
            let by_protocol = RouteFilter { ipv6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
            assert_eq!(rtnl.routes(by_protocol).unwrap(), [route]);
            let by_device = RouteFilter { protocol: None, index: Some(index), ..by_protocol };
            assert!(rtnl.routes(by_device).unwrap().contains(&route));
        }
        let addresses = rtnl.addresses().unwrap();
        let own = addresses.iter().find(|address| address.index == v6 && address.addr == addr("fd00:42::")).unwrap();
        assert!(own.is_global() && own.is_permanent() && own.prefix == 128 && !own.is_tentative());
    });
}

#[test]
fn a_refused_change_is_named_and_the_others_are_made() {
    in_namespace(|rtnl, eth0| {
        let (v4, _) = tunnels(rtnl, eth0);
        let bad = onlink("10.42.7.0/24", "192.168.205.9", 4_000_000, None);
        let good = onlink("10.42.8.0/24", "10.42.8.0", v4, None);
        let writes = [
            Write::DeleteNeighbour(v4, addr("10.42.99.0")),
            Write::SetRoute(bad),
            Write::SetRoute(good),
            Write::DeleteRoute(onlink("10.42.98.0/24", "10.42.98.0", v4, None)),
            Write::DeleteForwarding(v4, mac("0a:00:00:00:00:09")),
        ];
        let refused = rtnl.write(&writes).unwrap();
        assert_eq!(refused.iter().map(|refusal| refusal.at).collect::<Vec<_>>(), [1], "{refused:?}");
        assert!(ip("route show").contains("10.42.8.0/24 via 10.42.8.0 dev flannel.1"));
        let taken = device("other", "192.168.205.4", 1450, eth0);
        let refused = rtnl.write(&[Write::CreateVxlan(taken)]).unwrap();
        assert_eq!(refused[0].errno, 17, "the kernel says which network exists already: {}", refused[0]);
    });
}

#[test]
fn an_external_device_takes_the_vnis_it_is_given_and_routes_encapsulate() {
    in_namespace(|rtnl, _| {
        let mut spec = device("flannel.1", "192.168.205.4", 1450, 0);
        spec.vxlan = Vxlan { external: true, vnifilter: true, port: VXLAN_PORT, ..Vxlan::default() };
        all(rtnl, &[Write::CreateVxlan(spec.clone())]);
        let index = index(rtnl, "flannel.1");
        all(
            rtnl,
            &[Write::AddVni(index, 1), Write::AddVni(index, 7), Write::DeleteVni(index, 7), Write::AddVni(index, 1)],
        );
        assert_eq!(rtnl.vnis(index).unwrap(), [1]);
        let read = rtnl.links().unwrap().into_iter().find(|link| link.index == index).unwrap();
        assert_eq!(read.vxlan, Some(spec.vxlan));
        let v4 = Encap { id: 1, destination: addr("192.168.205.3"), checksum: false };
        let v6 = Encap { id: 1, destination: addr("fd00:205::3"), checksum: true };
        let routes = [
            onlink("10.42.1.0/24", "10.42.1.0", index, Some(v4)),
            onlink("fd00:42:0:1::/64", "fd00:42:0:1::", index, Some(v6)),
        ];
        all(rtnl, &routes.map(Write::SetRoute));
        let listed = ip(&format!("route show proto {PROTOCOL}"));
        assert!(listed.contains("encap ip id 1 src 0.0.0.0 dst 192.168.205.3"), "{listed}");
        let listed = ip(&format!("-6 route show proto {PROTOCOL}"));
        assert!(listed.contains("encap ip6 id 1 src :: dst fd00:205::3") && listed.contains("csum"), "{listed}");
        for (ipv6, route) in [(false, routes[0]), (true, routes[1])] {
            let filter = RouteFilter { ipv6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
            assert_eq!(rtnl.routes(filter).unwrap(), [route]);
        }
        all(rtnl, &routes.map(Write::DeleteRoute));
        assert_eq!(ip(&format!("route show proto {PROTOCOL}")), "");
        assert_eq!(ip(&format!("-6 route show proto {PROTOCOL}")), "");
    });
}

#[test]
fn a_device_is_altered_in_place_and_only_a_new_mac_costs_it_its_neighbours() {
    in_namespace(|rtnl, eth0| {
        let (v4, _) = tunnels(rtnl, eth0);
        ip("addr add 192.168.205.44/24 dev eth0");
        let vxlan = Vxlan { local: Some(addr("192.168.205.44")), ..device("", "192.168.205.4", 0, eth0).vxlan };
        all(rtnl, &[Write::AlterVxlan(v4, vxlan.clone()), Write::SetMtu(v4, 1400), Write::Up(v4)]);
        assert_eq!(ip("neigh show dev flannel.1").trim(), "10.42.1.0 lladdr 62:c8:a9:ce:ca:4e PERMANENT");
        all(rtnl, &[Write::SetMac(v4, mac("0e:00:00:00:00:02"))]);
        let link = rtnl.links().unwrap().into_iter().find(|link| link.index == v4).unwrap();
        assert_eq!((link.vxlan, link.mtu, link.mac), (Some(vxlan), 1400, Some(mac("0e:00:00:00:00:02"))));
        assert_eq!(ip("neigh show dev flannel.1").trim(), "", "the kernel forgets even permanent ones");
        assert!(ip("route show").contains("10.42.1.0/24 via 10.42.1.0 dev flannel.1"));
    });
}

#[test]
fn changes_of_others_are_heard_and_our_own_are_not() {
    in_namespace(|rtnl, eth0| {
        let (v4, v6) = tunnels(rtnl, eth0);
        let mut listener = Listener::open(rtnl.port_id()).unwrap();
        all(rtnl, &[Write::SetNeighbour(v6, addr("fd00:42:0:9::"), mac("0a:00:00:00:00:09"))]);
        ip("neigh del 10.42.1.0 dev flannel.1");
        program("bridge", "fdb del 62:c8:a9:ce:ca:4e dev flannel.1");
        ip("route del 10.42.1.0/24");
        ip("addr add 192.168.205.44/24 dev eth0");
        ip("link set flannel.1 mtu 1300");
        let destination = "10.42.1.0/24".parse().unwrap();
        let peer = mac("62:c8:a9:ce:ca:4e");
        let is_neighbour =
            |change: &Change, index| matches!(change, Change::Neighbour { entry, .. } if entry.index == index);
        let is_entry = |change: &Change| matches!(change, Change::Forwarding { entry, deleted: true } if entry.index == v4 && entry.mac == peer);
        let others = [
            Change::Route { destination, index: v4, protocol: PROTOCOL, table: TABLE_MAIN, deleted: true },
            Change::Address(eth0),
            Change::Link { index: v4, name: "flannel.1".into() },
        ];
        let mut heard = Vec::new();
        let complete = |heard: &[Change]| {
            others.iter().all(|change| heard.contains(change))
                && heard.iter().any(is_entry)
                && heard.iter().any(|change| is_neighbour(change, v4))
        };
        while !complete(&heard) {
            let changes = listener.next().unwrap().expect("nothing was lost");
            assert!(!changes.is_empty(), "heard only {heard:?}");
            heard.extend(changes);
        }
        assert!(!heard.iter().any(|change| is_neighbour(change, v6)), "{heard:?}");
    });
}

#[test]
fn somebody_elses_route_in_the_way_is_replaced() {
    in_namespace(|rtnl, eth0| {
        let (v4, v6) = tunnels(rtnl, eth0);
        for (family, net, theirs, ours) in [
            ("-4", "10.42.1.0/24", "192.168.205.9", onlink("10.42.1.0/24", "10.42.1.0", v4, None)),
            ("-6", "fd00:42:0:1::/64", "fd00:205::9", onlink("fd00:42:0:1::/64", "fd00:42:0:1::", v6, None)),
        ] {
            for command in ["replace", "append", "replace blackhole"] {
                let words = command.split_once(' ').unwrap_or((command, ""));
                let way = if words.1.is_empty() { format!("via {theirs} dev eth0") } else { String::new() };
                ip(&format!("{family} route {} {} {net} {way}", words.0, words.1));
                let refused = rtnl.write(&[Write::SetRoute(ours)]).unwrap();
                if let [refusal] = &refused[..] {
                    assert!(
                        refusal.is_in_the_way() && (family, command) == ("-6", "replace"),
                        "{family} {command}: {refusal}"
                    );
                    all(rtnl, &[Write::ClearWay(ours), Write::SetRoute(ours)]);
                }
                let filter =
                    RouteFilter { ipv6: family == "-6", table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
                assert_eq!(rtnl.routes(filter).unwrap(), [ours], "{family} {command}");
                let shown = ip(&format!("{family} route show {net} proto {PROTOCOL}"));
                assert!(shown.contains("onlink"), "{family} {command}: {shown}");
            }
        }
    });
}

#[test]
fn look_ups_tell_the_interface_and_the_source_in_both_families() {
    in_namespace(|rtnl, eth0| {
        for (near, far, ours) in
            [("192.168.205.9", "203.0.113.1", "192.168.205.4"), ("fd00:205::9", "2001:db8::1", "fd00:205::4")]
        {
            let (near, far) = (addr(near), addr(far));
            assert_eq!(rtnl.interface_towards(near).unwrap(), Some(eth0));
            assert_eq!(rtnl.source_towards(near).unwrap(), Some(addr(ours)));
            assert_eq!(rtnl.interface_towards(far).unwrap(), None, "no route leads there");
            assert_eq!(rtnl.source_towards(far).unwrap(), None, "no route leads there");
            ip(&format!("route add blackhole {far}"));
            assert_eq!(rtnl.interface_towards(far).unwrap(), None, "packets leave by no interface");
        }
    });
}

#[test]
fn settings_that_the_kernel_announces_are_heard() {
    use fairlead_kernel::sysctl;
    in_namespace(|rtnl, _| {
        let mut listener = Listener::open(rtnl.port_id()).unwrap();
        for setting in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv4/conf/eth0/rp_filter"] {
            let other = if sysctl::read(setting).unwrap() == "1" { "0" } else { "1" };
            assert!(sysctl::set(setting, other).unwrap());
            let heard = listener.next().unwrap().expect("nothing was lost");
            assert!(heard.contains(&Change::Setting), "{setting}: {heard:?}");
        }
    });
}

#[test]
fn a_route_that_the_kernel_chose_is_told_although_its_link_has_no_carrier() {
    in_namespace(|rtnl, eth0| {
        let link = |rtnl: &mut Rtnl| rtnl.links().unwrap().into_iter().find(|link| link.index == eth0).unwrap();
        assert!(link(rtnl).carrier);
        ip("link set far down");
        let without = link(rtnl);
        assert!(without.up && !without.carrier, "{without:?}");
        for to in ["192.168.205.9", "fd00:205::9"] {
            let met = rtnl.route_towards(addr(to)).unwrap().unwrap();
            let hop = NextHop::Unicast { index: eth0, gateway: None, onlink: false, encap: None };
            assert_eq!(met.hop, hop, "{to}");
        }
    });
}
