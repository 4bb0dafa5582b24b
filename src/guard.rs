//! Hears when somebody else changes what is ours.
//!
//! The kernel announces every change of nf_tables with the port id of whoever asked for it. What is about our tables and
//! was not asked for by our own socket is somebody else's doing: the loop then doubts what the kernel holds, and the next
//! sync reads it. When announcements were lost (the buffer was too small for a flood) that is a reason to doubt as well.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_iptables::Witness;
use fairlead_ipvs::Sentinel;
use fairlead_kernel::nft::{Monitor, Nft, NftError, Notice, Ours};
use tokio::sync::mpsc;

/// `NFPROTO_IPV4` and `NFPROTO_IPV6`. A table of the same name in `inet` is somebody else's.
const FAMILIES: [u8; 2] = [2, 10];
/// A transaction of ours may be under way when generations are compared; by then it has taken effect.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Pause between two comparisons of generations.
const AGAIN: Duration = Duration::from_millis(2);
/// How often tables that nobody announces changes of are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// Pause after the monitor failed, before it is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Why the kernel may hold something else than we wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Somebody changed our table; says what, in words.
    Foreign(String),
    /// Announcements were lost.
    Missed,
    /// Some time has passed, and nobody announces changes.
    Due,
    /// The kernel cannot be listened to; says why. The periodic comparison still finds what was changed.
    Deaf(String),
}

/// Whether an announcement about a table of IPv4 or IPv6 is about something of ours.
pub type Concerns = fn(&Notice) -> bool;

/// Announcements that concern the nft mode.
#[must_use]
pub fn nft_table(notice: &Notice) -> bool {
    notice.table == fairlead_nft::TABLE
}

/// Starts the thread that listens, in the network namespace of the caller, once the kernel holds a plan. It ends when nobody
/// receives any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(concerns: Concerns, ours: Arc<Ours>, doubts: mpsc::UnboundedSender<Doubt>) -> io::Result<()> {
    std::thread::Builder::new().name("guard".into()).spawn(move || listen(concerns, &ours, &doubts))?;
    Ok(())
}

/// Starts the thread that looks at tables of the legacy variant of iptables again and again, since the kernel does not announce
/// changes of them: at their sizes, and once in a `period` at their rules. It ends when nobody receives any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn start_looking(witness: Arc<Witness>, period: Duration, doubts: mpsc::UnboundedSender<Doubt>) -> io::Result<()> {
    let look = move || {
        let mut told = None;
        let mut whole = Instant::now() + period;
        while !doubts.is_closed() {
            std::thread::sleep(LOOK.min(period));
            let due = Instant::now() >= whole;
            if due {
                whole = Instant::now() + period;
            }
            let changed = match witness.changed() {
                Ok(None) if due => witness.altered(),
                changed => changed,
            };
            let doubt = match changed {
                Ok(changed) => changed.map(Doubt::Foreign),
                Err(error) => Some(Doubt::Deaf(error.to_string())),
            };
            // Until the next sync has read the tables it is the same change.
            if doubt.is_some() && doubt != told && doubts.send(doubt.clone().unwrap_or(Doubt::Missed)).is_err() {
                return;
            }
            told = doubt;
        }
    };
    std::thread::Builder::new().name("guard-legacy".into()).spawn(look)?;
    Ok(())
}

/// Starts the thread that asks IPVS and ipset again and again, and has everything looked at once in a `period`. It ends when
/// nobody receives any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn start_asking(sentinel: Sentinel, period: Duration, doubts: mpsc::UnboundedSender<Doubt>) -> io::Result<()> {
    let ask = move || {
        let mut whole = Instant::now() + period;
        while !doubts.is_closed() {
            std::thread::sleep(LOOK.min(period));
            let due = Instant::now() >= whole;
            let doubt = sentinel.changed().map(Doubt::Foreign).or_else(|| due.then_some(Doubt::Due));
            if due {
                whole = Instant::now() + period;
            }
            if doubt.is_some_and(|doubt| doubts.send(doubt).is_err()) {
                return;
            }
        }
    };
    std::thread::Builder::new().name("guard".into()).spawn(ask)?;
    Ok(())
}

fn listen(concerns: Concerns, ours: &Arc<Ours>, doubts: &mpsc::UnboundedSender<Doubt>) {
    ours.wait_until_settled();
    while !doubts.is_closed() {
        let error = match Monitor::open(ours.port()) {
            // What was changed meanwhile has been announced to nobody.
            Ok(_) if !undisturbed(ours) && doubts.send(Doubt::Missed).is_err() => return,
            Ok(mut monitor) => hear(&mut monitor, concerns, doubts),
            Err(error) => Some(error),
        };
        let Some(error) = error else { return };
        if doubts.send(Doubt::Deaf(error.to_string())).is_err() {
            return;
        }
        std::thread::sleep(REOPEN);
    }
}

/// Whether all transactions since the last start from nothing were ours.
fn undisturbed(ours: &Ours) -> bool {
    let begin = Instant::now();
    let Ok(mut nft) = Nft::open() else { return false };
    while begin.elapsed() < UNDER_WAY {
        if nft.generation().is_ok_and(|generation| generation == ours.generation()) {
            return true;
        }
        std::thread::sleep(AGAIN);
    }
    false
}

/// Listens until nobody wants to know (`None`) or the socket fails.
fn hear(monitor: &mut Monitor, concerns: Concerns, doubts: &mpsc::UnboundedSender<Doubt>) -> Option<NftError> {
    loop {
        let doubt = match monitor.next() {
            Ok(notices) => {
                let is_ours = |notice: &&Notice| FAMILIES.contains(&notice.family) && concerns(notice);
                notices.iter().find(is_ours).map(|notice| Doubt::Foreign(words(notice)))
            }
            Err(NftError::Overrun) => Some(Doubt::Missed),
            Err(error) => return Some(error),
        };
        if doubts.is_closed() || doubt.is_some_and(|doubt| doubts.send(doubt).is_err()) {
            return None;
        }
    }
}

fn words(notice: &Notice) -> String {
    let verb = if notice.deleted { "deleted" } else { "added or changed" };
    let kind = format!("{:?}", notice.kind).to_lowercase();
    let place = if notice.name.is_empty() { String::new() } else { format!(" of {}", notice.name) };
    format!("somebody (netlink port {}) {verb} {kind}{place} in table {}", notice.port_id, notice.table)
}
