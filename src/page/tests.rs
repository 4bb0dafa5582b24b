use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fairlead_plan::{Action, Endpoint, Family, Frontend, Plan, Pools, Priority, Protocol, Route, Service, ServiceKey};

use super::*;

const HOSTILE: &str = "</title></table><script>document.title='taken'</script><img src=x onerror=alert(1)>";

fn service(name: &str, family: Family, endpoints: u8) -> Arc<Service> {
    let (ip, first): (IpAddr, IpAddr) = match family {
        Family::V4 => (Ipv4Addr::new(10, 96, 0, 1).into(), Ipv4Addr::new(10, 244, 1, 1).into()),
        Family::V6 => (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
    };
    let endpoint = |port: u8| Endpoint::new(SocketAddr::new(first, 8000 + u16::from(port)), true);
    Arc::new(Service {
        key: Arc::new(ServiceKey {
            namespace: "default".into(),
            name: name.into(),
            port_name: "".into(),
            protocol: Protocol::Tcp,
            family,
        }),
        frontends: vec![Frontend::ClusterIp(SocketAddr::new(ip, 80))],
        internal: Route::all(Action::Reject),
        external: Route::all(Action::Reject),
        pools: Pools { cluster: (0..endpoints).map(endpoint).collect(), local: Vec::new() },
        affinity: None,
        scheduler: None,
        serving: Vec::new(),
        priority: Priority::Other,
    })
}

fn known(services: impl IntoIterator<Item = Arc<Service>>) -> Known {
    let health = Health::new(Duration::from_secs(30), &Family::BOTH);
    health.eligible(true);
    health.synced(None, SystemTime::now());
    let facts = Facts::new("nftables");
    let mut plan = Plan::default();
    services.into_iter().for_each(|service| _ = plan.services.insert(service));
    facts.planned(plan);
    let metrics = Arc::new(Metrics::new("1", "nftables"));
    Known { node: "node-<a>".to_owned(), facts: Arc::new(facts), health: Arc::new(health), metrics }
}

#[test]
fn the_page_tells_state_services_and_troubles_of_both_families() {
    let known = known(Family::BOTH.map(|family| service("web", family, 2)));
    let page = known.page(&Wanted::default()).unwrap();
    for part in [
        "<h1>fairlead on node-&lt;a&gt;</h1>",
        "All is well.",
        "<th scope=\"row\">mode</th><td>nftables</td>",
        "2 service ports, 2 frontends, 4 endpoints",
        "None since the start.",
        "<td>ClusterIP 10.96.0.1:80</td>",
        "<td>ClusterIP [::1]:80</td>",
        "2 (2 here): [::1]:8000, [::1]:8001",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("reachable") && !page.contains("peers"), "no overlay: {page}");
    known.facts.failed("the kernel has no room");
    known.health.queued(Instant::now() - Duration::from_secs(60));
    let page = known.page(&Wanted::default()).unwrap();
    for part in ["process is not well", "refused the plan 1 times", "ago: the kernel has no room</li>"] {
        assert!(page.contains(part), "{part} in {page}");
    }
    assert!(!page.contains("All is well."), "{page}");
}

#[test]
fn the_overlay_is_told_from_what_is_counted() {
    let known = known([]);
    known.metrics.has_overlay();
    let peers = crate::resolve::PerFamily { v4: 5, v6: 4 };
    known.metrics.overlay_peers(peers, 1, 0, true);
    known.metrics.overlay_silent(2);
    let info = ["vxlan", "eth0", "192.168.50.1", "10.244.1.0/24", "true"];
    known.metrics.overlay_info([(Family::V4, info)].into_iter());
    let page = known.page(&Wanted::default()).unwrap();
    for part in [
        "9 ways to other nodes; 1 nodes refused, 0 refused by the kernel, 2 silent",
        "IPv4: vxlan over eth0 192.168.50.1, pods 10.244.1.0/24",
        "overlay peers is not well",
    ] {
        assert!(page.contains(part), "{part} in {page}");
    }
}

#[test]
fn nothing_that_somebody_else_has_named_becomes_markup() {
    let mut known = known([service(HOSTILE, Family::V4, 1)]);
    known.node = HOSTILE.to_owned();
    known.facts.failed(HOSTILE);
    let wanted = Wanted { service: "<".to_owned(), without_endpoints: false };
    let page = known.page(&wanted).unwrap();
    assert_eq!(page.matches("&lt;script&gt;").count(), 4, "node twice, Service and trouble once: {page}");
    assert!(!page.contains("<script") && !page.contains("<img") && !page.contains('\''), "{page}");
    assert!(page.contains("<input name=\"service\" value=\"&lt;\">"), "{page}");
}

#[test]
fn services_are_found_by_name_and_by_want_of_endpoints() {
    let services = (0..SHOWN + 50).map(|number| service(&format!("s{number:03}"), Family::V4, u8::from(number != 7)));
    let known = known(services);
    let rows = |query: &str| {
        let page = known.page(&Wanted::of(query)).unwrap();
        let rows = page.matches("<tr><td>default/").count();
        (rows, page)
    };
    let (all, page) = rows("");
    assert_eq!(all, SHOWN);
    assert!(page.contains("The first 200 of 250 service ports"), "{page}");
    assert_eq!(rows("service=s01").0, 10);
    let (empty, page) = rows("empty=1");
    assert!(empty == 1 && page.contains("default/s007") && page.contains(" checked>"), "{page}");
    assert_eq!(rows("service=nobody").0, 0);
}

#[test]
fn the_page_is_for_the_node_itself_and_not_for_names_that_lead_here() {
    let own = ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"].map(|text| text.parse::<IpAddr>().unwrap());
    let hosts = ["127.0.0.1:10249", "[::1]:10256", "localhost", "localhost:8080", "192.0.2.1", "[2001:db8::1]"];
    for peer in own {
        assert!(may_see(peer, None));
        hosts.iter().for_each(|host| assert!(may_see(peer, Some(host)), "{host}"));
        for host in ["example.com", "example.com:10249", "localhost.example.com", "127.0.0.1.example.com:80", "", "?"] {
            assert!(!may_see(peer, Some(host)), "{host}");
        }
    }
    for peer in ["10.244.1.5", "::ffff:10.0.0.1", "2001:db8::1", "0.0.0.0"].map(|text| text.parse().unwrap()) {
        assert!(!may_see(peer, Some("127.0.0.1:10256")), "{peer}");
    }
}
