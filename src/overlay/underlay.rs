//! Which interface and address carry the overlay. Pure: from what the machine looks like now.
//!
//! The order is flannel's: what the operator names, else the interface of the operator's address, else the one of the
//! default route. Unlike flannel's, each family is decided for itself, and again whenever links, addresses or routes change.

use std::net::IpAddr;

use fairlead_kernel::route::{Address, Link, NextHop, Route};
use fairlead_plan::Family;
use ipnet::IpNet;

use super::settings::UnderlaySettings;

/// The machine in the eyes of the overlay.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Machine {
    /// Every interface.
    pub links: Vec<Link>,
    /// Every address.
    pub addresses: Vec<Address>,
    /// The default routes of both families.
    pub defaults: Vec<Route>,
    /// Index of the interface through which [`UnderlaySettings::can_reach`] is reached.
    pub reaching: Option<u32>,
}

/// The way to other nodes in one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Underlay {
    /// Index of the interface.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Its MTU, bytes.
    pub mtu: u32,
    /// The local address.
    pub local: IpAddr,
    /// The address that peers are told, unless an annotation overwrites it.
    pub public: IpAddr,
}

/// Chooses. `wanted` is what the annotation `node-public-ip` says, `taken` are names of devices that are ours.
///
/// # Errors
/// Why there is none, in one sentence.
pub fn choose(
    settings: &UnderlaySettings,
    wanted: Option<IpAddr>,
    family: Family,
    machine: &Machine,
    taken: &[String],
) -> Result<Underlay, String> {
    let machine = View { machine, family, taken };
    let public = wanted.or(settings.public[family]);
    let link = machine.link(settings, public)?;
    let owned = public.filter(|public| machine.addresses_of(link.index).any(|address| address.addr == *public));
    let named = settings.interfaces.iter().filter_map(|name| name.parse::<IpAddr>().ok());
    let named = named.into_iter().find(|addr| machine.addresses_of(link.index).any(|address| address.addr == *addr));
    let best = || machine.addresses_of(link.index).min_by_key(|address| badness(address)).map(|address| address.addr);
    let Some(local) = owned.or(named).or_else(best) else {
        let (name, label) = (&link.name, family.label());
        return Err(format!("interface {name} has no {label} address; give it one, or choose another with --iface"));
    };
    Ok(Underlay { index: link.index, name: link.name.clone(), mtu: link.mtu, local, public: public.unwrap_or(local) })
}

/// The lower the better: global before link-local, lasting before leased, and none that is on its way out.
fn badness(address: &Address) -> (bool, bool, bool, bool) {
    (!address.is_global(), address.is_deprecated(), !address.is_permanent(), address.is_temporary())
}

struct View<'a> {
    machine: &'a Machine,
    family: Family,
    taken: &'a [String],
}

impl<'a> View<'a> {
    fn link(&self, settings: &UnderlaySettings, public: Option<IpAddr>) -> Result<&'a Link, String> {
        if !settings.interfaces.is_empty() || !settings.expressions.is_empty() || settings.can_reach.is_some() {
            return self.named(settings);
        }
        if let Some(public) = public {
            let owner = self.links().find(|link| self.addresses_of(link.index).any(|address| address.addr == public));
            return owner.ok_or_else(|| {
                format!("no interface has the address {public}; correct --public-ip or the annotation node-public-ip, or add --iface")
            });
        }
        let mut defaults: Vec<_> =
            self.machine.defaults.iter().filter(|route| Family::of(route.destination.addr()) == self.family).collect();
        defaults.sort_by_key(|route| route.metric);
        let through = |route: &&Route| match route.hop {
            NextHop::Unicast { index, .. } => self.links().find(|link| link.index == index),
            NextHop::Object(_) | NextHop::Blackhole | NextHop::Other => None,
        };
        defaults.iter().find_map(through).ok_or_else(|| {
            format!("there is no {} default route to tell the interface by; name it with --iface", self.family.label())
        })
    }

    fn named(&self, settings: &UnderlaySettings) -> Result<&'a Link, String> {
        let mut tried = Vec::new();
        for name in &settings.interfaces {
            let is_it = |link: &&Link| match name.parse::<IpAddr>() {
                Ok(addr) => self.addresses_of(link.index).any(|address| address.addr == addr),
                Err(_) => link.name == *name,
            };
            // An address of the other family says nothing about this one, but its interface may serve both.
            if let Some(link) = self.links().find(is_it).or_else(|| self.by_other_family(name)) {
                return Ok(link);
            }
            tried.push(format!("--iface={name}"));
        }
        for expression in &settings.expressions {
            let by_address = |link: &&Link| {
                self.addresses_of(link.index).any(|address| expression.is_match(&address.addr.to_string()))
            };
            let by_name = |link: &&Link| expression.is_match(&link.name);
            if let Some(link) = self.links().find(by_address).or_else(|| self.links().find(by_name)) {
                return Ok(link);
            }
            tried.push(format!("--iface-regex={expression}"));
        }
        if let Some(addr) = settings.can_reach {
            if let Some(link) = self.links().find(|link| Some(link.index) == self.machine.reaching) {
                return Ok(link);
            }
            tried.push(format!("--iface-can-reach={addr}"));
        }
        Err(format!("no interface is what {} asks for; see `ip address` for those that are there", tried.join(" or ")))
    }

    fn by_other_family(&self, name: &str) -> Option<&'a Link> {
        let addr: IpAddr = name.parse().ok()?;
        let owner = self.machine.addresses.iter().find(|address| address.addr == addr)?;
        self.links().find(|link| link.index == owner.index)
    }

    fn links(&self) -> impl Iterator<Item = &'a Link> {
        let taken = self.taken;
        self.machine.links.iter().filter(move |link| link.up && !taken.contains(&link.name))
    }

    fn addresses_of(&self, index: u32) -> impl Iterator<Item = &'a Address> {
        let family = self.family;
        let usable = move |address: &&Address| {
            address.index == index && Family::of(address.addr) == family && !address.is_tentative()
        };
        self.machine.addresses.iter().filter(usable).filter(|address| !address.addr.is_loopback())
    }
}

/// Whether an address is reached over the underlay's link itself, by the longest of the routes through it.
#[must_use]
pub fn is_on_link(addr: IpAddr, routes: &[OnLink]) -> bool {
    let matching = routes.iter().filter(|route| route.destination.contains(&addr));
    matching.max_by_key(|route| route.destination.prefix_len()).is_some_and(|route| route.direct)
}

/// A route through the underlay's interface, as far as [`is_on_link`] needs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OnLink {
    /// Where it leads.
    pub destination: IpNet,
    /// Whether without a router in between.
    pub direct: bool,
}
