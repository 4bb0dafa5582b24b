//! Takes the overlay out of the kernel.

use fairlead_kernel::route::{NextHop, RouteFilter, Rtnl, RtnlError, TABLE_MAIN, Write};

use super::diff::{self, PROTOCOL};

/// Removes our routes and nexthop objects, and the VXLAN devices named as ours that nobody's routes lead through then: a device
/// that flannel uses stays. Says how much was removed. This node's annotations stay; they are the API's.
///
/// # Errors
/// If the kernel cannot be read or written.
pub fn cleanup() -> Result<usize, RtnlError> {
    let mut kernel = Rtnl::open()?;
    let mut writes = Vec::new();
    let mut in_use = Vec::new();
    for ipv6 in [false, true] {
        let ours = RouteFilter { ipv6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
        writes.extend(kernel.routes(ours)?.into_iter().map(Write::DeleteRoute));
        for link in kernel.links()?.iter().filter(|link| diff::device_family(link).is_some()) {
            let through = RouteFilter { protocol: None, index: Some(link.index), ..ours };
            let routed = kernel.routes(through)?.into_iter().any(|route| {
                let leads_on = matches!(route.hop, NextHop::Unicast { gateway: Some(_), .. } | NextHop::Object(_));
                route.protocol != PROTOCOL && leads_on
            });
            in_use.extend(routed.then_some(link.index));
        }
    }
    let devices: Vec<_> = kernel.links()?.into_iter().filter(|link| diff::device_family(link).is_some()).collect();
    for link in &devices {
        let ours = kernel.hops(link.index)?.into_iter().filter(|object| object.protocol == PROTOCOL);
        writes.extend(ours.map(|object| Write::DeleteHop(object.id)));
    }
    let devices = devices.into_iter();
    writes.extend(devices.filter(|link| !in_use.contains(&link.index)).map(|link| Write::DeleteLink(link.index)));
    let refused = kernel.write(&writes)?;
    Ok(writes.len() - refused.len())
}
