use std::net::IpAddr;

use fairlead_kernel::conntrack::Tuple;
use fairlead_plan::{Action, Frontend, Plan, Pools, Priority, Route};

use super::*;

const NODE_PORT: u16 = 30_080;
/// An address of a Service, of this node, of a client and of an endpoint, by family.
const SIDES: [(Family, [&str; 4]); 2] = [
    (Family::V4, ["10.96.0.10", "192.0.2.1", "10.244.1.5", "10.244.2.7"]),
    (Family::V6, ["fd00:96::10", "2001:db8::1", "fd00:244::5", "fd00:244::7"]),
];

impl Counters {
    /// As if so many connections had begun through a service port.
    pub(crate) fn sample(name: &str, count: u64) -> Self {
        let counters = Self::default();
        counters.counts().insert(Arc::new(key(name, Family::V4)), Arc::new(count.into()));
        counters
    }
}

fn key(name: &str, family: Family) -> ServiceKey {
    ServiceKey { namespace: "n".into(), name: name.into(), port_name: "p".into(), protocol: Protocol::Tcp, family }
}

fn service(name: &str, family: Family, address: &str, node_port: u16) -> Arc<Service> {
    let address = SocketAddr::new(address.parse().unwrap(), 80);
    Arc::new(Service {
        key: Arc::new(key(name, family)),
        frontends: vec![Frontend::ClusterIp(address), Frontend::NodePort(node_port)],
        internal: Route::all(Action::Reject),
        external: Route::all(Action::Reject),
        pools: Pools::default(),
        affinity: None,
        scheduler: None,
        serving: Vec::new(),
        priority: Priority::Other,
    })
}

fn flow(protocol: u8, to: (&str, u16), from: &str, endpoint: &str, status: u32) -> Flow {
    let [to_ip, from, endpoint]: [IpAddr; 3] = [to.0, from, endpoint].map(|ip| ip.parse().unwrap());
    let original = Tuple { src: from, dst: to_ip, sport: 40_000, dport: to.1 };
    let reply = Tuple { src: endpoint, dst: from, sport: 8080, dport: 40_000 };
    Flow { protocol, original, reply, zone: 0, status, id: 1, mark: 0 }
}

#[test]
fn a_translated_connection_is_counted_for_the_way_in_that_it_took() {
    let mut index = Index::default();
    let mut services = Services::default();
    SIDES.iter().for_each(|(family, [vip, ..])| _ = services.insert(service("web", *family, vip, NODE_PORT)));
    index.take(services);
    for (family, [vip, node, client, endpoint]) in SIDES {
        let of = |index: &Index| index.counters.of(&key("web", family));
        index.count(&flow(6, (vip, 80), client, endpoint, TRANSLATED | 8));
        assert_eq!(of(&index), 1);
        index.count(&flow(6, (node, NODE_PORT), client, endpoint, TRANSLATED));
        assert_eq!(of(&index), 2);
        // Not translated, another protocol, another port, a protocol without Services: all none of it.
        index.count(&flow(6, (node, NODE_PORT), client, node, 0));
        index.count(&flow(17, (vip, 80), client, endpoint, TRANSLATED));
        index.count(&flow(6, (vip, 81), client, endpoint, TRANSLATED));
        index.count(&flow(33, (vip, 80), client, endpoint, TRANSLATED));
        assert_eq!(of(&index), 2);
    }
    assert_eq!(index.counters.used().len(), 2, "each family for itself");
}

#[test]
fn counts_stay_when_a_service_changes_and_go_with_it() {
    let facts = Facts::new("nftables");
    let mut index = Index::default();
    index.follow(&facts);
    for (family, [vip, node, client, endpoint]) in SIDES {
        let mut plan = Plan::default();
        plan.services.insert(service("old", family, vip, NODE_PORT));
        plan.services.insert(service("other", family, node, NODE_PORT + 1));
        facts.planned(plan.clone());
        index.follow(&facts);
        let through = |index: &Index, port| index.count(&flow(6, (vip, port), client, endpoint, TRANSLATED));
        through(&index, 80);
        // Another node port: the count goes on.
        plan.services.insert(service("old", family, vip, NODE_PORT + 2));
        facts.planned(plan.clone());
        index.follow(&facts);
        through(&index, NODE_PORT + 2);
        through(&index, NODE_PORT);
        assert_eq!(index.counters.of(&key("old", family)), 2);
        // The address goes to another Service in the step in which its owner goes.
        plan.services.remove(&key("old", family));
        plan.services.insert(service("other", family, vip, NODE_PORT));
        facts.planned(plan.clone());
        index.follow(&facts);
        through(&index, 80);
        through(&index, NODE_PORT + 2);
        assert_eq!((index.counters.of(&key("old", family)), index.counters.of(&key("other", family))), (0, 1));
        assert_eq!(index.ways.len(), 2);
        assert!(index.counters.used().iter().all(|(key, _)| &*key.name == "other"));
        let last = plan.services.remove(&key("other", family));
        assert!(last.is_some());
        facts.planned(plan);
        index.follow(&facts);
        assert!(index.ways.is_empty() && index.counters.used().is_empty());
    }
}
