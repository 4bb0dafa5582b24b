//! The settings that decide what happens to packets.

use fairlead_plan::Family;
use ipnet::IpNet;

use super::UsageError;
use super::flags::TrafficFlags;

/// What decides about packets and is not an object of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrafficSettings {
    /// How traffic of pods is recognised.
    pub local: LocalTrafficMode,
    /// Whether endpoints see an address of this node for all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Where node ports answer.
    pub node_port_addresses: NodePortAddresses,
    /// The packet mark that says "masquerade": one bit (`masqueradeBit`).
    pub masquerade_mark: u32,
}

/// How traffic of pods is recognised (`detectLocalMode`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LocalTrafficMode {
    /// The source is in one of these, at most one for each family. Empty: no packet counts as a pod's.
    ClusterCidr(Vec<IpNet>),
    /// The source is in `spec.podCIDRs` of this Node.
    NodeCidr,
    /// The packet comes in through this interface.
    BridgeInterface(String),
    /// The packet comes in through an interface whose name begins so.
    InterfaceNamePrefix(String),
}

/// Where node ports answer (`nodePortAddresses`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NodePortAddresses {
    /// The first address of each family in the status of this Node.
    pub primary: bool,
    /// Also 127.0.0.1 and ::1, for processes of this node.
    pub localhost: bool,
    /// Local addresses in these. A prefix of length 0 stands for all of its family.
    pub cidrs: Vec<IpNet>,
}

/// Longest name of an interface (IFNAMSIZ - 1).
const INTERFACE_NAME_MAX: usize = 15;
/// Number of bits in a packet mark.
const MARK_BITS: u32 = 32;

impl TrafficSettings {
    pub(super) fn new(flags: &TrafficFlags) -> Result<Self, UsageError> {
        let bit = flags.iptables_masquerade_bit;
        let mark = u32::try_from(bit).ok().filter(|bit| *bit < MARK_BITS).map(|bit| 1 << bit);
        let mark = mark.ok_or_else(|| {
            UsageError::value(
                "--iptables-masquerade-bit",
                &bit.to_string(),
                "a packet mark has the bits 0 to 31; use one of those",
            )
        })?;
        Ok(Self {
            local: local_traffic(flags)?,
            masquerade_all: flags.masquerade_all,
            node_port_addresses: node_port_addresses(&flags.nodeport_addresses)?,
            masquerade_mark: mark,
        })
    }

    /// What an operator should know at the start although it is allowed, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if self.local == LocalTrafficMode::ClusterCidr(Vec::new()) {
            notes.push(
                "--cluster-cidr is empty, so no traffic counts as a pod's: traffic from outside to ClusterIPs is not \
                 masqueraded, and pods reach external addresses with policy Local only through endpoints on this node; \
                 set --cluster-cidr or another --detect-local-mode"
                    .to_owned(),
            );
        }
        let ports = &self.node_port_addresses;
        for family in Family::BOTH {
            let named = ports.cidrs.iter().any(|net| Family::of(net.addr()) == family);
            if !ports.cidrs.is_empty() && !named {
                let label = family.label();
                notes.push(format!(
                    "--nodeport-addresses names no {label} prefix, so node ports do not answer on {label} addresses of \
                     this node; add one, or primary, if they should"
                ));
            }
        }
        notes
    }
}

fn local_traffic(flags: &TrafficFlags) -> Result<LocalTrafficMode, UsageError> {
    let cidrs = cluster_cidrs(&flags.cluster_cidr)?;
    match flags.detect_local_mode.trim() {
        "" | "ClusterCIDR" => Ok(LocalTrafficMode::ClusterCidr(cidrs)),
        "NodeCIDR" => Ok(LocalTrafficMode::NodeCidr),
        "BridgeInterface" => {
            interface("--pod-bridge-interface", &flags.pod_bridge_interface).map(LocalTrafficMode::BridgeInterface)
        }
        "InterfaceNamePrefix" => interface("--pod-interface-name-prefix", &flags.pod_interface_name_prefix)
            .map(LocalTrafficMode::InterfaceNamePrefix),
        other => {
            let why = "no such mode; use ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix";
            Err(UsageError::value("--detect-local-mode", other, why))
        }
    }
}

fn interface(flag: &str, text: &str) -> Result<String, UsageError> {
    let name = text.trim();
    let wrong = |why: &str| Err(UsageError::value(flag, text, why));
    if name.is_empty() {
        return wrong("the chosen --detect-local-mode needs a name here; write one like cni0");
    }
    if name.len() > INTERFACE_NAME_MAX {
        return wrong("is longer than the 15 bytes that Linux allows for an interface; write a shorter one");
    }
    // What the kernel itself refuses, and what would end or change a name in a rule.
    if name.chars().any(|c| c == '/' || c == '*' || c == '"' || c.is_whitespace() || c.is_control()) {
        return wrong("has characters that no interface can have; write a name like cni0, without a wildcard");
    }
    Ok(name.to_owned())
}

fn cluster_cidrs(text: &str) -> Result<Vec<IpNet>, UsageError> {
    let mut nets: Vec<IpNet> = Vec::new();
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        let net = prefix("--cluster-cidr", part)?;
        if nets.iter().any(|other| Family::of(other.addr()) == Family::of(net.addr())) {
            let why =
                "names two prefixes of one family; write one for each family, like 10.244.0.0/16,fd00:10:244::/56";
            return Err(UsageError::value("--cluster-cidr", text, why));
        }
        nets.push(net);
    }
    Ok(nets)
}

fn node_port_addresses(text: &str) -> Result<NodePortAddresses, UsageError> {
    let mut all = NodePortAddresses { primary: false, localhost: false, cidrs: Vec::new() };
    for part in text.split(',').map(str::trim).filter(|part| !part.is_empty()) {
        match part {
            "primary" => all.primary = true,
            "localhost" => all.localhost = true,
            _ => all.cidrs.push(prefix("--nodeport-addresses", part)?),
        }
    }
    if all.primary && !all.cidrs.is_empty() {
        let why = "mixes primary with prefixes; use primary alone or prefixes alone";
        return Err(UsageError::value("--nodeport-addresses", text, why));
    }
    // kube-proxy's nftables mode does the same when the flag is empty.
    all.primary |= all.cidrs.is_empty() && !all.localhost;
    all.cidrs.sort();
    all.cidrs.dedup();
    Ok(all)
}

/// A prefix; bits behind its length do not matter.
fn prefix(flag: &str, text: &str) -> Result<IpNet, UsageError> {
    let net: Result<IpNet, _> = text.parse();
    net.map(|net| net.trunc())
        .map_err(|_| UsageError::value(flag, text, "is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56"))
}
