//! Random clusters, changed step by step. After each step the plan must answer every packet as the oracle does, and
//! be what a world that was told everything at once comes to.

mod domain;
mod probes;
mod steps;

use std::collections::BTreeSet;
use std::sync::Arc;

use fairlead::object::{Event, Kind};
use fairlead::resolve::{DetectMode, NodePortAddresses, Settings};
use fairlead::world::{Planned, World};
use fairlead_plan::{Action, Endpoint, Family, Origin, Packet, Plan, Pool, Route, Service};
use proptest::prelude::*;

use crate::oracle::Cluster;
use steps::Step;

/// How many random histories are tried unless `PROPTEST_CASES` says otherwise.
const HISTORIES: u32 = 192;
const LONGEST_HISTORY: usize = 30;
/// After a step that is not the last one, only each so manieth packet is tried, others after the next step.
const STRIDE: usize = 4;

fn effort() -> ProptestConfig {
    let default = ProptestConfig::default();
    let cases = if std::env::var_os("PROPTEST_CASES").is_some() { default.cases } else { HISTORIES };
    ProptestConfig { cases, ..default }
}

proptest! {
    #![proptest_config(effort())]

    #[test]
    fn plans_answer_as_the_api_promises_whatever_happens(
        configured in domain::configuration(),
        history in prop::collection::vec(domain::step(), 1..LONGEST_HISTORY),
    ) {
        follow(configured, &history);
    }
}

fn settings(cluster: &Cluster) -> Settings {
    Settings {
        node_name: "node-a".into(),
        detect: DetectMode::ClusterCidr(cluster.cluster_cidrs.clone()),
        masquerade_all: cluster.masquerade_all,
        node_port_addresses: if cluster.node_ports_everywhere {
            NodePortAddresses::All
        } else {
            NodePortAddresses::Primary
        },
        allow_external_ips: !cluster.no_external_ips,
        ..Settings::default()
    }
}

fn follow(mut cluster: Cluster, history: &[Step]) {
    let mut world = World::new(settings(&cluster));
    let mut plan = Plan::default();
    assert!(!world.complete());
    steps::relist(&cluster).into_iter().for_each(|event| {
        world.apply(event);
    });
    assert!(world.complete());
    let probes = probes::packets();
    for (at, step) in history.iter().enumerate() {
        for event in step.take(&mut cluster) {
            world.apply(event);
        }
        let planned = world.plan(&plan);
        let (first, stride) = if at + 1 == history.len() { (0, 1) } else { (at % STRIDE, STRIDE) };
        answers_as_the_oracle(&cluster, &planned.plan, probes.iter().skip(first).step_by(stride));
        is_what_a_new_world_plans(&cluster, &planned);
        keeps_what_stays(&plan, &planned.plan);
        planned.plan.services.iter().for_each(|service| is_well_formed(service));
        has_one_owner_for_each_address(&planned.plan);
        plan = planned.plan;
    }
}

fn answers_as_the_oracle<'a>(cluster: &Cluster, plan: &Plan, probes: impl Iterator<Item = &'a Packet>) {
    for packet in probes {
        let (promised, decided) = (cluster.answer(packet), plan.decide(packet));
        assert_eq!(promised, decided, "the oracle (left) and the plan (right) differ about {packet:?}");
    }
}

fn is_what_a_new_world_plans(cluster: &Cluster, planned: &Planned) {
    let mut world = World::new(settings(cluster));
    steps::relist(cluster).into_iter().for_each(|event| {
        world.apply(event);
    });
    let fresh = world.plan(&Plan::default());
    let sorted = |plan: &Plan| plan.services.sorted().into_iter().map(|service| in_order(service)).collect::<Vec<_>>();
    assert_eq!(sorted(&planned.plan), sorted(&fresh.plan));
    assert_eq!(planned.plan.node, fresh.plan.node);
    assert_eq!(planned.counts, fresh.counts);
    assert_eq!(planned.health_checks, fresh.health_checks);
}

fn in_order(service: &Service) -> Service {
    let mut service = service.clone();
    service.pools.cluster.sort();
    service.pools.local.sort();
    service
}

fn keeps_what_stays(was: &Plan, now: &Plan) {
    for service in was.services.iter() {
        let Some(later) = now.services.get(&service.key) else { continue };
        assert!(service != later || Arc::ptr_eq(service, later), "an equal service has been replaced");
        for pool in [Pool::Cluster, Pool::Local] {
            keeps_slots(service.pools.get(pool), later.pools.get(pool));
        }
    }
}

/// Whoever stays keeps its slot, unless the pool has become too short for it.
fn keeps_slots(was: &[Endpoint], now: &[Endpoint]) {
    let slot = |pool: &[Endpoint], endpoint: &Endpoint| pool.iter().position(|other| other.addr() == endpoint.addr());
    for (old_slot, endpoint) in was.iter().enumerate() {
        if let Some(new_slot) = slot(now, endpoint) {
            assert!(new_slot == old_slot || old_slot >= now.len(), "{endpoint:?} moved from {old_slot} to {new_slot}");
        }
    }
}

fn is_well_formed(service: &Service) {
    let used = |pool| {
        let leads = |route: &Route| {
            Origin::ALL.into_iter().any(|origin| matches!(route.from(origin), Action::Forward { to, .. } if to == pool))
        };
        leads(&service.internal) || leads(&service.external)
    };
    for pool in [Pool::Cluster, Pool::Local] {
        assert_eq!(used(pool), !service.pools.get(pool).is_empty(), "{pool:?} of {service:#?}");
    }
    assert!(service.frontends.is_sorted() && !service.frontends.is_empty());
    assert!(service.serving.is_sorted());
    let of_family = |endpoint: &Endpoint| Family::of(endpoint.addr().ip()) == service.key.family;
    assert!(service.endpoints().all(of_family));
}

fn has_one_owner_for_each_address(plan: &Plan) {
    let mut taken = BTreeSet::new();
    for service in plan.services.iter() {
        for frontend in &service.frontends {
            let claim = (service.key.protocol, service.key.family, frontend.addr());
            assert!(taken.insert(claim), "{claim:?} has two owners");
        }
    }
}

/// The same history in the order and with the repetitions of a bad connection comes to the same plan; kept apart from
/// the random ones because it is short and says which events they are.
#[test]
fn late_and_repeated_events_do_no_harm() {
    let mut cluster = Cluster::default();
    let mut world = World::new(settings(&cluster));
    for event in [Event::ListEnd(Kind::Service), Event::ListBegin(Kind::Node), Event::ListBegin(Kind::Node)] {
        world.apply(event);
    }
    assert!(!world.complete());
    cluster.masquerade_all = false;
    let events = steps::relist(&cluster);
    for event in events.iter().chain(&events) {
        world.apply(event.clone());
    }
    assert!(world.complete());
    assert!(world.plan(&Plan::default()).plan.services.is_empty());
}
