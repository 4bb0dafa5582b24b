//! How the pods of a peer are reached, and which things of the kernel that takes. Pure.

use std::net::IpAddr;

use fairlead_kernel::route::Mac;
use ipnet::IpNet;

use super::desired::{Key, Object, Tunnel, Value};

/// The way to the pods of one peer in one family. It is kept for each of thousands of peers, and says everything once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    /// The prefix of the pods.
    pub pods: IpNet,
    /// How packets get there.
    pub by: By,
}

/// How packets get to a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// By this gateway on the interface of this index.
    Gateway(u32, IpAddr),
    /// Through a device that finds where the tunnel ends by the Ethernet address of the device there.
    Tunnel(Tunnel, Mac, IpAddr),
    /// Through a device that a nexthop object tells the VXLAN network and where the tunnel ends.
    Packed {
        /// The device.
        tunnel: Tunnel,
        /// The Ethernet address of the device there.
        mac: Mac,
        /// The network.
        vni: u32,
        /// Where the tunnel ends.
        end: IpAddr,
        /// The number of the object.
        hop: u32,
    },
}

impl Reach {
    /// Where the tunnel ends, or the gateway: the peer itself.
    #[must_use]
    pub const fn end(self) -> IpAddr {
        match self.by {
            By::Gateway(_, end) | By::Tunnel(.., end) | By::Packed { end, .. } => end,
        }
    }

    /// The address by which the device finds the other one: the base address of the peer's pods.
    #[must_use]
    pub fn base(self) -> IpAddr {
        self.pods.network()
    }

    /// What the kernel should hold, in the order of writing.
    pub fn objects(self) -> impl DoubleEndedIterator<Item = Object> {
        let (Self { pods, by }, base) = (self, self.base());
        let objects = match by {
            By::Gateway(index, gateway) => [None, None, Some((Key::Route(pods), Value::Direct(index, gateway)))],
            By::Tunnel(tunnel, mac, end) => [
                Some((Key::Neighbour(tunnel, base), Value::Mac(mac))),
                Some((Key::Forwarding(tunnel, mac), Value::End(end))),
                Some((Key::Route(pods), Value::Through(tunnel))),
            ],
            By::Packed { tunnel, mac, vni, end, hop } => [
                Some((Key::Neighbour(tunnel, base), Value::Mac(mac))),
                Some((Key::Hop(hop), Value::Packed { tunnel, gateway: base, vni, end })),
                Some((Key::Route(pods), Value::By(hop))),
            ],
        };
        objects.into_iter().flatten()
    }
}
