//! From JSON to objects, so that one bad object costs itself and nothing else.
//!
//! The quick way decodes straight into the trimmed types. Only if that fails is the text decoded once more, into
//! [`Value`]s, which can be looked at one by one; there a `null`, which Go writes for anything empty, is the same as
//! absence.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::kinds::Trimmed;
use crate::object::{Meta, ObjectName};

/// An object that could not be decoded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BadObject {
    /// As far as it could be read.
    pub name: ObjectName,
    pub reason: String,
}

/// One page of a list.
#[derive(Debug)]
pub(super) struct Page<T> {
    /// `metadata.resourceVersion`
    pub version: String,
    /// `metadata.continue`, empty on the last page.
    pub token: String,
    pub items: Vec<T>,
    pub bad: Vec<BadObject>,
}

#[derive(Deserialize)]
struct RawPage<T> {
    metadata: ListMeta,
    #[serde(default = "Vec::new")]
    items: Vec<T>,
}

#[derive(Deserialize, Default)]
#[serde(default, rename_all = "camelCase")]
struct ListMeta {
    resource_version: String,
    #[serde(rename = "continue")]
    token: String,
}

/// Decodes what is as it should be. Checked as a whole, the text need not be checked word by word; bytes that are no text may stand
/// where nobody reads.
fn quickly<'a, T: Deserialize<'a>>(text: &'a [u8]) -> Option<T> {
    match std::str::from_utf8(text) {
        Ok(text) => serde_json::from_str(text).ok(),
        Err(_) => serde_json::from_slice(text).ok(),
    }
}

/// Decodes a page; fails only if it is no list at all.
pub(super) fn page<T: Trimmed>(text: &[u8]) -> Result<Page<T>, serde_json::Error> {
    if let Some(page) = quickly::<RawPage<T>>(text) {
        let ListMeta { resource_version, token } = page.metadata;
        return Ok(Page { version: resource_version, token, items: page.items, bad: Vec::new() });
    }
    let mut value: Value = serde_json::from_slice(text)?;
    drop_nulls(&mut value);
    let page: RawPage<Value> = serde_json::from_value(value)?;
    let ListMeta { resource_version, token } = page.metadata;
    let mut decoded = Page { version: resource_version, token, items: Vec::new(), bad: Vec::new() };
    for item in page.items {
        match object(item) {
            Ok(item) => decoded.items.push(item),
            Err(bad) => decoded.bad.push(bad),
        }
    }
    Ok(decoded)
}

/// What one line of a watch says.
#[derive(Debug)]
pub(super) enum Line<T> {
    Added(T),
    Modified(T),
    Deleted(ObjectName, String),
    /// The version up to which everything has been said, and whether this ends the initial list.
    Bookmark(String, bool),
    /// Code and message of a `Status`.
    Error(u16, String),
    /// An object could not be decoded; the version it has.
    Bad(BadObject, String),
    /// A type of line that does not exist at the time of writing.
    Unknown(String),
}

#[derive(Deserialize)]
struct RawLine<T> {
    #[serde(rename = "type")]
    kind: String,
    object: T,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct StatusObject {
    code: u16,
    message: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct MetaOnly {
    metadata: Meta,
}

const INITIAL_EVENTS_END: &str = "k8s.io/initial-events-end";

/// Decodes a line of a watch; fails only if it is not a watch event at all.
pub(super) fn line<T: Trimmed>(text: &[u8]) -> Result<Line<T>, serde_json::Error> {
    if let Some(line) = quickly::<RawLine<T>>(text) {
        let meta = line.object.meta();
        match line.kind.as_str() {
            "ADDED" => return Ok(Line::Added(line.object)),
            "MODIFIED" => return Ok(Line::Modified(line.object)),
            "DELETED" => return Ok(Line::Deleted(meta.object_name(), version(meta))),
            "BOOKMARK" => return Ok(bookmark(meta)),
            _ => {}
        }
    }
    let mut line: RawLine<Value> = serde_json::from_slice(text)?;
    drop_nulls(&mut line.object);
    if line.kind == "ERROR" {
        let status: StatusObject = serde_json::from_value(line.object).unwrap_or_default();
        return Ok(Line::Error(status.code, status.message));
    }
    let meta = loose_meta(&line.object);
    Ok(match line.kind.as_str() {
        "DELETED" => Line::Deleted(meta.object_name(), version(&meta)),
        "BOOKMARK" => bookmark(&serde_json::from_value::<MetaOnly>(line.object).unwrap_or_default().metadata),
        "ADDED" | "MODIFIED" => match object(line.object) {
            Ok(object) => Line::Modified(object),
            Err(bad) => Line::Bad(bad, version(&meta)),
        },
        other => Line::Unknown(other.to_owned()),
    })
}

fn bookmark<T>(meta: &Meta) -> Line<T> {
    Line::Bookmark(version(meta), meta.annotations.contains_key(INITIAL_EVENTS_END))
}

pub(super) fn version(meta: &Meta) -> String {
    meta.resource_version.clone().unwrap_or_default()
}

/// Decodes an object from a value, in which null means absent.
pub(super) fn object<T: DeserializeOwned>(mut value: Value) -> Result<T, BadObject> {
    drop_nulls(&mut value);
    let name = loose_meta(&value).object_name();
    serde_json::from_value(value).map_err(|error| BadObject { name, reason: error.to_string() })
}

/// Namespace, name and version of an object of which the rest may be broken.
fn loose_meta(object: &Value) -> Meta {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    let version = Some(text("resourceVersion")).filter(|version| !version.is_empty());
    Meta { namespace: text("namespace"), name: text("name"), resource_version: version, ..Meta::default() }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::{Event, Object, ServiceObject, SliceObject};

    #[test]
    fn one_bad_object_in_a_page_leaves_the_others() {
        let text = r#"{"metadata":{"resourceVersion":"7","continue":null},"items":[
            {"metadata":{"name":"a","namespace":"x"}},
            {"metadata":{"name":"b","namespace":"x"},"spec":{"ports":"none"}},
            {"metadata":{"name":"c","namespace":"x","labels":null},"spec":{"ports":null}}]}"#;
        let page: Page<ServiceObject> = page(text.as_bytes()).expect("a list");
        let names: Vec<&str> = page.items.iter().map(|item| item.metadata.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
        assert_eq!((page.version.as_str(), page.token.as_str()), ("7", ""));
        assert_eq!(page.bad[0].name.to_string(), "x/b");
        assert!(page.bad[0].reason.contains("expected a sequence"), "{}", page.bad[0].reason);
    }

