//! Hears when somebody else changes what is ours.
//!
//! The kernel announces every change of nf_tables with the port id of whoever asked for it. What is about our tables and
//! was not asked for by our own socket is somebody else's doing: the loop then doubts what the kernel holds, and the next
//! sync reads it. When announcements were lost (the buffer was too small for a flood) that is a reason to doubt as well.

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_kernel::nft::{Monitor, Nft, NftError, Notice};
use fairlead_nft::Ours;
use tokio::sync::mpsc;

/// Our tables are of these: `NFPROTO_IPV4` and `NFPROTO_IPV6`. A table of the same name in `inet` is somebody else's.
const FAMILIES: [u8; 2] = [2, 10];
/// A transaction of ours may be under way when generations are compared; by then it has taken effect.
const UNDER_WAY: Duration = Duration::from_millis(200);
/// Pause between two comparisons of generations.
const AGAIN: Duration = Duration::from_millis(2);
/// Pause after the monitor failed, before it is opened again.
const REOPEN: Duration = Duration::from_secs(1);

/// Why the kernel may hold something else than we wrote.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doubt {
    /// Somebody changed our table; says what, in words.
    Foreign(String),
    /// Announcements were lost.
    Missed,
    /// The kernel cannot be listened to; says why. The periodic comparison still finds what was changed.
    Deaf(String),
}

/// Starts the thread that listens, in the network namespace of the caller, once the kernel holds a plan. It ends when nobody
/// receives any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(table: &'static str, ours: Arc<Ours>, doubts: mpsc::UnboundedSender<Doubt>) -> io::Result<()> {
    std::thread::Builder::new().name("guard".into()).spawn(move || listen(table, &ours, &doubts))?;
    Ok(())
}

fn listen(table: &str, ours: &Arc<Ours>, doubts: &mpsc::UnboundedSender<Doubt>) {
    ours.wait_until_settled();
    while !doubts.is_closed() {
        let error = match Monitor::open(ours.port()) {
            // What was changed meanwhile has been announced to nobody.
            Ok(_) if !undisturbed(ours) && doubts.send(Doubt::Missed).is_err() => return,
            Ok(mut monitor) => hear(&mut monitor, table, doubts),
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
fn hear(monitor: &mut Monitor, table: &str, doubts: &mpsc::UnboundedSender<Doubt>) -> Option<NftError> {
    loop {
        let doubt = match monitor.next() {
            Ok(notices) => {
                let is_ours = |notice: &&Notice| notice.table == table && FAMILIES.contains(&notice.family);
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
