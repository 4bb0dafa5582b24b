use std::sync::Arc;

use fairlead_kernel::conntrack::Tuple;
use fairlead_plan::{Action, Pools, Priority, Route, ServiceKey};

use super::*;

/// The addresses of one family in these tests.
struct Side {
    family: Family,
    cluster_ip: &'static str,
    external: &'static str,
    vip: &'static str,
    node: &'static str,
    second: &'static str,
    other_host: &'static str,
    pods: [&'static str; 3],
    service_cidr: &'static str,
    unused: &'static str,
}

const SIDES: [Side; 2] = [
    Side {
        family: Family::V4,
        cluster_ip: "10.96.0.10",
        external: "203.0.113.10",
        vip: "198.51.100.10",
        node: "192.0.2.1",
        second: "192.0.2.2",
        other_host: "192.0.2.99",
        pods: ["10.244.0.1", "10.244.0.2", "10.244.0.3"],
        service_cidr: "10.96.0.0/16",
        unused: "10.96.0.77",
    },
    Side {
        family: Family::V6,
        cluster_ip: "fd00:96::10",
        external: "2001:db8:1::10",
        vip: "2001:db8:2::10",
        node: "2001:db8::1",
        second: "2001:db8::2",
        other_host: "2001:db8::99",
        pods: ["fd00:244::1", "fd00:244::2", "fd00:244::3"],
        service_cidr: "fd00:96::/108",
        unused: "fd00:96::77",
    },
];

const NODE_PORT: u16 = 30_053;

fn at(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), port)
}

impl Side {
    fn local(&self) -> BTreeSet<IpAddr> {
        [self.node, self.second].map(|ip| ip.parse().unwrap()).into()
    }

    fn service(&self, name: &str, serving: &[SocketAddr]) -> Service {
        let mut serving = serving.to_vec();
        serving.sort();
        Service {
            key: Arc::new(ServiceKey {
                namespace: "n".into(),
                name: name.into(),
                port_name: "".into(),
                protocol: Protocol::Udp,
                family: self.family,
            }),
            frontends: vec![
                Frontend::ClusterIp(at(self.cluster_ip, 53)),
                Frontend::ExternalIp(at(self.external, 53)),
                Frontend::LoadBalancer { addr: at(self.vip, 53), allow: vec![] },
                Frontend::NodePort(NODE_PORT),
            ],
            internal: Route::all(Action::Reject),
            external: Route::all(Action::Reject),
            pools: Pools::default(),
            affinity: None,
            serving,
            scheduler: None,
            priority: Priority::Other,
        }
    }

    /// Node ports answer on the first address of the node only.
    fn plan(&self, services: Vec<Service>) -> Plan {
        let host = format!("{}/{}", self.node, if self.family == Family::V4 { 32 } else { 128 });
        let node = Node {
            node_port_addresses: vec![host.parse().unwrap()],
            service_cidrs: vec![self.service_cidr.parse().unwrap()],
            ..Node::default()
        };
        Plan { node: Arc::new(node), services: services.into_iter().collect() }
    }

    /// Every address at which the service of [`Side::service`] is reached.
    fn frontends(&self) -> [SocketAddr; 4] {
        [at(self.cluster_ip, 53), at(self.external, 53), at(self.vip, 53), at(self.node, NODE_PORT)]
    }

    fn pod(&self, index: usize) -> SocketAddr {
        at(self.pods[index], 5353)
    }
}

#[test]
fn a_flow_to_an_endpoint_that_serves_is_right_and_any_other_is_stale() {
    for side in &SIDES {
        let (plan, local) = (side.plan(vec![side.service("dns", &[side.pod(0), side.pod(1)])]), side.local());
        let claims = Claims::new(None, &plan, &local);
        for to in side.frontends() {
            assert!(!claims.leads_astray(to, side.pod(0)), "{to}");
            assert!(!claims.leads_astray(to, side.pod(1)), "{to}");
            assert!(claims.leads_astray(to, side.pod(2)), "{to}: this endpoint is gone");
            assert!(claims.leads_astray(to, at(side.pods[0], 53)), "{to}: the target port has changed");
            assert!(claims.leads_astray(to, to), "{to}: the flow began before there were endpoints");
        }
    }
}

