use std::time::Duration;

use fairlead_lab::api::{ApiServer, Settings};
use serde_json::json;

use super::{Cause, reader_of, reader_with, server_of, service, settings};
use crate::{
    object::{Kind, Object},
    watch::{NodeScope, Timing},
};

#[tokio::test]
async fn every_release_gives_complete_lists_and_then_changes() {
    for minor in [27, 31, 32, 33, 34, 37] {
        let server = server_of(minor);
        for at in 0..1203 {
            server.apply(service(&format!("s{at:04}"), &format!("fd00:96::{at:x}"))).expect("a name");
        }
        server.apply(json!({"kind": "Node", "metadata": {"name": "n1"}})).expect("a name");
        server.apply(json!({"kind": "Node", "metadata": {"name": "n2"}})).expect("a name");
        let mut reader = reader_of(&server).await;
        reader.synced().await;
        assert_eq!(reader.objects.len(), 1203 + 1, "1.{minor}: other nodes are not asked for");
        assert_eq!(reader.problems, [], "1.{minor}");
        let lists = server.requests().iter().filter(|request| request.verb == "list").count();
        assert_eq!(lists == 0, minor >= 32, "1.{minor}: lists are streamed where the server does it");

        server.apply(service("s0000", "10.96.0.1")).expect("a name");
        server.delete("Service", "default", "s0001").expect("the kind");
        server.apply(service("new", "10.96.0.2")).expect("a name");
        reader.until("changes arrive", |reader| reader.service("new").is_some()).await;
        assert_eq!(reader.cluster_ip("s0000"), Some("10.96.0.1"), "1.{minor}");
        assert_eq!(reader.service("s0001"), None, "1.{minor}");
        assert_eq!(reader.deletions, 1, "1.{minor}");
    }
}

#[tokio::test]
async fn the_server_selects_and_labels_that_change_let_objects_enter_and_leave() {
    let server = server_of(34);
    let mut proxied = service("proxied", "10.96.0.1");
    proxied["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": "other"});
    server.apply(proxied.clone()).expect("a name");
    server.apply(service("headless", "None")).expect("a name");
    server
        .apply(json!({"kind": "EndpointSlice", "metadata": {"name": "h",
            "labels": {"service.kubernetes.io/headless": ""}}, "addressType": "IPv6"}))
        .expect("a name");
    server.apply(json!({"kind": "EndpointSlice", "metadata": {"name": "s"}, "addressType": "IPv6"})).expect("a name");
    let mut reader = reader_of(&server).await;
    reader.synced().await;
    assert_eq!(reader.names(), ["EndpointSlice default/s"]);

    server.apply(service("proxied", "10.96.0.1")).expect("a name");
    reader.until("the service enters", |reader| reader.service("proxied").is_some()).await;
    server.apply(proxied).expect("a name");
    reader.until("the service leaves", |reader| reader.service("proxied").is_none()).await;
}

#[tokio::test]
async fn all_nodes_are_asked_for_where_the_overlay_needs_them() {
    let server = server_of(34);
    for name in ["n1", "n2"] {
        server.apply(json!({"kind": "Node", "metadata": {"name": name}})).expect("a name");
    }
    let mut reader = reader_with(&crate::watch::ApiSettings { nodes: NodeScope::All, ..settings(&server) }).await;
    reader.synced().await;
    assert_eq!(reader.names(), ["Node n1", "Node n2"]);
}

