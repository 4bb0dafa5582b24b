//! What the controller of DaemonSets, the scheduler and kubelets do to a DaemonSet, at once and without fail: pods on the nodes
//! that it chooses, its history (ControllerRevisions) and its status.

use std::{
    collections::BTreeSet,
    hash::{DefaultHasher, Hash, Hasher},
};

use serde_json::{Value, json};

use super::{resources::Resource, store::Store};

/// The label by which pods name the revision that they were made of.
const REVISION: &str = "controller-revision-hash";

fn resource(kind: &str) -> &'static Resource {
    Resource::of_kind(kind).expect("it is in RESOURCES")
}

fn all(store: &Store, kind: &str) -> Vec<Value> {
    store.objects(resource(kind)).values().map(|stored| stored.to_json()).collect()
}

/// Makes everything as the DaemonSets want it. Writes nothing if it is.
pub(super) fn settle(store: &mut Store) {
    if store.objects(resource("DaemonSet")).is_empty() && store.objects(resource("ControllerRevision")).is_empty() {
        return;
    }
    let sets = all(store, "DaemonSet");
    collect(store, &sets);
    for set in sets {
        let revision = keep_history(store, &set);
        let nodes: Vec<String> = all(store, "Node").iter().filter(|node| chooses(&set, node)).map(name).collect();
        keep_pods(store, &set, &revision, &nodes);
        let count = nodes.len();
        let status = json!({
            "currentNumberScheduled": count, "desiredNumberScheduled": count, "numberMisscheduled": 0,
            "numberReady": count, "numberAvailable": count, "updatedNumberScheduled": count,
            "observedGeneration": set["metadata"]["generation"],
        });
        if set["status"] != status {
            let mut set = set;
            set["status"] = status;
            store.put(resource("DaemonSet"), set);
        }
    }
}

fn name(object: &Value) -> String {
    text(&object["metadata"]["name"]).to_owned()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn owner(object: &Value) -> Option<&str> {
    let owner = &object["metadata"]["ownerReferences"][0];
    (owner["kind"] == "DaemonSet").then(|| text(&owner["uid"]))
}

/// Removes what belonged to a DaemonSet that is gone.
fn collect(store: &mut Store, sets: &[Value]) {
    let there: BTreeSet<&str> = sets.iter().map(|set| text(&set["metadata"]["uid"])).collect();
    for kind in ["Pod", "ControllerRevision"] {
        for object in all(store, kind) {
            if owner(&object).is_some_and(|uid| !there.contains(uid)) {
                store.remove(resource(kind), text(&object["metadata"]["namespace"]), &name(&object));
            }
        }
    }
}

/// The newest revision is the template as it is. Gives back its name.
fn keep_history(store: &mut Store, set: &Value) -> String {
    let mut template = set["spec"]["template"].clone();
    template["$patch"] = json!("replace");
    let data = json!({"spec": {"template": template}});
    let uid = text(&set["metadata"]["uid"]);
    let mut history = all(store, "ControllerRevision");
    history.retain(|revision| owner(revision) == Some(uid));
    history.sort_by_key(|revision| revision["revision"].as_u64());
    let newest = history.last().map_or(0, |revision| revision["revision"].as_u64().unwrap_or_default());
    let known = history.into_iter().find(|revision| revision["data"] == data);
    if let Some(mut revision) = known {
        let name = name(&revision);
        if revision["revision"] != newest {
            revision["revision"] = json!(newest + 1);
            store.put(resource("ControllerRevision"), revision);
        }
        return name;
    }
    let mut hasher = DefaultHasher::new();
    data.to_string().hash(&mut hasher);
    let revision = format!("{}-{:08x}", name(set), hasher.finish() & 0xffff_ffff);
    let mut metadata = owned_metadata(set, &revision);
    metadata["labels"] = set["spec"]["template"]["metadata"]["labels"].clone();
    let object = json!({"metadata": metadata, "data": data, "revision": newest + 1});
    store.put(resource("ControllerRevision"), object);
    revision
}

fn owned_metadata(set: &Value, name: &str) -> Value {
    json!({
        "name": name, "namespace": set["metadata"]["namespace"],
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "DaemonSet", "name": set["metadata"]["name"], "uid": set["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }],
    })
}

/// One pod of the newest revision on each of these nodes and none elsewhere.
fn keep_pods(store: &mut Store, set: &Value, revision: &str, nodes: &[String]) {
    let uid = text(&set["metadata"]["uid"]);
    let mut there = all(store, "Pod");
    there.retain(|pod| owner(pod) == Some(uid));
    let right = |pod: &Value| {
        pod["metadata"]["labels"][REVISION] == revision && nodes.iter().any(|node| pod["spec"]["nodeName"] == **node)
    };
    for pod in there.iter().filter(|pod| !right(pod)) {
        store.remove(resource("Pod"), text(&pod["metadata"]["namespace"]), &name(pod));
    }
    for node in nodes {
        if there.iter().any(|pod| right(pod) && pod["spec"]["nodeName"] == **node) {
            continue;
        }
        let mut metadata = owned_metadata(set, &format!("{}-{node}", name(set)));
        metadata["labels"] = set["spec"]["template"]["metadata"]["labels"].clone();
        metadata["labels"][REVISION] = json!(revision);
        let mut spec = set["spec"]["template"]["spec"].clone();
        spec["nodeName"] = json!(node);
        let status = json!({"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]});
        store.put(resource("Pod"), json!({"metadata": metadata, "spec": spec, "status": status}));
    }
}

/// Whether a DaemonSet runs on a node: its node selector and its required node affinity. Taints are not looked at.
fn chooses(set: &Value, node: &Value) -> bool {
    let spec = &set["spec"]["template"]["spec"];
    let labels = &node["metadata"]["labels"];
    let selected = |(key, value): (&String, &Value)| labels.get(key) == Some(value);
    let required = &spec["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"];
    let fits = |term: &Value| term["matchExpressions"].as_array().into_iter().flatten().all(|one| holds(one, labels));
    let affine = required["nodeSelectorTerms"].as_array().is_none_or(|terms| terms.iter().any(fits));
    spec["nodeSelector"].as_object().is_none_or(|selector| selector.iter().all(selected)) && affine
}

fn holds(expression: &Value, labels: &Value) -> bool {
    let value = labels.get(text(&expression["key"]));
    let listed = || value.is_some_and(|value| expression["values"].as_array().is_some_and(|all| all.contains(value)));
    match text(&expression["operator"]) {
        "In" => listed(),
        "NotIn" => !listed(),
        "Exists" => value.is_some(),
        "DoesNotExist" => value.is_none(),
        // The API server would have refused it.
        _ => false,
    }
}
