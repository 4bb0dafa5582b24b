use std::time::Duration;

use crate::Plan;

/// Programs the kernel so that it carries out a plan.
///
/// Its calls block; whoever cannot wait gives it a thread of its own, and asks [`Backend::is_prompt`].
pub trait Backend: Send {
    /// Makes the kernel carry out `now` and nothing else of ours.
    ///
    /// `was` is what the kernel is known to hold; `None` means assume nothing: after the start, after a failure, after
    /// somebody else changed what is ours. Then the kernel is read, and only what differs is written.
    ///
    /// # Errors
    /// Any error means that the kernel may hold anything between `was` and `now`: the next call must pass `None`.
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError>;

    /// Whether [`Backend::sync`] from `was` to `now` takes less than about a millisecond, so that a caller who has other things
    /// to do may wait for it all the same.
    fn is_prompt(&self, was: &Plan, now: &Plan) -> bool {
        let _ = (was, now);
        false
    }

    /// Removes every trace of this backend, whether this process made it or an earlier one.
    ///
    /// # Errors
    /// Says what could not be removed.
    fn cleanup(&mut self) -> Result<(), SyncError>;
}

/// What one call of [`Backend::sync`] did.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    /// Objects written: elements, rules, chains, sets added or deleted.
    pub writes: u64,
    /// Transactions used.
    pub transactions: u32,
    /// Time spent waiting for the kernel.
    pub kernel: Duration,
    /// What our tables hold now: IPv4, IPv6.
    pub held: [FamilyCounts; 2],
    /// What somebody else had taken away or put in and this call repaired, one sentence each, at most a few.
    pub repaired: Vec<String>,
    /// What could not be done as the plan says, one sentence each.
    pub warnings: Vec<String>,
}

/// How much of ours the kernel holds for one family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FamilyCounts {
    /// Rules of the constant structure.
    pub rules: u64,
    /// Elements of maps and sets, without those that packets make (affinity).
    pub elements: u64,
}

/// Why a sync failed: one variant for each thing that the caller does differently.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// This kernel cannot do it; trying again is of no use. The text says what is missing.
    #[error("{0}")]
    Unsupported(String),
    /// Try again from nothing.
    #[error(transparent)]
    Failed(Box<dyn std::error::Error + Send + Sync>),
}
