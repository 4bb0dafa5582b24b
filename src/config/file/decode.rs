//! From the text of a file to its two documents: strictly first, then as far as it can be understood.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};
use serde_saphyr::DuplicateKeyPolicy;

use super::{File, fairlead, kube_proxy};
use crate::watch::split_yaml;

/// No configuration nests as deep; protects the stack.
const MAX_DEPTH: usize = 32;
/// No configuration has as many values.
const MAX_NODES: usize = 100_000;

/// Reads both documents.
///
/// # Errors
/// What is wrong, as half a sentence behind the file's name.
pub(super) fn parse(path: &Path, text: &str) -> Result<File, String> {
    let mut file = File { path: path.to_owned(), ..File::default() };
    let mut seen = [false; 2];
    for (line, document) in split_yaml(text) {
        let value = value(line, document, &mut file.notes, path)?;
        let text = |field: &str| value[field].as_str().unwrap_or_default();
        let at = match (text("apiVersion"), text("kind")) {
            (kube_proxy::API_VERSION, kube_proxy::KIND) => {
                file.kube_proxy = typed(&value, &mut file.notes, path)?;
                file.given = value;
                0
            }
            (fairlead::API_VERSION, fairlead::KIND) => {
                file.fairlead = typed(&value, &mut file.notes, path)?;
                1
            }
            ("", _) | (_, "") => {
                return Err(format!("line {line}: apiVersion or kind is missing; every document needs both"));
            }
            (version, kind) => {
                return Err(format!(
                    "line {line}: {version} {kind} is no configuration that fairlead reads; write {} {} or {} {}",
                    kube_proxy::API_VERSION,
                    kube_proxy::KIND,
                    fairlead::API_VERSION,
                    fairlead::KIND
                ));
            }
        };
        if std::mem::replace(&mut seen[at], true) {
            return Err(format!("line {line}: there is a second document of this kind; write one"));
        }
    }
    if seen == [false; 2] {
        return Err(format!("holds no configuration; write a {} {}", kube_proxy::API_VERSION, kube_proxy::KIND));
    }
    Ok(file)
}

/// One document without its nulls, which mean the same as nothing. A key that is there twice is noted and the last one
/// counts, as in kube-proxy.
fn value(line: usize, text: &str, notes: &mut Vec<String>, path: &Path) -> Result<Value, String> {
    let error = match decode(text, DuplicateKeyPolicy::Error) {
        Ok(value) => return Ok(value),
        Err(error) => error,
    };
    let place = error.location().map_or(line, |at| line - 1 + usize::try_from(at.line()).unwrap_or(1).max(1));
    let shown = text.lines().nth(place - line).unwrap_or_default().trim();
    if let Ok(value) = decode(text, DuplicateKeyPolicy::LastWins) {
        notes
            .push(format!("{}, line {place}: the field `{shown}` is there twice; the last one counts", path.display()));
        return Ok(value);
    }
    let said = error.to_string();
    let said = said.lines().next().unwrap_or_default();
    let reason = said.split(" at line ").next().unwrap_or_default().trim_start_matches("error: ");
    Err(format!("line {place}: {reason}, in `{shown}`"))
}

fn decode(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Value, serde_saphyr::Error> {
    let budget = serde_saphyr::budget! { max_depth: MAX_DEPTH, max_nodes: MAX_NODES };
    let options = serde_saphyr::options! { with_snippet: false, budget: budget, duplicate_keys: duplicates };
    serde_saphyr::from_str_with_options(text, options).map(without_nulls)
}

fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .filter(|(_, value)| !value.is_null())
                .map(|(key, value)| (key, without_nulls(value)))
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(without_nulls).collect()),
        value => value,
    }
}

/// The document as its type; fields that the type does not have are noted.
fn typed<T: DeserializeOwned + Serialize>(value: &Value, notes: &mut Vec<String>, path: &Path) -> Result<T, String> {
    let typed: T = serde_json::from_value(value.clone()).map_err(|error| culprit::<T>(value, &error))?;
    let known = serde_json::to_value(&typed).map_err(|error| error.to_string())?;
    // serde takes a list for a section, field by field.
    let listed =
        |(field, value): &(String, &Value)| value.is_array() && get(&known, field).is_some_and(Value::is_object);
    if let Some((field, _)) = leaves(value).into_iter().find(listed) {
        return Err(format!("{field}: is a list; write its fields by their names"));
    }
    let unknown: Vec<String> =
        leaves(value).into_iter().map(|(field, _)| field).filter(|field| get(&known, field).is_none()).collect();
    if !unknown.is_empty() {
        let (are, them) = if unknown.len() == 1 { ("is", "it") } else { ("are", "them") };
        let fields = unknown.join(", ");
        notes.push(format!(
            "{}: {fields} {are} unknown to fairlead and ignored; correct the spelling or take {them} out",
            path.display()
        ));
    }
    Ok(typed)
}

/// serde does not say which field is wrong: whichever cannot be read when it is alone.
fn culprit<T: DeserializeOwned>(value: &Value, error: &serde_json::Error) -> String {
    for (field, leaf) in leaves(value) {
        let alone =
            field.rsplit('.').fold(leaf.clone(), |inner, key| Value::Object(Map::from_iter([(key.to_owned(), inner)])));
        if let Err(error) = serde_json::from_value::<T>(alone) {
            return format!("{field}: {error}");
        }
    }
    // A section in the place of a value, or the other way round.
    error.to_string()
}

/// Every value that is no section, with its path.
pub(super) fn leaves(value: &Value) -> Vec<(String, &Value)> {
    fn walk<'a>(path: &str, value: &'a Value, out: &mut Vec<(String, &'a Value)>) {
        match value {
            Value::Object(map) if !map.is_empty() => {
                for (key, value) in map {
                    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                    walk(&path, value, out);
                }
            }
            _ => out.push((path.to_owned(), value)),
        }
    }
    let mut out = Vec::new();
    walk("", value, &mut out);
    out
}

/// The value at a path.
pub(super) fn get<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.').try_fold(value, |value, key| value.get(key))
}
