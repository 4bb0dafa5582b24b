//! From the text of a manifest file to objects: the whole file or none of it.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

use super::{decode, kinds::Trimmed};
use crate::object::{Kind, NodeObject, Object, ServiceCidrObject, ServiceObject, SliceObject};

/// Where objects go that name no namespace.
const DEFAULT_NAMESPACE: &str = "default";
/// How deep a manifest may nest; protects the stack.
const MAX_DEPTH: usize = 64;
/// How many values one YAML document may have: a list of 10,000 slices with 10 endpoints each has 2 million.
const MAX_NODES: usize = 20_000_000;
/// A longer line is not shown in an error.
const LONGEST_SHOWN: usize = 120;

/// What a file holds.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Manifest {
    pub objects: Vec<Object>,
    /// `apiVersion` and `kind` of what fairlead does not use, with the line it begins at.
    pub ignored: Vec<(String, usize)>,
}

/// Why a file cannot be used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct FileError {
    /// Counted from 1.
    pub line: usize,
    pub reason: String,
}

/// What every document must say.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Head {
    api_version: Option<String>,
    kind: Option<String>,
}

/// What a document turns out to be.
enum Type {
    One(Kind),
    /// A list, with the kind of its items unless they name their own.
    List(Option<Kind>),
    Ignored(String),
}

/// Reads a whole file; `.json` is read as JSON, everything else as YAML.
pub(super) fn parse(path: &Path, text: &str) -> Result<Manifest, FileError> {
    let json = path.extension().is_some_and(|suffix| suffix == "json");
    let mut manifest = Manifest::default();
    let documents = if json { split_json(text)? } else { split_yaml(text) };
    for (line, document) in documents {
        let document = Document { line, text: document, json };
        document.read(&mut manifest)?;
    }
    Ok(manifest)
}

/// One document of a file.
struct Document<'a> {
    /// The line of the file at which it begins, from 1.
    line: usize,
    text: &'a str,
    json: bool,
}

impl Document<'_> {
    fn read(&self, manifest: &mut Manifest) -> Result<(), FileError> {
        let head: Head = self.decode()?;
        match type_of(&head).map_err(|reason| self.error(reason))? {
            Type::Ignored(what) => manifest.ignored.push((what, self.line)),
            Type::One(kind) => {
                let object = match kind {
                    Kind::Service => self.decode::<ServiceObject>()?.wrap(),
                    Kind::EndpointSlice => self.decode::<SliceObject>()?.wrap(),
                    Kind::Node => self.decode::<NodeObject>()?.wrap(),
                    Kind::ServiceCidr => self.decode::<ServiceCidrObject>()?.wrap(),
                };
                manifest.objects.push(finish(object).map_err(|reason| self.error(reason))?);
            }
            Type::List(kind) => {
                for (at, (line, item)) in self.items()?.into_iter().enumerate() {
                    item_of(item, kind, line, manifest)
                        .map_err(|reason| FileError { line, reason: format!("items[{at}]: {reason}") })?;
                }
            }
        }
        Ok(())
    }

    /// The items of a list, each with its line as far as the format tells it.
    fn items(&self) -> Result<Vec<(usize, Value)>, FileError> {
        #[derive(Deserialize)]
        struct Items<T> {
            #[serde(default = "Vec::new")]
            items: Vec<T>,
        }
        if self.json {
            return Ok(self.decode::<Items<Value>>()?.items.into_iter().map(|item| (self.line, item)).collect());
        }
        let items = self.decode::<Items<Spanned<Value>>>()?.items.into_iter();
        let line = |item: &Spanned<Value>| usize::try_from(item.referenced.line()).unwrap_or(1).max(1);
        Ok(items.map(|item| (self.line - 1 + line(&item), item.value)).collect())
    }

    fn decode<T: for<'de> Deserialize<'de>>(&self) -> Result<T, FileError> {
        if self.json {
            return serde_json::from_str(self.text).map_err(|error| self.error_at(error.line(), &error.to_string()));
        }
        serde_saphyr::from_str_with_options(self.text, yaml_options()).map_err(|error| {
            let line = error.location().and_then(|location| usize::try_from(location.line()).ok());
            self.error_at(line.unwrap_or(1), &error.to_string())
        })
    }

    /// An error at a line of this document, counted from 1. Decoders rarely name the field, so the line is shown.
    fn error_at(&self, line: usize, reason: &str) -> FileError {
        let line = line.max(1);
        let mut reason = without_position(reason);
        if let Some(shown) = self.text.lines().nth(line - 1).map(str::trim)
            && (1..=LONGEST_SHOWN).contains(&shown.len())
        {
            reason = format!("{reason}, in `{shown}`");
        }
        FileError { line: self.line - 1 + line, reason }
    }

    fn error(&self, reason: String) -> FileError {
        FileError { line: self.line, reason }
    }
}

