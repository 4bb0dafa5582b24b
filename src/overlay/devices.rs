//! Makes our devices what they should be, and sets what the kernel must allow.

use std::net::IpAddr;

use fairlead_kernel::route::{Link, Rtnl, RtnlError, Write};
use fairlead_kernel::sysctl::{self, SysctlError};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::desired::{Device, Local};
use super::diff::{self, DeviceStep};
use super::outside::Outside;
use super::settings::{Backend, Settings};
use super::underlay::Machine;
use crate::sysctls;

/// Makes the devices what they should be. Gives back all interfaces as they are then, and whether anything was written.
///
/// # Errors
/// If the kernel cannot be read or written. A device that it refuses is said and left out.
pub fn settle(
    kernel: &mut Rtnl,
    wanted: &[Device],
    mut links: Vec<Link>,
    outside: &mut Outside,
) -> Result<(Vec<Link>, bool), RtnlError> {
    let mut changed = false;
    for device in wanted {
        let writes = match diff::device_step(device, &links) {
            DeviceStep::Fine => continue,
            DeviceStep::Create => creation(device, wanted, &links),
            DeviceStep::Recreate(index) => [vec![Write::DeleteLink(index)], creation(device, wanted, &links)].concat(),
            DeviceStep::Alter(writes) => writes,
        };
        changed = true;
        let refused = kernel.write(&writes)?;
        outside.device_written(&device.spec.name, &writes);
        for refusal in &refused {
            let culprit = culprit(device, &links).map(|name| format!("; interface {name} uses the same UDP port"));
            let why = format!("the kernel refuses {:?}: {refusal}{}", writes[refusal.at], culprit.unwrap_or_default());
            outside.device(&device.spec.name, Some(why));
        }
        if refused.is_empty() {
            outside.device(&device.spec.name, None);
        }
        links = kernel.links()?;
    }
    changed |= addresses(kernel, wanted, &links, outside)?;
    changed |= networks(kernel, wanted, &links, outside)?;
    Ok((links, changed))
}

/// A device of ours that is in the way of a new one goes first: only one can listen on a UDP port without a network of
/// its own.
fn creation(device: &Device, wanted: &[Device], links: &[Link]) -> Vec<Write> {
    let is_external = |link: &Link| link.vxlan.as_ref().is_some_and(|vxlan| vxlan.external);
    let in_the_way = links.iter().filter(|link| {
        let ours = diff::device_family(link).is_some() && link.name != device.spec.name;
        let obsolete = wanted.iter().all(|other| other.spec.name != link.name);
        let clash = device.spec.vxlan.external || is_external(link);
        ours && obsolete && clash && link.vxlan.as_ref().is_some_and(|vxlan| vxlan.port == device.spec.vxlan.port)
    });
    let deletions = in_the_way.map(|link| Write::DeleteLink(link.index));
    deletions.chain([Write::CreateVxlan(device.spec.clone())]).collect()
}

/// Somebody else's device on our UDP port.
fn culprit<'a>(device: &Device, links: &'a [Link]) -> Option<&'a str> {
    let same_port = |link: &&Link| {
        link.name != device.spec.name && link.vxlan.as_ref().is_some_and(|vxlan| vxlan.port == device.spec.vxlan.port)
    };
    links.iter().find(same_port).map(|link| link.name.as_str())
}

/// Each device has its addresses and no others; what the kernel itself gives an interface for its link stays.
fn addresses(kernel: &mut Rtnl, wanted: &[Device], links: &[Link], outside: &mut Outside) -> Result<bool, RtnlError> {
    let present = kernel.addresses()?;
    let mut writes = Vec::new();
    for device in wanted {
        let Some(link) = links.iter().find(|link| link.name == device.spec.name) else { continue };
        let on_it = present.iter().filter(|address| address.index == link.index && address.is_global());
        let on_it: Vec<IpNet> = on_it.filter_map(|address| IpNet::new(address.addr, address.prefix).ok()).collect();
        let missing = device.addresses.iter().filter(|net| !on_it.contains(net));
        writes.extend(missing.map(|net| Write::AddAddress(link.index, *net)));
        let extra = on_it.iter().filter(|net| !device.addresses.contains(net));
        writes.extend(extra.map(|net| Write::DeleteAddress(link.index, *net)));
    }
    apply(kernel, &writes, outside)
}

