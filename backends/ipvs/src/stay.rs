//! The addresses that kube-proxy's ipvs mode has on `kube-ipvs0`, when they go from there.
//!
//! A connection that the node itself has opened to a virtual address has that address as its source as well, because the kernel
//! takes the destination where that is one of the node's own. Without the address such a socket can send nothing (IPv4), and
//! answers are not delivered here any more. So each address stays the node's by a route over `lo` for as long as connection tracking
//! has a flow from it. No new flow comes to be that needs it: the route suggests the source that other packets of the node have.
//! The routes have the protocol number of all of fairlead's, by which a later start of the program finds them.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_kernel::conntrack::Conntrack;
use fairlead_kernel::route::{PROTOCOL_OURS, Refusal, Rtnl, Write};
use fairlead_plan::SyncError;

use crate::error::Error;
use crate::layout::LINK;

/// Between the first two looks; then twice as long each time, since what is still needed may be so for days.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Between two looks at most.
const LAST_PAUSE: Duration = Duration::from_secs(30);
/// So many times as long as a look takes is waited at least: the table of flows may be large.
const RESTS: u32 = 5;
/// Addresses for documentation, which nobody has (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];

/// Keeps these addresses of a link by routes. Gives back how many, and what the kernel refuses.
pub fn keep(link: u32, addresses: &[IpAddr]) -> Result<(u64, Option<String>), Error> {
    let mut rtnl = Rtnl::open()?;
    let lasting: Vec<IpAddr> = addresses.iter().copied().filter(|address| !is_link_local(*address)).collect();
    let sources = sources(&mut rtnl, link)?;
    let route = |address: &IpAddr| Write::AddLocal(*address, sources[usize::from(address.is_ipv6())], PROTOCOL_OURS);
    let refused = rtnl.write(&lasting.iter().map(route).collect::<Vec<_>>())?;
    let told = refused.first().map(|first| {
        let (count, address) = (refused.len(), lasting[first.at]);
        format!("connections that this node has opened from {count} addresses of {LINK} may end: a route for {address} is refused: {first}")
    });
    Ok((lasting.len() as u64, told))
}

const fn is_link_local(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_link_local(),
        IpAddr::V6(address) => address.is_unicast_link_local(),
    }
}

/// What the node has as its source where no address is its own, in both families; else an address of any other link.
fn sources(rtnl: &mut Rtnl, link: u32) -> Result<[Option<IpAddr>; 2], Error> {
    let mut others = rtnl.addresses()?;
    others.retain(|one| one.index != link && one.is_global() && !one.is_tentative() && !one.addr.is_loopback());
    let mut sources = [None; 2];
    for (source, nobody) in sources.iter_mut().zip(NOBODY) {
        let is_others = |found: &IpAddr| others.iter().any(|one| one.addr == *found);
        let any = || others.iter().map(|one| one.addr).find(|addr| addr.is_ipv6() == nobody.is_ipv6());
        *source = rtnl.source_towards(nobody)?.filter(is_others).or_else(any);
    }
    Ok(sources)
}

/// Takes away all routes that keep addresses, whoever still has need of one.
///
/// # Errors
/// If the kernel cannot be read or written.
pub fn let_go() -> Result<(), SyncError> {
    Ok(remove_all()?)
}

/// As [`let_go`].
pub fn remove_all() -> Result<(), Error> {
    let mut rtnl = Rtnl::open()?;
    let held = rtnl.locals(PROTOCOL_OURS)?;
    remove(&mut rtnl, held.into_iter())
}

fn remove(rtnl: &mut Rtnl, addresses: impl Iterator<Item = IpAddr>) -> Result<(), Error> {
    let writes: Vec<Write> = addresses.map(|address| Write::DeleteLocal(address, PROTOCOL_OURS)).collect();
    match rtnl.write(&writes)?.first() {
        Some(Refusal { at, errno, .. }) => {
            let Write::DeleteLocal(address, _) = writes[*at] else { return Ok(()) };
            Err(Error::Kept { address, errno: *errno })
        }
        None => Ok(()),
    }
}

/// Starts a thread when an address is kept; it takes routes away that nobody needs, and ends with the last.
#[derive(Debug, Default)]
pub struct Keeper {
    thread: Option<thread::JoinHandle<()>>,
}

impl Keeper {
    /// Sees to it that somebody looks, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// If routes cannot be listed, or no thread can be started.
    pub fn start(&mut self) -> Result<(), SyncError> {
        let at_work = self.thread.as_ref().is_some_and(|thread| !thread.is_finished());
        if at_work || Rtnl::open().and_then(|mut rtnl| rtnl.locals(PROTOCOL_OURS)).map_err(Error::from)?.is_empty() {
            return Ok(());
        }
        let started = thread::Builder::new().name("addresses".into()).spawn(work);
        self.thread = Some(started.map_err(|error| SyncError::Failed(Box::new(error)))?);
        Ok(())
    }
}

fn work() {
    let (mut idle, mut pause) = (HashSet::new(), FIRST_PAUSE);
    loop {
        let began = Instant::now();
        // What fails now may be possible later; a route more does no harm.
        if let Ok(false) = look(&mut idle) {
            return;
        }
        thread::sleep(pause.max(began.elapsed() * RESTS));
        pause = LAST_PAUSE.min(pause * 2);
    }
}

/// Removes what nobody needed at the look before either: a listing of flows may miss one while others come and go. Whether any
/// address is still kept.
fn look(idle: &mut HashSet<IpAddr>) -> Result<bool, Error> {
    let mut rtnl = Rtnl::open()?;
    let held = rtnl.locals(PROTOCOL_OURS)?;
    if held.is_empty() {
        return Ok(false);
    }
    let mut unused: HashSet<IpAddr> = held.iter().copied().collect();
    let mut conntrack = Conntrack::open()?;
    for ipv6 in [false, true] {
        conntrack.every_flow(ipv6, &mut |flow| _ = unused.remove(&flow.original.src))?;
    }
    let gone = held.into_iter().filter(|address| unused.contains(address) && idle.contains(address));
    remove(&mut rtnl, gone)?;
    *idle = unused;
    Ok(true)
}
