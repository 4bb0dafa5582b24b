//! What the operator wants of the overlay.

use std::net::IpAddr;

use fairlead_kernel::route::{Mac, VXLAN_PORT};
use fairlead_plan::Family;
use ipnet::IpNet;
use regex::Regex;

use crate::resolve::PerFamily;

/// How packets travel to pods of other nodes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Backend {
    /// Not by fairlead: another CNI does it.
    #[default]
    None,
    /// Through VXLAN devices with neighbours and forwarding entries, exactly as flannel's.
    Vxlan,
    /// By plain routes through the other node, which must be on the same link.
    HostGw,
    /// As [`Backend::HostGw`] where the other node is on the same link, as [`Backend::Vxlan`] elsewhere.
    DirectRouting,
    /// Through one VXLAN device without a network of its own, into which each route packs its packets.
    VxlanLwt,
}

impl Backend {
    /// As the operator writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Vxlan => "vxlan",
            Self::HostGw => "host-gw",
            Self::DirectRouting => "direct-routing",
            Self::VxlanLwt => "vxlan-lwt",
        }
    }

    /// As flannel's annotation `backend-type` calls it.
    #[must_use]
    pub const fn annotation(self) -> &'static str {
        match self {
            Self::None => "",
            Self::HostGw => "host-gw",
            Self::Vxlan | Self::DirectRouting | Self::VxlanLwt => "vxlan",
        }
    }

    /// Whether it needs a VXLAN device.
    #[must_use]
    pub const fn tunnels(self) -> bool {
        matches!(self, Self::Vxlan | Self::DirectRouting | Self::VxlanLwt)
    }
}

/// Everything about the overlay that does not come from the cluster or the machine.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How packets travel.
    pub backend: Backend,
    /// The name of this node's Node object.
    pub node_name: String,
    /// The families that the kernel carries.
    pub families: Vec<Family>,
    /// The prefix of all pods of the cluster (`Network`, `IPv6Network`; `--cluster-cidr`).
    pub networks: PerFamily<Option<IpNet>>,
    /// The VXLAN network (`Backend.VNI`).
    pub vni: u32,
    /// UDP destination port of the tunnels (`Backend.Port`).
    pub port: u16,
    /// MTU of the underlay as the operator says it, bytes (`Backend.MTU`); `None`: that of the interface.
    pub mtu: Option<u32>,
    /// Whether the devices learn forwarding entries from what arrives (`Backend.Learning`).
    pub learning: bool,
    /// Whether the devices use the group policy extension (`Backend.GBP`).
    pub gbp: bool,
    /// What the annotations' keys begin with.
    pub prefix: super::annotation::Prefix,
    /// Which interface and addresses carry the tunnels.
    pub underlay: UnderlaySettings,
    /// Tunnel ends that are no nodes.
    pub external: Vec<ExternalVtep>,
    /// Whether packets to pods of nobody are dropped instead of following the default route (`--overlay-blackhole`).
    pub blackhole: bool,
    /// Whether pods that leave the cluster get an address of this node (`--ip-masq`).
    pub masquerade: bool,
    /// Whether tunnelled packets are taken from known peers alone.
    pub peer_filter: bool,
    /// Files by which pods get addresses.
    pub files: super::cni::Files,
    /// Whether the condition `NetworkUnavailable` of this node is cleared once the overlay is up.
    pub clear_network_unavailable: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            backend: Backend::None,
            node_name: String::new(),
            families: Family::BOTH.to_vec(),
            networks: PerFamily::default(),
            vni: 1,
            port: VXLAN_PORT,
            mtu: None,
            learning: false,
            gbp: false,
            prefix: super::annotation::Prefix::default(),
            underlay: UnderlaySettings::default(),
            external: Vec::new(),
            blackhole: false,
            masquerade: true,
            peer_filter: true,
            files: super::cni::Files::default(),
            clear_network_unavailable: true,
        }
    }
}

/// Equal if they were written alike: an expression has no other equality.
impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}

/// How the interface is found, in this order; flannel's rules.
#[derive(Debug, Clone, Default)]
pub struct UnderlaySettings {
    /// Names or addresses of interfaces; the first that is there counts (`--iface`).
    pub interfaces: Vec<String>,
    /// Expressions for addresses, then names, of interfaces (`--iface-regex`).
    pub expressions: Vec<Regex>,
    /// An address whose route leads through the interface (`--iface-can-reach`).
    pub can_reach: Option<IpAddr>,
    /// This node's address for its peers (`--public-ip`, `--public-ipv6`).
    pub public: PerFamily<Option<IpAddr>>,
}

/// A tunnel end that is no node, as Cilium's VTEP integration has them: a prefix behind a machine that speaks VXLAN.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExternalVtep {
    /// The prefix behind it.
    pub cidr: IpNet,
    /// Where the tunnel ends.
    pub endpoint: IpAddr,
    /// The Ethernet address of its VXLAN device.
    pub mac: Mac,
    /// The network that it uses.
    pub vni: u32,
}
