//! The API server fails in every way it can; the kernel goes on as it is, and what changes meanwhile arrives later.

use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use fairlead_lab::Hammer;
use fairlead_lab::api::{ApiServer, Settings};
use fairlead_plan::Family;
use serde_json::json;

use super::{can_run, frontends, service, until_answered_by, without_failure};
use crate::listing::{Listing, listing};
use crate::program::{Cluster, HEALTH_PORT, Program, eventually};

/// How long a fault lasts: long enough for several attempts of the program.
const FAULT: Duration = Duration::from_millis(1_200);

fn listings(cluster: &Cluster) -> [Listing; 2] {
    Family::BOTH.map(|family| listing(cluster.node(), family))
}

/// `web` under connections without a pause, and the program.
fn under_load(settings: Settings) -> (Cluster, Program, Hammer) {
    let cluster = Cluster::with(settings);
    cluster.serve("web", 1, &["a1", "b1"]);
    let program = cluster.start();
    let hammer = cluster.hammer("a2", 1);
    hammer.wait_for(20);
    (cluster, program, hammer)
}

/// Breaks something, changes objects meanwhile, mends it, and expects the changes to arrive and nothing else to happen.
fn survives(settings: Settings, name: &str, fault: impl Fn(&ApiServer), mend: impl Fn(&ApiServer)) {
    let (cluster, mut program, hammer) = under_load(settings);
    cluster.serve("doomed", 3, &["a1"]);
    until_answered_by(cluster.lab.place("a2"), 3, &["a1"]);
    let state = listings(&cluster);
    fault(&cluster.server);
    thread::sleep(FAULT);
    assert_eq!(listings(&cluster), state, "{name} has touched the kernel");
    cluster.serve("later", 2, &["a3"]);
    cluster.forget("doomed");
    mend(&cluster.server);
    until_answered_by(cluster.lab.place("a2"), 2, &["a3"]);
    for (protocol, to) in frontends(3) {
        let gone = || super::answers(cluster.lab.place("a2"), protocol, to) == ["silence"];
        eventually(&format!("{to} leads nowhere after {name}"), gone);
    }
    cluster.serve("web", 1, &["a1", "a3", "b1"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "a3", "b1"]);
    without_failure(hammer);
    assert!(program.is_running(), "{name} has ended the program");
    assert_eq!(program.get(HEALTH_PORT, "/livez").unwrap().0, 200, "{name}");
    assert_eq!(program.metric("fairlead_failures_total", "cause=\"sync\""), 0.0, "{name}");
}

fn each_way_to_list(name: &str, fault: impl Fn(&ApiServer) + Sync, mend: impl Fn(&ApiServer) + Sync) {
    if !can_run() {
        return;
    }
    thread::scope(|scope| {
        for streaming in [true, false] {
            let (fault, mend) = (&fault, &mend);
            let settings = Settings { streaming_lists: Some(streaming), ..Settings::default() };
            let name = format!("{name}, streaming lists: {streaming}");
            scope.spawn(move || survives(settings, &name, fault, mend));
        }
    });
}

#[test]
fn an_api_server_that_refuses_connections_leaves_traffic_alone() {
    each_way_to_list("refusing", |server| server.set_fault(|faults| faults.refuse = true), ApiServer::clear_faults);
}

#[test]
fn an_api_server_that_hangs_and_then_restarts_leaves_traffic_alone() {
    let mend = |server: &ApiServer| {
        server.clear_faults();
        server.restart();
    };
    each_way_to_list("hanging", |server| server.set_fault(|faults| faults.hang = true), mend);
}

#[test]
fn watches_that_close_or_say_nonsense_or_break_off_leave_traffic_alone() {
    let fault = |server: &ApiServer| {
        server.close_watches();
        thread::sleep(FAULT / 4);
        server.garble_watches();
        thread::sleep(FAULT / 4);
        server.restart();
    };
    each_way_to_list("closing", fault, |_| {});
}

#[test]
fn a_forgotten_history_leaves_traffic_alone_and_nothing_deleted_meanwhile_stays() {
    let fault = |server: &ApiServer| server.set_fault(|faults| faults.refuse = true);
    for gone_as_status in [false, true] {
        let mend = |server: &ApiServer| {
            server.compact();
            server.clear_faults();
            server.set_fault(|faults| faults.gone_as_status = gone_as_status);
            server.expire_watches();
        };
        each_way_to_list("410 Gone", fault, mend);
    }
}

