use std::time::Instant;

use serde_json::{Value, json};

use super::{ApiSettings, Content, Event, Kind, Source, Timing, server_of, settings};
use crate::object::Object;

const SLICES: usize = 10_000;

/// As big as real ones: managed fields, last-applied annotation, targetRefs.
fn big_slice(at: usize) -> Value {
    let endpoint = |index: usize| {
        json!({
            "addresses": [format!("fd00:{:x}::{index:x}", at + 1)], "nodeName": format!("node-{}", at % 50), "zone": "a",
            "conditions": {"ready": true, "serving": true, "terminating": false},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": format!("pod-{at}-{index}"),
                "uid": "7a5e3f52-9d43-4a6c-8d5f-0a2b6c1d9e11"},
        })
    };
    json!({
        "kind": "EndpointSlice", "addressType": "IPv6",
        "metadata": {"namespace": "default", "name": format!("web-{at}"),
            "labels": {"kubernetes.io/service-name": format!("web-{at}")},
            "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "x".repeat(500)},
            "managedFields": [{"manager": "kube-controller-manager", "fieldsV1": {"f:endpoints": "x".repeat(700)}}]},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        "endpoints": (0..10).map(endpoint).collect::<Vec<_>>(),
    })
}

/// Greatest resident set of this process so far and the present one, in KiB.
fn resident() -> (u64, u64) {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let field = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_whitespace().nth(1)?.parse().ok()).expect("a field of /proc/self/status")
    };
    (field("VmHWM:"), field("VmRSS:"))
}

/// Prints what 100,000 endpoints cost on their way through; run alone and in release mode for meaningful figures.
#[tokio::test]
#[ignore = "a measurement: cargo test --release -p fairlead -- --ignored --nocapture memory"]
async fn ten_thousand_slices_pass_through_in_little_memory() {
    for minor in [31, 34] {
        let server = server_of(minor);
        for at in 0..SLICES {
            server.apply(big_slice(at)).expect("a name");
        }
        // Forget the greatest resident set so far.
        std::fs::write("/proc/self/clear_refs", "5").expect("the own process");
        let before = resident();
        let began = Instant::now();
        let settings = ApiSettings { timing: Timing::default(), ..settings(&server) };
        let client = settings.client().await.expect("a client");
        let mut source = Source::api(&client, &settings);
        let mut endpoints = 0;
        while let Some(message) = source.next().await {
            match message.content {
                Content::Event(Event::Apply(object)) => {
                    if let Object::EndpointSlice(slice) = *object {
                        endpoints += slice.endpoints.len();
                    }
                }
                Content::Event(Event::ListEnd(Kind::EndpointSlice)) => break,
                _ => {}
            }
        }
        let after = resident();
        println!(
            "1.{minor}: {endpoints} endpoints in {:?}; resident before {} KiB, greatest {} KiB, after {} KiB",
            began.elapsed(),
            before.1,
            after.0,
            after.1
        );
        assert_eq!(endpoints, SLICES * 10);
    }
}
