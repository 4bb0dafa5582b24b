//! From this node to an endpoint, and what connection tracking already knows.

use std::net::{IpAddr, SocketAddr};

use anyhow::Context;
use fairlead_kernel::address::local_addresses;
use fairlead_kernel::conntrack::{ANSWERED, Conntrack, Flow};
use fairlead_kernel::route::{NextHop, Rtnl};
use fairlead_plan::Packet;
use serde::Serialize;

use crate::overlay::trace::{self, Hop};

/// As many tracked connections are told.
const TOLD: usize = 16;

/// The way to one address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Way {
    /// Where it leads.
    pub to: SocketAddr,
    /// Every decision of this node, in order.
    pub hops: Vec<Hop>,
    /// The largest packet that the interface takes, bytes.
    pub mtu: Option<u32>,
    /// The address of the node that takes the packet out of a tunnel.
    pub unpacked_at: Option<IpAddr>,
}

impl Way {
    /// Follows it.
    pub(super) fn to(kernel: &mut Rtnl, to: SocketAddr) -> anyhow::Result<Self> {
        let here = to.ip().is_loopback() || local_addresses()?.iter().any(|(_, addr, _)| *addr == to.ip());
        if here {
            let decision = format!("{} is an address of this node, so the packet is delivered here", to.ip());
            let hops = vec![Hop { step: "delivery", decision, ends: false }];
            return Ok(Self { to, hops, mtu: None, unpacked_at: None });
        }
        let hops = trace::hops(kernel, to.ip()).context("following the routes")?;
        let (mut mtu, mut unpacked_at) = (None, None);
        if let Some(route) = kernel.route_towards(to.ip())?
            && let NextHop::Unicast { index, gateway, encap, .. } = kernel.resolve(route.hop)?
        {
            let link = kernel.links()?.into_iter().find(|link| link.index == index);
            mtu = link.as_ref().map(|link| link.mtu);
            unpacked_at = match (encap, link.and_then(|link| link.vxlan)) {
                (Some(encap), _) => Some(encap.destination),
                (None, Some(_)) => tunnel_end(kernel, index, gateway.unwrap_or(to.ip()))?,
                (None, None) => None,
            };
        }
        Ok(Self { to, hops, mtu, unpacked_at })
    }
}

/// Where a VXLAN device sends what is for this next hop.
fn tunnel_end(kernel: &mut Rtnl, index: u32, next: IpAddr) -> anyhow::Result<Option<IpAddr>> {
    let neighbour = kernel.neighbours(index)?.into_iter().find(|entry| entry.addr == next);
    let Some(mac) = neighbour.and_then(|entry| entry.mac) else { return Ok(None) };
    let entry = kernel.forwarding(index)?.into_iter().find(|entry| entry.mac == mac);
    Ok(entry.and_then(|entry| entry.destination))
}

/// A connection that is open, or was until a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Tracked {
    /// The port of the client.
    pub source_port: u16,
    /// Where its packets go.
    pub to: SocketAddr,
    /// The source that is seen there.
    pub seen_as: IpAddr,
    /// Whether an answer has come.
    pub answered: bool,
}

/// What connection tracking remembers of packets alike, the lowest client ports first.
///
/// # Errors
/// If it cannot be asked.
pub(super) fn tracked(packet: &Packet) -> anyhow::Result<Vec<Tracked>> {
    let mut found = Vec::new();
    let mut note = |flow: &Flow| {
        let (client, service) = (flow.original, packet.destination);
        if client.src == packet.source && client.dst == service.ip() && client.dport == service.port() {
            found.push(Tracked {
                source_port: client.sport,
                to: SocketAddr::new(flow.reply.src, flow.reply.sport),
                seen_as: flow.reply.dst,
                answered: flow.status & ANSWERED != 0,
            });
        }
    };
    let mut conntrack = Conntrack::open()?;
    conntrack
        .flows(packet.source.is_ipv6(), packet.protocol.number(), &mut note)
        .context("asking connection tracking")?;
    found.sort_by_key(|tracked| tracked.source_port);
    found.truncate(TOLD);
    Ok(found)
}