#[tokio::test]
async fn a_server_that_does_not_stream_lists_as_it_should_is_asked_for_pages() {
    let off = Settings { minor: 33, streaming_lists: Some(false), ..Settings::default() };
    let server = ApiServer::on_loopback(off).expect("a server");
    server.apply(service("web", "10.96.0.1")).expect("a name");
    let mut reader = reader_of(&server).await;
    reader.synced().await;
    assert!(reader.service("web").is_some());
    assert_eq!(reader.count(Cause::ListFallback), 4, "{:?}", reader.problems);

    let server = server_of(34);
    server.apply(service("web", "10.96.0.1")).expect("a name");
    server.set_fault(|faults| faults.drop_bookmarks = true);
    let timing = Timing { streamed_list: Duration::from_millis(300), ..super::quick() };
    let mut reader = reader_with(&crate::watch::ApiSettings { timing, ..settings(&server) }).await;
    reader.synced().await;
    assert!(reader.service("web").is_some());
    assert_eq!((reader.count(Cause::ListFallback), reader.deletions), (4, 0), "{:?}", reader.problems);
    server.apply(service("db", "10.96.0.2")).expect("a name");
    reader.until("changes arrive without bookmarks", |reader| reader.service("db").is_some()).await;
}

#[tokio::test]
async fn service_cidrs_of_an_old_server_are_an_empty_list_until_it_is_upgraded() {
    let server = server_of(32);
    let address = server.address();
    let mut reader = reader_of(&server).await;
    reader.synced().await;
    drop(server);
    let listener = std::net::TcpListener::bind(address).expect("the port is free again");
    let server = ApiServer::start_with(listener, Settings { minor: 33, ..Settings::default() }).expect("a server");
    server
        .apply(json!({"kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
            "spec": {"cidrs": ["10.96.0.0/16", "fd00:96::/112"]}}))
        .expect("a name");
    reader.until("it is found", |reader| reader.objects.keys().any(|(kind, _)| *kind == Kind::ServiceCidr)).await;
}

#[tokio::test]
async fn one_object_that_cannot_be_decoded_is_reported_and_left_out() {
    for minor in [31, 34] {
        let server = server_of(minor);
        server.apply(service("good", "10.96.0.1")).expect("a name");
        server.apply(json!({"kind": "Service", "metadata": {"name": "bad"}, "spec": {"ports": 5}})).expect("a name");
        let mut reader = reader_of(&server).await;
        reader.synced().await;
        assert_eq!(reader.names(), ["Service default/good"], "1.{minor}");
        assert_eq!(reader.count(Cause::Object), 1, "{:?}", reader.problems);
        assert!(reader.problems[0].what.contains("default/bad"), "{:?}", reader.problems);

        server.apply(json!({"kind": "Service", "metadata": {"name": "good"}, "spec": 5})).expect("a name");
        reader.until("it is reported", |reader| reader.count(Cause::Object) == 2).await;
        assert_eq!(reader.cluster_ip("good"), Some("10.96.0.1"), "the last good version stays");
        server.delete("Service", "default", "good").expect("the kind");
        reader.until("its deletion counts", |reader| reader.service("good").is_none()).await;
        server.apply(service("bad", "10.96.0.2")).expect("a name");
        reader.until("once repaired it counts", |reader| reader.service("bad").is_some()).await;
    }
}

#[tokio::test]
async fn endpoints_arrive_with_conditions_hints_and_both_families() {
    let server = server_of(34);
    server
        .apply(json!({
            "kind": "EndpointSlice", "addressType": "IPv6",
            "metadata": {"name": "web-1", "labels": {"kubernetes.io/service-name": "web"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "long"},
                "managedFields": [{"manager": "x"}]},
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [{"addresses": ["fd00:10::1"], "nodeName": "n1", "zone": "a",
                "conditions": {"ready": false, "serving": true, "terminating": true},
                "hints": {"forZones": [{"name": "a"}]}}],
        }))
        .expect("a name");
    let mut reader = reader_of(&server).await;
    reader.synced().await;
    let Some(Object::EndpointSlice(slice)) = reader.objects.values().next() else { panic!("a slice") };
    assert_eq!(slice.endpoints[0].addresses, ["fd00:10::1"]);
    assert_eq!(slice.endpoints[0].conditions.ready, Some(false));
    assert_eq!(slice.metadata.labels["kubernetes.io/service-name"], "web");
    assert!(slice.metadata.annotations.is_empty());
}
