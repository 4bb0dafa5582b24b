//! The loop: when to plan, what an outcome means, when to try again, when to look at everything.
//!
//! One task owns all state; nothing here is locked. Three things wake it: messages of the source, outcomes of the
//! [`Programmer`], and doubts of the guard. Failures are tried again with back-off, from nothing, and lose no change, since
//! every order carries the whole plan.

use std::collections::VecDeque;
use std::time::{Duration, Instant, SystemTime};

use fairlead_plan::{Plan, Report, SyncError};
use tokio::sync::mpsc;
use tracing::{debug, error, field, info, warn};

use crate::guard::Doubt;
use crate::metrics::{Cause, Synced};
use crate::object::{Event, Kind};
use crate::outward::Outward;
use crate::program::{Outcome, Programmer};
use crate::resolve::Tally;
use crate::watch::{Content, Message, Source};
use crate::world::World;

/// First pause after a failed sync; doubles from failure to failure.
const FIRST_RETRY: Duration = Duration::from_millis(50);
/// How often the kernel is compared as a whole although nothing was heard.
const RESYNC: Duration = Duration::from_secs(3600);
/// Messages taken in before a plan is made of them.
const AT_ONCE: usize = 4096;
/// Changes whose way into the kernel is timed one by one; more at once are a list, not changes.
const TIMED: usize = 4096;

/// When the loop acts.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// Time from the end of one sync to the next.
    pub min_sync_period: Duration,
    /// Longest pause between attempts.
    pub retry_most: Duration,
}

/// The state of the loop.
pub struct Reconciler {
    world: World,
    plan: Plan,
    counts: Tally,
    programmer: Programmer,
    outward: Outward,
    pace: Pace,
    generation: u64,
    /// Whether the programmer works on an order.
    busy: bool,
    /// Something has changed since the last order.
    dirty: bool,
    doubt: bool,
    failures: u32,
    not_before: Instant,
    resync_at: Instant,
    /// When the changes arrived that the kernel does not have yet, with the first order that carries them.
    waiting: VecDeque<(u64, Instant)>,
    triggers: VecDeque<(u64, SystemTime)>,
    /// Changes of Services and slices since the last order, and those that the order under way carries.
    arrived: Pending,
    carried: Pending,
}

/// Changes that the kernel does not have yet.
#[derive(Debug, Clone, Copy, Default)]
struct Pending {
    services: usize,
    slices: usize,
}

impl Reconciler {
    /// A loop that has seen nothing yet.
    #[must_use]
    pub fn new(world: World, programmer: Programmer, outward: Outward, pace: Pace) -> Self {
        let now = Instant::now();
        Self {
            world,
            plan: Plan::default(),
            counts: Tally::default(),
            programmer,
            outward,
            pace,
            generation: 0,
            busy: false,
            dirty: false,
            doubt: false,
            failures: 0,
            not_before: now,
            resync_at: now + RESYNC,
            waiting: VecDeque::new(),
            triggers: VecDeque::new(),
            arrived: Pending::default(),
            carried: Pending::default(),
        }
    }

    /// Runs until the source ends or this kernel turns out to lack what the backend needs.
    ///
    /// # Errors
    /// What the kernel lacks.
    pub async fn run(
        mut self,
        mut source: Source,
        mut outcomes: mpsc::UnboundedReceiver<Outcome>,
        mut doubts: mpsc::UnboundedReceiver<Doubt>,
    ) -> Result<(), SyncError> {
        let mut messages = Vec::new();
        loop {
            let wake = tokio::time::Instant::from_std(self.wake_at());
            tokio::select! {
                biased;
                Some(outcome) = outcomes.recv() => self.settled(outcome)?,
                taken = source.next_many(&mut messages, AT_ONCE) => {
                    if taken == 0 {
                        return Ok(());
                    }
                    messages.drain(..).for_each(|message| self.take(message));
                    self.outward.notes(self.world.notes());
                }
                Some(doubt) = doubts.recv() => self.doubted(doubt),
                () = tokio::time::sleep_until(wake) => {}
            }
            self.act()?;
        }
    }

    fn wake_at(&self) -> Instant {
        let soon = self.dirty && !self.busy && self.world.complete();
        if soon { self.not_before.min(self.resync_at) } else { self.resync_at }
    }

    fn take(&mut self, message: Message) {
        let event = match message.content {
            Content::Event(event) => event,
            Content::Problem(problem) => return self.outward.problem(&problem),
        };
        self.outward.heard(&event);
        let kind = match &event {
            Event::Apply(object) => Some(object.kind()),
            Event::Delete(kind, _) => Some(*kind),
            Event::ListBegin(_) | Event::ListEnd(_) => None,
        };
        let was_complete = self.world.complete();
        let changed = self.world.apply(event).changed;
        if kind == Some(Kind::Node) {
            self.outward.health.eligible(self.world.node_eligible());
        }
        if changed {
            kind.into_iter().for_each(|kind| self.outward.metrics.changed(kind));
            self.arrived.services += usize::from(kind == Some(Kind::Service));
            self.arrived.slices += usize::from(kind == Some(Kind::EndpointSlice));
            self.tell_pending();
            self.changed(message.received);
        }
        if !was_complete && self.world.complete() {
            info!("all first lists are complete");
            self.changed(message.received);
        }
    }