#[test]
fn an_object_that_makes_no_sense_disturbs_no_other_and_is_counted() {
    if !can_run() {
        return;
    }
    let (cluster, program, hammer) = under_load(Settings::default());
    let nonsense = [
        json!({"kind": "Service", "metadata": {"name": "bad1"}, "spec": {"clusterIP": "10.96.0.300", "clusterIPs": ["10.96.0.300"], "ports": [{"port": 80}]}}),
        json!({"kind": "Service", "metadata": {"name": "bad2"}, "spec": {"clusterIP": "10.96.0.9", "ports": "eighty"}}),
        json!({"kind": "Service", "metadata": {"name": "bad3"}, "spec": {"clusterIP": "10.96.0.8", "clusterIPs": ["10.96.0.8"], "ports": [{"port": 70_000, "protocol": "TCP"}]}}),
        json!({"kind": "Service", "metadata": {"name": "bad4"}, "spec": [1, 2]}),
        json!({"kind": "EndpointSlice", "metadata": {"name": "bad5", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": [{"name": "t", "port": 8080, "protocol": "TCP"}], "endpoints": [{"addresses": ["pod.example"]}]}),
        json!({"kind": "EndpointSlice", "metadata": {"name": "bad6", "labels": {"kubernetes.io/service-name": "web"}},
            "addressType": "IPv4", "ports": 7, "endpoints": {}}),
        json!({"kind": "ServiceCIDR", "metadata": {"name": "bad7"}, "spec": {"cidrs": ["10.97.0.0/99"]}}),
    ];
    let bad = || {
        program.metric("fairlead_objects_rejected_total", "")
            + program.metric("fairlead_failures_total", "cause=\"input\"")
    };
    for object in nonsense {
        let (before, name) = (bad(), object["metadata"]["name"].as_str().unwrap().to_owned());
        cluster.apply([object]);
        eventually(&format!("{name} is counted"), || bad() > before);
        program.wait_for_line(&[&name]);
    }
    cluster.serve("later", 2, &["a3"]);
    until_answered_by(cluster.lab.place("a2"), 2, &["a3"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    without_failure(hammer);
    drop(program);
    // They are in the first list as well.
    let again = cluster.start();
    cluster.put(&service("later", 4));
    until_answered_by(cluster.lab.place("a2"), 4, &["a3"]);
    assert!(again.metric("fairlead_failures_total", "cause=\"input\"") > 0.0);
}

#[test]
fn a_slow_first_list_does_not_make_the_node_look_broken() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    cluster.server.set_fault(|faults| {
        faults.forbidden.insert("endpointslices".to_owned());
    });
    let program = cluster.launch(&["--iptables-sync-period=100ms"]);
    eventually("the program answers", || program.get(HEALTH_PORT, "/livez").is_ok());
    // Ten times as long as a change may wait once the lists are there.
    for _ in 0..20 {
        thread::sleep(Duration::from_millis(100));
        let (status, body) = program.get(HEALTH_PORT, "/livez").unwrap();
        assert_eq!(status, 200, "a liveness probe would now restart a program that only waits: {body}");
    }
    cluster.server.clear_faults();
    cluster.server.restart();
    program.wait_until_ready();
    until_answered_by(cluster.lab.place("a2"), 1, &["a1"]);
}

#[test]
fn an_api_server_restored_from_an_old_backup_is_followed() {
    if !can_run() {
        return;
    }
    let (mut cluster, _program, hammer) = under_load(Settings::default());
    for round in 0..50 {
        cluster.serve("later", 2, if round % 2 == 0 { &["a1"] } else { &["a3"] });
    }
    until_answered_by(cluster.lab.place("a2"), 2, &["a3"]);
    // Everything has an older version than the program has seen, and `later` was never there.
    let (address, newest) = (cluster.server.address(), cluster.server.version());
    drop(std::mem::replace(&mut cluster.server, ApiServer::on_loopback(Settings::default()).unwrap()));
    let listener = cluster.lab.node("a").run(|| TcpListener::bind(address)).unwrap();
    cluster.server = ApiServer::start(listener).unwrap();
    cluster.server.set_fault(|faults| faults.refuse = true);
    cluster.apply(cluster.lab.cluster_manifests());
    cluster.serve("web", 1, &["a1", "b1"]);
    assert!(cluster.server.version() < newest);
    cluster.server.clear_faults();
    for (protocol, to) in frontends(2) {
        let gone = || super::answers(cluster.lab.place("a2"), protocol, to) == ["silence"];
        eventually(&format!("{to} leads nowhere after the backup"), gone);
    }
    without_failure(hammer);
    cluster.serve("web", 1, &["a3"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
}
