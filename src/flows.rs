//! Deletes UDP flows that connection tracking translates to the wrong place.
//!
//! [`crate::conntrack`] decides; this thread lists and deletes. It runs after changes that can leave such flows behind,
//! and every few minutes regardless of events, because what was missed once would otherwise stay wrong for as long as the
//! client keeps sending.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::IpAddr;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use fairlead_kernel::address;
use fairlead_kernel::conntrack::{Conntrack, Flow};
use fairlead_plan::{Family, Plan, Protocol};
use tracing::{debug, warn};

use crate::conntrack::{self, Claims, Missed, Unanswered};
use crate::metrics::{Cause, Metrics};

/// How often flows are compared with the plan although nothing has changed.
const REGULARLY: Duration = Duration::from_secs(300);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);
/// So many replaced plans are kept for the next pass. More come together only while passes fail or flows wait for answers.
const REMEMBERED: usize = 32;

/// The handle to the thread, which ends when this is dropped.
#[derive(Debug, Clone)]
pub struct Flows {
    plans: Sender<Programmed>,
    coming: Coming,
}

/// The plan that the kernel was last asked to carry out. Not sent, because that would wake the thread for every change.
type Coming = Arc<Mutex<Option<Plan>>>;

/// A plan that the kernel carries out, and whether there was a gap before, in which rules were missing.
type Programmed = (Plan, bool);

impl Flows {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let ((plans, held), coming) = (channel(), Coming::default());
        let sweeper = Sweeper::new(metrics, Arc::clone(&coming));
        std::thread::Builder::new().name("flows".into()).spawn(move || sweeper.run(&held))?;
        Ok(Self { plans, coming })
    }

    /// The kernel may carry out this plan from now on: flows that are right by it are left alone.
    pub fn coming(&self, plan: Plan) {
        *self.coming.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
    }

    /// The kernel carries out this plan now. `after_gap` says that its rules may have been missing until now: connections
    /// that began then must begin anew.
    pub fn programmed(&self, plan: Plan, after_gap: bool) {
        // Only fails if the thread has panicked, which has been printed.
        let _ = self.plans.send((plan, after_gap));
    }
}

struct Sweeper {
    /// The newest plan that the kernel carries out.
    newest: Option<Plan>,
    coming: Coming,
    /// Plans that the kernel has carried out since the last pass that succeeded and left nothing for the next, except the
    /// newest: flows may have come about under each of them, also where the newest says the same as the one of that pass.
    replaced: VecDeque<Plan>,
    /// Stale flows that the last pass has left alone.
    unanswered: Unanswered,
    /// Whether a pass can find anything.
    due: bool,
    /// Whether connections may have begun while rules were missing.
    gap: bool,
    metrics: Arc<Metrics>,
}

impl Sweeper {
    fn new(metrics: Arc<Metrics>, coming: Coming) -> Self {
        let (replaced, unanswered) = (VecDeque::new(), Unanswered::default());
        Self { newest: None, coming, replaced, unanswered, due: false, gap: false, metrics }
    }

