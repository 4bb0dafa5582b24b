use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_plan::Family;
use ipnet::IpNet;

/// What something is called in both IP families.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Addresses {
    /// IPv4
    pub v4: Ipv4Addr,
    /// IPv6
    pub v6: Ipv6Addr,
}

impl Addresses {
    /// The address of one family.
    #[must_use]
    pub const fn of(&self, family: Family) -> IpAddr {
        match family {
            Family::V4 => IpAddr::V4(self.v4),
            Family::V6 => IpAddr::V6(self.v6),
        }
    }

    /// Whether this is one of the two.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        self.of(Family::of(addr)) == addr
    }

    /// The prefix that holds this address alone.
    #[must_use]
    pub fn host_net(&self, family: Family) -> IpNet {
        IpNet::from(self.of(family))
    }
}

/// The pods of all nodes (`--cluster-cidr`), IPv4 and IPv6, indexed by [`Family`] as a number.
pub const POD_NETS: [&str; 2] = ["10.244.0.0/16", "fd00:244::/32"];

/// Where ClusterIPs come from (`ServiceCIDR`).
pub const SERVICE_NETS: [&str; 2] = ["10.96.0.0/16", "fd00:96::/108"];

/// Where external IPs and load balancer addresses come from. No machine of the lab has one of them.
pub const EXTERNAL_NETS: [&str; 2] = ["203.0.113.0/24", "2001:db8:113::/64"];

/// The network that nodes and clients share.
const SWITCH_V4: [u8; 3] = [192, 168, 50];
const SWITCH_V6: u16 = 0x50;

/// The `host`-th ClusterIP.
#[must_use]
pub const fn cluster_ip(host: u8) -> Addresses {
    Addresses { v4: Ipv4Addr::new(10, 96, 0, host), v6: Ipv6Addr::new(0xfd00, 0x96, 0, 0, 0, 0, 0, host as u16) }
}

/// The `host`-th address for a load balancer or in `externalIPs`.
#[must_use]
pub const fn external_ip(host: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0x2001, 0xdb8, 0x113, 0, 0, 0, 0, host as u16);
    Addresses { v4: Ipv4Addr::new(203, 0, 113, host), v6 }
}

/// The `host`-th address on the switch.
pub(crate) const fn switch_address(host: u8) -> Addresses {
    let [a, b, c] = SWITCH_V4;
    let v6 = Ipv6Addr::new(0xfd00, SWITCH_V6, 0, 0, 0, 0, 0, host as u16);
    Addresses { v4: Ipv4Addr::new(a, b, c, host), v6 }
}

/// The `host`-th address of the pods of the `node`-th node; 1 is the node's own, the gateway of its pods.
pub(crate) const fn pod_address(node: u8, host: u8) -> Addresses {
    let v6 = Ipv6Addr::new(0xfd00, 0x244, 0, node as u16, 0, 0, 0, host as u16);
    Addresses { v4: Ipv4Addr::new(10, 244, node, host), v6 }
}

/// `spec.podCIDRs` of the `node`-th node, IPv4 and IPv6.
pub(crate) fn pod_nets(node: u8) -> [String; 2] {
    let base = pod_address(node, 0);
    [format!("{}/24", base.v4), format!("{}/64", base.v6)]
}
