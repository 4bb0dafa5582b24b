//! `/version`, `/api`, `/apis` and the lists of resources below them.

use serde_json::{Value, json};

use super::resources::{RESOURCES, Resource};

/// The answer for a path of discovery or health, `None` for other paths.
pub(super) fn answer(path: &str, minor: u32) -> Option<Value> {
    match path.trim_end_matches('/') {
        "/version" => Some(json!({
            "major": "1", "minor": minor.to_string(), "gitVersion": format!("v1.{minor}.0"), "platform": "linux/amd64",
        })),
        "/healthz" | "/livez" | "/readyz" => Some(json!("ok")),
        "/api" => Some(json!({"kind": "APIVersions", "versions": ["v1"]})),
        "/apis" => Some(json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": groups(minor)})),
        path => resource_list(path, minor),
    }
}

fn served(minor: u32) -> impl Iterator<Item = &'static Resource> {
    RESOURCES.iter().filter(move |resource| resource.since <= minor)
}

fn groups(minor: u32) -> Vec<Value> {
    let mut names: Vec<&Resource> = served(minor).filter(|resource| !resource.group.is_empty()).collect();
    names.dedup_by_key(|resource| resource.group);
    let group = |resource: &Resource| {
        let version = json!({"groupVersion": resource.api_version(), "version": resource.version});
        json!({"name": resource.group, "versions": [version], "preferredVersion": version})
    };
    names.into_iter().map(group).collect()
}

fn resource_list(path: &str, minor: u32) -> Option<Value> {
    let group_version = path.strip_prefix("/apis/").or_else(|| path.strip_prefix("/api/"))?;
    let resources: Vec<Value> = served(minor)
        .filter(|resource| resource.api_version() == group_version)
        .map(|resource| {
            json!({
                "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
                "kind": resource.kind, "shortNames": resource.short,
                "verbs": ["create", "delete", "get", "list", "patch", "update", "watch"],
            })
        })
        .collect();
    let list = json!({
        "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources,
    });
    (!list["resources"].as_array()?.is_empty()).then_some(list)
}