    fn run(mut self, held: &Receiver<Programmed>) {
        let mut next = Instant::now() + REGULARLY;
        loop {
            match held.recv_timeout(next.saturating_duration_since(Instant::now())) {
                Ok(plan) => std::iter::once(plan).chain(held.try_iter()).for_each(|plan| self.take(plan)),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
            while self.due || Instant::now() >= next {
                if let Err(error) = self.pass(held) {
                    self.metrics.failed(Cause::Conntrack);
                    warn!(%error, "stale UDP flows could not be removed; trying again in {RETRY:?}");
                    next = Instant::now() + RETRY;
                    break;
                }
                next = self.unanswered.look_again().unwrap_or_else(|| Instant::now() + REGULARLY);
            }
        }
    }

    fn take(&mut self, (plan, after_gap): Programmed) {
        let changed = self.newest.as_ref().is_none_or(|newest| conntrack::needed(newest, &plan));
        let replaced = self.newest.replace(plan).filter(|_| changed);
        self.due |= changed || after_gap;
        self.gap |= after_gap;
        self.replaced.extend(replaced);
        self.forget_some();
    }

    fn forget_some(&mut self) {
        while self.replaced.len() > REMEMBERED {
            self.replaced.pop_front();
        }
    }

    fn pass(&mut self, held: &Receiver<Programmed>) -> Result<(), Box<dyn std::error::Error>> {
        self.due = false;
        let Some(now) = self.newest.clone() else { return Ok(()) };
        let replaced = std::mem::take(&mut self.replaced);
        let gap = std::mem::take(&mut self.gap);
        let done = self.sweep(&now, &replaced, held).and_then(|()| if gap { mend(&now) } else { Ok(()) });
        self.gap |= gap && done.is_err();
        if done.is_err() || self.unanswered.look_again().is_some() {
            let since = std::mem::replace(&mut self.replaced, replaced);
            self.replaced.extend(since);
            self.forget_some();
        }
        done
    }

    fn sweep(
        &mut self,
        now: &Plan,
        replaced: &VecDeque<Plan>,
        held: &Receiver<Programmed>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let local: BTreeSet<IpAddr> = address::local_addresses()?.into_iter().map(|(_, addr, _)| addr).collect();
        let mut claims: Vec<_> = replaced.iter().map(|was| Claims::new(Some(was), now, &local)).collect();
        if claims.is_empty() {
            claims.push(Claims::new(None, now, &local));
        }
        let mut kernel = Conntrack::open()?;
        let before = std::mem::take(&mut self.unanswered);
        for family in Family::BOTH {
            let start = Instant::now();
            let mut stale: Vec<Flow> = Vec::new();
            kernel.udp_flows(family == Family::V6, &mut |flow| {
                if claims.iter().any(|claims| claims.is_stale(flow)) {
                    stale.push(*flow);
                }
            })?;
            held.try_iter().for_each(|plan| self.take(plan));
            self.spare(&mut stale, replaced, now, &local);
            self.unanswered.leave_out(&mut stale, &before, Instant::now());
            let deleted = kernel.delete_all(&stale)?;
            if deleted > 0 {
                debug!(deleted, family = family.label(), "removed stale UDP flows");
            }
            self.metrics.conntrack(family, start.elapsed(), deleted as u64);
        }
        Ok(())
    }

    /// Leaves out flows that came about while the list was made, by a plan that the kernel has or may have by now.
    fn spare(&self, stale: &mut Vec<Flow>, replaced: &VecDeque<Plan>, now: &Plan, local: &BTreeSet<IpAddr>) {
        let coming = self.coming.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for plan in [&self.newest, &coming].into_iter().flatten() {
            if stale.is_empty() || !conntrack::needed(now, plan) {
                continue;
            }
            let was = replaced.iter().chain([now]);
            let claims: Vec<_> = was.map(|was| Claims::new(Some(was), plan, local)).collect();
            stale.retain(|flow| claims.iter().any(|claims| claims.is_stale(flow)));
        }
    }
}

/// Deletes connections that began while rules were missing, so that the clients' next packets are translated.
fn mend(now: &Plan) -> Result<(), Box<dyn std::error::Error>> {
    let local: BTreeSet<IpAddr> = address::local_addresses()?.into_iter().map(|(_, addr, _)| addr).collect();
    let missed = Missed::new(now, &local);
    let mut kernel = Conntrack::open()?;
    for (family, protocol) in
        Family::BOTH.into_iter().flat_map(|family| [(family, Protocol::Tcp), (family, Protocol::Sctp)])
    {
        let mut flows: Vec<Flow> = Vec::new();
        kernel.flows(family == Family::V6, protocol.number(), &mut |flow| {
            if missed.is_missed(flow) {
                flows.push(*flow);
            }
        })?;
        let deleted = kernel.delete_all(&flows)?;
        if deleted > 0 {
            debug!(deleted, %protocol, family = family.label(), "removed connections that began without rules");
        }
    }
    Ok(())
}
