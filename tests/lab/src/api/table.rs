//! Lists as tables, which `kubectl get` asks for: of pods, because where they run is in no other column. Other lists come as
//! they are, and `kubectl` makes two columns of them.

use serde_json::{Value, json};

use super::resources::Resource;

/// Columns of pods, and whether only `-o wide` shows them.
const COLUMNS: [(&str, bool); 4] = [("Name", false), ("Ready", false), ("Status", false), ("Node", true)];

/// The table of a list, if one is asked for (the header `Accept`) and there is one.
pub(super) fn of_list(resource: &Resource, accept: &str, list: &[u8]) -> Option<Vec<u8>> {
    if resource.kind != "Pod" || !accept.contains("as=Table;v=v1;") {
        return None;
    }
    let list: Value = serde_json::from_slice(list).ok()?;
    let columns = COLUMNS.map(|(name, wide)| {
        let format = if name == "Name" { "name" } else { "" };
        json!({"name": name, "type": "string", "format": format, "description": "", "priority": i32::from(wide)})
    });
    let rows: Vec<Value> = list["items"].as_array()?.iter().map(row).collect();
    let table = json!({
        "kind": "Table", "apiVersion": "meta.k8s.io/v1", "metadata": list["metadata"], "columnDefinitions": columns, "rows": rows,
    });
    Some(table.to_string().into_bytes())
}

fn row(pod: &Value) -> Value {
    let ready = pod["status"]["conditions"].as_array().is_some_and(|conditions| {
        conditions.iter().any(|condition| condition["type"] == "Ready" && condition["status"] == "True")
    });
    let count = pod["spec"]["containers"].as_array().map_or(0, Vec::len);
    let cells = json!([
        pod["metadata"]["name"],
        format!("{}/{count}", if ready { count } else { 0 }),
        pod["status"]["phase"],
        pod["spec"]["nodeName"],
    ]);
    let object = json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": pod["metadata"]});
    json!({"cells": cells, "object": object})
}
