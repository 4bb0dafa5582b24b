//! What a new process makes of the state that an earlier one has left.

use std::thread;
use std::time::Duration;

use fairlead_lab::probe;
use fairlead_plan::Family;

use super::{
    PROTOCOLS, answers, can_run, elements, frontend, frontends, service, slice, until_answered_by, without_failure,
};
use crate::listing::{Listing, listing};
use crate::program::{Cluster, eventually, tables};

/// Longer than the program needs to start and to make a mistake.
const WHILE: Duration = Duration::from_millis(1_500);

fn listings(cluster: &Cluster) -> [Listing; 2] {
    Family::BOTH.map(|family| listing(cluster.node(), family))
}

#[test]
fn services_that_were_deleted_while_it_was_down_are_gone_after_the_start() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let (before, mut states) = (cluster.start(), Vec::new());
    states.push(listings(&cluster));
    cluster.serve("old", 2, &["a1"]);
    cluster.put(&service("sticky", 3).sticky(600));
    cluster.put_slice(&slice("sticky", &["a1", "a3"]));
    cluster.put_slice(&slice("web", &["a1", "a3", "b1"]));
    for (host, pods) in [(1, &["a1", "a3", "b1"][..]), (2, &["a1"])] {
        until_answered_by(cluster.lab.place("a2"), host, pods);
    }
    for (protocol, to) in frontends(3) {
        eventually("the sticky service answers", || answers(cluster.lab.place("a2"), protocol, to).len() == 1);
    }
    before.kill();
    cluster.forget("old");
    cluster.forget("sticky");
    cluster.put_slice(&slice("web", &["a1", "b1"]));
    let _after = cluster.start();
    states.push(listings(&cluster));
    assert_eq!(states[0], states[1], "what is left over");
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    for (protocol, to) in frontends(2) {
        assert_eq!(answers(cluster.lab.place("a2"), protocol, to), ["silence"], "{protocol} {to}");
    }
}

#[test]
fn a_restart_over_an_unchanged_cluster_writes_nothing_and_keeps_affinity() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    cluster.put(&service("sticky", 2).sticky(600).load_balancer(2));
    cluster.put_slice(&slice("sticky", &["a1", "a3", "b1"]));
    let before = cluster.start();
    let client = cluster.lab.place("a2");
    let chosen = || frontends(2).into_iter().map(|(protocol, to)| probe(client, protocol, to)).map(endpoint);
    let first: Vec<String> = chosen().collect();
    let (state, remembered) = (listings(&cluster), memories(&cluster));
    assert!(remembered.iter().all(|clients| !clients.is_empty()), "{remembered:?}");
    before.kill();
    let after = cluster.start();
    assert_eq!(after.metric("fairlead_writes_total", ""), 0.0, "objects written although nothing has changed");
    assert_eq!(after.metric("fairlead_repairs_total", ""), 0.0);
    assert_eq!(state, listings(&cluster));
    assert_eq!(remembered, memories(&cluster));
    for _ in 0..10 {
        assert_eq!(chosen().collect::<Vec<_>>(), first);
    }
}

fn endpoint(outcome: fairlead_lab::Outcome) -> String {
    match outcome {
        fairlead_lab::Outcome::Reached { endpoint, .. } => endpoint,
        other => panic!("{other:?}"),
    }
}

/// The clients that each affinity map remembers, with their endpoints.
fn memories(cluster: &Cluster) -> Vec<Vec<String>> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        for (protocol, port) in PROTOCOLS.iter().zip(["t", "u"]) {
            let map = elements(cluster.node(), family, &format!("affinity-default/sticky/{protocol}/{port}"));
            let pair = |element: &serde_json::Value| format!("{} {}", element[0]["elem"]["val"], element[1]);
            let mut pairs: Vec<_> = map.as_array().map(|all| all.iter().map(pair).collect()).unwrap_or_default();
            pairs.sort();
            all.push(pairs);
        }
    }
    all
}

#[test]
fn told_to_stop_it_ends_cleanly_and_leaves_the_kernel_as_it_is() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let program = cluster.start();
    let hammer = cluster.hammer("a2", 1);
    hammer.wait_for(50);
    let state = listings(&cluster);
    let status = program.terminate();
    assert!(status.success(), "{status}");
    hammer.wait_for(200);
    without_failure(hammer);
    assert_eq!(state, listings(&cluster));
}

#[test]
fn nothing_is_programmed_before_all_first_lists_are_complete() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    cluster.server.set_fault(|faults| faults.slow_lists = NEVER_ENDING);
    let program = cluster.launch(&[]);
    thread::sleep(WHILE);
    assert_eq!(tables(cluster.node()), [false, false], "a table before the lists were complete");
    assert_eq!(program.get(crate::program::HEALTH_PORT, "/readyz").unwrap().0, 503);
    cluster.server.clear_faults();
    cluster.server.restart();
    program.wait_until_ready();
    until_answered_by(cluster.lab.place("a2"), 1, &["a1"]);
}

/// A list that takes so long is not answered within a test.
const NEVER_ENDING: Duration = Duration::from_secs(3_600);

#[test]
fn a_restart_with_one_list_missing_leaves_the_old_tables_untouched() {
    if !can_run() {
        return;
    }
    for missing in ["services", "endpointslices", "nodes"] {
        let cluster = Cluster::new();
        cluster.serve("web", 1, &["a1", "b1"]);
        cluster.start().kill();
        let state = listings(&cluster);
        let hammer = cluster.hammer("a2", 1);
        cluster.serve("new", 2, &["a1"]);
        cluster.server.set_fault(|faults| {
            faults.forbidden.insert(missing.to_owned());
        });
        let program = cluster.launch(&[]);
        thread::sleep(WHILE);
        assert_eq!(state, listings(&cluster), "the table has changed without the list of {missing}");
        assert!(!program.is_ready(), "ready without the list of {missing}");
        let waiting = |what: &str| program.metric(&format!("kubeproxy_sync_proxy_rules_{what}_changes_pending"), "");
        assert_eq!(waiting("service") > 0.0, missing != "services", "Services that wait for the list of {missing}");
        assert_eq!(
            waiting("endpoint") > 0.0,
            missing != "endpointslices",
            "slices that wait for the list of {missing}"
        );
        cluster.server.clear_faults();
        cluster.server.restart();
        program.wait_until_ready();
        until_answered_by(cluster.lab.place("a2"), 2, &["a1"]);
        eventually("nothing waits", || waiting("service") + waiting("endpoint") == 0.0);
        without_failure(hammer);
        let silent = answers(cluster.lab.place("a2"), PROTOCOLS[0], frontend(3, Family::V6));
        assert_eq!(silent, ["silence"]);
    }
}
