//! From method, path and query to what is asked for.

use std::collections::BTreeMap;

use hyper::{Method, Uri};

use super::{
    resources::{RESOURCES, Resource},
    state::RecordedRequest,
};

/// A request for a resource.
#[derive(Debug)]
pub(super) struct Target {
    pub resource: &'static Resource,
    /// Empty for all namespaces and for objects of the cluster.
    pub namespace: String,
    /// Empty for the collection.
    pub name: String,
    /// `status`, for pods also `log`, `exec` and `portforward`; or empty.
    pub subresource: String,
}

impl Target {
    /// The target of a path, `None` if this release (1.`minor`) does not serve it.
    pub fn of_path(path: &str, minor: u32) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (group, version, rest) = match parts.as_slice() {
            ["api", version, rest @ ..] => ("", *version, rest),
            ["apis", group, version, rest @ ..] => (*group, *version, rest),
            _ => return None,
        };
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let (plural, name, subresource) = match rest {
            [plural] => (*plural, "", ""),
            [plural, name] => (*plural, *name, ""),
            [plural, name, subresource] => (*plural, *name, *subresource),
            _ => return None,
        };
        let resource = RESOURCES.iter().find(|resource| {
            (resource.group, resource.version, resource.plural) == (group, version, plural) && resource.since <= minor
        })?;
        let known_subresource = match subresource {
            "" => true,
            "status" => resource.has_status,
            // Those that a kubelet answers.
            "log" | "exec" | "portforward" => resource.kind == "Pod",
            _ => false,
        };
        let right_scope = resource.namespaced || namespace.is_empty();
        let named_in_namespace = name.is_empty() || !resource.namespaced || !namespace.is_empty();
        (known_subresource && right_scope && named_in_namespace).then(|| Self {
            resource,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            subresource: subresource.to_owned(),
        })
    }

    /// The verb as RBAC knows it.
    pub fn verb(&self, method: &Method, query: &Query) -> &'static str {
        match *method {
            Method::GET | Method::HEAD if query.flag("watch") => "watch",
            Method::GET | Method::HEAD if self.name.is_empty() => "list",
            Method::GET | Method::HEAD => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE if self.name.is_empty() => "deletecollection",
            Method::DELETE => "delete",
            _ => "unknown",
        }
    }

    pub fn recorded(&self, verb: &str, uri: &Uri) -> RecordedRequest {
        RecordedRequest {
            verb: verb.to_owned(),
            group: self.resource.group.to_owned(),
            resource: self.resource.plural.to_owned(),
            subresource: self.subresource.clone(),
            namespace: self.namespace.clone(),
            name: self.name.clone(),
            uri: uri.to_string(),
        }
    }
}

/// The query of a URI, decoded.
#[derive(Debug, Default)]
pub(super) struct Query(BTreeMap<String, String>);

impl Query {
    pub fn of_uri(uri: &Uri) -> Self {
        let pairs = uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty());
        Self(
            pairs.map(|pair| pair.split_once('=').unwrap_or((pair, ""))).map(|(k, v)| (decode(k), decode(v))).collect(),
        )
    }

    /// The value, empty if absent.
    pub fn get(&self, key: &str) -> &str {
        self.0.get(key).map_or("", String::as_str)
    }

    /// Whether the key is there and means yes.
    pub fn flag(&self, key: &str) -> bool {
        matches!(self.get(key), "true" | "1")
    }

    /// The value as a number, `None` if absent or not a number.
    pub fn number(&self, key: &str) -> Option<u64> {
        self.get(key).parse().ok()
    }
}

/// Undoes percent and plus encoding; what is not valid UTF-8 afterwards is replaced.
fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let hex = bytes.get(at + 1..at + 3).and_then(|hex| std::str::from_utf8(hex).ok());
        match (bytes[at], hex.and_then(|hex| u8::from_str_radix(hex, 16).ok())) {
            (b'%', Some(byte)) => {
                decoded.push(byte);
                at += 2;
            }
            (b'+', _) => decoded.push(b' '),
            (byte, _) => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_the_resource_namespace_name_and_subresource() {
        let target =
            Target::of_path("/apis/discovery.k8s.io/v1/namespaces/a/endpointslices/web-1", 33).expect("served");
        assert_eq!((target.resource.kind, &*target.namespace, &*target.name), ("EndpointSlice", "a", "web-1"));
        let target = Target::of_path("/api/v1/nodes/n1/status", 33).expect("served");
        assert_eq!((target.resource.kind, &*target.name, &*target.subresource), ("Node", "n1", "status"));
        assert!(Target::of_path("/api/v1/namespaces/a/nodes/n1", 33).is_none());
        assert!(Target::of_path("/api/v1/services/web", 33).is_none());
    }

    #[test]
    fn service_cidrs_are_served_from_1_33_on() {
        assert!(Target::of_path("/apis/networking.k8s.io/v1/servicecidrs", 32).is_none());
        assert!(Target::of_path("/apis/networking.k8s.io/v1/servicecidrs", 33).is_some());
    }

    #[test]
    fn queries_are_decoded() {
        let query = Query::of_uri(&"/x?labelSelector=%21a%2Cb+c&watch=1&limit=5".parse().expect("valid"));
        assert_eq!(query.get("labelSelector"), "!a,b c");
        assert!(query.flag("watch"));
        assert_eq!(query.number("limit"), Some(5));
    }
}