    fn tell_pending(&self) {
        let (arrived, carried) = (self.arrived, self.carried);
        self.outward.metrics.pending(arrived.services + carried.services, arrived.slices + carried.slices);
    }

    fn changed(&mut self, received: Instant) {
        self.dirty = true;
        if self.world.complete() {
            // Before, nothing may be programmed, and a node that waits for its lists is not broken.
            self.outward.health.queued(received);
        }
        self.outward.metrics.queued(SystemTime::now());
        if self.waiting.len() < TIMED {
            self.waiting.push_back((self.generation + 1, received));
        }
    }

    fn doubted(&mut self, doubt: Doubt) {
        match doubt {
            Doubt::Foreign(what) => warn!("{what}; comparing and repairing"),
            Doubt::Due => debug!("time to look at everything"),
            Doubt::Missed => debug!("announcements of the kernel were lost; comparing"),
            Doubt::Deaf(why) => {
                self.outward.metrics.failed(Cause::Notifications);
                warn!("changes by others cannot be heard: {why}; trying again");
                return;
            }
        }
        self.dirty = true;
        self.doubt = true;
    }

    /// Gives the newest plan to the programmer if there is reason to and it is time.
    fn act(&mut self) -> Result<(), SyncError> {
        let now = Instant::now();
        if now >= self.resync_at {
            self.resync_at = now + RESYNC;
            (self.dirty, self.doubt) = (true, true);
        }
        if !self.dirty || self.busy || now < self.not_before || !self.world.complete() {
            return Ok(());
        }
        let planned = self.world.plan(&self.plan);
        self.generation += 1;
        let arrived = std::mem::take(&mut self.arrived);
        self.carried.services += arrived.services;
        self.carried.slices += arrived.slices;
        let generation = self.generation;
        self.triggers.extend(planned.triggers.iter().map(|trigger| (generation, *trigger)));
        self.plan = planned.plan.clone();
        self.counts = planned.counts;
        self.outward.flows.coming(self.plan.clone());
        let done = self.programmer.program(self.plan.clone(), generation, self.doubt);
        self.outward.planned(planned);
        (self.dirty, self.doubt, self.busy) = (false, false, true);
        done.map_or(Ok(()), |outcome| self.settled(outcome))
    }

    fn settled(&mut self, outcome: Outcome) -> Result<(), SyncError> {
        self.busy = false;
        match outcome.result {
            Ok(ref report) => self.succeeded(&outcome, report),
            Err(error) => return self.failed(error),
        }
        Ok(())
    }

    fn succeeded(&mut self, outcome: &Outcome, report: &Report) {
        self.failures = 0;
        self.carried = Pending::default();
        self.tell_pending();
        self.not_before = outcome.ended + self.pace.min_sync_period;
        let (generation, ended) = (outcome.generation, outcome.ended);
        let waited: Vec<Duration> =
            take_until(&mut self.waiting, generation).map(|received| ended - received).collect();
        let at = SystemTime::now();
        let triggers: Vec<SystemTime> = take_until(&mut self.triggers, generation).collect();
        for sentence in &report.repaired {
            warn!("repaired: {sentence}");
        }
        for sentence in &report.warnings {
            warn!("{sentence}");
        }
        let services = outcome.plan.services.len();
        if outcome.full {
            info!(services, writes = report.writes, took = ?outcome.took, "the kernel carries out the plan");
        } else {
            let since_event = waited.iter().max().map(field::debug);
            debug!(services, writes = report.writes, took = ?outcome.took, since_event, "synced");
        }
        let synced =
            Synced { report, took: outcome.took, full: outcome.full, waited: &waited, triggers: &triggers, at };
        let oldest = self.waiting.front().map(|(_, received)| *received);
        self.outward.synced(&synced, &outcome.plan, &self.counts, oldest);
    }

    fn failed(&mut self, error: SyncError) -> Result<(), SyncError> {
        self.outward.metrics.sync_failed(&error);
        self.outward.facts.failed(&error.to_string());
        if let SyncError::Unsupported(_) = error {
            return Err(error);
        }
        let pause = FIRST_RETRY.saturating_mul(1 << self.failures.min(16)).min(self.pace.retry_most);
        self.failures += 1;
        self.not_before = Instant::now() + pause;
        (self.dirty, self.doubt) = (true, true);
        error!(%error, "the kernel refused the plan; trying again in {pause:?}");
        Ok(())
    }
}

/// Removes and gives what this or an older order carried.
fn take_until<T: Copy>(queue: &mut VecDeque<(u64, T)>, generation: u64) -> impl Iterator<Item = T> {
    let count = queue.iter().take_while(|(carried_by, _)| *carried_by <= generation).count();
    queue.drain(..count).map(|(_, value)| value)
}
