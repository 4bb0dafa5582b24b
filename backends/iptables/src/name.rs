//! The names of chains: those that kube-proxy gives, so that people and programs that know them find them.
//!
//! Chains that kube-proxy does not have are named so that it takes them for left over ones of its own and removes them:
//! a node can be given back to it.

use std::net::SocketAddr;

use fairlead_kernel::xtables::CHAIN_NAME_MAX;
use fairlead_plan::{Pool, ServiceKey};
use sha2::{Digest, Sha256};

pub const SERVICES: &str = "KUBE-SERVICES";
pub const EXTERNAL_SERVICES: &str = "KUBE-EXTERNAL-SERVICES";
pub const NODE_PORTS: &str = "KUBE-NODEPORTS";
pub const POSTROUTING: &str = "KUBE-POSTROUTING";
pub const MARK_MASQ: &str = "KUBE-MARK-MASQ";
pub const FORWARD: &str = "KUBE-FORWARD";
pub const FIREWALL: &str = "KUBE-PROXY-FIREWALL";
/// Not kube-proxy's: marks what does not come from a pod, where that takes more than one rule.
pub const MARK_NOT_POD: &str = "KUBE-MARK-NOT-POD";
/// Not kube-proxy's: refuses unused ports of ClusterIPs.
pub const CLUSTER_IPS: &str = "KUBE-CLUSTER-IPS";
/// Not kube-proxy's: refuses in the way that suits the protocol.
pub const REJECT: &str = "KUBE-REJECT";

pub const CLUSTER: &str = "KUBE-SVC-";
pub const LOCAL: &str = "KUBE-SVL-";
pub const EXTERNAL: &str = "KUBE-EXT-";
pub const RANGES: &str = "KUBE-FW-";
/// Not kube-proxy's; only in the table filter, which it does not search for left over chains.
pub const CLUSTER_IP: &str = "KUBE-CIP-";
const ENDPOINT: &str = "KUBE-SEP-";

/// Chains that kube-proxy has or had under these very names. `KUBE-FIREWALL` is not among them: it is the kubelet's.
const WHOLE: [&str; 11] = [
    SERVICES,
    EXTERNAL_SERVICES,
    NODE_PORTS,
    POSTROUTING,
    MARK_MASQ,
    FORWARD,
    FIREWALL,
    MARK_NOT_POD,
    REJECT,
    CLUSTER_IPS,
    "KUBE-PROXY-CANARY",
];
/// How chains for single services begin; `KUBE-XLB-` in kube-proxy before 1.24.
const BEGINNINGS: [&str; 7] = [CLUSTER, LOCAL, EXTERNAL, RANGES, ENDPOINT, CLUSTER_IP, "KUBE-XLB-"];

/// Whether a chain is one of ours or of kube-proxy's, which we replace.
#[must_use]
pub fn is_ours(chain: &str) -> bool {
    WHOLE.contains(&chain) || BEGINNINGS.iter().any(|beginning| chain.starts_with(beginning))
}

/// A service port as Kubernetes writes it: `namespace/name:port`, without a colon if the port has no name.
pub fn service_port(key: &ServiceKey) -> String {
    let colon = if key.port_name.is_empty() { "" } else { ":" };
    format!("{}/{}{colon}{}", key.namespace, key.name, key.port_name)
}

/// The chain that picks an endpoint of a pool.
pub fn pool(key: &ServiceKey, pool: Pool) -> String {
    let beginning = match pool {
        Pool::Cluster => CLUSTER,
        Pool::Local => LOCAL,
    };
    of_service(beginning, key, "")
}

/// The chain that external addresses and node ports lead to.
pub fn external(key: &ServiceKey) -> String {
    of_service(EXTERNAL, key, "")
}

/// The chain that ClusterIPs lead to where origins differ in more than masquerading, which kube-proxy does not know.
pub fn internal(key: &ServiceKey) -> String {
    of_service(EXTERNAL, key, "/internal")
}

/// The chain that lets only some sources in, by the number of the list of sources.
pub fn ranges(key: &ServiceKey, number: usize) -> String {
    let suffix = if number == 0 { String::new() } else { format!("/{number}") };
    of_service(RANGES, key, &suffix)
}

/// The chain of an endpoint; also the name of its list of clients.
pub fn endpoint(key: &ServiceKey, addr: SocketAddr) -> String {
    of_service(ENDPOINT, key, &addr.to_string())
}

/// A branch of a dispatch: `KUBE-SVC-10.96.16.0/20`, `KUBE-EXT-tcp/30080-30095`, or where that is too long, a hash of it.
pub fn branch(beginning: &str, place: &str) -> String {
    if beginning.len() + place.len() <= CHAIN_NAME_MAX {
        format!("{beginning}{place}")
    } else {
        format!("{beginning}/{}", hash(&[place]))
    }
}

fn of_service(beginning: &str, key: &ServiceKey, suffix: &str) -> String {
    format!("{beginning}{}", hash(&[&service_port(key), key.protocol.name(), suffix]))
}

/// The first 16 digits of base 32 (RFC 4648) of the SHA-256 of all parts.
fn hash(parts: &[&str]) -> String {
    const DIGITS: &[u8; 32] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZ234567";
    const LENGTH: usize = 16;
    let mut hasher = Sha256::new();
    parts.iter().for_each(|part| hasher.update(part));
    let sum = hasher.finalize();
    let bit = |number: usize| sum[number / 8] >> (7 - number % 8) & 1;
    let digit = |number: usize| (0..5).fold(0, |value, offset| value << 1 | bit(number * 5 + offset));
    (0..LENGTH).map(|number| char::from(DIGITS[usize::from(digit(number))])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_plan::{Family, Protocol};

    fn key(namespace: &str, name: &str, port: &str) -> ServiceKey {
        let (namespace, name, port_name) = (namespace.into(), name.into(), port.into());
        ServiceKey { namespace, name, port_name, protocol: Protocol::Tcp, family: Family::V4 }
    }

    #[test]
    fn names_are_those_that_kube_proxy_gives() {
        let nginx = key("default", "nginx-test", "80-80");
        assert_eq!(pool(&nginx, Pool::Cluster), "KUBE-SVC-7CWUT4JBGBRVUN2L");
        assert_eq!(endpoint(&nginx, "10.42.1.6:80".parse().unwrap()), "KUBE-SEP-U2YYZT2C3O6VM4EV");
        let first = key("ns1", "svc1", "p80");
        assert_eq!(pool(&first, Pool::Local), "KUBE-SVL-XPGD46QRK7WJZT7O");
        assert_eq!(external(&first), "KUBE-EXT-XPGD46QRK7WJZT7O");
        assert_eq!(ranges(&first, 0), "KUBE-FW-XPGD46QRK7WJZT7O");
    }

    #[test]
    fn chains_of_the_kubelet_and_of_others_are_not_ours() {
        for foreign in [
            "KUBE-FIREWALL",
            "KUBE-KUBELET-CANARY",
            "KUBE-IPTABLES-HINT",
            "KUBE-MARK-DROP",
            "DOCKER",
            "CNI-HOSTPORT-DNAT",
        ] {
            assert!(!is_ours(foreign), "{foreign}");
        }
        for ours in ["KUBE-SERVICES", "KUBE-SEP-U2YYZT2C3O6VM4EV", "KUBE-SVC-10.96.16.0/20", "KUBE-PROXY-CANARY"] {
            assert!(is_ours(ours), "{ours}");
        }
    }
}
