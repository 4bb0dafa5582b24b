use std::time::Duration;

use fairlead_lab::api::ApiServer;

use super::{PATIENCE, server_of, settings};
use crate::watch::{Note, Publisher, Regarding, Severity};

fn note(name: &str, reason: &str) -> Note {
    Note {
        regarding: Regarding {
            api_version: "v1".to_owned(),
            kind: "Service".to_owned(),
            namespace: "shop".to_owned(),
            name: name.to_owned(),
            uid: Some("u1".to_owned()),
        },
        severity: Severity::Warning,
        reason: reason.to_owned(),
        message: "ü".repeat(1000),
    }
}

async fn until(server: &ApiServer, count: usize) {
    let wait = async {
        while server.events().len() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.expect("the Events arrive");
}

#[tokio::test]
async fn an_event_names_object_reason_and_node_and_is_not_repeated() {
    let server = server_of(34);
    let client = settings(&server).client().await.expect("a client");
    let (publisher, _task) = Publisher::start(client, "n1");
    for _ in 0..20 {
        publisher.publish(note("web", "AddressConflict"));
    }
    publisher.publish(note("web", "BadAddress"));
    publisher.publish(Note {
        regarding: Regarding { kind: "Node".to_owned(), ..Regarding::default() },
        ..note("", "Starting")
    });
    until(&server, 3).await;
    let events = server.events();
    assert_eq!(events.len(), 3, "the same reason for the same object is said once");
    let event = events.iter().find(|event| event["reason"] == "AddressConflict").expect("it was sent");
    assert_eq!(event["regarding"]["name"], "web");
    assert_eq!(event["regarding"]["uid"], "u1");
    assert_eq!(event["metadata"]["namespace"], "shop");
    assert_eq!(event["reportingController"], "fairlead");
    assert_eq!(event["reportingInstance"], "n1");
    assert_eq!(event["type"], "Warning");
    assert!(event["note"].as_str().is_some_and(|note| note.len() <= 1024 && note.len() > 1000));
    let on_node = events.iter().find(|event| event["reason"] == "Starting").expect("it was sent");
    assert_eq!(on_node["metadata"]["namespace"], "default");
}

#[tokio::test]
async fn events_are_sent_again_after_a_failure_and_none_without_an_api_server() {
    Publisher::silent().publish(note("web", "AddressConflict"));
    let server = server_of(34);
    server.set_fault(|faults| faults.refuse = true);
    let client = settings(&server).client().await.expect("a client");
    let (publisher, _task) = Publisher::start(client, "n1");
    publisher.publish(note("web", "AddressConflict"));
    tokio::time::sleep(Duration::from_millis(300)).await;
    server.clear_faults();
    until(&server, 1).await;
}