    #[test]
    fn a_list_of_null_is_an_empty_list() {
        let page: Page<ServiceObject> = page(br#"{"metadata":{"resourceVersion":"7"},"items":null}"#).expect("a list");
        assert!(page.items.is_empty() && page.bad.is_empty());
    }

    #[test]
    fn bookmarks_errors_and_bad_objects_are_told_apart() {
        let end = br#"{"type":"BOOKMARK","object":{"kind":"EndpointSlice","metadata":{"resourceVersion":"9",
            "creationTimestamp":null,"annotations":{"k8s.io/initial-events-end":"true"}},"endpoints":null,"ports":null}}"#;
        assert!(matches!(line::<SliceObject>(end), Ok(Line::Bookmark(version, true)) if version == "9"));
        let gone = br#"{"type":"ERROR","object":{"kind":"Status","status":"Failure","code":410,"message":"old"}}"#;
        assert!(matches!(line::<ServiceObject>(gone), Ok(Line::Error(410, message)) if message == "old"));
        let bad = br#"{"type":"ADDED","object":{"metadata":{"name":"a","resourceVersion":"3"},"spec":5}}"#;
        assert!(
            matches!(line::<ServiceObject>(bad), Ok(Line::Bad(bad, version)) if &*bad.name.name == "a" && version == "3")
        );
        let gone = br#"{"type":"DELETED","object":{"metadata":{"name":"a","resourceVersion":"4"},"spec":5}}"#;
        assert!(matches!(line::<ServiceObject>(gone), Ok(Line::Deleted(name, _)) if &*name.name == "a"));
        assert!(line::<ServiceObject>(b"<html>").is_err());
    }

    #[test]
    fn bytes_that_are_no_text_disturb_nothing_where_nobody_reads() {
        let text = b"{\"type\":\"ADDED\",\"object\":{\"metadata\":{\"name\":\"a\",\"managedFields\":[\"\xff\"]}}}";
        assert!(matches!(line::<SliceObject>(text), Ok(Line::Added(slice)) if slice.metadata.name == "a"));
        let text =
            b"{\"metadata\":{\"resourceVersion\":\"7\"},\"items\":[{\"metadata\":{\"name\":\"a\",\"x\":\"\xff\"}}]}";
        assert_eq!(page::<SliceObject>(text).map(|page| page.items.len()).ok(), Some(1));
    }

    #[test]
    fn annotations_that_nobody_reads_are_not_kept() {
        let text = br#"{"type":"ADDED","object":{"metadata":{"name":"a","annotations":{"long":"text",
            "endpoints.kubernetes.io/last-change-trigger-time":"2024-01-01T00:00:00Z"}}}}"#;
        let Ok(Line::Added(slice)) = line::<SliceObject>(text) else { panic!("an ADDED line") };
        let Event::Apply(object) = Event::Apply(Box::new(slice.into_object())) else { panic!("as made") };
        let Object::EndpointSlice(slice) = *object else { panic!("a slice") };
        assert_eq!(slice.metadata.annotations.len(), 1);
        let text = br#"{"type":"ADDED","object":{"metadata":{"name":"a","annotations":{"long":"text",
            "fairlead.io/ipvs-scheduler":"lc"}}}}"#;
        let Ok(Line::Added(service)) = line::<ServiceObject>(text) else { panic!("an ADDED line") };
        let kept: Vec<String> = service.into_object().meta().annotations.keys().cloned().collect();
        assert_eq!(kept, ["fairlead.io/ipvs-scheduler"]);
    }
}
