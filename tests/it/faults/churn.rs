//! Services that come, go and change while the program runs.

use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{cluster_ip, external_ip};
use fairlead_plan::{Family, Protocol};

use super::{answers, can_run, service, slice, until_answered_by, without_failure};
use crate::listing::listing;
use crate::program::{Cluster, HEALTH_PORT, eventually, http_get};

/// Waits until exactly these answer.
fn until(cluster: &Cluster, from: &str, protocol: Protocol, to: std::net::SocketAddr, who: &[&str]) {
    let what = format!("{who:?} answer {from} at {protocol} {to}");
    eventually(&what, || answers(cluster.lab.place(from), protocol, to) == who);
}

#[test]
fn services_and_ports_are_added_removed_and_renumbered_and_names_used_again() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    let _program = cluster.start();
    let empty = Family::BOTH.map(|family| listing(cluster.node(), family));
    let at = |port: u16, family: Family| (cluster_ip(1).of(family), port).into();
    let put = |service: Service| cluster.put(&service);
    let all = |port: u16, who: &[&str]| {
        for family in Family::BOTH {
            until(&cluster, "a2", Protocol::Tcp, at(port, family), who);
        }
    };
    let base = || Service::new("web").cluster_ip(1);
    cluster.put_slice(&Slice::of("web").tcp("t", 8080).tcp("second", 8081).ready(&["a1"]));
    put(base().port(Port::tcp(80).named("t")));
    all(80, &["a1"]);
    all(81, &["refused"]);
    put(base().port(Port::tcp(80).named("t")).port(Port::tcp(81).named("second")));
    all(81, &["a1:8081"]);
    all(80, &["a1"]);
    put(base().port(Port::tcp(8000).named("t")).port(Port::tcp(81).named("second")));
    all(8000, &["a1"]);
    all(80, &["refused"]);
    // The two names change places.
    put(base().port(Port::tcp(8000).named("second")).port(Port::tcp(81).named("t")));
    all(8000, &["a1:8081"]);
    all(81, &["a1"]);
    put(base().port(Port::tcp(81).named("t")));
    all(8000, &["refused"]);
    cluster.server.delete("Service", "default", "web").unwrap();
    all(81, &["silence"]);
    // The same name with another address, then the old address for another name.
    put(Service::new("web").cluster_ip(2).port(Port::tcp(80).named("t")));
    cluster.serve("other", 1, &["a3"]);
    all(80, &["a3"]);
    for family in Family::BOTH {
        until(&cluster, "a2", Protocol::Tcp, (cluster_ip(2).of(family), 80).into(), &["a1"]);
    }
    cluster.server.delete("Service", "default", "web").unwrap();
    put(base().cluster_ip(3).port(Port::tcp(80).named("t")));
    cluster.forget("other");
    all(80, &["silence"]);
    cluster.forget("web");
    eventually("nothing is left", || Family::BOTH.map(|family| listing(cluster.node(), family)) == empty);
}

#[test]
fn health_check_node_ports_answer_with_the_number_of_local_endpoints() {
    if !can_run() {
        return;
    }
    const CHECK: u16 = 32_100;
    let cluster = Cluster::new();
    let local = || service("lb", 1).load_balancer(1).external_local().spec("healthCheckNodePort", CHECK);
    cluster.put(&local());
    cluster.put_slice(&slice("lb", &["a1", "a3", "b1"]));
    let program = cluster.start();
    let ask = |family| {
        let to = (cluster.node().addr(family), CHECK).into();
        cluster.lab.place("outside").run(|| http_get(to, "/")).ok()
    };
    let until_says = |status: u16, count: usize| {
        for family in Family::BOTH {
            let body = format!("\"localEndpoints\":{count}");
            let says =
                || ask(family).is_some_and(|(code, text)| code == status && text.replace(' ', "").contains(&body));
            eventually(&format!("port {CHECK} says {status} with {count} local endpoints ({})", family.label()), says);
        }
    };
    until_says(200, 2);
    cluster.put_slice(&slice("lb", &["a1", "b1"]));
    until_says(200, 1);
    // An endpoint on its way out still serves, but asks for no new connections.
    let leaving = fairlead_lab::objects::Endpoint::at("a1").terminating(true);
    cluster.put_slice(&slice("lb", &["b1"]).endpoint(leaving));
    until_says(503, 0);
    for family in Family::BOTH {
        until(&cluster, "outside", Protocol::Tcp, (external_ip(1).of(family), 80).into(), &["a1"]);
    }
    cluster.put_slice(&slice("lb", &["a3", "b1"]));
    until_says(200, 1);
    cluster.put(&service("lb", 1).load_balancer(1));
    for family in Family::BOTH {
        eventually("the port is closed", || ask(family).is_none());
    }
    cluster.put(&local());
    until_says(200, 1);
    assert_eq!(program.get(HEALTH_PORT, "/healthz").unwrap().0, 200);
}

