//! The server as a client sees it that speaks HTTP and nothing else.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

use serde_json::{Value, json};

use super::{ApiServer, Settings};

const SERVICES: &str = "/api/v1/namespaces/default/services";

fn server() -> ApiServer {
    ApiServer::on_loopback(Settings::default()).expect("a server")
}

fn service(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": {"clusterIP": "fd00::1"}})
}

fn send(server: &ApiServer, head: &str, body: &str) -> BufReader<TcpStream> {
    let mut stream = TcpStream::connect(server.address()).expect("it listens");
    let length = body.len();
    write!(stream, "{head}\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}").expect("sent");
    BufReader::new(stream)
}

/// One request; the code and the JSON of the answer.
fn ask(server: &ApiServer, method: &str, path: &str, media_type: &str, body: &Value) -> (u16, Value) {
    let body = if body.is_null() { String::new() } else { body.to_string() };
    let mut answer = String::new();
    let head = format!("{method} {path} HTTP/1.1\r\nContent-Type: {media_type}");
    send(server, &head, &body).read_to_string(&mut answer).expect("an answer");
    let code = answer.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status line");
    let text = answer.split_once("\r\n\r\n").expect("a head").1;
    (code, serde_json::from_str(text).expect("JSON"))
}

fn get(server: &ApiServer, path: &str) -> (u16, Value) {
    ask(server, "GET", path, "", &Value::Null)
}

/// The lines of a watch, without the framing of chunks.
fn watch(server: &ApiServer, path: &str) -> Vec<Value> {
    let head = format!("GET {path} HTTP/1.1");
    let lines = send(server, &head, "").lines().map_while(Result::ok);
    lines.filter(|line| line.starts_with('{')).map(|line| serde_json::from_str(&line).expect("JSON")).collect()
}

#[test]
fn objects_are_created_replaced_patched_and_deleted_by_http() {
    let server = server();
    let (code, created) = ask(&server, "POST", SERVICES, "application/json", &service("web"));
    assert_eq!((code, &created["metadata"]["generation"]), (201, &json!(1)));
    assert_eq!(created["kind"], "Service");
    assert_eq!(ask(&server, "POST", SERVICES, "application/json", &service("web")).1["reason"], "AlreadyExists");

    let path = format!("{SERVICES}/web");
    let patch = json!({"metadata": {"labels": {"a": "b"}}, "spec": {"type": "NodePort"}, "status": {"x": 1}});
    let (code, patched) = ask(&server, "PATCH", &path, "application/merge-patch+json", &patch);
    assert_eq!(
        (code, &patched["spec"]["type"], &patched["spec"]["clusterIP"]),
        (200, &json!("NodePort"), &json!("fd00::1"))
    );
    assert_eq!(patched["metadata"]["generation"], 2);
    assert_eq!(patched["status"], Value::Null, "status is a subresource");
    assert_eq!(ask(&server, "PATCH", &path, "application/json-patch+json", &json!([])).0, 415);

    let (code, conflict) = ask(&server, "PUT", &path, "application/json", &created);
    assert_eq!((code, &conflict["reason"]), (409, &json!("Conflict")));
    assert_eq!(ask(&server, "PUT", &path, "application/json", &patched).0, 200);
    assert_eq!(ask(&server, "DELETE", &path, "", &Value::Null).1["status"], "Success");
    assert_eq!(get(&server, &path).0, 404);
    let verbs: Vec<String> = server.requests().into_iter().map(|request| request.verb).collect();
    assert_eq!(verbs, ["create", "create", "patch", "patch", "update", "update", "delete", "get"]);
}

#[test]
fn a_patch_of_a_nodes_status_changes_status_and_annotations_alone() {
    let server = server();
    let node = json!({"kind": "Node", "metadata": {"name": "n1"}, "spec": {"podCIDRs": ["fd00::/64"]}});
    server.apply(node).expect("a name");
    let patch = json!({
        "metadata": {"annotations": {"flannel.alpha.coreos.com/public-ip": "192.0.2.1"}},
        "spec": {"podCIDRs": []}, "status": {"conditions": [{"type": "NetworkUnavailable"}]},
    });
    let media_type = "application/strategic-merge-patch+json";
    let (code, node) = ask(&server, "PATCH", "/api/v1/nodes/n1/status", media_type, &patch);
    assert_eq!((code, &node["spec"]["podCIDRs"]), (200, &json!(["fd00::/64"])));
    assert_eq!(node["metadata"]["annotations"]["flannel.alpha.coreos.com/public-ip"], "192.0.2.1");
    assert_eq!(node["status"]["conditions"][0]["type"], "NetworkUnavailable");
    let request = &server.requests()[0];
    assert_eq!((request.verb.as_str(), request.subresource.as_str()), ("patch", "status"));
}