fn item_of(item: Value, default: Option<Kind>, line: usize, manifest: &mut Manifest) -> Result<(), String> {
    let text = |field: &str| item[field].as_str().map(str::to_owned);
    let head = Head { api_version: text("apiVersion"), kind: text("kind") };
    let kind = match (&head, default) {
        (Head { kind: None, .. }, Some(kind)) => kind,
        _ => match type_of(&head)? {
            Type::One(kind) => kind,
            Type::List(_) => return Err("a list inside a list is not read; write its items directly".to_owned()),
            Type::Ignored(what) => {
                manifest.ignored.push((what, line));
                return Ok(());
            }
        },
    };
    let object = match kind {
        Kind::Service => decode::object::<ServiceObject>(item).map(Trimmed::wrap),
        Kind::EndpointSlice => decode::object::<SliceObject>(item).map(Trimmed::wrap),
        Kind::Node => decode::object::<NodeObject>(item).map(Trimmed::wrap),
        Kind::ServiceCidr => decode::object::<ServiceCidrObject>(item).map(Trimmed::wrap),
    };
    manifest.objects.push(finish(object.map_err(|bad| bad.reason)?)?);
    Ok(())
}

fn type_of(head: &Head) -> Result<Type, String> {
    let missing = |field: &str| format!("{field} is missing: every document needs apiVersion and kind");
    let kind = head.kind.as_deref().filter(|kind| !kind.is_empty()).ok_or_else(|| missing("kind"))?;
    let version = head.api_version.as_deref().filter(|text| !text.is_empty()).ok_or_else(|| missing("apiVersion"))?;
    if (version, kind) == ("v1", "List") {
        return Ok(Type::List(None));
    }
    let (single, is_list) = kind.strip_suffix("List").map_or((kind, false), |single| (single, true));
    let known = match (version, single) {
        ("v1", "Service") => Kind::Service,
        ("v1", "Node") => Kind::Node,
        ("discovery.k8s.io/v1", "EndpointSlice") => Kind::EndpointSlice,
        ("networking.k8s.io/v1" | "networking.k8s.io/v1beta1", "ServiceCIDR") => Kind::ServiceCidr,
        _ => return Ok(Type::Ignored(format!("{version} {kind}"))),
    };
    Ok(if is_list { Type::List(Some(known)) } else { Type::One(known) })
}

/// Fills the namespace and refuses an object without a name.
fn finish(mut object: Object) -> Result<Object, String> {
    let (meta, namespaced) = match &mut object {
        Object::Service(object) => (&mut object.metadata, true),
        Object::EndpointSlice(object) => (&mut object.metadata, true),
        Object::Node(object) => (&mut object.metadata, false),
        Object::ServiceCidr(object) => (&mut object.metadata, false),
    };
    if meta.name.is_empty() {
        return Err("metadata.name is missing".to_owned());
    }
    if !namespaced {
        meta.namespace.clear();
    } else if meta.namespace.is_empty() {
        DEFAULT_NAMESPACE.clone_into(&mut meta.namespace);
    }
    Ok(object)
}

/// The documents of a YAML file with the line each begins at. A line that begins with `---` can be nothing else: no
/// block may be indented that little.
pub(crate) fn split_yaml(text: &str) -> Vec<(usize, &str)> {
    let mut documents = Vec::new();
    let (mut start, mut start_line, mut at) = (0, 1, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        if line.strip_prefix("---").is_some_and(|rest| rest.is_empty() || rest.starts_with(char::is_whitespace)) {
            documents.push((start_line, &text[start..at]));
            (start, start_line) = (at, number + 1);
        }
        at += line.len();
    }
    documents.push((start_line, &text[start..]));
    documents.retain(|(_, document)| document.lines().any(has_content));
    documents
}

fn has_content(line: &str) -> bool {
    let line = line.trim_start_matches('\u{feff}').trim_start_matches("---").trim();
    !line.is_empty() && !line.starts_with(['#', '%']) && line != "..."
}

/// The documents of a JSON file: values one after the other.
fn split_json(text: &str) -> Result<Vec<(usize, &str)>, FileError> {
    let text = text.trim_start_matches('\u{feff}');
    let mut values = serde_json::Deserializer::from_str(text).into_iter::<serde::de::IgnoredAny>();
    let mut documents = Vec::new();
    let mut start = 0;
    while let Some(value) = values.next() {
        value.map_err(|error| FileError { line: error.line().max(1), reason: without_position(&error.to_string()) })?;
        let end = values.byte_offset();
        let document = text[start..end].trim_start();
        documents.push((text[..end - document.len()].matches('\n').count() + 1, document));
        start = end;
    }
    Ok(documents)
}

