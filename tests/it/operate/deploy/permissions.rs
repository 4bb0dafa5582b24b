//! The requests of the real program, and what the manifests allow it.

use std::collections::BTreeSet;

use fairlead_lab::api::{RecordedRequest, Settings};
use fairlead_lab::objects::Service;
use fairlead_lab::{Feature, needs};
use fairlead_plan::Family;
use serde_json::Value;

use super::rendered::Rendered;
use crate::faults::{service, slice};
use crate::program::{Cluster, eventually};

/// Verb, group and resource, or verb and path outside of the API.
type Right = (String, String, String);

/// Everything that the roles of a folder allow.
fn allowed(rendered: &Rendered) -> BTreeSet<Right> {
    let words = |rule: &Value, field: &str| -> Vec<String> {
        rule[field].as_array().into_iter().flatten().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in rendered.of_kind("ClusterRole").flat_map(|role| role["rules"].as_array().unwrap()) {
        assert!(rule.get("resourceNames").is_none());
        for verb in words(rule, "verbs") {
            let paths = words(rule, "nonResourceURLs").into_iter().map(|path| (String::new(), path));
            let groups = words(rule, "apiGroups").into_iter();
            let resources =
                groups.flat_map(|group| words(rule, "resources").into_iter().map(move |of| (group.clone(), of)));
            rights.extend(paths.chain(resources).map(|(group, of)| (verb.clone(), group, of)));
        }
    }
    rights
}

/// As the authorizer of an API server takes it: a resource that this release does not have yet is one all the same.
fn right(request: &RecordedRequest) -> Right {
    let RecordedRequest { verb, group, resource, subresource, .. } = request;
    let of = if subresource.is_empty() { resource.clone() } else { format!("{resource}/{subresource}") };
    if !resource.is_empty() {
        return (verb.clone(), group.clone(), of);
    }
    let (path, query) = request.uri.split_once('?').unwrap_or((&request.uri, ""));
    match path.split('/').collect::<Vec<_>>().as_slice() {
        ["", "apis", group, _version, resource] => {
            let verb = if query.contains("watch=") { "watch" } else { "list" };
            (verb.to_owned(), (*group).to_owned(), (*resource).to_owned())
        }
        _ => (verb.clone(), String::new(), path.to_owned()),
    }
}

/// What the program asks of an API server while it does its job: lists, changes, an Event, with an overlay what it
/// says about its node.
fn asked(settings: Settings, overlay: bool) -> BTreeSet<Right> {
    let cluster = Cluster::with(settings);
    cluster.serve("web", 1, &["a1", "b1"]);
    // Two that want one address: the younger is told so by an Event.
    let claim = |name: &str, host| -> Service { service(name, host).external_ip(1) };
    for (name, host) in [("older", 2), ("younger", 3)] {
        cluster.apply([claim(name, host).manifest(&cluster.lab, &Family::BOTH)]);
        cluster.apply(slice(name, &["a1"]).manifests(&cluster.lab, &Family::BOTH));
    }
    let program = if overlay {
        let program = cluster.launch(&["--overlay-backend=vxlan"]);
        program.wait_until_ready();
        let annotated = || {
            let node = cluster.server.get("Node", "", "a").unwrap();
            node["metadata"]["annotations"].get("flannel.alpha.coreos.com/public-ip").is_some()
        };
        eventually("the node is published", annotated);
        program
    } else {
        cluster.start()
    };
    eventually("the conflict is told", || !cluster.server.events().is_empty());
    // A list that is older than what the server remembers has to be read anew.
    cluster.server.expire_watches();
    cluster.serve("late", 4, &["a1"]);
    eventually("changes come after that", || program.metric("fairlead_service_ports", "") >= 14.0);
    cluster.server.requests().iter().map(right).collect()
}

/// Of an old release, which lacks a resource, and of a new one with and without streamed lists.
fn asked_of_all(overlay: bool) -> BTreeSet<Right> {
    let old = Settings { minor: 27, ..Settings::default() };
    let new = [true, false].map(|streams| Settings { streaming_lists: Some(streams), ..Settings::default() });
    new.into_iter().chain([old]).flat_map(|settings| asked(settings, overlay)).collect()
}

#[test]
fn the_role_allows_exactly_what_the_program_asks() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Deployment]) {
        return;
    }
    assert_eq!(asked_of_all(false), allowed(&Rendered::new("nft")));
}

#[test]
fn the_role_allows_exactly_what_the_program_asks_with_an_overlay() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan, Feature::Deployment]) {
        return;
    }
    assert_eq!(asked_of_all(true), allowed(&Rendered::new("nft-overlay")));
}
