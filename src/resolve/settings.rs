use std::net::IpAddr;

use fairlead_plan::Family;
use ipnet::IpNet;

use crate::object::Kind;

/// The part of the configuration that decides what the plan says. Checked and defaulted by [`crate`]'s configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The name of this node's Node object, as the API server has it.
    pub node_name: String,
    /// `detectLocalMode` with its values.
    pub detect: DetectMode,
    /// `masqueradeAll`: masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// `masqueradeBit`, 0 to 31: which bit of the packet mark fairlead uses.
    pub masquerade_bit: u8,
    /// `nodePortAddresses`
    pub node_port_addresses: NodePortAddresses,
    /// `bindAddress`, if it is a specified address: this node's own address of that family.
    pub bind_address: Option<IpAddr>,
    /// Feature gate `AllowServiceExternalIPs`.
    pub allow_external_ips: bool,
    /// The families that this node can carry. Addresses of another family are left out silently.
    pub families: Vec<Family>,
    /// The kinds whose first lists must be complete before a plan may be made.
    pub kinds: Vec<Kind>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            node_name: String::new(),
            detect: DetectMode::ClusterCidr(Vec::new()),
            masquerade_all: false,
            masquerade_bit: 14,
            node_port_addresses: NodePortAddresses::Primary,
            bind_address: None,
            allow_external_ips: true,
            families: Family::BOTH.to_vec(),
            kinds: Kind::ALL.to_vec(),
        }
    }
}

/// How traffic of this node's pods is recognised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DetectMode {
    /// The source is in the first of these prefixes of its family. A family without prefix has no detector.
    ClusterCidr(Vec<IpNet>),
    /// The source is in the first of `Node.spec.podCIDRs` of its family.
    NodeCidr,
    /// The packet comes from the interface of this name.
    BridgeInterface(String),
    /// The packet comes from an interface whose name starts so.
    InterfaceNamePrefix(String),
}

/// On which local addresses the kernel has node ports. Loopback is never among them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NodePortAddresses {
    /// The node's first address of each family.
    Primary,
    /// Every local address.
    All,
    /// Local addresses in these prefixes. A family without prefix answers on every local address, as in kube-proxy.
    Cidrs(Vec<IpNet>),
    /// Local addresses in these prefixes and nowhere else: a family without prefix has no node ports in the kernel. What
    /// `localhost` in the list comes to, whose node ports a proxy offers ([`crate::loopback`]).
    Only(Vec<IpNet>),
}
