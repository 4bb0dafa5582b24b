//! Hears when somebody else changes what is ours.
//!
//! The kernel announces every change of nf_tables with the port id of whoever asked for it. What is about our tables and
//! was not asked for by our own socket is somebody else's doing: the loop then doubts what the kernel holds, and the next
//! sync reads it. When announcements were lost (the buffer was too small for a flood) that is a reason to doubt as well.

use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use fairlead_kernel::nft::{Monitor, NftError, Notice};
use tokio::sync::mpsc;

/// Our tables are of these: `NFPROTO_IPV4` and `NFPROTO_IPV6`. A table of the same name in `inet` is somebody else's.
const FAMILIES: [u8; 2] = [2, 10];
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

/// Starts the thread that listens, in the network namespace of the caller. `ours` is the port id of the backend's socket.
/// It ends when nobody receives any more.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(table: &'static str, ours: Arc<AtomicU32>, doubts: mpsc::UnboundedSender<Doubt>) -> io::Result<()> {
    std::thread::Builder::new().name("guard".into()).spawn(move || listen(table, &ours, &doubts))?;
    Ok(())
}

fn listen(table: &str, ours: &Arc<AtomicU32>, doubts: &mpsc::UnboundedSender<Doubt>) {
    let mut was_deaf = false;
    while !doubts.is_closed() {
        let error = match Monitor::open(Arc::clone(ours)) {
            // What was changed meanwhile has been announced to nobody.
            Ok(_) if was_deaf && doubts.send(Doubt::Missed).is_err() => return,
            Ok(mut monitor) => hear(&mut monitor, table, doubts),
            Err(error) => Some(error),
        };
        was_deaf = true;
        let Some(error) = error else { return };
        if doubts.send(Doubt::Deaf(error.to_string())).is_err() {
            return;
        }
        std::thread::sleep(REOPEN);
    }
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
