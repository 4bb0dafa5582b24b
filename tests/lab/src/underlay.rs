//! Takes away what a lab gives for nothing, for tests of what carries packets between nodes.

use anyhow::Result;

use crate::addresses::pod_nets;
use crate::{Addresses, Kind, Lab, Place, build, ip};

impl Lab {
    /// Removes the routes by which each node reaches the pods of the others over the switch. From then on somebody else
    /// must carry packets between nodes.
    ///
    /// # Errors
    /// If a route is not there.
    pub fn forget_pod_routes(&self) -> Result<()> {
        for node in self.nodes() {
            for other in self.nodes().filter(|other| other.name() != node.name()) {
                for net in other.pod_cidrs() {
                    node.ip(&format!("route del {net}"))?;
                }
            }
        }
        Ok(())
    }

    /// Gives pods, their ends at the node and the bridge between this MTU, as a CNI plugin does.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn set_pod_mtu(&self, mtu: u32) -> Result<()> {
        for pod in self.places() {
            let Kind::Pod { node } = pod.kind() else { continue };
            pod.ip(&format!("link set eth0 mtu {mtu}"))?;
            self.node(node).ip(&format!("link set p-{} mtu {mtu}", pod.name()))?;
        }
        for node in self.nodes() {
            node.ip(&format!("link set cni0 mtu {mtu}"))?;
        }
        Ok(())
    }
}

impl Lab {
    /// Takes the network card out of a node, with its addresses and routes.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn unplug(&self, node: &str) -> Result<()> {
        self.node(node).ip("link del eth0").map(drop)
    }

    /// Puts a new one in and gives it what the old one had at the start.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn plug(&self, node: &str) -> Result<()> {
        let (place, switch) = (self.node(node), format!("{}-switch", self.tag));
        let line = format!("link add eth0 netns {} type veth peer name p-{node} netns {switch}", place.namespace());
        ip::batch(None, &[line])?;
        ip::batch(Some(&switch), &[format!("link set p-{node} master switch up")])?;
        place.ip("link set eth0 up")?;
        place.address_eth0(place.addresses())
    }
}

impl Place {
    /// Gives `eth0` of a node or client these addresses and the default routes of the lab.
    ///
    /// # Errors
    /// If `ip` fails.
    pub fn address_eth0(&self, addresses: &Addresses) -> Result<()> {
        let mut lines = build::with_address("eth0", addresses, 24, 64).to_vec();
        lines.extend(build::default_routes_of_switch().map(|line| line.replacen("add", "replace", 1)));
        ip::batch(Some(self.namespace()), &lines)
    }

    /// The prefixes of a node's pods with their base addresses, where tunnels of nodes have theirs: `10.244.1.0`.
    #[must_use]
    pub fn pod_bases(&self) -> Vec<String> {
        match self.kind() {
            Kind::Node { number, .. } => {
                pod_nets(*number).iter().filter_map(|net| Some(net.split_once('/')?.0.to_owned())).collect()
            }
            Kind::Pod { .. } | Kind::Client => Vec::new(),
        }
    }
}
