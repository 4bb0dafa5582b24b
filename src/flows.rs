//! Deletes UDP flows that connection tracking translates to the wrong place.
//!
//! [`crate::conntrack`] decides; this thread lists and deletes. It runs after changes that can leave such flows behind,
//! and every few minutes regardless of events, because what was missed once would otherwise stay wrong for as long as the
//! client keeps sending.

use std::collections::BTreeSet;
use std::io;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use fairlead_kernel::address;
use fairlead_kernel::conntrack::{Conntrack, Flow};
use fairlead_plan::{Family, Plan};
use tracing::{debug, warn};

use crate::conntrack::{self, Claims};
use crate::metrics::{Cause, Metrics};

/// How often flows are compared with the plan although nothing has changed.
const REGULARLY: Duration = Duration::from_secs(300);
/// Pause after a failure.
const RETRY: Duration = Duration::from_secs(5);

/// The handle to the thread, which ends when this is dropped.
#[derive(Debug, Clone)]
pub struct Flows {
    plans: Sender<Plan>,
}

impl Flows {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let (plans, orders) = channel();
        std::thread::Builder::new().name("flows".into()).spawn(move || Sweeper { last: None, metrics }.run(&orders))?;
        Ok(Self { plans })
    }

    /// The kernel carries out this plan now.
    pub fn programmed(&self, plan: Plan) {
        // Only fails if the thread has panicked, which has been printed.
        let _ = self.plans.send(plan);
    }
}

struct Sweeper {
    /// The plan of the last pass that succeeded.
    last: Option<Plan>,
    metrics: Arc<Metrics>,
}

impl Sweeper {
    fn run(mut self, orders: &Receiver<Plan>) {
        let mut wanted: Option<Plan> = None;
        let mut due = false;
        let mut pause = REGULARLY;
        loop {
            match orders.recv_timeout(pause) {
                Ok(plan) => {
                    for plan in std::iter::once(plan).chain(orders.try_iter()) {
                        // Step by step: flows made while an endpoint was there for one plan only must be found too.
                        let before = wanted.as_ref().or(self.last.as_ref());
                        due |= before.is_none_or(|before| conntrack::needed(before, &plan));
                        wanted = Some(plan);
                    }
                }
                Err(RecvTimeoutError::Timeout) => due = true,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            if !due {
                self.last = wanted.take().or_else(|| self.last.take());
                continue;
            }
            let Some(now) = wanted.clone().or_else(|| self.last.clone()) else { continue };
            match self.sweep(&now) {
                Ok(()) => {
                    (wanted, due) = (None, false);
                    self.last = Some(now);
                    pause = REGULARLY;
                }
                Err(error) => {
                    self.metrics.failed(Cause::Conntrack);
                    warn!(%error, "stale UDP flows could not be removed; trying again in {RETRY:?}");
                    pause = RETRY;
                }
            }
        }
    }

    fn sweep(&self, now: &Plan) -> Result<(), Box<dyn std::error::Error>> {
        let local: BTreeSet<IpAddr> = address::local_addresses()?.into_iter().map(|(_, addr, _)| addr).collect();
        let claims = Claims::new(self.last.as_ref(), now, &local);
        let mut kernel = Conntrack::open()?;
        for (family, number) in [(Family::V4, libc_family(Family::V4)), (Family::V6, libc_family(Family::V6))] {
            let start = Instant::now();
            let mut stale: Vec<Flow> = Vec::new();
            kernel.udp_flows(number, &mut |flow| {
                if claims.is_stale(flow) {
                    stale.push(*flow);
                }
            })?;
            let deleted = kernel.delete_all(&stale)?;
            if deleted > 0 {
                debug!(deleted, family = family.label(), "removed stale UDP flows");
            }
            self.metrics.conntrack(family, start.elapsed(), deleted as u64);
        }
        Ok(())
    }
}

/// `AF_INET` and `AF_INET6`.
const fn libc_family(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