#[test]
fn endpoints_that_terminate_but_serve_and_those_that_topology_leaves_out_keep_their_flows() {
    for side in &SIDES {
        // `serving` holds them all; the pools, which new flows use, do not matter.
        let (plan, local) = (side.plan(vec![side.service("dns", &[side.pod(2)])]), side.local());
        let claims = Claims::new(None, &plan, &local);
        assert!(side.frontends().into_iter().all(|to| !claims.leads_astray(to, side.pod(2))));
    }
}

#[test]
fn a_service_without_endpoints_loses_its_translated_flows_and_no_others() {
    for side in &SIDES {
        let (plan, local) = (side.plan(vec![side.service("dns", &[])]), side.local());
        let claims = Claims::new(None, &plan, &local);
        for to in side.frontends() {
            assert!(claims.leads_astray(to, side.pod(0)), "{to}");
            assert!(!claims.leads_astray(to, to), "{to}: there is nowhere better to go");
        }
    }
}

#[test]
fn a_deleted_service_loses_its_translated_flows_and_no_others() {
    for side in &SIDES {
        let was = side.plan(vec![side.service("dns", &[side.pod(0)])]);
        let (now, local) = (side.plan(vec![]), side.local());
        let claims = Claims::new(Some(&was), &now, &local);
        for to in side.frontends() {
            assert!(claims.leads_astray(to, side.pod(0)), "{to}");
            assert!(!claims.leads_astray(to, to), "{to}");
        }
        assert!(needed(&was, &now));
    }
}

#[test]
fn a_frontend_that_moves_to_another_service_is_judged_by_its_new_owner() {
    for side in &SIDES {
        let was = side.plan(vec![side.service("old", &[side.pod(0), side.pod(1)])]);
        let now = side.plan(vec![side.service("new", &[side.pod(1), side.pod(2)])]);
        let local = side.local();
        let claims = Claims::new(Some(&was), &now, &local);
        for to in side.frontends() {
            assert!(claims.leads_astray(to, side.pod(0)), "{to}");
            assert!(!claims.leads_astray(to, side.pod(1)), "{to}: both services have this endpoint");
            assert!(!claims.leads_astray(to, side.pod(2)), "{to}");
        }
    }
}

#[test]
fn a_frontend_that_a_service_gives_up_loses_its_flows_and_the_others_keep_theirs() {
    for side in &SIDES {
        let was = side.plan(vec![side.service("dns", &[side.pod(0)])]);
        let mut fewer = side.service("dns", &[side.pod(0)]);
        fewer.frontends.retain(|frontend| matches!(frontend, Frontend::ClusterIp(_)));
        let (now, local) = (side.plan(vec![fewer]), side.local());
        let claims = Claims::new(Some(&was), &now, &local);
        let [cluster_ip, gone @ ..] = side.frontends();
        assert!(!claims.leads_astray(cluster_ip, side.pod(0)));
        assert!(gone.into_iter().all(|to| claims.leads_astray(to, side.pod(0))));
        assert!(needed(&was, &now));
    }
}

#[test]
fn without_an_earlier_plan_flows_to_unused_cluster_ips_are_found_and_nothing_else_is_guessed() {
    for side in &SIDES {
        let (plan, local) = (side.plan(vec![]), side.local());
        let claims = Claims::new(None, &plan, &local);
        assert!(
            claims.leads_astray(at(side.unused, 53), side.pod(0)),
            "its service was deleted while fairlead was down"
        );
        assert!(!claims.leads_astray(at(side.unused, 53), at(side.unused, 53)));
        assert!(!claims.leads_astray(at(side.external, 53), side.pod(0)), "somebody else may translate this one");
        assert!(!claims.leads_astray(at(side.node, NODE_PORT), side.pod(0)), "and this one");
    }
}

