//! Takes away what a lab gives for nothing, for tests of what carries packets between nodes.

use anyhow::Result;

use crate::addresses::pod_nets;
use crate::{Kind, Lab, Place};

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

impl Place {
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
