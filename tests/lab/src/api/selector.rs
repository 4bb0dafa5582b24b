//! Label and field selectors, with the syntax and meaning of the API.

use std::borrow::Cow;

use serde_json::Value;

use super::{status::Failure, store::Stored};

/// What a list or watch is limited to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Selector {
    labels: Vec<Requirement>,
    fields: Vec<FieldTerm>,
    /// Empty for all namespaces.
    namespace: String,
}

#[derive(Debug, Clone, PartialEq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    NotIn(String, Vec<String>),
}

#[derive(Debug, Clone, PartialEq)]
struct FieldTerm {
    field: Field,
    value: String,
    equal: bool,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Field {
    Name,
    Namespace,
    ClusterIp,
    /// `spec.nodeName` of a pod.
    NodeName,
    /// `reason` of an Event.
    Reason,
}

impl Selector {
    /// Reads `labelSelector` and `fieldSelector`; `namespace` is empty for all.
    ///
    /// # Errors
    /// 400 for bad syntax or a field that cannot be selected by.
    pub fn parse(namespace: &str, labels: &str, fields: &str) -> Result<Self, Failure> {
        Ok(Self {
            labels: split_terms(labels).into_iter().map(parse_requirement).collect::<Result<_, _>>()?,
            fields: fields.split(',').filter(|term| !term.is_empty()).map(parse_field).collect::<Result<_, _>>()?,
            namespace: namespace.to_owned(),
        })
    }

    /// Whether nothing is left out, apart from other namespaces.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    /// Whether the object is selected.
    #[must_use]
    pub fn matches(&self, object: &Stored) -> bool {
        (self.namespace.is_empty() || *self.namespace == *object.namespace)
            && self.labels.iter().all(|requirement| requirement.holds(object))
            && self.fields.iter().all(|term| (object_field(object, term.field) == term.value) == term.equal)
    }
}

impl Requirement {
    fn holds(&self, object: &Stored) -> bool {
        match self {
            Self::Exists(key) => object.labels.contains_key(key),
            Self::Absent(key) => !object.labels.contains_key(key),
            Self::In(key, values) => object.labels.get(key).is_some_and(|value| values.contains(value)),
            Self::NotIn(key, values) => object.labels.get(key).is_none_or(|value| !values.contains(value)),
        }
    }
}

fn object_field(object: &Stored, field: Field) -> Cow<'_, str> {
    let inside = |pointer: &str| {
        let object = object.to_json();
        object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned().into()
    };
    match field {
        Field::Name => Cow::Borrowed(&*object.name),
        Field::Namespace => Cow::Borrowed(&*object.namespace),
        Field::ClusterIp => Cow::Borrowed(&*object.cluster_ip),
        Field::NodeName => inside("/spec/nodeName"),
        Field::Reason => inside("/reason"),
    }
}

/// Splits at commas that are not inside parentheses.
fn split_terms(text: &str) -> Vec<&str> {
    let mut terms = Vec::new();
    let (mut depth, mut start) = (0_i32, 0);
    for (at, byte) in text.bytes().enumerate() {
        match byte {
            b'(' => depth += 1,
            b')' => depth -= 1,
            b',' if depth == 0 => {
                terms.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    terms.push(text[start..].trim());
    terms.retain(|term| !term.is_empty());
    terms
}

fn parse_requirement(term: &str) -> Result<Requirement, Failure> {
    let bad = || Failure::bad_request(format!("unable to parse requirement: {term}"));
    let label = |text: &str| {
        let text = text.trim();
        let valid =
            !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_./".contains(&byte));
        valid.then(|| text.to_owned()).ok_or_else(bad)
    };
    if let Some((head, values)) = term.split_once('(') {
        let values =
            values.strip_suffix(')').ok_or_else(bad)?.split(',').map(|value| value.trim().to_owned()).collect();
        return match head.trim().rsplit_once(char::is_whitespace).ok_or_else(bad)? {
            (key, "in") => Ok(Requirement::In(label(key)?, values)),
            (key, "notin") => Ok(Requirement::NotIn(label(key)?, values)),
            _ => Err(bad()),
        };
    }
    if let Some((key, value)) = term.split_once("!=") {
        return Ok(Requirement::NotIn(label(key)?, vec![value.trim().to_owned()]));
    }
    if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        return Ok(Requirement::In(label(key)?, vec![value.trim().to_owned()]));
    }
    match term.strip_prefix('!') {
        Some(key) => Ok(Requirement::Absent(label(key)?)),
        None => Ok(Requirement::Exists(label(term)?)),
    }
}

fn parse_field(term: &str) -> Result<FieldTerm, Failure> {
    let (name, value, equal) = if let Some((name, value)) = term.split_once("!=") {
        (name, value, false)
    } else if let Some((name, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (name, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid field selector: {term}")));
    };
    let field = match name {
        "metadata.name" => Field::Name,
        "metadata.namespace" => Field::Namespace,
        "spec.clusterIP" => Field::ClusterIp,
        "spec.nodeName" => Field::NodeName,
        "reason" => Field::Reason,
        _ => return Err(Failure::bad_request(format!("field label not supported: {name}"))),
    };
    Ok(FieldTerm { field, value: value.to_owned(), equal })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn object() -> Stored {
        Stored::from_json(json!({
            "metadata": {"namespace": "a", "name": "web", "labels": {"app": "web", "tier": "front"}},
            "spec": {"clusterIP": "None"}
        }))
    }

    fn selects(labels: &str, fields: &str) -> bool {
        Selector::parse("", labels, fields).expect("valid selector").matches(&object())
    }

    #[test]
    fn label_selectors_of_every_form_select_as_the_api_does() {
        for (labels, expected) in [
            ("", true),
            ("app", true),
            ("!app", false),
            ("!other", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (db, web),tier", true),
            ("app notin (db,web)", false),
            ("other notin (x)", true),
            ("app=db", false),
        ] {
            assert_eq!(selects(labels, ""), expected, "{labels}");
        }
    }

    #[test]
    fn field_selectors_select_by_name_namespace_and_cluster_ip() {
        assert!(selects("", "metadata.name=web,metadata.namespace==a"));
        assert!(!selects("", "metadata.name!=web"));
        assert!(!selects("", "spec.clusterIP!=None"));
    }

    #[test]
    fn bad_selectors_are_refused() {
        assert_eq!(Selector::parse("", "app in web)", "").expect_err("bad").code, 400);
        assert_eq!(Selector::parse("", "", "spec.type=NodePort").expect_err("bad").code, 400);
    }
}