#[test]
fn pages_show_one_version_and_expire_with_it() {
    let server = server();
    for name in ["a", "b", "c", "d", "e"] {
        server.apply(service(name)).expect("a name");
    }
    let names = |list: &Value| -> Vec<String> {
        let items = list["items"].as_array().expect("items").iter();
        items.map(|item| item["metadata"]["name"].as_str().expect("a name").to_owned()).collect()
    };
    let (_, first) = get(&server, "/api/v1/services?limit=2");
    assert_eq!((names(&first), &first["metadata"]["remainingItemCount"]), (vec!["a".into(), "b".into()], &json!(3)));
    server.delete("Service", "default", "c").expect("the kind");
    server.apply(service("cc")).expect("a name");
    let token = first["metadata"]["continue"].as_str().expect("more");
    let next = format!("/api/v1/services?limit=2&continue={token}");
    let (_, second) = get(&server, &next);
    assert_eq!(names(&second), ["c", "d"], "the deletion came after the version of the list");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);

    server.compact();
    let (code, expired) = get(&server, &next);
    assert_eq!((code, &expired["reason"]), (410, &json!("Expired")));
    let token = expired["metadata"]["continue"].as_str().expect("a token to go on without consistency");
    assert_eq!(names(&get(&server, &format!("/api/v1/services?continue={token}")).1), ["cc", "d", "e"]);
    let any = get(&server, "/api/v1/services?limit=2&resourceVersion=0").1;
    assert_eq!(names(&any).len(), 5, "the watch cache does no pages");
}

#[test]
fn watches_say_what_changes_from_a_version_on_and_end_at_their_timeout() {
    let server = server();
    server.apply(service("old")).expect("a name");
    let version = server.version();
    server.apply(service("web")).expect("a name");
    server.apply(json!({"kind": "Service", "metadata": {"name": "web", "labels": {"hide": ""}}})).expect("a name");
    server.delete("Service", "default", "web").expect("the kind");
    let all = watch(&server, &format!("/api/v1/services?watch=1&resourceVersion={version}&timeoutSeconds=1"));
    let types: Vec<Value> = all.iter().map(|line| line["type"].clone()).collect();
    assert_eq!(types, ["ADDED", "MODIFIED", "DELETED"]);
    let path = format!("/api/v1/services?watch=1&resourceVersion={version}&timeoutSeconds=1&labelSelector=%21hide");
    let lines = watch(&server, &path);
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert_eq!(lines[1]["type"], "DELETED", "it leaves the selection");
    assert_eq!(lines[1]["object"]["metadata"]["resourceVersion"], (version + 2).to_string());

    server.compact();
    let lines = watch(&server, &path);
    assert_eq!((&lines[0]["type"], &lines[0]["object"]["code"]), (&json!("ERROR"), &json!(410)));
    server.set_fault(|faults| faults.gone_as_status = true);
    assert_eq!(get(&server, &path).0, 410);
    assert_eq!(get(&server, "/api/v1/services?watch=1&resourceVersion=99999").0, 504);
}

#[test]
fn initial_events_end_with_a_bookmark_and_bookmarks_come_again() {
    let settings = Settings { bookmark_every: Duration::from_millis(200), ..Settings::default() };
    let server = ApiServer::on_loopback(settings).expect("a server");
    server.apply(service("web")).expect("a name");
    let query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let lines = watch(&server, &format!("/api/v1/services?{query}&timeoutSeconds=1"));
    assert_eq!(lines[0]["type"], "ADDED");
    assert_eq!(lines[1]["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    assert_eq!(lines[1]["object"]["metadata"]["resourceVersion"], server.version().to_string());
    assert!(lines.len() > 2 && lines[2]["type"] == "BOOKMARK", "{lines:?}");
    let (code, status) = get(&server, "/api/v1/services?watch=1&sendInitialEvents=true");
    assert_eq!((code, &status["reason"]), (422, &json!("Invalid")));
}

#[test]
fn discovery_names_what_the_release_serves() {
    for (minor, served) in [(32, false), (33, true)] {
        let server = ApiServer::on_loopback(Settings { minor, ..Settings::default() }).expect("a server");
        assert_eq!(get(&server, "/version").1["minor"], minor.to_string());
        assert_eq!(get(&server, "/apis/networking.k8s.io/v1").0 == 200, served);
        let groups = get(&server, "/apis").1;
        assert_eq!(groups["groups"].as_array().map(Vec::len), Some(if served { 5 } else { 4 }));
    }
}

#[test]
fn requests_without_the_token_are_refused() {
    let settings = Settings { token: Some("secret".to_owned()), ..Settings::default() };
    let server = ApiServer::on_loopback(settings).expect("a server");
    assert_eq!(get(&server, "/api/v1/services").1["reason"], "Unauthorized");
    assert_eq!(ask(&server, "GET", "/api/v1/services", "x\r\nAuthorization: Bearer secret", &Value::Null).0, 200);
}
