use std::time::Duration;

use fairlead_lab::api::{ApiServer, Settings};
use serde_json::json;

use super::{Cause, Reader, reader_of, reader_with, server_of, service, settings};
use crate::{object::Kind, watch::Timing};

/// Releases with lists in pages and with streamed lists.
const RELEASES: [u32; 2] = [31, 34];

async fn with_two_services(server: &ApiServer) -> Reader {
    server.apply(service("web", "10.96.0.1")).expect("a name");
    server.apply(service("six", "fd00:96::1")).expect("a name");
    let mut reader = reader_of(server).await;
    reader.synced().await;
    watched(server, &mut reader).await;
    reader
}

/// Waits until Services are watched: a list is complete a moment before.
async fn watched(server: &ApiServer, reader: &mut Reader) {
    let wait = async {
        while server.watches("services") == 0 {
            reader.quiet(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, wait).await.expect("a watch begins");
}

#[tokio::test]
async fn watches_that_end_go_on_where_they_were_without_a_new_list() {
    for minor in RELEASES {
        let server = server_of(minor);
        let mut reader = with_two_services(&server).await;
        for at in 0..3 {
            server.close_watches();
            server.apply(service("web", &format!("10.96.1.{at}"))).expect("a name");
            let expected = format!("10.96.1.{at}");
            reader.until("the change arrives", |reader| reader.cluster_ip("web") == Some(&expected)).await;
        }
        assert_eq!(reader.lists[&Kind::Service], 1, "1.{minor}");
        assert_eq!((reader.deletions, reader.problems.len()), (0, 0), "1.{minor}: {:?}", reader.problems);
    }
}

#[tokio::test]
async fn a_restart_of_the_server_loses_nothing_and_deletes_nothing() {
    for minor in RELEASES {
        let server = server_of(minor);
        let mut reader = with_two_services(&server).await;
        server.set_fault(|faults| faults.refuse = true);
        reader.until("the loss is reported", |reader| reader.count(Cause::Connection) > 4).await;
        server.apply(service("web", "10.96.0.9")).expect("a name");
        server.delete("Service", "default", "six").expect("the kind");
        server.clear_faults();
        reader.until("the change arrives", |reader| reader.cluster_ip("web") == Some("10.96.0.9")).await;
        reader.until("the deletion arrives", |reader| reader.service("six").is_none()).await;
        assert_eq!((reader.lists[&Kind::Service], reader.deletions), (1, 1), "1.{minor}");
    }
}

#[tokio::test]
async fn a_forgotten_version_leads_to_a_new_list_whichever_way_the_server_says_it() {
    for minor in RELEASES {
        for as_status in [false, true] {
            let server = server_of(minor);
            let mut reader = with_two_services(&server).await;
            server.set_fault(|faults| {
                faults.refuse = true;
                faults.gone_as_status = as_status;
            });
            server.delete("Service", "default", "six").expect("the kind");
            server.apply(service("db", "10.96.0.2")).expect("a name");
            server.compact();
            server.set_fault(|faults| faults.refuse = false);
            reader.until("the list is made again", |reader| reader.lists[&Kind::Service] == 2).await;
            assert_eq!(reader.names(), ["Service default/db", "Service default/web"], "1.{minor}");
            assert_eq!(reader.deletions, 1, "1.{minor}: only what is really gone");
            assert!(reader.count(Cause::Expired) >= 1);
        }
    }
}

#[tokio::test]
async fn an_error_event_410_in_a_running_watch_leads_to_a_new_list() {
    for minor in RELEASES {
        let server = server_of(minor);
        let mut reader = with_two_services(&server).await;
        server.expire_watches();
        reader.until("the list is made again", |reader| reader.lists[&Kind::Service] == 2).await;
        server.apply(service("web", "10.96.0.9")).expect("a name");
        reader.until("changes arrive", |reader| reader.cluster_ip("web") == Some("10.96.0.9")).await;
        assert_eq!(reader.deletions, 0, "1.{minor}");
    }
}

#[tokio::test]
async fn pages_that_expire_begin_the_list_again_and_delete_nothing() {
    let server = server_of(31);
    for at in 0..1100 {
        server.apply(service(&format!("s{at:04}"), "10.96.0.1")).expect("a name");
    }
    let mut reader = reader_of(&server).await;
    reader.synced().await;
    watched(&server, &mut reader).await;
    server.set_fault(|faults| faults.slow_lists = Duration::from_millis(50));
    server.forget_requests();
    server.expire_watches();
    let pages =
        |server: &ApiServer| server.requests().iter().filter(|request| request.uri.contains("continue=")).count();
    while pages(&server) == 0 {
        reader.quiet(Duration::from_millis(5)).await;
    }
    server.compact();
    reader.until("the list is made again", |reader| reader.lists[&Kind::Service] == 2).await;
    assert_eq!((reader.objects.len(), reader.deletions), (1100, 0));
}

#[tokio::test]
async fn nonsense_in_a_watch_is_reported_and_the_watch_goes_on() {
    let server = server_of(34);
    let mut reader = with_two_services(&server).await;
    server.garble_watches();
    reader.until("it is reported", |reader| reader.count(Cause::Connection) >= 1).await;
    server.apply(service("web", "10.96.0.9")).expect("a name");
    reader.until("changes arrive", |reader| reader.cluster_ip("web") == Some("10.96.0.9")).await;
    assert_eq!((reader.lists[&Kind::Service], reader.deletions), (1, 0));
}

#[tokio::test]
async fn a_watch_that_falls_silent_is_begun_again() {
    let every = Settings { bookmark_every: Duration::from_millis(50), ..Settings::default() };
    let server = ApiServer::on_loopback(every).expect("a server");
    server.apply(service("web", "10.96.0.1")).expect("a name");
    let timing = Timing { silence: Duration::from_millis(400), answer: Duration::from_millis(400), ..super::quick() };
    let mut reader = reader_with(&crate::watch::ApiSettings { timing, ..settings(&server) }).await;
    reader.synced().await;
    reader.quiet(Duration::from_millis(200)).await;
    server.set_fault(|faults| faults.hang = true);
    reader.until("the silence is noticed", |reader| reader.count(Cause::Connection) >= 8).await;
    server.apply(service("web", "10.96.0.9")).expect("a name");
    server.clear_faults();
    reader.until("changes arrive", |reader| reader.cluster_ip("web") == Some("10.96.0.9")).await;
    assert_eq!((reader.lists[&Kind::Service], reader.deletions), (1, 0));
}

#[tokio::test]
async fn a_resource_that_is_forbidden_is_asked_for_until_it_is_allowed() {
    let server = server_of(34);
    server.apply(service("web", "10.96.0.1")).expect("a name");
    server.set_fault(|faults| {
        faults.forbidden.insert("services".to_owned());
        faults.forbidden.insert("servicecidrs".to_owned());
    });
    let mut reader = reader_of(&server).await;
    reader.until("it is reported", |reader| reader.count(Cause::Refused) > 3).await;
    assert!(!reader.lists.contains_key(&Kind::Service), "no list is complete that was not read");
    reader.until("service CIDRs are not needed", |reader| reader.lists.contains_key(&Kind::ServiceCidr)).await;
    server.clear_faults();
    reader.until("then it is read", |reader| reader.service("web").is_some()).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_yet_is_waited_for() {
    let listener = std::net::TcpListener::bind("[::1]:0").expect("a port of ::1");
    let address = listener.local_addr().expect("an address");
    drop(listener);
    let settings = crate::watch::ApiSettings {
        kubeconfig: None,
        master: Some(format!("http://{address}")),
        nodes: crate::watch::NodeScope::All,
        timing: super::quick(),
    };
    let mut reader = reader_with(&settings).await;
    reader.until("it is reported", |reader| reader.count(Cause::Connection) > 4).await;
    assert!(reader.problems[0].what.contains("refused"), "{:?}", reader.problems[0]);
    let listener = std::net::TcpListener::bind(address).expect("the port is free");
    let server = ApiServer::start(listener).expect("a server");
    server.apply(json!({"kind": "Node", "metadata": {"name": "n1"}})).expect("a name");
    reader.synced().await;
    assert_eq!(reader.names(), ["Node n1"]);
}

#[tokio::test]
async fn a_server_restored_from_a_backup_is_listed_again() {
    for minor in RELEASES {
        let server = server_of(minor);
        let address = server.address();
        for _ in 0..50 {
            server.apply(service("gone", "10.96.0.7")).expect("a name");
        }
        let mut reader = with_two_services(&server).await;
        drop(server);
        let listener = std::net::TcpListener::bind(address).expect("the port is free again");
        let server = ApiServer::start_with(listener, Settings { minor, ..Settings::default() }).expect("a server");
        server.apply(service("web", "10.96.0.1")).expect("a name");
        reader.until("it is listed again", |reader| reader.lists[&Kind::Service] == 2).await;
        assert_eq!(reader.names(), ["Service default/web"], "1.{minor}");
    }
}

/// The kernel's list of TCP connections: whether one to this port has a keepalive timer running.
fn probes_its_peer(port: u16) -> bool {
    const ESTABLISHED: &str = "01";
    const KEEPALIVE: &str = "02:";
    let connections = std::fs::read_to_string("/proc/self/net/tcp").expect("/proc is mounted");
    connections.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, _, remote, state, _, timer, ..] = fields.as_slice() else { return false };
        remote.ends_with(&format!(":{port:04X}")) && *state == ESTABLISHED && timer.starts_with(KEEPALIVE)
    })
}

#[tokio::test]
async fn a_peer_that_vanishes_without_a_word_is_asked_for_signs_of_life() {
    let server = server_of(34);
    let mut reader = with_two_services(&server).await;
    let wait = async {
        while !probes_its_peer(server.address().port()) {
            reader.quiet(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(super::PATIENCE, wait).await.expect("a keepalive timer runs");
}
