//! What tells our own changes of nf_tables from those of others.

use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Shared between a backend and whoever listens to the kernel's announcements.
#[derive(Debug, Default)]
pub struct Ours {
    port: Arc<AtomicU32>,
    state: Mutex<State>,
    settled: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What the kernel's generation is if nobody else has changed anything since the last start from nothing.
    generation: u32,
    settled: bool,
}

impl Ours {
    fn state(&self) -> MutexGuard<'_, State> {
        // Both fields are written at once, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The port id of the backend's netlink socket, 0 before the first sync.
    #[must_use]
    pub fn port(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.port)
    }

    /// Waits until the kernel holds a plan for the first time. To listen before is of no use, and expensive: while somebody
    /// listens the kernel describes every element of a cold start, which makes it take half as long again.
    pub fn wait_until_settled(&self) {
        let mut state = self.state();
        while !state.settled {
            state = self.settled.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The generation of the ruleset that our own transactions lead to. If the kernel's is another, somebody else has
    /// changed something of somebody's.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.state().generation
    }

    pub(crate) fn opened(&self, port: u32) {
        self.port.store(port, Ordering::Release);
    }

    pub(crate) fn begin(&self, generation: u32) {
        self.state().generation = generation;
    }

    /// One transaction of ours took effect. The kernel leaves 0 out.
    pub(crate) fn committed(&self) {
        let mut state = self.state();
        state.generation = state.generation.checked_add(1).unwrap_or(1);
    }

    pub(crate) fn settle(&self) {
        self.state().settled = true;
        self.settled.notify_all();
    }
}
