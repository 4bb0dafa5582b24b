//! What kube-proxy leaves in the kernel, in each of its modes: some services that are there and hundreds that nobody asks for.

mod iptables;
mod ipvs;
mod nft;

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead_lab::{Feature, Lab, Place, cluster_ip};
use fairlead_plan::{Family, Protocol, ServiceKey};

use super::{PORT, PROTOCOLS, TARGET};
use crate::laws::holdings::shell;
use crate::packets::programs::Mode;
use crate::program::Cluster;

/// Services of the past.
const OTHERS: u32 = 300;
/// The same where the processor is emulated, which is where IPVS is.
const OTHERS_EMULATED: u32 = 20;
/// Their endpoints.
const EACH: u32 = 3;

/// A service as kube-proxy knew it.
struct Past {
    key: ServiceKey,
    to: SocketAddr,
    endpoints: Vec<SocketAddr>,
}

/// Service `web` on the first ClusterIP with these pods, and the others.
fn services(lab: &Lab, family: Family, pods: &[&str]) -> Vec<Past> {
    let mut all = Vec::new();
    for (protocol, name) in PROTOCOLS.into_iter().zip(["t", "u"]) {
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        let endpoints = pods.iter().map(|pod| SocketAddr::new(lab.place(pod).addr(family), TARGET)).collect();
        all.push(Past { key: key("web", name, protocol, family), to, endpoints });
    }
    let others = if Feature::IpVs.is_here() { OTHERS_EMULATED } else { OTHERS };
    for number in 0..others {
        let addr = |net: u8, host: u32| match family {
            Family::V4 => IpAddr::from(Ipv4Addr::from(u32::from_be_bytes([172, net, 0, 0]) + host)),
            Family::V6 => {
                IpAddr::from(Ipv6Addr::from((0xfd00_0172_u128 << 96) + (u128::from(net) << 32) + u128::from(host)))
            }
        };
        let endpoints = (0..EACH).map(|index| SocketAddr::new(addr(20, number * EACH + index), TARGET)).collect();
        let key = key(&format!("other-{number}"), "t", Protocol::Tcp, family);
        all.push(Past { key, to: SocketAddr::new(addr(30, number), PORT), endpoints });
    }
    all
}

fn key(name: &str, port: &str, protocol: Protocol, family: Family) -> ServiceKey {
    let [namespace, name, port_name] = ["default", name, port].map(Into::into);
    ServiceKey { namespace, name, port_name, protocol, family }
}

/// One of its modes, named as the mode of ours that uses the same part of the kernel.
#[derive(Debug, Clone, Copy)]
pub struct KubeProxy(pub Mode);

impl KubeProxy {
    /// Whether this machine can show it.
    pub fn needed(self) -> &'static [Feature] {
        self.0.needed()
    }

    /// Lets it serve `web` from these pods.
    pub fn program(self, cluster: &Cluster, pods: &[&str]) {
        let node = cluster.node();
        for family in Family::BOTH {
            let write = |text: &str| cluster.directory.write("kube-proxy.state", text).display().to_string();
            match self.0 {
                Mode::Nft => {
                    let file = write(&nft::ruleset(&cluster.lab, family, pods));
                    shell(node, &format!("nft -f {file}"));
                }
                Mode::Ipvs => ipvs::program(node, &cluster.lab, family, pods, write),
                Mode::IptablesLegacy | Mode::IptablesNft => {
                    let tool = self.0.tool(family).expect("the mode has a program");
                    let file = write(&iptables::ruleset(&cluster.lab, family, pods));
                    shell(node, &format!("{tool}-restore < {file}"));
                    shell(node, &format!("{tool} -t mangle -N KUBE-PROXY-CANARY || true"));
                }
            }
        }
    }

    /// How many traces it has.
    pub fn traces_made(self) -> usize {
        match self.0 {
            Mode::Nft => 1,
            Mode::Ipvs => 5,
            Mode::IptablesLegacy | Mode::IptablesNft => 2,
        }
    }

    /// What of it is there, in a few words.
    pub fn traces(self, node: &Place) -> Vec<&'static str> {
        let traces: &[(&str, &str)] = match self.0 {
            Mode::Nft => &[("nft list tables", "kube-proxy")],
            Mode::Ipvs => &[
                ("ipvsadm -Sn", "172.30.0."),
                ("ipvsadm -Sn", "--sctp-service"),
                ("ipset list -n", "KUBE-EXTERNAL-IP-LOCAL"),
                ("ipset list -n", "NODE-PORT-SCTP-HASH"),
                ("ipset list -n", "NODE-PORT-SCTP\n"),
            ],
            Mode::IptablesLegacy => &[("iptables-legacy-save", "other-7"), ("ip6tables-legacy-save", "CANARY")],
            Mode::IptablesNft => &[("iptables-nft-save", "other-7"), ("ip6tables-nft-save", "CANARY")],
        };
        let is_there =
            |(command, word): &(&'static str, &str)| shell(node, &format!("{command} 2>&1 || true")).contains(word);
        traces.iter().filter(|trace| is_there(trace)).map(|(command, _)| *command).collect()
    }
}