/// An external device takes the networks that it should and no others.
fn networks(kernel: &mut Rtnl, wanted: &[Device], links: &[Link], outside: &mut Outside) -> Result<bool, RtnlError> {
    let mut writes = Vec::new();
    for device in wanted.iter().filter(|device| device.spec.vxlan.vnifilter) {
        let Some(link) = links.iter().find(|link| link.name == device.spec.name) else { continue };
        let present = kernel.vnis(link.index)?;
        let missing = device.vnis.iter().filter(|vni| !present.contains(vni));
        writes.extend(missing.map(|vni| Write::AddVni(link.index, *vni)));
        let extra = present.iter().filter(|vni| !device.vnis.contains(vni));
        writes.extend(extra.map(|vni| Write::DeleteVni(link.index, *vni)));
    }
    apply(kernel, &writes, outside)
}

fn apply(kernel: &mut Rtnl, writes: &[Write], outside: &mut Outside) -> Result<bool, RtnlError> {
    if writes.is_empty() {
        return Ok(false);
    }
    for refusal in kernel.write(writes)? {
        outside.refused(&format!("{:?}", writes[refusal.at]), &refusal.to_string());
    }
    Ok(true)
}

/// Removes devices of ours that the mode does not need any more. The routes lead elsewhere by now.
///
/// # Errors
/// If the kernel cannot be written.
pub fn remove_obsolete(
    kernel: &mut Rtnl,
    local: &Local,
    wanted: &[Device],
    links: &[Link],
    outside: &mut Outside,
) -> Result<(), RtnlError> {
    let obsolete = links.iter().filter(|link| {
        let of_ours = diff::device_family(link).is_some_and(|family| local.halves[family].is_some());
        of_ours && wanted.iter().all(|device| device.spec.name != link.name)
    });
    let obsolete: Vec<_> = obsolete.collect();
    for link in &obsolete {
        outside.device_written(&link.name, &[Write::DeleteLink(link.index)]);
    }
    let writes: Vec<_> = obsolete.iter().map(|link| Write::DeleteLink(link.index)).collect();
    apply(kernel, &writes, outside).map(drop)
}

/// The addresses that bridges have.
#[must_use]
pub fn bridged(machine: &Machine) -> Vec<IpAddr> {
    let is_bridge = |index: u32| machine.links.iter().any(|link| link.index == index && link.kind == "bridge");
    machine.addresses.iter().filter(|address| is_bridge(address.index)).map(|address| address.addr).collect()
}

/// A setting below `/proc/sys` and its value.
type Setting = (String, &'static str);

/// Sets what the overlay needs and is not set. Says what had to be set.
pub fn allow(
    settings: &Settings,
    local: &Local,
    devices: &[Device],
    bridged: &[IpAddr],
) -> (Vec<String>, Vec<SysctlError>) {
    let (mut done, mut failed) = (Vec::new(), Vec::new());
    for (path, value) in wanted_settings(settings, local, devices, bridged) {
        match sysctl::set(&path, value) {
            Ok(true) => done.push(format!("{path} = {value}")),
            Ok(false) => {}
            Err(error) => failed.push(error),
        }
    }
    (done, failed)
}

fn wanted_settings(settings: &Settings, local: &Local, devices: &[Device], bridged: &[IpAddr]) -> Vec<Setting> {
    let mut wanted: Vec<Setting> = Vec::new();
    if settings.backend == Backend::None {
        return wanted;
    }
    wanted.extend(local.families().flat_map(|(family, _)| sysctls::forwarding(family)));
    // What a pod answers another one on its bridge passes no rules by itself, and would not be translated back if it was asked
    // through a Service.
    for (family, half) in local.families() {
        if bridged.iter().any(|addr| half.pods.contains(addr)) {
            let tables = if family == Family::V4 { "iptables" } else { "ip6tables" };
            wanted.push((format!("net/bridge/bridge-nf-call-{tables}"), "1"));
        }
    }
    for Device { spec, answers_for_pods, .. } in devices {
        let name = &spec.name;
        if local.halves.v6.is_some() {
            wanted.push((format!("net/ipv6/conf/{name}/accept_ra"), "0"));
        }
        if *answers_for_pods {
            wanted.push((format!("net/ipv4/conf/{name}/proxy_arp"), "1"));
            // An answer that is put off forgets through which tunnel the question came.
            wanted.push((format!("net/ipv4/neigh/{name}/proxy_delay"), "0"));
        }
        // Answers may come by another way than packets went (RFC 3704, loose mode); the stricter of two settings counts.
        let strict = |of: &str| sysctl::read_number(&format!("net/ipv4/conf/{of}/rp_filter")).unwrap_or(0);
        if strict("all").max(strict(name)) == 1 {
            wanted.push((format!("net/ipv4/conf/{name}/rp_filter"), "2"));
        }
    }
    wanted
}
