//! flannel's `net-conf.json`, as it is.
//!
//! Keys are matched whatever their case, as Go does. What only flannel's other modes use (`SubnetLen` and the like, which
//! belong to etcd) is ignored, as flannel ignores it on Kubernetes.

use std::path::Path;

use fairlead_plan::Family;
use ipnet::IpNet;
use serde_json::{Map, Value};

use crate::overlay::Backend;
use crate::resolve::PerFamily;

/// VNIs have 24 bits.
const VNI_MAX: u64 = (1 << 24) - 1;

/// What the file says; `None` where it says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetConf {
    /// `Network` and `IPv6Network`, of the families that are enabled.
    pub networks: PerFamily<Option<IpNet>>,
    /// `EnableIPv4` and `EnableIPv6`.
    pub families: Vec<Family>,
    /// `Backend.Type`, with `DirectRouting`.
    pub backend: Option<Backend>,
    /// `Backend.VNI`
    pub vni: Option<u32>,
    /// `Backend.Port`; 0 is flannel's word for the default.
    pub port: Option<u16>,
    /// `Backend.MTU`, bytes on the wire.
    pub mtu: Option<u32>,
    /// `Backend.Learning`
    pub learning: bool,
    /// `Backend.GBP`
    pub gbp: bool,
}

/// Reads the file.
///
/// # Errors
/// One sentence without the file's name: what is wrong and what to do.
pub(super) fn read(path: &Path) -> Result<NetConf, String> {
    let text = std::fs::read_to_string(path).map_err(|error| format!("cannot be read: {error}"))?;
    parse(&text)
}

fn parse(text: &str) -> Result<NetConf, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("is not JSON: {error}"))?;
    let whole = Fields(value.as_object().ok_or("holds no JSON object; see flannel's documentation")?);
    let mut conf = NetConf::default();
    let enabled = [(Family::V4, "EnableIPv4", true, "Network"), (Family::V6, "EnableIPv6", false, "IPv6Network")];
    for (family, key, default, network) in enabled {
        if !whole.flag(key)?.unwrap_or(default) {
            continue;
        }
        let text = whole.text(network)?.ok_or_else(|| format!("has no {network}, the prefix of all pods; add it"))?;
        let net = text.parse::<IpNet>().ok().filter(|net| Family::of(net.addr()) == family);
        let label = family.label();
        conf.networks[family] = Some(net.ok_or_else(|| format!("has {network} {text:?}, which is no {label} prefix"))?);
        conf.families.push(family);
    }
    let Some(backend) = whole.get("Backend").filter(|value| !value.is_null()) else { return Ok(conf) };
    let backend = Fields(backend.as_object().ok_or("has a Backend that is no object")?);
    conf.vni = backend.number("VNI", VNI_MAX)?.and_then(|vni| u32::try_from(vni).ok());
    conf.port = backend.number("Port", u16::MAX.into())?.and_then(|port| u16::try_from(port).ok());
    conf.mtu = backend.number("MTU", u16::MAX.into())?.and_then(|mtu| u32::try_from(mtu).ok()).filter(|mtu| *mtu != 0);
    conf.learning = backend.flag("Learning")?.unwrap_or(false);
    conf.gbp = backend.flag("GBP")?.unwrap_or(false);
    let kind = backend.text("Type")?.unwrap_or_default().to_lowercase();
    let direct = backend.flag("DirectRouting")?.unwrap_or(false);
    conf.backend = Some(match backend_of(&kind)? {
        Backend::Vxlan if direct => Backend::DirectRouting,
        backend => backend,
    });
    Ok(conf)
}

/// The backend of this name, flannel's or ours.
///
/// # Errors
/// Why there is none, and what to use.
pub(super) fn backend_of(name: &str) -> Result<Backend, String> {
    Ok(match name {
        "none" | "alloc" => Backend::None,
        "vxlan" => Backend::Vxlan,
        "host-gw" => Backend::HostGw,
        "direct-routing" => Backend::DirectRouting,
        "vxlan-lwt" => Backend::VxlanLwt,
        "wireguard" | "ipsec" => {
            return Err(format!(
                "asks for the backend {name}, which fairlead does not have yet; use vxlan over a network that encrypts, or \
                 keep flanneld and run fairlead with --overlay-backend=none"
            ));
        }
        "udp" | "ipip" => {
            return Err(format!(
                "asks for the backend {name}, which fairlead does not have; use vxlan, which needs nothing more"
            ));
        }
        "" => return Err("names no backend (Backend.Type); write vxlan or host-gw".to_owned()),
        _ => return Err(format!("asks for the backend {name:?}, which does not exist; use vxlan or host-gw")),
    })
}

