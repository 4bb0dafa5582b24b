//! The names of everything that this backend makes, and what is constant about them.

use fairlead_kernel::ipset::{SetKind, SetSpec};
use fairlead_kernel::link::MarkRoute;
use fairlead_plan::{Family, Protocol};

use crate::mark::{Marks, Tag};

/// The link over which the route of marked packets leads.
pub const LINK: &str = "kube-ipvs0";
/// The table with the one route. A number that no other program is known to use.
const TABLE: u32 = 26_984;
/// Behind the table `local`, before everything else.
const PRIORITY: u32 = 99;

/// A set, in both families under a name of each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Set {
    /// Frontends whose sources are limited, and the sources that may use them.
    SourceCidr,
    /// Frontends whose sources are limited.
    Firewall,
    /// Endpoints on this node, twice: source and destination of what reaches itself.
    LoopBack,
    /// Node ports by protocol.
    NodePortTcp,
    /// As above.
    NodePortUdp,
    /// As above, each twice: for either half of all addresses. Sets of ports know no SCTP.
    NodePortSctp,
    /// `ClusterIP`s with their ports.
    ClusterIp,
    /// External IPs with their ports.
    ExternalIp,
    /// Load-balancer addresses with their ports.
    LoadBalancer,
    /// Every virtual address.
    Addresses,
}

impl Set {
    /// In the order in which entries are added, so that nothing leads to what is not there yet. They are deleted in the
    /// reverse order.
    pub const ALL: [Self; 10] = [
        Self::SourceCidr,
        Self::Firewall,
        Self::LoopBack,
        Self::NodePortTcp,
        Self::NodePortUdp,
        Self::NodePortSctp,
        Self::ClusterIp,
        Self::ExternalIp,
        Self::LoadBalancer,
        Self::Addresses,
    ];

    /// The sets whose entries are addresses and ports of frontends.
    pub const FRONTENDS: [Self; 3] = [Self::ClusterIp, Self::ExternalIp, Self::LoadBalancer];

    /// kube-proxy's names where it has the same: in IPv6 with a 6 in them, and no longer than a set's name may be.
    pub const fn name(self, family: Family) -> &'static str {
        let [v4, v6] = match self {
            Self::SourceCidr => ["KUBE-LOAD-BALANCER-SOURCE-CIDR", "KUBE-6-LOAD-BALANCER-SOURCE-CID"],
            Self::Firewall => ["KUBE-LOAD-BALANCER-FW", "KUBE-6-LOAD-BALANCER-FW"],
            Self::LoopBack => ["KUBE-LOOP-BACK", "KUBE-6-LOOP-BACK"],
            Self::NodePortTcp => ["KUBE-NODE-PORT-TCP", "KUBE-6-NODE-PORT-TCP"],
            Self::NodePortUdp => ["KUBE-NODE-PORT-UDP", "KUBE-6-NODE-PORT-UDP"],
            Self::NodePortSctp => ["KUBE-NODE-PORT-SCTP-NET", "KUBE-6-NODE-PORT-SCTP-NET"],
            Self::ClusterIp => ["KUBE-CLUSTER-IP", "KUBE-6-CLUSTER-IP"],
            Self::ExternalIp => ["KUBE-EXTERNAL-IP", "KUBE-6-EXTERNAL-IP"],
            Self::LoadBalancer => ["KUBE-LOAD-BALANCER", "KUBE-6-LOAD-BALANCER"],
            Self::Addresses => ["KUBE-IPVS-IPS", "KUBE-6-IPVS-IPS"],
        };
        match family {
            Family::V4 => v4,
            Family::V6 => v6,
        }
    }

    /// What its entries are made of.
    pub const fn kind(self) -> SetKind {
        match self {
            Self::SourceCidr => SetKind::IpPortNet,
            Self::LoopBack => SetKind::IpPortIp,
            Self::Firewall | Self::ClusterIp | Self::ExternalIp | Self::LoadBalancer => SetKind::IpPort,
            Self::NodePortTcp | Self::NodePortUdp => SetKind::Port,
            Self::NodePortSctp => SetKind::NetPort,
            Self::Addresses => SetKind::Ip,
        }
    }

    /// Whether its entries carry marks.
    pub const fn marks(self) -> bool {
        !matches!(self, Self::SourceCidr | Self::Firewall | Self::LoopBack)
    }

    /// As the kernel is asked for it.
    pub const fn spec(self, family: Family) -> SetSpec<'static> {
        SetSpec { name: self.name(family), kind: self.kind(), v6: matches!(family, Family::V6), marks: self.marks() }
    }

    /// The set of a protocol's node ports.
    pub const fn node_ports(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Tcp => Self::NodePortTcp,
            Protocol::Udp => Self::NodePortUdp,
            Protocol::Sctp => Self::NodePortSctp,
        }
    }
}

/// The names of our sets, in both families.
pub fn sets() -> impl Iterator<Item = &'static str> {
    Set::ALL.into_iter().flat_map(|set| Family::BOTH.map(|family| set.name(family)))
}

/// Where kube-proxy has SCTP node ports, with the addresses of the node.
const SCTP_HASH: &str = "NODE-PORT-SCTP-HASH";
/// Sets that kube-proxy has and this program has not. The last one is of older versions of both.
const KUBE_PROXYS: [&str; 9] = [
    "LOAD-BALANCER-SOURCE-IP",
    "LOAD-BALANCER-LOCAL",
    "EXTERNAL-IP-LOCAL",
    "NODE-PORT-LOCAL-TCP",
    "NODE-PORT-LOCAL-UDP",
    SCTP_HASH,
    "NODE-PORT-LOCAL-SCTP-HASH",
    "HEALTH-CHECK-NODE-PORT",
    "NODE-PORT-SCTP",
];

/// Their names in both families.
pub fn kube_proxys_sets() -> Vec<String> {
    KUBE_PROXYS.into_iter().flat_map(|set| Family::BOTH.map(|family| kube_proxys(set, family))).collect()
}

/// The set of kube-proxy's SCTP node ports: of them nothing else says whose their virtual services are.
pub fn kube_proxys_sctp(family: Family) -> String {
    kube_proxys(SCTP_HASH, family)
}

/// kube-proxy cuts names where the kernel would.
fn kube_proxys(set: &str, family: Family) -> String {
    let six = if family == Family::V6 { "6-" } else { "" };
    let mut whole = format!("KUBE-{six}{set}");
    whole.truncate(fairlead_kernel::ipset::NAME_MAX);
    whole
}

/// How packets to frontends come to this machine.
pub const fn mark_route(marks: Marks) -> MarkRoute {
    let (mark, mask) = marks.tag(Tag::Frontend);
    MarkRoute { mark, mask, table: TABLE, priority: PRIORITY }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_fit_and_differ() {
        let all = sets();
        let names: std::collections::BTreeSet<_> = all.collect();
        assert_eq!(names.len(), Set::ALL.len() * 2);
        assert!(names.iter().all(|name| name.len() <= fairlead_kernel::ipset::NAME_MAX), "{names:?}");
        assert!(kube_proxys_sets().iter().all(|name| !names.contains(name.as_str())), "a set that goes is one of ours");
    }
}
