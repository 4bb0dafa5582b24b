//! JSON merge patches (RFC 7386) and strategic merge patches, as far as `kubectl` and the programs under test send them.

use serde_json::{Value, json};

/// What becomes of lists in a patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lists {
    /// JSON merge patch.
    Replaced,
    /// Strategic merge patch: lists in [`KEYS`] are merged entry by entry, others replaced.
    Merged,
}

/// The lists of Kubernetes whose entries have a key (`patchMergeKey` in the types of the API), and which. A field of the same
/// name elsewhere, as `ports` of an EndpointSlice, is merged if all entries have the key.
const KEYS: [(&str, &str); 12] = [
    ("conditions", "type"),
    ("addresses", "type"),
    ("containers", "name"),
    ("initContainers", "name"),
    ("volumes", "name"),
    ("env", "name"),
    ("imagePullSecrets", "name"),
    ("volumeMounts", "mountPath"),
    ("ports", "containerPort"),
    ("ports", "port"),
    ("ownerReferences", "uid"),
    ("hostAliases", "ip"),
];
/// How the names of directives begin.
const DIRECTIVE: char = '$';
/// The directive that says what becomes of the whole object.
const WHOLE: &str = "$patch";
/// Names the order of a list after the patch.
const ORDER: &str = "$setElementOrder/";
/// Names the fields of an object that stay.
const RETAIN: &str = "$retainKeys";

/// Patches an object.
///
/// # Errors
/// If the patch has a directive that is not known.
pub(super) fn merge(into: &mut Value, patch: &Value, lists: Lists) -> Result<(), String> {
    let Value::Object(fields) = patch else {
        *into = patch.clone();
        return Ok(());
    };
    if !into.is_object() {
        *into = json!({});
    }
    let strategic = lists == Lists::Merged;
    if strategic && fields.contains_key(WHOLE) {
        if fields[WHOLE] != "replace" {
            return Err(format!("{WHOLE}: {} is not known here", fields[WHOLE]));
        }
        *into = Value::Object(fields.iter().filter(|(key, _)| *key != WHOLE).map(owned).collect());
        return Ok(());
    }
    if let (true, Some(kept), Some(old)) = (strategic, fields.get(RETAIN), into.as_object_mut()) {
        let kept = kept.as_array().cloned().unwrap_or_default();
        old.retain(|key, _| kept.iter().any(|name| name == key));
    }
    for (key, value) in fields.iter().filter(|(key, _)| !strategic || !key.starts_with(DIRECTIVE)) {
        if value.is_null() {
            if let Some(old) = into.as_object_mut() {
                old.remove(key);
            }
        } else if let (true, Value::Array(entries), Some(by)) = (strategic, value, key_of(key, value)) {
            merge_list(&mut into[key.as_str()], entries, by)?;
        } else {
            merge(&mut into[key.as_str()], value, lists)?;
        }
    }
    for (key, value) in fields.iter().filter(|(key, _)| strategic && key.starts_with(DIRECTIVE)) {
        match key.strip_prefix(ORDER) {
            Some(list) => sort(&mut into[list], list, value),
            None if key == RETAIN => {}
            None => return Err(format!("the directive {key} is not known here")),
        }
    }
    Ok(())
}

fn owned((key, value): (&String, &Value)) -> (String, Value) {
    (key.clone(), value.clone())
}

/// The key of the entries of a list, if they have one.
fn key_of(field: &str, list: &Value) -> Option<&'static str> {
    let entries = list.as_array()?;
    let has = |key: &str| entries.iter().all(|entry| entry.get(key).is_some());
    KEYS.iter().find(|(name, key)| *name == field && has(key)).map(|(_, key)| *key)
}

fn merge_list(into: &mut Value, entries: &[Value], by: &str) -> Result<(), String> {
    if !into.is_array() {
        *into = json!([]);
    }
    let Some(old) = into.as_array_mut() else { return Ok(()) };
    for entry in entries {
        if entry[WHOLE] == "delete" {
            old.retain(|other| other[by] != entry[by]);
            continue;
        }
        match old.iter_mut().find(|other| other[by] == entry[by]) {
            Some(other) => merge(other, entry, Lists::Merged)?,
            None => old.push(entry.clone()),
        }
    }
    Ok(())
}

/// Those that the order names come first, as it names them.
fn sort(list: &mut Value, name: &str, order: &Value) {
    let (Some(by), Some(order)) = (key_of(name, order), order.as_array()) else { return };
    if let Some(entries) = list.as_array_mut() {
        entries.sort_by_key(|entry| order.iter().position(|other| other[by] == entry[by]).unwrap_or(usize::MAX));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(object: &Value, patch: &Value, lists: Lists) -> Value {
        let mut object = object.clone();
        merge(&mut object, patch, lists).expect("a patch that is known");
        object
    }

    #[test]
    fn a_merge_patch_sets_removes_and_replaces_as_rfc_7386_says() {
        let object = json!({"a": {"b": 1, "c": 2}, "d": [1, 2]});
        let patch = json!({"a": {"b": null, "e": {"f": 3, "g": null}}, "d": [3]});
        assert_eq!(merged(&object, &patch, Lists::Replaced), json!({"a": {"c": 2, "e": {"f": 3}}, "d": [3]}));
    }

    #[test]
    fn a_strategic_patch_changes_one_condition_and_keeps_the_others() {
        let object =
            json!({"conditions": [{"type": "Ready", "status": "True"}, {"type": "B", "status": "True", "n": 1}]});
        let patch = json!({"conditions": [{"type": "B", "status": "False"}, {"type": "C", "status": "True"}]});
        let wanted = json!([
            {"type": "Ready", "status": "True"},
            {"type": "B", "status": "False", "n": 1},
            {"type": "C", "status": "True"},
        ]);
        assert_eq!(merged(&object, &patch, Lists::Merged)["conditions"], wanted);
    }

    #[test]
    fn a_strategic_patch_obeys_its_directives() {
        let object =
            json!({"containers": [{"name": "a", "image": "x"}, {"name": "b"}], "affinity": {"old": 1}, "l": [1]});
        let patch = json!({
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c"}, {"name": "a", "image": "y"}, {"name": "b", "$patch": "delete"}],
            "affinity": {"$patch": "replace", "new": 2}, "l": [2],
        });
        let wanted =
            json!({"containers": [{"name": "c"}, {"name": "a", "image": "y"}], "affinity": {"new": 2}, "l": [2]});
        assert_eq!(merged(&object, &patch, Lists::Merged), wanted);
        assert!(merge(&mut json!({}), &json!({"$unheard": 1}), Lists::Merged).is_err());
    }
}
