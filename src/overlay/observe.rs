//! What the kernel holds now: the machine around the overlay, and how what is on our devices differs from what is wanted.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::io;
use std::net::IpAddr;

use fairlead_kernel::route::{Link, NextHop, Route, RouteFilter, Rtnl, RtnlError, TABLE_MAIN};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::desired::{Key, Tunnel};
use super::diff::{Comparison, Drift, Indices, PROTOCOL};
use super::peers::Peers;
use super::underlay::{Machine, OnLink};

/// How often a comparison is begun again when something changed under it.
const ATTEMPTS: u32 = 10;

/// Reads interfaces, addresses and default routes.
///
/// # Errors
/// If the kernel cannot be read.
pub fn machine(kernel: &mut Rtnl, can_reach: Option<IpAddr>) -> Result<Machine, RtnlError> {
    let (links, addresses) = (kernel.links()?, kernel.addresses()?);
    let mut defaults = Vec::new();
    for family in Family::BOTH {
        for route in kernel.default_routes(family == Family::V6)? {
            defaults.push(Route { hop: kernel.resolve(route.hop)?, ..route });
        }
    }
    let reaching = match can_reach {
        Some(addr) => kernel.interface_towards(addr)?,
        None => None,
    };
    Ok(Machine { links, addresses, defaults, reaching })
}

/// Reads what the routes through an interface say about which addresses are on its link. Our own do not count.
///
/// # Errors
/// As [`machine`].
pub fn on_link(kernel: &mut Rtnl, family: Family, index: u32) -> Result<Vec<OnLink>, RtnlError> {
    let filter = RouteFilter { ipv6: family == Family::V6, table: TABLE_MAIN, protocol: None, index: Some(index) };
    let (mut found, mut objects) = (Vec::new(), BTreeMap::new());
    for Route { destination, hop, .. } in kernel.routes(filter)?.into_iter().filter(|route| route.protocol != PROTOCOL)
    {
        let hop = match hop {
            // A routing daemon leads thousands of routes through few objects.
            NextHop::Object(id) => match objects.entry(id) {
                Entry::Occupied(known) => *known.get(),
                Entry::Vacant(unknown) => *unknown.insert(kernel.resolve(hop)?),
            },
            hop => hop,
        };
        found.push(OnLink { destination, direct: matches!(hop, NextHop::Unicast { gateway: None, .. }) });
    }
    Ok(found)
}

/// Compares our routes and all that is on our devices with what is wanted, one kind and family after the other, without keeping
/// any of it.
///
/// # Errors
/// As [`machine`].
pub fn compare<'a>(
    kernel: &mut Rtnl,
    indices: &Indices,
    begin: impl Fn() -> Comparison<'a>,
) -> Result<Drift, RtnlError> {
    for _ in 0..ATTEMPTS {
        let mut comparison = begin();
        if tell(kernel, indices, &mut comparison)? {
            return Ok(comparison.drift());
        }
    }
    let source = io::Error::new(io::ErrorKind::Interrupted, "it changed each time it was read");
    Err(RtnlError::Io { what: "compare what is on our devices", source })
}

/// False if something changed meanwhile.
fn tell(kernel: &mut Rtnl, indices: &Indices, comparison: &mut Comparison<'_>) -> Result<bool, RtnlError> {
    for ipv6 in [false, true] {
        let ours = RouteFilter { ipv6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
        let mut whole = kernel.each_route(ours, |route| comparison.route(&route))?;
        for index in indices.values() {
            let through = RouteFilter { protocol: None, index: Some(*index), ..ours };
            whole &= kernel.each_route(through, |route| {
                if route.protocol != PROTOCOL {
                    comparison.route(&route);
                }
            })?;
        }
        if !whole {
            return Ok(false);
        }
    }
    for index in indices.values() {
        let whole = kernel.each_neighbour(*index, |entry| comparison.neighbour(&entry))?
            && kernel.each_forwarding(*index, |entry| comparison.forwarding(&entry))?
            && kernel.each_hop(*index, |object| comparison.hop(&object))?;
        if !whole {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The gateways and numbers of our nexthop objects through a device.
///
/// # Errors
/// As [`machine`].
pub fn numbers(kernel: &mut Rtnl, index: u32) -> Result<Vec<(IpAddr, u32)>, RtnlError> {
    let ours = kernel.hops(index)?.into_iter().filter(|object| object.protocol == PROTOCOL);
    let gateway = |hop| if let NextHop::Unicast { gateway, .. } = hop { gateway } else { None };
    Ok(ours.filter_map(|object| Some((gateway(object.hop)?, object.id))).collect())
}

/// The prefixes of peers for which others have made routes. Reads the whole main table.
///
/// # Errors
/// As [`machine`].
pub fn strangers(kernel: &mut Rtnl, peers: &Peers) -> Result<Vec<IpNet>, RtnlError> {
    let mut found = Vec::new();
    for ipv6 in [false, true] {
        let all = RouteFilter { ipv6, table: TABLE_MAIN, protocol: None, index: None };
        let others = kernel.routes(all)?.into_iter().filter(|route| route.protocol != PROTOCOL);
        found.extend(others.map(|route| route.destination).filter(|net| peers.get(&Key::Route(*net)).is_some()));
    }
    Ok(found)
}

/// The index of each of our devices that is there.
#[must_use]
pub fn indices<'a>(names: impl Iterator<Item = (Tunnel, &'a str)>, links: &[Link]) -> Indices {
    let found = |name: &str| links.iter().find(|link| link.name == name).map(|link| link.index);
    names.filter_map(|(tunnel, name)| Some((tunnel, found(name)?))).collect()
}
