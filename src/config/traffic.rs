//! The settings that decide what happens to packets: flags into [`resolve::Settings`].

use fairlead_plan::Family;
use ipnet::IpNet;

use super::UsageError;
use super::flags::TrafficFlags;
use super::settings::Mode;
use crate::resolve::{self, DetectMode, NodePortAddresses};

/// Longest name of an interface (IFNAMSIZ - 1).
const INTERFACE_NAME_MAX: usize = 15;
/// Number of bits in a packet mark.
const MARK_BITS: u8 = 32;
/// Stands for 127.0.0.1 and ::1 in `--nodeport-addresses`.
const LOCALHOST: &str = "localhost";

/// The settings of `resolve`, without what is known about the node.
pub(super) fn settings(mode: Mode, flags: &TrafficFlags) -> Result<resolve::Settings, UsageError> {
    let bit = flags.iptables_masquerade_bit;
    let bit = u8::try_from(bit).ok().filter(|bit| *bit < MARK_BITS).ok_or_else(|| {
        let why = "a packet mark has the bits 0 to 31; use one of those";
        UsageError::value("--iptables-masquerade-bit", &bit.to_string(), why)
    })?;
    Ok(resolve::Settings {
        detect: detect(flags)?,
        masquerade_all: flags.masquerade_all,
        masquerade_bit: bit,
        node_port_addresses: match mode {
            // As kube-proxy in this mode.
            Mode::Iptables(_) if flags.nodeport_addresses.trim().is_empty() => NodePortAddresses::All,
            _ => node_port_addresses(&flags.nodeport_addresses)?,
        },
        ..resolve::Settings::default()
    })
}

/// What an operator should know at the start although it is allowed, one sentence each.
pub(super) fn notes(settings: &resolve::Settings) -> Vec<String> {
    let mut notes = Vec::new();
    if settings.detect == DetectMode::ClusterCidr(Vec::new()) {
        notes.push(
            "--cluster-cidr is empty, so no traffic counts as a pod's: traffic from outside to ClusterIPs is not \
             masqueraded, and pods reach external addresses with policy Local only through endpoints on this node; set \
             --cluster-cidr or another --detect-local-mode"
                .to_owned(),
        );
    }
    if let NodePortAddresses::Cidrs(nets) = &settings.node_port_addresses {
        for family in
            settings.families.iter().filter(|family| nets.iter().all(|net| Family::of(net.addr()) != **family))
        {
            let label = family.label();
            notes.push(format!(
                "--nodeport-addresses names no {label} prefix, so node ports answer on every {label} address of this \
                 node, as with kube-proxy; add a prefix if they should not"
            ));
        }
    }
    if settings.node_port_addresses == NodePortAddresses::Only(Vec::new()) {
        notes.push(
            "--nodeport-addresses names localhost alone, so node ports and health-check node ports answer no other machine; \
             add primary or a prefix if they should"
                .to_owned(),
        );
    }
    notes
}

fn detect(flags: &TrafficFlags) -> Result<DetectMode, UsageError> {
    let cidrs = cluster_cidrs(&flags.cluster_cidr)?;
    match flags.detect_local_mode.trim() {
        "" | "ClusterCIDR" => Ok(DetectMode::ClusterCidr(cidrs)),
        "NodeCIDR" => Ok(DetectMode::NodeCidr),
        "BridgeInterface" => {
            interface("--pod-bridge-interface", &flags.pod_bridge_interface).map(DetectMode::BridgeInterface)
        }
        "InterfaceNamePrefix" => interface("--pod-interface-name-prefix", &flags.pod_interface_name_prefix)
            .map(DetectMode::InterfaceNamePrefix),
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

/// Whether node ports are to answer on loopback as well.
pub(super) fn loopback_node_ports(flags: &TrafficFlags) -> bool {
    loopback_among(&flags.nodeport_addresses)
}

fn loopback_among(text: &str) -> bool {
    node_port_places(text).any(|part| part == LOCALHOST)
}

fn node_port_places(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|part| !part.is_empty())
}

fn node_port_addresses(text: &str) -> Result<NodePortAddresses, UsageError> {
    let wrong = |why: &str| Err(UsageError::value("--nodeport-addresses", text, why));
    let all = || node_port_places(text);
    let others: Vec<&str> = all().filter(|part| *part != LOCALHOST).collect();
    if all().next().is_none() || others == ["primary"] {
        return Ok(NodePortAddresses::Primary);
    }
    if others.contains(&"primary") {
        return wrong("mixes primary with prefixes; use one of the two, with or without localhost");
    }
    let mut nets =
        others.into_iter().map(|part| prefix("--nodeport-addresses", part)).collect::<Result<Vec<_>, _>>()?;
    nets.sort();
    nets.dedup();
    // localhost is an address of either family, so none is left without.
    let with_loopback = loopback_among(text);
    Ok(if with_loopback { NodePortAddresses::Only(nets) } else { NodePortAddresses::Cidrs(nets) })
}

/// A prefix; bits behind its length do not matter.
fn prefix(flag: &str, text: &str) -> Result<IpNet, UsageError> {
    let net: Result<IpNet, _> = text.parse();
    net.map(|net| net.trunc())
        .map_err(|_| UsageError::value(flag, text, "is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56"))
}