#[test]
fn a_node_port_is_one_only_where_node_ports_answer() {
    for side in &SIDES {
        let was = side.plan(vec![side.service("dns", &[side.pod(0)])]);
        let (now, local) = (side.plan(vec![side.service("dns", &[side.pod(1)])]), side.local());
        let claims = Claims::new(Some(&was), &now, &local);
        assert!(claims.leads_astray(at(side.node, NODE_PORT), side.pod(0)));
        for elsewhere in [side.second, side.other_host] {
            let to = at(elsewhere, NODE_PORT);
            assert!(!claims.leads_astray(to, side.pod(0)), "{to} is not ours, and kube-proxy would delete this flow");
            assert!(!claims.leads_astray(to, to), "{to}");
        }
    }
}

#[test]
fn a_node_port_on_all_addresses_is_still_none_on_another_host() {
    for side in &SIDES {
        let mut plan = side.plan(vec![side.service("dns", &[side.pod(0)])]);
        let any = if side.family == Family::V4 { "0.0.0.0/0" } else { "::/0" };
        Arc::make_mut(&mut plan.node).node_port_addresses = vec![any.parse().unwrap()];
        let local = side.local();
        let claims = Claims::new(None, &plan, &local);
        assert!(claims.leads_astray(at(side.second, NODE_PORT), side.pod(1)));
        assert!(!claims.leads_astray(at(side.other_host, NODE_PORT), at(side.other_host, NODE_PORT)));
    }
}

#[test]
fn node_ports_that_answer_elsewhere_now_lose_their_flows_although_no_service_has_changed() {
    for side in &SIDES {
        let was = side.plan(vec![side.service("dns", &[side.pod(0)])]);
        let mut now = was.clone();
        Arc::make_mut(&mut now.node).node_port_addresses = vec![];
        let local = side.local();
        assert!(needed(&was, &now));
        let claims = Claims::new(Some(&was), &now, &local);
        assert!(claims.leads_astray(at(side.node, NODE_PORT), side.pod(0)));
        assert!(!claims.leads_astray(at(side.cluster_ip, 53), side.pod(0)));
    }
}

#[test]
fn an_address_that_a_service_claims_is_stronger_than_a_node_port() {
    for side in &SIDES {
        let mut strong = side.service("strong", &[side.pod(1)]);
        strong.frontends = vec![Frontend::ExternalIp(at(side.node, NODE_PORT))];
        let plan = side.plan(vec![strong, side.service("dns", &[side.pod(0)])]);
        let local = side.local();
        let claims = Claims::new(None, &plan, &local);
        assert!(!claims.leads_astray(at(side.node, NODE_PORT), side.pod(1)));
        assert!(claims.leads_astray(at(side.node, NODE_PORT), side.pod(0)));
    }
}

#[test]
fn tcp_and_sctp_services_decide_nothing() {
    for side in &SIDES {
        for protocol in [Protocol::Tcp, Protocol::Sctp] {
            let of = |serving: &[SocketAddr]| {
                let mut service = side.service("web", serving);
                service.key = Arc::new(ServiceKey { protocol, ..(*service.key).clone() });
                side.plan(vec![service])
            };
            let (was, now, local) = (of(&[side.pod(0)]), of(&[]), side.local());
            assert!(!needed(&was, &now));
            let claims = Claims::new(Some(&was), &now, &local);
            assert!(side.frontends()[1..].iter().all(|to| !claims.leads_astray(*to, side.pod(0))));
        }
    }
}

#[test]
fn a_pass_is_needed_only_when_frontends_or_serving_endpoints_of_udp_change() {
    for side in &SIDES {
        let service = || side.service("dns", &[side.pod(0)]);
        let was = side.plan(vec![service()]);
        assert!(!needed(&was, &was.clone()));
        let mut other_route = service();
        other_route.internal = Route::all(Action::Drop);
        assert!(!needed(&was, &side.plan(vec![other_route])), "policy does not make a flow stale");
        assert!(needed(&was, &side.plan(vec![side.service("dns", &[])])));
        assert!(needed(&side.plan(vec![]), &was), "flows may have begun before the service was there");
    }
}

