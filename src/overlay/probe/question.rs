//! Whom to ask about a way, and what else can be found out about one that does not answer.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use fairlead_kernel::ask::{Datagram, Frames};
use fairlead_kernel::route::{Link, Mac};
use fairlead_plan::Family;

use super::cause::{Cause, Evidence};
use super::resolution::{self, Overheard};
use super::rounds::{Ask, Rounds};
use super::{SMALL, TRIES};
use crate::overlay::settings::Backend;
use crate::overlay::ways::{Held, Way};

/// Through the tunnel and the underlay packets may pass so many routers, less one.
const MANY_HOPS: u8 = 64;

/// A way that can be probed.
#[derive(Debug)]
pub struct Subject<'a> {
    /// The way.
    pub way: &'a Way,
    /// The interface by which its packets leave.
    pub link: &'a Link,
    /// Who is asked.
    pub target: IpAddr,
    /// The largest packet that this node sends there, bytes.
    pub mtu: u32,
    /// Our own address inside the tunnel; `None` without a tunnel.
    source: Option<IpAddr>,
    /// An end that is no node: what has which address behind it is not known.
    is_external: bool,
}

impl<'a> Subject<'a> {
    /// `None` for a way of which a piece is missing.
    pub fn new(held: &'a Held, way: &'a Way) -> Option<Self> {
        let prefix = way.prefix?;
        let link = held.links.iter().find(|link| Some(&link.name) == way.device.as_ref())?;
        let mut subject = Self { way, link, target: prefix.network(), mtu: link.mtu, source: None, is_external: false };
        if way.mode == Backend::HostGw.name() {
            return Some(subject);
        }
        let family = Family::of(prefix.addr());
        let own = held.addresses.iter().filter(|address| address.index == link.index && address.is_global());
        subject.source = own.map(|address| address.addr).find(|addr| Family::of(*addr) == family);
        let own_vni = link.name.rsplit('.').next().and_then(|vni| vni.parse().ok());
        if subject.source.is_none() || way.vni != own_vni {
            (subject.is_external, subject.target, subject.mtu) = (true, way.underlay?, SMALL);
        }
        Some(subject)
    }

    /// An address behind the route of the way.
    pub fn probe_address(&self) -> IpAddr {
        self.way.prefix.map_or(self.target, |prefix| prefix.network())
    }

    /// A question of this size.
    pub fn ask(&self, size: u32) -> Ask {
        let direct = !self.is_tunnelled();
        // What comes back to a packet that had to be passed on was not said by the peer.
        let hops = if self.is_external { MANY_HOPS } else { 1 };
        Ask { to: self.target, size, hops, router_counts: direct }
    }

    fn is_tunnelled(&self) -> bool {
        self.link.vxlan.is_some()
    }
}

/// Why these do not answer, in their order.
///
/// # Errors
/// If a socket fails.
pub fn causes(
    held: &Held,
    rounds: &mut Rounds,
    silent: &[(usize, &Subject<'_>)],
    patience: Duration,
) -> io::Result<Vec<Cause>> {
    let mut listeners: Vec<(u32, Frames)> = Vec::new();
    for (_, subject) in silent.iter().filter(|(_, subject)| subject.is_tunnelled()) {
        let index = subject.link.index;
        if listeners.iter().all(|(other, _)| *other != index) {
            listeners.push((index, Frames::open(index)?));
        }
    }
    // Whoever sends its answers elsewhere is overheard while it is asked again.
    let again: Vec<Ask> = silent.iter().map(|(_, subject)| subject.ask(SMALL)).collect();
    rounds.ask(&again, 1, Duration::ZERO)?;
    let doors: Vec<Option<Door>> = silent.iter().map(|(_, subject)| knock(subject)).collect();
    let known: Vec<usize> = (0..silent.len()).filter(|at| silent[*at].1.way.underlay.is_some()).collect();
    let outside = known.iter().filter_map(|at| silent[*at].1.way.underlay);
    let outside: Vec<Ask> = outside.map(|to| Ask { to, size: SMALL, hops: MANY_HOPS, router_counts: false }).collect();
    let answers = rounds.ask(&outside, TRIES, patience)?;
    let until = Instant::now() + patience;
    let heard = overheard(held, &listeners, silent, until);
    let mut causes = Vec::new();
    for (at, (_, subject)) in silent.iter().enumerate() {
        let (resolved, misaddressed) = heard[at];
        let evidence = Evidence {
            underlay_answers: known.iter().position(|other| *other == at).is_some_and(|place| answers[place].is_some()),
            resolved,
            misaddressed,
            port_is_closed: doors[at].as_ref().is_some_and(Door::is_closed),
            port: subject.link.vxlan.as_ref().map_or(0, |vxlan| vxlan.port),
            ours: subject.link.mac,
        };
        causes.push(Cause::silence(subject.way, &evidence, subject.is_tunnelled()));
    }
    Ok(causes)
}

/// A tunnel's end at which was knocked.
struct Door {
    datagram: Datagram,
    /// What came back to all but the last knock.
    refused: bool,
}

impl Door {
    fn is_closed(&self) -> bool {
        self.refused || self.datagram.refusal(Instant::now()).is_some_and(|error| is_refusal(&error))
    }
}

fn is_refusal(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::ConnectionRefused
}

/// Sends the question for the other device's Ethernet address to the tunnel's end.
fn knock(subject: &Subject<'_>) -> Option<Door> {
    let (vxlan, end) = (subject.link.vxlan.as_ref()?, subject.way.underlay?);
    let vni = u32::try_from(subject.way.vni?).ok()?;
    let ours = (subject.link.mac?, subject.source?);
    let question = resolution::question(vni, ours, subject.target)?;
    let from = vxlan.local.filter(|local| Family::of(*local) == Family::of(end));
    let datagram = Datagram::open(from, SocketAddr::new(end, vxlan.port)).ok()?;
    // To send tells what came back to the one before.
    let refused = (0..TRIES).any(|_| datagram.send(&question).is_err_and(|error| is_refusal(&error)));
    Some(Door { datagram, refused })
}

type Told = (Option<Mac>, Option<Mac>);

/// What was heard on the devices about each: its Ethernet address, and the one to which it sends.
fn overheard(held: &Held, listeners: &[(u32, Frames)], silent: &[(usize, &Subject<'_>)], until: Instant) -> Vec<Told> {
    let mut told = vec![(None, None); silent.len()];
    for (index, frames) in listeners {
        let Some(ours) = held.links.iter().find(|link| link.index == *index).and_then(|link| link.mac) else {
            continue;
        };
        let here: Vec<usize> = (0..silent.len()).filter(|at| silent[*at].1.link.index == *index).collect();
        // A device that goes away meanwhile says nothing any more.
        while let Ok(Some(frame)) = frames.next(until) {
            let Some(heard) = resolution::overheard(&frame, ours) else { continue };
            let (Overheard::Resolved(addr, _) | Overheard::Misaddressed(addr, _)) = heard;
            let Some(at) = here.iter().copied().find(|at| silent[*at].1.target == addr) else { continue };
            match heard {
                Overheard::Resolved(_, mac) => told[at].0 = Some(mac),
                Overheard::Misaddressed(_, mac) => told[at].1 = Some(mac),
            }
            if here.iter().all(|at| told[*at].0.is_some()) {
                break;
            }
        }
    }
    told
}