fn yaml_options() -> serde_saphyr::Options {
    let budget = serde_saphyr::budget! {
        max_depth: MAX_DEPTH,
        max_nodes: MAX_NODES,
        max_events: MAX_NODES * 2,
    };
    serde_saphyr::options! { with_snippet: false, budget: budget }
}

/// The line is said once, in front of the reason.
fn without_position(reason: &str) -> String {
    let reason = reason.split(" at line ").next().unwrap_or(reason);
    reason.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn yaml(text: &str) -> Result<Manifest, FileError> {
        parse(Path::new("x.yaml"), text)
    }

    fn names(manifest: &Manifest) -> Vec<String> {
        manifest
            .objects
            .iter()
            .map(|object| format!("{} {}", object.kind().name(), object.meta().object_name()))
            .collect()
    }

    const SEVERAL: &str = "\
# a comment
---
apiVersion: v1
kind: Service
metadata: {name: web, creationTimestamp: null}
spec:
  clusterIPs: [10.96.0.10, 'fd00:96::10']
  ports: [{port: 80}]
---
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop}
addressType: IPv6
endpoints: [{addresses: ['fd00::1']}]
ports: null
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
---
apiVersion: v1
kind: Node
metadata: {name: n1}
---
apiVersion: networking.k8s.io/v1
kind: ServiceCIDR
metadata: {name: kubernetes}
spec: {cidrs: [10.96.0.0/16, 'fd00:96::/112']}
...
";

    #[test]
    fn several_documents_of_all_kinds_are_read_and_others_ignored() {
        let manifest = yaml(SEVERAL).expect("valid");
        assert_eq!(
            names(&manifest),
            ["Service default/web", "EndpointSlice shop/web-1", "Node n1", "ServiceCIDR kubernetes"]
        );
        assert_eq!(manifest.ignored, [("apps/v1 Deployment".to_owned(), 17)]);
    }

    #[test]
    fn lists_of_either_form_are_read() {
        let manifest =
            yaml("apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: a}}\n");
        assert_eq!(names(&manifest.expect("valid")), ["Node a"]);
        let manifest =
            yaml("apiVersion: v1\nkind: ServiceList\nitems:\n- metadata: {name: a}\n- metadata: {name: b}\n");
        assert_eq!(names(&manifest.expect("valid")), ["Service default/a", "Service default/b"]);
    }

    #[test]
    fn json_files_may_hold_several_values() {
        let text = "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"a\"}}\n\n\
                    {\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"b\"}}\n";
        assert_eq!(names(&parse(Path::new("x.json"), text).expect("valid")), ["Node a", "Node b"]);
        let bad = text.replace("\"name\":\"b\"", "\"name\":5");
        let error = parse(Path::new("x.json"), &bad).expect_err("bad");
        assert_eq!(error.line, 3, "{error:?}");
    }

    #[test]
    fn errors_carry_the_line_of_the_file_and_the_reason() {
        let bad_value = SEVERAL.replace("[{port: 80}]", "[{port: eighty}]");
        let bad_syntax = SEVERAL.replace("{name: n1}", "{name: n1");
        let nameless = SEVERAL.replace("{name: web}", "{}").replace("{name: n1}", "{}");
        let no_kind = SEVERAL.replace("kind: Node", "sort: Node");
        for (text, line, part) in [
            (bad_value.as_str(), 8, "eighty"),
            (bad_syntax.as_str(), 24, ""),
            (nameless.as_str(), 21, "metadata.name is missing"),
            (no_kind.as_str(), 21, "kind is missing"),
            (
                "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Node, metadata: {name: [a]}}\n",
                4,
                "items[0]",
            ),
            ("kind: Service\nmetadata: {name: a}\n", 1, "apiVersion is missing"),
        ] {
            let error = yaml(text).expect_err(part);
            assert!(error.reason.contains(part), "{error:?}");
            assert!(!error.reason.contains(" line "), "the line is said once: {error:?}");
            assert_eq!(error.line, line, "{error:?}");
        }
    }

    #[test]
    fn an_empty_file_and_one_of_comments_hold_nothing() {
        for text in ["", "\n", "---\n", "# nothing\n---\n# here\n...\n"] {
            assert_eq!(yaml(text), Ok(Manifest::default()), "{text:?}");
        }
    }
}