/// A flow of a client to `to` that was sent on to `from`, with the source replaced on the way.
fn flow(to: SocketAddr, from: SocketAddr, protocol: u8, zone: u16) -> Flow {
    let original = Tuple { src: from.ip(), sport: 40_000, dst: to.ip(), dport: to.port() };
    let reply = Tuple { src: from.ip(), sport: from.port(), dst: to.ip(), dport: 1024 };
    Flow { protocol, original, reply, zone, status: 0x30, id: 1, mark: 0 }
}

#[test]
fn only_udp_in_the_default_zone_is_deleted() {
    for side in &SIDES {
        let (plan, local) = (side.plan(vec![side.service("dns", &[side.pod(0)])]), side.local());
        let claims = Claims::new(None, &plan, &local);
        for to in side.frontends() {
            assert!(claims.is_stale(&flow(to, side.pod(1), 17, 0)), "{to}");
            assert!(!claims.is_stale(&flow(to, side.pod(0), 17, 0)), "{to}");
            assert!(!claims.is_stale(&flow(to, side.pod(1), 17, 7)), "{to}: another zone");
            assert!(!claims.is_stale(&flow(to, side.pod(1), 6, 0)), "{to}: TCP");
            assert!(!claims.is_stale(&flow(to, side.pod(1), 132, 0)), "{to}: SCTP");
        }
    }
}

#[test]
fn only_what_nobody_answered_and_nobody_translated_began_in_a_gap() {
    const UNANSWERED: u32 = 8;
    for side in &SIDES {
        let mut service = side.service("web", &[]);
        service.key = Arc::new(ServiceKey { protocol: Protocol::Tcp, ..(*service.key).clone() });
        let refusing = side.plan(vec![service.clone()]);
        service.internal = Route::all(Action::Forward { to: fairlead_plan::Pool::Cluster, masquerade: false });
        service.external = service.internal;
        let (plan, local) = (side.plan(vec![service]), side.local());
        let missed = Missed::new(&plan, &local);
        let flow = |to: SocketAddr, protocol: Protocol, status: u32| {
            let there = Tuple { src: side.pod(2).ip(), dst: to.ip(), sport: 40_000, dport: to.port() };
            let back = Tuple { src: to.ip(), dst: there.src, sport: to.port(), dport: there.sport };
            Flow { protocol: protocol.number(), original: there, reply: back, zone: 0, status, id: 1, mark: 0 }
        };
        for to in side.frontends() {
            assert!(missed.is_missed(&flow(to, Protocol::Tcp, UNANSWERED)), "{to}");
            assert!(!missed.is_missed(&flow(to, Protocol::Sctp, UNANSWERED)), "{to}: no service of that protocol");
            assert!(!missed.is_missed(&flow(to, Protocol::Tcp, UNANSWERED | ANSWERED)), "{to}: somebody answers");
            assert!(!missed.is_missed(&flow(to, Protocol::Tcp, UNANSWERED | TRANSLATED)), "{to}: it is translated");
            let other_zone = Flow { zone: 7, ..flow(to, Protocol::Tcp, UNANSWERED) };
            assert!(!missed.is_missed(&other_zone), "{to}: somebody else's zone");
            let nowhere = Missed::new(&refusing, &local);
            assert!(!nowhere.is_missed(&flow(to, Protocol::Tcp, UNANSWERED)), "{to}: there is nowhere to go");
        }
        for elsewhere in [at(side.second, NODE_PORT), at(side.other_host, NODE_PORT), side.pod(0)] {
            assert!(!missed.is_missed(&flow(elsewhere, Protocol::Tcp, UNANSWERED)), "{elsewhere}");
        }
    }
}
