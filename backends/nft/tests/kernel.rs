//! The backend on a real kernel, in network namespaces of its own.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::sync::Arc;

use fairlead_kernel::nft::Nft;
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Family, LocalTraffic, Plan, Protocol};

use namespace::{alone, load, nft};

fn ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "ip",
        Family::V6 => "ip6",
    }
}

#[test]
fn the_listing_loads_back_and_lists_the_same() {
    alone(|| {
        NftBackend::new().sync(None, &sample::everything()).expect("the kernel takes it");
        let listing = nft(&["list", "ruleset"]);
        nft(&["flush", "ruleset"]);
        load(&listing);
        assert_eq!(listing, nft(&["list", "ruleset"]));
    });
}

#[test]
fn what_nft_makes_of_our_text_is_what_we_write_ourselves() {
    alone(|| {
        let plan = sample::everything();
        let mut backend = NftBackend::new();
        backend.sync(None, &plan).expect("the kernel takes it");
        load(&fairlead_nft::text(&plan));
        let report = backend.sync(None, &plan).expect("the kernel takes it");
        // nft adds a byte-order step of zero bytes in front of a look-up in ranges; the rule means the same.
        let only = Family::BOTH.map(|family| format!("rules changed in {} fairlead: services", ip(family)));
        assert_eq!(report.repaired, only);
    });
}

#[test]
fn a_second_start_writes_nothing() {
    alone(|| {
        let plan = sample::everything();
        let first = NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        assert!(first.writes > 100, "{first:?}");
        let mut again = NftBackend::new();
        let second = again.sync(None, &plan).expect("the kernel takes it");
        assert_eq!(second.writes, 0, "{second:?}");
        assert_eq!(first.held, second.held);
        let third = again.sync(Some(&plan), &plan).expect("the kernel takes it");
        assert_eq!(third.writes, 0, "{third:?}");
    });
}

#[test]
fn a_table_of_another_layout_becomes_ours_and_still_knows_its_clients() {
    alone(|| {
        let plan = sample::everything();
        load(&fairlead_nft::text(&plan).replace("np-frontends", "np-all").replace("np-local", "np-here"));
        let listed = nft(&["list", "table", "ip", "fairlead"]);
        let mut maps = listed.lines().filter_map(|line| line.trim().strip_prefix("map "));
        let memory = maps.find(|name| name.starts_with("affinity-")).expect("a service of the sample has affinity");
        let client = "192.0.2.99";
        let element = format!("{{ {client} timeout 60s : 8000:1 }}");
        nft(&["add", "element", "ip", "fairlead", memory.trim_end_matches(" {"), &element]);
        NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        let now = nft(&["list", "ruleset"]);
        assert!(!now.contains("np-all") && !now.contains("np-here"), "{now}");
        assert!(now.contains(client), "{now}");
        let again = NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        assert_eq!(again.writes, 0, "{again:?}");
    });
}

/// Law: the way to a plan does not matter.
#[test]
fn every_step_ends_where_a_start_from_nothing_ends() {
    alone(|| {
        let mut backend = NftBackend::new();
        let mut was: Option<Plan> = None;
        for (step, now) in journey().into_iter().enumerate() {
            let stepped = backend.sync(was.as_ref(), &now).expect("the kernel takes it");
            let fresh = NftBackend::new().sync(None, &now).expect("the kernel takes it");
            assert_eq!(fresh.writes, 0, "step {step} left a difference: {fresh:?}\n{}", nft(&["list", "ruleset"]));
            assert_eq!(stepped.held, fresh.held, "step {step}");
            was = Some(now);
        }
    });
}

/// Plans, each one step from the one before.
fn journey() -> Vec<Plan> {
    let start = sample::everything();
    let mut plans = vec![Plan { node: Arc::clone(&start.node), ..Plan::default() }, start.clone()];
    let mut step = |change: &mut dyn FnMut(&mut Plan)| {
        let mut plan = plans.last().cloned().unwrap_or_default();
        change(&mut plan);
        plans.push(plan);
    };
    for family in Family::BOTH {
        let few = |count| (1..=count).map(|n| sample::endpoint(family, n, n == 1)).collect::<Vec<_>>();
        let mut put = |name: &str, count: u16| {
            step(&mut |plan| {
                let service = sample::service(family, name, 1, Protocol::Tcp, few(count));
                plan.services.insert(Arc::new(service));
            });
        };
        for (name, count) in [("plain", 2), ("plain", 17), ("plain", 18), ("plain", 0), ("plain", 40), ("plain", 3)] {
            put(name, count);
        }
        // The chain for 40 changes hands within one step.
        step(&mut |plan| {
            plan.services.insert(Arc::new(sample::service(family, "many", 3, Protocol::Tcp, few(2))));
            plan.services.insert(Arc::new(sample::service(family, "plain", 1, Protocol::Tcp, few(40))));
        });
        let sticky = start.services.iter().find(|s| s.affinity.is_some() && s.key.family == family).expect("one is");
        for count in [1, 2, 5, 0] {
            step(&mut |plan| {
                let mut service = (**sticky).clone();
                service.pools.cluster = few(count);
                if count == 0 {
                    service.internal = fairlead_plan::Route::all(fairlead_plan::Action::Reject);
                    service.external = service.internal;
                }
                plan.services.insert(Arc::new(service));
            });
        }
        step(&mut |plan| {
            plan.services.remove(&sticky.key);
        });
    }
    for local_traffic in [
        LocalTraffic::Unknown,
        LocalTraffic::Interface("cni0".into()),
        LocalTraffic::InterfacePrefix("veth".into()),
        LocalTraffic::Sources(vec![sample::net("10.244.7.0/24"), sample::net("10.244.8.0/23"), sample::net("::/0")]),
    ] {
        step(&mut |plan| {
            let node = fairlead_plan::Node { local_traffic: local_traffic.clone(), ..(*plan.node).clone() };
            plan.node = Arc::new(node);
        });
    }
    step(&mut |plan| plan.services = fairlead_plan::Services::default());
    plans
}

