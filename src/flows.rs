//! Deletes UDP flows that connection tracking translates to the wrong place.
//!
//! [`crate::conntrack`] decides; this thread lists and deletes. It runs after changes that can leave such flows behind,
//! and every few minutes regardless of events, because what was missed once would otherwise stay wrong for as long as the
//! client keeps sending.

use std::collections::{BTreeSet, VecDeque};
use std::io;
use std::net::{IpAddr, SocketAddr};
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
/// So many replaced plans are kept for the next pass. More come together only while passes fail.
const REMEMBERED: usize = 32;

/// The handle to the thread, which ends when this is dropped.
#[derive(Debug, Clone)]
pub struct Flows {
    news: Sender<News>,
}

#[derive(Debug)]
enum News {
    Coming(Plan),
    Holds(Plan),
}

impl Flows {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let (news, heard) = channel();
        std::thread::Builder::new().name("flows".into()).spawn(move || Sweeper::new(metrics).run(&heard))?;
        Ok(Self { news })
    }

    /// The kernel may carry out this plan from now on: flows that are right by it are left alone.
    pub fn coming(&self, plan: Plan) {
        self.tell(News::Coming(plan));
    }

    /// The kernel carries out this plan now.
    pub fn programmed(&self, plan: Plan) {
        self.tell(News::Holds(plan));
    }

    fn tell(&self, news: News) {
        // Only fails if the thread has panicked, which has been printed.
        let _ = self.news.send(news);
    }
}

struct Sweeper {
    /// The newest plan that the kernel carries out.
    newest: Option<Plan>,
    /// The plan that the kernel is being brought to.
    coming: Option<Plan>,
    /// Plans that the kernel has carried out since the last pass that succeeded, except the newest: flows may have come
    /// about under each of them, also where the newest says the same as the one of the last pass.
    replaced: VecDeque<Plan>,
    /// Whether a pass can find anything.
    due: bool,
    metrics: Arc<Metrics>,
}

impl Sweeper {
    const fn new(metrics: Arc<Metrics>) -> Self {
        Self { newest: None, coming: None, replaced: VecDeque::new(), due: false, metrics }
    }

    fn run(mut self, heard: &Receiver<News>) {
        let mut pause = REGULARLY;
        loop {
            match heard.recv_timeout(pause) {
                Ok(news) => self.take(news),
                Err(RecvTimeoutError::Timeout) => self.due = true,
                Err(RecvTimeoutError::Disconnected) => return,
            }
            heard.try_iter().for_each(|news| self.take(news));
            if !self.due {
                continue;
            }
            pause = match self.pass(heard) {
                Ok(()) => REGULARLY,
                Err(error) => {
                    self.metrics.failed(Cause::Conntrack);
                    warn!(%error, "stale UDP flows could not be removed; trying again in {RETRY:?}");
                    RETRY
                }
            };
            if self.due && pause == REGULARLY {
                pause = Duration::ZERO;
            }
        }
    }

    fn take(&mut self, news: News) {
        let plan = match news {
            News::Coming(plan) => {
                self.coming = Some(plan);
                return;
            }
            News::Holds(plan) => plan,
        };
        self.coming = None;
        let changed = self.newest.as_ref().is_none_or(|newest| conntrack::needed(newest, &plan));
        let replaced = self.newest.replace(plan).filter(|_| changed);
        self.due |= changed;
        self.replaced.extend(replaced);
        self.forget_some();
    }

    fn forget_some(&mut self) {
        while self.replaced.len() > REMEMBERED {
            self.replaced.pop_front();
        }
    }

    fn pass(&mut self, heard: &Receiver<News>) -> Result<(), Box<dyn std::error::Error>> {
        self.due = false;
        let Some(now) = self.newest.clone() else { return Ok(()) };
        let replaced = std::mem::take(&mut self.replaced);
        let done = self.sweep(&now, &replaced, heard);
        if done.is_err() {
            self.due = true;
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
        heard: &Receiver<News>,
    ) -> Result<(), Box<dyn std::error::Error>> {
        let local: BTreeSet<IpAddr> = address::local_addresses()?.into_iter().map(|(_, addr, _)| addr).collect();
        let mut claims: Vec<_> = replaced.iter().map(|was| Claims::new(Some(was), now, &local)).collect();
        if claims.is_empty() {
            claims.push(Claims::new(None, now, &local));
        }
        let mut kernel = Conntrack::open()?;
        for (family, number) in [(Family::V4, libc_family(Family::V4)), (Family::V6, libc_family(Family::V6))] {
            let start = Instant::now();
            let mut stale: Vec<Flow> = Vec::new();
            kernel.udp_flows(number, &mut |flow| {
                if claims.iter().any(|claims| is_stale(claims, flow)) {
                    stale.push(flow.clone());
                }
            })?;
            heard.try_iter().for_each(|news| self.take(news));
            self.spare(&mut stale, replaced, now, &local);
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
        for plan in [&self.newest, &self.coming].into_iter().flatten() {
            if stale.is_empty() || !conntrack::needed(now, plan) {
                continue;
            }
            let was = replaced.iter().chain([now]);
            let claims: Vec<_> = was.map(|was| Claims::new(Some(was), plan, local)).collect();
            stale.retain(|flow| claims.iter().any(|claims| is_stale(claims, flow)));
        }
    }
}

fn to(flow: &Flow) -> SocketAddr {
    (flow.original.dst, flow.original.dport).into()
}

fn is_stale(claims: &Claims<'_>, flow: &Flow) -> bool {
    claims.is_stale(to(flow), (flow.reply.src, flow.reply.sport).into())
}

/// `AF_INET` and `AF_INET6`.
const fn libc_family(family: Family) -> u8 {
    match family {
        Family::V4 => 2,
        Family::V6 => 10,
    }
}
