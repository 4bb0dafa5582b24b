//! `fairlead overlay trace`: every decision by which this node's kernel sends a packet on to an address, read from the kernel.

use std::net::IpAddr;

use anyhow::{Context, bail};
use fairlead_kernel::route::{Encap, Link, Mac, Neighbour, NextHop, Route, Rtnl};
use serde::Serialize;

use super::diff::PROTOCOL;
use super::list;
use crate::config::OverlayTrace;

/// One decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Hop {
    /// Who decides.
    pub step: &'static str,
    /// What, in the words of `ip` and `bridge`.
    pub decision: String,
    /// Whether the packet ends here.
    pub ends: bool,
}

/// Prints all decisions.
///
/// # Errors
/// If the kernel cannot be read; and, after printing, if the packet gets lost on this node.
pub fn trace(settings: &OverlayTrace) -> anyhow::Result<()> {
    let hops = hops(&mut Rtnl::open()?, settings.to).context("reading the kernel")?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&hops)?);
    } else {
        let rows: Vec<_> = hops.iter().map(|hop| ([hop.step.to_owned(), hop.decision.clone()], hop.ends)).collect();
        print!("{}", list::table(&["STEP", "DECISION"], &rows, false));
    }
    match hops.iter().find(|hop| hop.ends) {
        Some(hop) => bail!("a packet to {} ends at the {}", settings.to, hop.step),
        None => Ok(()),
    }
}

/// The decisions about a packet to this address, in their order.
///
/// # Errors
/// If the kernel cannot be read.
pub fn hops(kernel: &mut Rtnl, to: IpAddr) -> anyhow::Result<Vec<Hop>> {
    let mut walk = Walk { links: kernel.links()?, kernel, hops: Vec::new() };
    if let Some((link, next, encap)) = walk.route("route", to)? {
        if link.vxlan.is_some() {
            walk.tunnel(&link, next, encap)?;
        } else {
            walk.neighbour("neighbour", &link, next)?;
        }
    }
    Ok(walk.hops)
}

struct Walk<'a> {
    kernel: &'a mut Rtnl,
    links: Vec<Link>,
    hops: Vec<Hop>,
}

impl Walk<'_> {
    fn says(&mut self, step: &'static str, decision: String) {
        self.hops.push(Hop { step, decision, ends: false });
    }

    fn ends(&mut self, step: &'static str, decision: impl Into<String>) {
        self.hops.push(Hop { step, decision: decision.into(), ends: true });
    }

    /// The interface by which a packet leaves, its next hop, and the tunnel into which the route packs it.
    fn route(&mut self, step: &'static str, to: IpAddr) -> anyhow::Result<Option<(Link, IpAddr, Option<Encap>)>> {
        let Some(route) = self.kernel.route_towards(to)? else {
            self.ends(step, format!("no route leads to {to}"));
            return Ok(None);
        };
        let Route { destination, protocol, metric, .. } = route;
        let object = if let NextHop::Object(id) = route.hop { format!(" nhid {id}") } else { String::new() };
        let hop = self.kernel.resolve(route.hop)?;
        let NextHop::Unicast { index, gateway, onlink, encap } = hop else {
            self.ends(step, format!("{destination}{object} is no way to another machine: {hop:?}"));
            return Ok(None);
        };
        let Some(link) = self.links.iter().find(|link| link.index == index).cloned() else {
            self.ends(step, format!("{destination} through an interface that is gone"));
            return Ok(None);
        };
        let gateway_text = gateway.map(|gateway| format!(" via {gateway}")).unwrap_or_default();
        let encap_text = encap.map(|Encap { id, destination, .. }| format!(" encap id {id} dst {destination}"));
        let onlink = if onlink { " onlink" } else { "" };
        let owner = if protocol == PROTOCOL { " (fairlead's)" } else { "" };
        let name = &link.name;
        let text = format!(
            "{destination}{object}{gateway_text} dev {name}{onlink} proto {protocol} metric {metric}{}{owner}",
            encap_text.unwrap_or_default()
        );
        match (link.up, link.carrier) {
            (true, true) => self.says(step, text),
            (true, false) => self.ends(step, format!("{text}; {name} has no carrier")),
            (false, _) => self.ends(step, format!("{text}; {name} is down")),
        }
        Ok(Some((link, gateway.unwrap_or(to), encap)))
    }

    fn neighbour(&mut self, step: &'static str, link: &Link, addr: IpAddr) -> anyhow::Result<Option<Neighbour>> {
        let entries = self.kernel.neighbours(link.index)?;
        let found = entries.into_iter().find(|entry| entry.addr == addr);
        match found.and_then(|entry| Some((entry, entry.mac?))) {
            Some((entry, mac)) => {
                let permanent = if entry.permanent { " PERMANENT" } else { "" };
                self.says(step, format!("{addr} lladdr {mac} dev {}{permanent}", link.name));
            }
            None => self.says(step, format!("{addr} dev {}: not known yet, it is asked for", link.name)),
        }
        Ok(found)
    }

    fn forwarding(&mut self, link: &Link, mac: Mac) -> anyhow::Result<Option<IpAddr>> {
        let entries = self.kernel.forwarding(link.index)?;
        let end = entries.into_iter().find(|entry| entry.mac == mac).and_then(|entry| entry.destination);
        match end {
            Some(end) => self.says("forwarding entry", format!("{mac} dst {end} dev {}", link.name)),
            None => self.ends("forwarding entry", format!("{} has none for {mac}", link.name)),
        }
        Ok(end)
    }

    fn tunnel(&mut self, link: &Link, next: IpAddr, encap: Option<Encap>) -> anyhow::Result<()> {
        let Some(vxlan) = link.vxlan.clone() else { return Ok(()) };
        let mac = self.neighbour("neighbour", link, next)?.and_then(|entry| entry.mac);
        let end = match (encap, mac) {
            (Some(encap), _) => Some((encap.destination, encap.id)),
            (None, Some(mac)) => self.forwarding(link, mac)?.map(|end| (end, vxlan.vni.into())),
            (None, None) => {
                self.ends("forwarding entry", format!("{} cannot ask through the tunnel who has {next}", link.name));
                None
            }
        };
        let Some((end, vni)) = end else { return Ok(()) };
        let from =
            vxlan.local.map_or_else(|| "the address that the route suggests".to_owned(), |addr| addr.to_string());
        let inner = link.mtu;
        self.says(
            "tunnel",
            format!(
                "UDP from {from} to {end} port {}, VXLAN network {vni}, packets up to {inner} bytes inside",
                vxlan.port
            ),
        );
        if let Some((lower, next, _)) = self.route("underlay route", end)? {
            self.neighbour("underlay neighbour", &lower, next)?;
        }
        Ok(())
    }
}
