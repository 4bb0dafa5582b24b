//! Whether this node does its job, and the HTTP servers that say so.
//!
//! | where | paths | meaning |
//! |---|---|---|
//! | health address (10256) | `/healthz` | this node should get traffic of load balancers |
//! | | `/livez` | this process should not be restarted |
//! | | `/readyz` | the first complete sync is in the kernel |
//! | both | `/`, `/status` | a page for people on this node: [`crate::page`] |
//! | metrics address (10249) | `/metrics`, `/proxyMode`, `/configz`, `/healthz` | for Prometheus and people |
//! | health-check node ports | every path | one Service has ready endpoints on this node |
//!
//! Paths, status codes and bodies of all but `/readyz` and the page are kube-proxy's.

mod answers;
mod checks;
mod listen;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use fairlead_plan::Family;

pub use answers::{Facts, serve_health, serve_metrics};
pub use checks::{WantedChecks, check_addresses, serve_checks};
pub use listen::ListenError;

use crate::object::ObjectName;

/// A change may wait for so many sync periods before the node counts as unhealthy.
const PERIODS_TO_WAIT: u32 = 2;

/// Something an operator should see as an Event of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The Service it is about; `None` for this node.
    pub about: Option<ObjectName>,
    /// The Event's `reason`, as kube-proxy's.
    pub reason: &'static str,
    /// One sentence.
    pub text: String,
}

/// Where notes go.
pub type Notes = tokio::sync::mpsc::UnboundedSender<Note>;

/// What is known about the health of this node. The loop writes it, the servers read it.
#[derive(Debug)]
pub struct Health {
    patience: Duration,
    families: Box<[Family]>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the oldest change arrived that the kernel does not have yet.
    pending_since: Option<Instant>,
    /// When the last successful sync ended.
    updated: Option<SystemTime>,
    /// As [`Health::eligible`] said last.
    eligible: bool,
    /// An overlay was announced and is not up yet.
    overlay_missing: bool,
}

/// The answers to all questions about health at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// No change has waited too long. True before the first sync, as in kube-proxy: a node that starts is not broken.
    pub healthy: bool,
    /// The Node has been seen and is not about to be removed.
    pub eligible: bool,
    /// The first complete sync is in the kernel, and so is the overlay if there is one.
    pub ready: bool,
    /// When the last successful sync ended.
    pub updated: Option<SystemTime>,
}

impl Health {
    /// `families` are those that this node carries; `sync_period` is the setting of that name.
    #[must_use]
    pub fn new(sync_period: Duration, families: &[Family]) -> Self {
        Self { patience: sync_period * PERIODS_TO_WAIT, families: families.into(), state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Every field is written at once, so a panic elsewhere leaves nothing half done.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A change arrived at this moment and has to go to the kernel.
    pub fn queued(&self, at: Instant) {
        self.state().pending_since.get_or_insert(at);
    }

    /// A sync succeeded. `still_pending` is when the oldest change arrived that it did not carry: a change that came
    /// during the sync goes on waiting.
    pub fn synced(&self, still_pending: Option<Instant>, at: SystemTime) {
        let mut state = self.state();
        state.pending_since = still_pending;
        state.updated = Some(at);
    }

    /// Whether load balancers may send traffic to this node ([`crate::world::World::node_eligible`]). Until this is
    /// called they may not.
    pub fn eligible(&self, eligible: bool) {
        self.state().eligible = eligible;
    }

    /// This node is not ready before [`Health::overlay_up`].
    pub fn await_overlay(&self) {
        self.state().overlay_missing = true;
    }

    /// The overlay is up.
    pub fn overlay_up(&self) {
        self.state().overlay_missing = false;
    }

    /// The answers at this moment.
    #[must_use]
    pub fn verdict(&self, now: Instant) -> Verdict {
        let state = self.state();
        let waited = state.pending_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since));
        Verdict {
            healthy: waited < self.patience,
            eligible: state.eligible,
            ready: state.updated.is_some() && !state.overlay_missing,
            updated: state.updated,
        }
    }
}

#[cfg(test)]
mod tests;
