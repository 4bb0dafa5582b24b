//! flannel's annotations of Nodes: keys, JSON, what is read and what is written.

use std::collections::BTreeMap;
use std::net::IpAddr;

use fairlead_kernel::route::Mac;
use fairlead_plan::Family;
use serde::Deserialize;
use serde_json::{Value, json};

/// What the keys begin with, closing slash or dash included.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix(String);

impl Default for Prefix {
    fn default() -> Self {
        Self::new("flannel.alpha.coreos.com")
    }
}

impl Prefix {
    /// flannel's rule: a prefix with a slash in it is closed by a dash, one without by a slash.
    #[must_use]
    pub fn new(text: &str) -> Self {
        let closed = text.ends_with('/') || text.ends_with('-');
        let end = match (closed, text.contains('/')) {
            (true, _) => "",
            (false, true) => "-",
            (false, false) => "/",
        };
        Self(format!("{text}{end}"))
    }

    /// The key of an annotation.
    #[must_use]
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.0)
    }

    /// The value of an annotation of a Node.
    pub(super) fn get<'a>(&self, annotations: &'a BTreeMap<String, String>, name: &str) -> Option<&'a str> {
        annotations.get(&self.key(name)).map(String::as_str)
    }
}

/// "true" on nodes that take part.
pub const MANAGED: &str = "kube-subnet-manager";
/// How the node tunnels.
pub const BACKEND_TYPE: &str = "backend-type";

/// What the node tells its peers about its device.
#[must_use]
pub const fn backend_data(family: Family) -> &'static str {
    match family {
        Family::V4 => "backend-data",
        Family::V6 => "backend-v6-data",
    }
}

/// Where its tunnels end.
#[must_use]
pub const fn public_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "public-ip",
        Family::V6 => "public-ipv6",
    }
}

/// Written by an operator: what peers are told instead.
#[must_use]
pub const fn public_ip_overwrite(family: Family) -> &'static str {
    match family {
        Family::V4 => "public-ip-overwrite",
        Family::V6 => "public-ipv6-overwrite",
    }
}

/// Written by an operator: the local address that the node shall use.
#[must_use]
pub const fn node_public_ip(family: Family) -> &'static str {
    match family {
        Family::V4 => "node-public-ip",
        Family::V6 => "node-public-ipv6",
    }
}

/// A device as its node's annotation describes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vtep {
    /// The network; `None` if the annotation does not say, as those of old flannels.
    pub vni: Option<u32>,
    /// The device's Ethernet address.
    pub mac: Mac,
}

#[derive(Deserialize)]
struct BackendData {
    #[serde(rename = "VNI")]
    vni: Option<u32>,
    #[serde(rename = "VtepMAC")]
    mac: Option<String>,
}

/// Reads `{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}`; `None` for backends without device data (`null`, no `VtepMAC`).
///
/// # Errors
/// What is wrong with it, in words that follow the value.
pub fn read_backend_data(text: &str) -> Result<Option<Vtep>, String> {
    let data: Option<BackendData> =
        serde_json::from_str(text).map_err(|error| format!("is not what flannel writes ({error})"))?;
    let Some(BackendData { vni, mac: Some(mac) }) = data else { return Ok(None) };
    let read: Mac = mac.parse().map_err(|error| format!("has VtepMAC {mac:?}, which {error}"))?;
    if !read.is_unicast() {
        return Err(format!("has VtepMAC {mac}, which no device can have"));
    }
    Ok(Some(Vtep { vni, mac: read }))
}

/// The JSON that flannel writes, byte for byte.
#[must_use]
pub fn write_backend_data(vtep: Option<Vtep>) -> String {
    match vtep {
        None => Value::Null.to_string(),
        Some(Vtep { vni, mac }) => {
            // Keys in flannel's order; serde_json would sort them alike only by chance.
            format!("{{\"VNI\":{},\"VtepMAC\":{}}}", vni.unwrap_or(1), json!(mac.to_string()))
        }
    }
}

/// What this node says about itself in one family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Said {
    /// Where tunnels to this node end.
    pub public_ip: IpAddr,
    /// The device; `None` if the backend has none.
    pub vtep: Option<Vtep>,
}

/// The annotations by which this node tells its peers how to reach it, complete.
#[must_use]
pub fn write(prefix: &Prefix, backend: &str, v4: Option<Said>, v6: Option<Said>) -> BTreeMap<String, String> {
    let mut all = BTreeMap::new();
    all.insert(prefix.key(MANAGED), "true".to_owned());
    all.insert(prefix.key(BACKEND_TYPE), backend.to_owned());
    for (family, said) in [(Family::V4, v4), (Family::V6, v6)] {
        if let Some(said) = said {
            all.insert(prefix.key(public_ip(family)), said.public_ip.to_string());
            all.insert(prefix.key(backend_data(family)), write_backend_data(said.vtep));
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_flannels_for_each_kind_of_prefix() {
        for (prefix, key) in [
            ("flannel.alpha.coreos.com", "flannel.alpha.coreos.com/backend-data"),
            ("foo.io/bar", "foo.io/bar-backend-data"),
            ("foo.io/bar-", "foo.io/bar-backend-data"),
            ("foo.io/", "foo.io/backend-data"),
        ] {
            assert_eq!(Prefix::new(prefix).key(backend_data(Family::V4)), key);
        }
    }

    #[test]
    fn a_device_is_written_as_flannel_writes_it_and_read_back() {
        let vtep = Vtep { vni: Some(1), mac: "aa:bb:cc:dd:ee:ff".parse().expect("a MAC") };
        let text = write_backend_data(Some(vtep));
        assert_eq!(text, r#"{"VNI":1,"VtepMAC":"aa:bb:cc:dd:ee:ff"}"#);
        assert_eq!(read_backend_data(&text), Ok(Some(vtep)));
        assert_eq!(write_backend_data(None), "null");
    }

    #[test]
    fn data_of_other_backends_is_no_device_and_nonsense_is_an_error() {
        assert_eq!(read_backend_data("null"), Ok(None));
        assert_eq!(read_backend_data(r#"{"PublicKey":"x","Port":51820}"#), Ok(None));
        assert_eq!(
            read_backend_data(r#"{"VtepMAC":"ca:cb:1f:99:10:97"}"#).map(|vtep| vtep.and_then(|vtep| vtep.vni)),
            Ok(None)
        );
        for wrong in ["", "{", "[]", r#"{"VtepMAC":7}"#, r#"{"VNI":-1,"VtepMAC":"ca:cb:1f:99:10:97"}"#] {
            assert!(read_backend_data(wrong).is_err(), "{wrong}");
        }
        let broadcast = read_backend_data(r#"{"VNI":1,"VtepMAC":"ff:ff:ff:ff:ff:ff"}"#);
        assert_eq!(broadcast, Err("has VtepMAC ff:ff:ff:ff:ff:ff, which no device can have".to_owned()));
    }
}
