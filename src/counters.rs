//! `--service-counters`: how many connections have begun through each service port.
//!
//! Connection tracking knows every connection that a Service has translated, in every mode that uses it, so rules and elements stay
//! what they are and changes of Services cost what they cost without. The kernel announces connections that begin, a thread looks
//! up where each was going, and adds one. Without the flag nobody listens, and the kernel announces nothing.
//!
//! What is counted is a connection (for UDP a flow) that was led to an endpoint: not those that were refused, which begin nothing, and
//! not later packets. Counting starts anew with the process, as Prometheus expects of counters.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use fairlead_kernel::conntrack::{Beginnings, Flow, Heard, TRANSLATED};
use fairlead_kernel::sysctl;
use fairlead_plan::{Family, FrontendAddr, Protocol, Service, ServiceKey, Services};
use tracing::warn;

use crate::local::Facts;
use crate::metrics::{Cause, Metrics};

/// Announcements are left to gather for so long, because to wake a thread for each costs more than to count it. The socket has room
/// for some ten thousand.
const GATHER: Duration = Duration::from_millis(20);
/// Pause after a failure of the socket.
const RETRY: Duration = Duration::from_secs(5);
/// Lost announcements are said once in this time; each is counted.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// Where the kernel says whether it announces connections.
const EVENTS: &str = "net/netfilter/nf_conntrack_events";

/// The counts. The thread adds, those who show them read.
#[derive(Debug, Default)]
pub struct Counters {
    counts: Mutex<HashMap<Arc<ServiceKey>, Arc<AtomicU64>>>,
}

impl Counters {
    fn counts(&self) -> MutexGuard<'_, HashMap<Arc<ServiceKey>, Arc<AtomicU64>>> {
        // A map without one entry is as good as one with it, so a panic elsewhere leaves nothing half done.
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connections that have begun through a service port.
    #[must_use]
    pub fn of(&self, key: &ServiceKey) -> u64 {
        self.counts().get(key).map_or(0, |count| count.load(Ordering::Relaxed))
    }

    /// All service ports through which a connection has begun.
    #[must_use]
    pub fn used(&self) -> Vec<(Arc<ServiceKey>, u64)> {
        let counts = self.counts();
        let all = counts.iter().map(|(key, count)| (Arc::clone(key), count.load(Ordering::Relaxed)));
        all.filter(|(_, count)| *count > 0).collect()
    }
}

/// Starts to count, on a thread of its own, in the network namespace of the caller.
///
/// # Errors
/// If the kernel does not announce connections, or the thread cannot be started.
pub fn start(facts: &Arc<Facts>, metrics: &Arc<Metrics>) -> anyhow::Result<()> {
    let beginnings = Beginnings::open()?;
    if let Ok(0) = sysctl::read_number(EVENTS) {
        warn!(
            "the kernel announces no connections, so none is counted; set net.netfilter.nf_conntrack_events to 1 or 2"
        );
    }
    let counters = Arc::new(Counters::default());
    facts.has_counters(Arc::clone(&counters));
    metrics.has_counters(Arc::clone(&counters));
    let clerk = Clerk {
        facts: Arc::clone(facts),
        index: Index { counters, ..Index::default() },
        metrics: Arc::clone(metrics),
        said: None,
    };
    let thread = std::thread::Builder::new().name("counters".into());
    thread.spawn(move || clerk.run(beginnings)).map(drop).context("starting the thread that counts connections")
}

/// Who keeps the counts.
struct Clerk {
    facts: Arc<Facts>,
    index: Index,
    metrics: Arc<Metrics>,
    /// When it was last said that announcements were lost.
    said: Option<Instant>,
}

impl Clerk {
    fn run(mut self, mut beginnings: Beginnings) {
        loop {
            let (facts, index) = (&self.facts, &mut self.index);
            let heard = beginnings.hear(&mut |flow| {
                index.follow(facts);
                index.count(flow);
            });
            match heard {
                Ok(Heard::All) => std::thread::sleep(GATHER),
                Ok(Heard::NotAll) => self.lost(),
                Err(error) => {
                    self.metrics.failed(Cause::Notifications);
                    warn!("connections are not counted now: {error}; trying again in {RETRY:?}");
                    std::thread::sleep(RETRY);
                }
            }
        }
    }

    fn lost(&mut self) {
        self.metrics.failed(Cause::Notifications);
        if self.said.is_none_or(|said| said.elapsed() > SAID_AGAIN) {
            self.said = Some(Instant::now());
            warn!("connections begin faster than they can be counted; some are missing in the counters of Services");
        }
    }
}

/// A way in, as a packet shows it.
type WayIn = (Family, Protocol, FrontendAddr);

/// Which way in leads to which count.
#[derive(Default)]
struct Index {
    counters: Arc<Counters>,
    services: Services,
    /// The number of the plan that `services` are of.
    plan: u64,
    ways: HashMap<WayIn, Arc<AtomicU64>>,
}

impl Index {
    /// Takes up the newest plan. One that says what the last one said costs a comparison of numbers, and a change what has changed.
    fn follow(&mut self, facts: &Facts) {
        if let Some((plan, services)) = facts.services_after(self.plan) {
            self.plan = plan;
            self.take(services);
        }
    }

    fn take(&mut self, now: Services) {
        let was = std::mem::replace(&mut self.services, now.clone());
        let mut counts = self.counters.counts();
        // All that goes goes first: an address may have moved from one Service to another.
        for change in was.changes(&now) {
            if let Some(was) = change.was {
                ways(was).for_each(|way| _ = self.ways.remove(&way));
                if change.now.is_none() {
                    counts.remove(&was.key);
                }
            }
        }
        for service in was.changes(&now).filter_map(|change| change.now) {
            let count = counts.entry(Arc::clone(&service.key)).or_default();
            self.ways.extend(ways(service).map(|way| (way, Arc::clone(count))));
        }
    }

    fn count(&self, flow: &Flow) {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == flow.protocol);
        let Some(protocol) = protocol.filter(|_| flow.status & TRANSLATED != 0) else { return };
        let (family, to) = (Family::of(flow.original.dst), flow.original);
        let direct = FrontendAddr::Addr(SocketAddr::new(to.dst, to.dport));
        let found = [direct, FrontendAddr::NodePort(to.dport)].map(|addr| self.ways.get(&(family, protocol, addr)));
        if let Some(count) = found.into_iter().flatten().next() {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn ways(service: &Service) -> impl Iterator<Item = WayIn> + '_ {
    let ServiceKey { family, protocol, .. } = *service.key;
    service.frontends.iter().map(move |frontend| (family, protocol, frontend.addr()))
}

#[cfg(test)]
mod tests;
