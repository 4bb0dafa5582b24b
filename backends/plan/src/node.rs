use std::net::IpAddr;

use ipnet::IpNet;
use serde::Serialize;

use crate::{Origin, Packet};

/// How this node recognises traffic that comes from a pod (`detectLocalMode` of kube-proxy).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub enum LocalTraffic {
    /// Nothing is known: no packet counts as a pod's.
    #[default]
    Unknown,
    /// The source address is in one of these (modes `ClusterCIDR` and `NodeCIDR`). A family without a prefix here
    /// has no detector.
    Sources(Vec<IpNet>),
    /// The packet came in through the interface of this name (mode `BridgeInterface`).
    Interface(String),
    /// The packet came in through an interface whose name starts so (mode `InterfaceNamePrefix`).
    InterfacePrefix(String),
}

/// What a backend must know about the node itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Node {
    /// How traffic of pods is recognised.
    pub local_traffic: LocalTraffic,
    /// Node ports answer on those local addresses that are in one of these, never on loopback
    /// (`nodePortAddresses`). `0.0.0.0/0` and `::/0` stand for every local address of the family.
    pub node_port_addresses: Vec<IpNet>,
    /// The prefixes from which ClusterIPs are allocated (`ServiceCIDR.spec.cidrs`). What is in here and belongs to no
    /// service is dropped.
    pub service_cidrs: Vec<IpNet>,
    /// The bit of the packet mark that says "masquerade" between the hooks (`masqueradeBit`, 0x4000 by default).
    pub masquerade_mark: u32,
}

impl Default for Node {
    fn default() -> Self {
        Self {
            local_traffic: LocalTraffic::Unknown,
            node_port_addresses: Vec::new(),
            service_cidrs: Vec::new(),
            masquerade_mark: 1 << 14,
        }
    }
}

impl Node {
    /// Where a packet comes from, as far as policy is concerned. The pod detector is asked first, as in kube-proxy.
    #[must_use]
    pub fn origin(&self, packet: &Packet) -> Origin {
        let from_pod = match &self.local_traffic {
            LocalTraffic::Unknown => false,
            LocalTraffic::Sources(nets) => nets.iter().any(|net| net.contains(&packet.source)),
            LocalTraffic::Interface(name) => packet.interface.as_deref() == Some(name),
            LocalTraffic::InterfacePrefix(prefix) => {
                packet.interface.as_deref().is_some_and(|name| name.starts_with(prefix.as_str()))
            }
        };
        if from_pod {
            Origin::Pod
        } else if packet.source_is_local {
            Origin::Node
        } else {
            Origin::Outside
        }
    }

    /// Whether node ports answer on this local address.
    #[must_use]
    pub fn has_node_ports(&self, addr: IpAddr) -> bool {
        let loopback = match addr {
            IpAddr::V4(addr) => addr.is_loopback(),
            IpAddr::V6(addr) => addr.is_loopback(),
        };
        !loopback && self.node_port_addresses.iter().any(|net| net.contains(&addr))
    }
}