/// More changes than one transaction carries, and every service takes the address of its neighbour.
#[test]
fn addresses_pass_from_service_to_service_across_transactions() {
    const COUNT: u16 = 2_000;
    let plan = |shift: u16, endpoints: u16| {
        let services = Family::BOTH.into_iter().flat_map(move |family| {
            (0..COUNT).map(move |number| {
                let endpoint = sample::endpoint(family, 1 + number % endpoints, false);
                let ip = 1 + (number + shift) % COUNT;
                sample::service(family, &format!("service-{number}"), ip, Protocol::Tcp, vec![endpoint])
            })
        });
        Plan { node: Arc::new(sample::node()), services: services.collect() }
    };
    // Neighbours with the same endpoint mean the same by an address, others do not.
    for endpoints in [1, 200] {
        alone(|| {
            let (was, now) = (plan(0, endpoints), plan(1, endpoints));
            let mut backend = NftBackend::new();
            backend.sync(None, &was).expect("the kernel takes it");
            backend.sync(Some(&was), &now).expect("the kernel takes it");
            let again = NftBackend::new().sync(None, &now).expect("the kernel takes it");
            assert_eq!(again.writes, 0, "{again:?}");
        });
    }
}

#[test]
fn cleanup_leaves_nothing_of_ours_and_everything_of_others() {
    alone(|| {
        load(
            "table inet other { set s { type ipv4_addr; elements = { 10.0.0.1 } }\n chain c { ip saddr @s drop; }\n}\n",
        );
        let before = nft(&["list", "ruleset"]);
        let mut backend = NftBackend::new();
        backend.sync(None, &sample::everything()).expect("the kernel takes it");
        let during = nft(&["list", "table", "inet", "other"]);
        backend.cleanup().expect("it goes");
        assert_eq!(nft(&["list", "ruleset"]), before);
        assert_eq!(during.trim(), before.trim());
    });
}

#[test]
fn whatever_somebody_else_takes_away_comes_back() {
    let damages: [&[&str]; 7] = [
        &["flush", "ruleset"],
        &["delete", "table", "ip6", "fairlead"],
        &["flush", "chain", "ip", "fairlead", "services"],
        &["flush", "map", "ip", "fairlead", "endpoints"],
        &["flush", "set", "ip6", "fairlead", "cluster-ips"],
        &["add", "rule", "ip", "fairlead", "services", "drop"],
        &["add", "element", "ip", "fairlead", "cluster-ips", "{ 10.9.9.9 }"],
    ];
    alone(|| {
        let plan = sample::everything();
        let mut backend = NftBackend::new();
        backend.sync(None, &plan).expect("the kernel takes it");
        for damage in damages {
            nft(damage);
            let report = backend.sync(None, &plan).expect("the kernel takes it");
            assert!(!report.repaired.is_empty(), "{damage:?} was not told");
            let again = NftBackend::new().sync(None, &plan).expect("the kernel takes it");
            assert_eq!(again.writes, 0, "{damage:?} was not repaired: {again:?}");
        }
    });
}

#[test]
fn transactions_of_others_are_told_from_our_own_by_the_generation() {
    alone(|| {
        let mut backend = NftBackend::new();
        let (ours, mut reader) = (backend.ours(), Nft::open().expect("a socket"));
        let plan = sample::everything();
        backend.sync(None, &plan).expect("the kernel takes it");
        backend.sync(Some(&plan), &Plan::default()).expect("the kernel takes it");
        assert_eq!(ours.generation(), reader.generation().expect("a generation"));
        nft(&["add", "table", "ip", "other"]);
        assert_ne!(ours.generation(), reader.generation().expect("a generation"));
        backend.sync(None, &plan).expect("the kernel takes it");
        assert_eq!(ours.generation(), reader.generation().expect("a generation"));
    });
}