#[test]
fn of_two_services_with_one_external_ip_the_older_wins_until_it_goes() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    let old = service("b-old", 1).external_ip(1).created("2024-01-01T00:00:00Z");
    let young = service("a-young", 2).external_ip(1).created("2025-01-01T00:00:00Z");
    cluster.put(&young);
    cluster.put_slice(&slice("a-young", &["a1"]));
    cluster.put_slice(&slice("b-old", &["a3"]));
    let program = cluster.start();
    let all = |who: &[&str]| {
        for family in Family::BOTH {
            for protocol in super::PROTOCOLS {
                until(&cluster, "outside", protocol, (external_ip(1).of(family), 80).into(), who);
            }
        }
    };
    let conflicts = || program.metric("fairlead_frontend_conflicts", "");
    all(&["a1"]);
    assert_eq!(conflicts(), 0.0);
    cluster.put(&old);
    all(&["a3"]);
    // TCP and UDP, both families.
    eventually("the conflicts are counted", || conflicts() == 4.0);
    eventually("an Event says so", || {
        cluster.server.events().iter().any(|event| {
            event["regarding"]["name"] == "a-young" && event["note"].as_str().is_some_and(|note| note.contains("b-old"))
        })
    });
    until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
    until_answered_by(cluster.lab.place("a2"), 2, &["a1"]);
    // Endpoints of the loser change nothing for the winner.
    cluster.put_slice(&slice("a-young", &["b1"]));
    until_answered_by(cluster.lab.place("a2"), 2, &["b1"]);
    all(&["a3"]);
    cluster.server.delete("Service", "default", "b-old").unwrap();
    all(&["b1"]);
    eventually("no conflict is left", || conflicts() == 0.0);
    cluster.put(&old);
    all(&["a3"]);
    drop(program);
    let again = cluster.start();
    assert_eq!(again.metric("fairlead_writes_total", ""), 0.0, "the winner is another after a restart");
    all(&["a3"]);
}

#[test]
fn a_rolling_update_behind_a_load_balancer_loses_no_connection() {
    if !can_run() {
        return;
    }
    std::thread::scope(|scope| {
        scope.spawn(|| roll(false));
        scope.spawn(|| roll(true));
    });
}

/// Replaces endpoint by endpoint, again and again, as a Deployment does: a new one, then the old one leaves and still
/// serves, then it is gone when its connections are.
fn roll(local: bool) {
    use fairlead_lab::objects::Endpoint;
    /// How long an endpoint that leaves serves on: `terminationGracePeriodSeconds`, shortened.
    const GRACE: std::time::Duration = std::time::Duration::from_millis(300);
    let cluster = Cluster::new();
    let lb = service("lb", 1).load_balancer(1);
    cluster.put(&if local { lb.external_local() } else { lb });
    let pods = ["a1", "a2", "a3"];
    cluster.put_slice(&slice("lb", &["a1"]));
    let _program = cluster.start();
    let targets: Vec<_> = Family::BOTH
        .into_iter()
        .flat_map(|family| super::PROTOCOLS.map(|protocol| (protocol, (external_ip(1).of(family), 80).into())))
        .collect();
    let hammer = fairlead_lab::Hammer::start(cluster.lab.place("outside"), &targets).unwrap();
    hammer.wait_for(20);
    let end = |port| Slice::of("lb").tcp("t", port).udp("u", port);
    for step in 0..12 {
        let (old, new) = (pods[step % 3], pods[(step + 1) % 3]);
        cluster.put_slice(&slice("lb", &[old, new]));
        hammer.wait_for(20);
        cluster
            .put_slice(&end(super::TARGET).endpoint(Endpoint::at(old).terminating(true)).endpoint(Endpoint::at(new)));
        hammer.wait_for(20);
        std::thread::sleep(GRACE);
        cluster.put_slice(&slice("lb", &[new]));
        hammer.wait_for(20);
    }
    let tally = without_failure(hammer);
    assert_eq!(tally.endpoints.len(), pods.len(), "{:?}", tally.endpoints);
}