struct Fields<'a>(&'a Map<String, Value>);

impl<'a> Fields<'a> {
    /// The value of a key in any case; the exact one is preferred.
    fn get(&self, key: &str) -> Option<&'a Value> {
        let alike = || self.0.iter().find(|(other, _)| other.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        self.0.get(key).or_else(alike).filter(|value| !value.is_null())
    }

    fn text(&self, key: &str) -> Result<Option<&'a str>, String> {
        let text = |value: &'a Value| value.as_str().ok_or_else(|| format!("has {key} {value}, which is no text"));
        self.get(key).map(text).transpose()
    }

    fn flag(&self, key: &str) -> Result<Option<bool>, String> {
        let flag = |value: &Value| value.as_bool().ok_or_else(|| format!("has {key} {value}; write true or false"));
        self.get(key).map(flag).transpose()
    }

    fn number(&self, key: &str, most: u64) -> Result<Option<u64>, String> {
        let number = |value: &Value| {
            let number = value.as_u64().filter(|number| *number <= most);
            number.ok_or_else(|| format!("has {key} {value}; write a number from 0 to {most}"))
        };
        self.get(key).map(number).transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_that_flannel_ships_means_vxlan_with_its_defaults() {
        let conf = parse(r#"{"Network": "10.244.0.0/16", "EnableNFTables": false, "Backend": {"Type": "vxlan"}}"#);
        let conf = conf.expect("a good file");
        assert_eq!(conf.networks.v4, "10.244.0.0/16".parse().ok());
        assert_eq!((conf.networks.v6, conf.families), (None, vec![Family::V4]));
        assert_eq!((conf.backend, conf.vni, conf.port, conf.mtu), (Some(Backend::Vxlan), None, None, None));
    }

    #[test]
    fn every_key_of_vxlan_is_read_in_any_case_and_both_families() {
        let text = r#"{"network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/32",
            "backend": {"TYPE": "VXLAN", "vni": 4096, "port": 4789, "mtu": 9000, "DirectRouting": true, "GBP": true,
            "Learning": true}}"#;
        let conf = parse(text).expect("a good file");
        assert_eq!(conf.families, Family::BOTH);
        assert_eq!(conf.networks.v6, "fd00:244::/32".parse().ok());
        assert_eq!((conf.backend, conf.vni, conf.port), (Some(Backend::DirectRouting), Some(4096), Some(4789)));
        assert_eq!((conf.mtu, conf.gbp, conf.learning), (Some(9000), true, true));
    }

    #[test]
    fn what_is_wrong_is_said_in_one_sentence() {
        for (text, words) in [
            ("", "is not JSON"),
            ("[]", "no JSON object"),
            ("{}", "has no Network"),
            (r#"{"Network": "fd00::/32"}"#, "no IPv4 prefix"),
            (r#"{"Network": 7}"#, "which is no text"),
            (r#"{"EnableIPv4": "yes"}"#, "write true or false"),
            (r#"{"EnableIPv4": false, "EnableIPv6": true}"#, "has no IPv6Network"),
            (r#"{"Network": "10.0.0.0/8", "Backend": {}}"#, "names no backend"),
            (r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "vxlan", "VNI": 16777216}}"#, "from 0 to 16777215"),
            (
                r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "wireguard"}}"#,
                "use vxlan over a network that encrypts",
            ),
            (r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "udp"}}"#, "use vxlan"),
            (r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "ipip"}}"#, "use vxlan"),
            (r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "ipsec"}}"#, "--overlay-backend=none"),
            (r#"{"Network": "10.0.0.0/8", "Backend": {"Type": "geneve"}}"#, "does not exist"),
        ] {
            let said = parse(text).expect_err(text);
            assert!(said.contains(words), "{text}: {said}");
        }
    }
}
