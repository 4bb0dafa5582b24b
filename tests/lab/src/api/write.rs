//! create, update, patch, delete by HTTP.

use hyper::Method;
use serde_json::{Value, json};

use super::{
    patch::{Lists, merge},
    request::Target,
    resources::Resource,
    state::Shared,
    status::Failure,
    store::{Store, Stored},
};

/// Does the write and returns HTTP status and body.
pub(super) fn write(
    shared: &Shared,
    target: &Target,
    method: &Method,
    content_type: &str,
    body: &[u8],
) -> Result<(u16, Vec<u8>), Failure> {
    let parse = || {
        serde_json::from_slice::<Value>(body)
            .map_err(|error| Failure::bad_request(format!("body is not JSON: {error}")))
    };
    match *method {
        Method::POST if target.name.is_empty() => {
            let object = parse()?;
            shared.write(|store| create(store, target, object)).map(|object| (201, object))
        }
        Method::PUT if !target.name.is_empty() => {
            let object = parse()?;
            shared.write(|store| update(store, target, object)).map(|object| (200, object))
        }
        Method::PATCH if !target.name.is_empty() => {
            let media_type = content_type.split(';').next().unwrap_or_default().trim();
            if !matches!(media_type, "application/merge-patch+json" | "application/strategic-merge-patch+json") {
                return Err(Failure::media_type(content_type));
            }
            let lists = if media_type.contains("strategic") { Lists::Merged } else { Lists::Replaced };
            let patch = parse()?;
            shared.write(|store| apply_patch(store, target, &patch, lists)).map(|object| (200, object))
        }
        Method::DELETE if !target.name.is_empty() => {
            let gone = shared.write(|store| store.remove(target.resource, &target.namespace, &target.name));
            gone.ok_or_else(|| Failure::no_object(target.resource, &target.name))?;
            let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success"});
            Ok((200, status.to_string().into_bytes()))
        }
        _ => Err(Failure::method_not_allowed()),
    }
}

fn create(store: &mut Store, target: &Target, mut object: Value) -> Result<Vec<u8>, Failure> {
    check(&mut object, target)?;
    if let Some(prefix) = object.pointer("/metadata/generateName").and_then(Value::as_str)
        && object["metadata"]["name"].is_null()
    {
        object["metadata"]["name"] = json!(format!("{prefix}{:05x}", store.version()));
    }
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(Failure::invalid("metadata.name: Required value: name or generateName is required"));
    }
    if store.get(target.resource, &target.namespace, &name).is_some() {
        return Err(Failure::already_exists(target.resource, &name));
    }
    Ok(text(target.resource, &store.put(target.resource, object)))
}

fn update(store: &mut Store, target: &Target, mut object: Value) -> Result<Vec<u8>, Failure> {
    check(&mut object, target)?;
    let old = existing(store, target)?;
    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str).unwrap_or_default();
    if !version.is_empty() && old.pointer("/metadata/resourceVersion").and_then(Value::as_str) != Some(version) {
        return Err(Failure::conflict(target.resource, &target.name));
    }
    object["metadata"]["name"] = json!(target.name);
    Ok(text(target.resource, &store.put(target.resource, only_writable(target, &old, object))))
}

fn apply_patch(store: &mut Store, target: &Target, patch: &Value, lists: Lists) -> Result<Vec<u8>, Failure> {
    let old = existing(store, target)?;
    let mut object = old.clone();
    merge(&mut object, patch, lists).map_err(Failure::bad_request)?;
    check(&mut object, target)?;
    Ok(text(target.resource, &store.put(target.resource, only_writable(target, &old, object))))
}

/// Name, namespace and kind must be those of the path.
fn check(object: &mut Value, target: &Target) -> Result<(), Failure> {
    if !object.is_object() {
        return Err(Failure::bad_request("the body is not an object"));
    }
    if object["kind"].as_str().is_some_and(|kind| kind != target.resource.kind) {
        return Err(Failure::bad_request(format!("the kind {} does not belong to this path", object["kind"])));
    }
    if !object["metadata"].is_object() {
        object["metadata"] = json!({});
    }
    let metadata = &mut object["metadata"];
    if target.resource.namespaced {
        if target.namespace.is_empty() {
            return Err(Failure::method_not_allowed());
        }
        if metadata["namespace"].as_str().is_some_and(|namespace| namespace != target.namespace) {
            return Err(Failure::bad_request("the namespace of the object does not match the namespace of the path"));
        }
        metadata["namespace"] = json!(target.namespace);
    }
    if !target.name.is_empty() && metadata["name"].as_str().is_some_and(|name| name != target.name) {
        return Err(Failure::bad_request("the name of the object does not match the name of the path"));
    }
    Ok(())
}

fn existing(store: &Store, target: &Target) -> Result<Value, Failure> {
    store
        .get(target.resource, &target.namespace, &target.name)
        .map(|stored| stored.to_json())
        .ok_or_else(|| Failure::no_object(target.resource, &target.name))
}

/// The subresource `status` writes status, labels and annotations alone; the object itself everything but status.
fn only_writable(target: &Target, old: &Value, new: Value) -> Value {
    if !target.resource.has_status {
        return new;
    }
    if target.subresource == "status" {
        let mut object = old.clone();
        object["status"] = new["status"].clone();
        for field in ["labels", "annotations"] {
            object["metadata"][field] = new["metadata"][field].clone();
        }
        return object;
    }
    let mut object = new;
    object["status"] = old["status"].clone();
    object
}

fn text(resource: &Resource, stored: &Stored) -> Vec<u8> {
    let mut text = Vec::with_capacity(stored.body.len() + 64);
    stored.write(resource, &mut text);
    text
}
