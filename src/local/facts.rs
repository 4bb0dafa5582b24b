//! What the loop tells, kept for those who ask.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime};

use fairlead_plan::{FamilyCounts, Packet, Plan, Report, Services};
use serde::{Deserialize, Serialize};

use super::ServiceView;
use crate::counters::Counters;
use crate::explain::Decision;

/// As many failures and repairs are remembered.
const REMEMBERED: usize = 10;

/// How the program does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    /// How Services are programmed, by kube-proxy's name.
    pub mode: String,
    /// When the kernel was last brought to a plan, seconds since 1970; `None` before the first time.
    pub synced: Option<u64>,
    /// How long that took, microseconds.
    pub took: u64,
    /// Whether a newer plan waits for the kernel.
    pub waiting: bool,
    /// Failures in a row, 0 if all is well.
    pub failing: u32,
    /// Service ports, each family for itself.
    pub services: usize,
    /// Addresses and ports by which they are reached.
    pub frontends: usize,
    /// Endpoints that they may use, one that several use several times.
    pub endpoints: usize,
    /// What our tables hold: IPv4, IPv6.
    pub rules: [u64; 2],
    /// Elements of maps and sets, or what the mode has in their place.
    pub elements: [u64; 2],
    /// What went wrong or was repaired last, the newest at the end.
    pub troubles: Vec<Trouble>,
}

/// Something that went wrong, or was put right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    /// When, seconds since 1970.
    pub at: u64,
    /// What, a sentence.
    pub what: String,
}

/// Written by the loop, read by those who ask.
#[derive(Debug)]
pub struct Facts {
    mode: &'static str,
    known: Mutex<Known>,
    /// How many plans there have been.
    plans: AtomicU64,
    counters: OnceLock<Arc<Counters>>,
}

#[derive(Debug, Default)]
struct Known {
    plan: Option<Plan>,
    waiting: bool,
    failing: u32,
    synced: Option<SystemTime>,
    took: Duration,
    held: [FamilyCounts; 2],
    troubles: VecDeque<Trouble>,
}

impl Known {
    fn note(&mut self, at: SystemTime, what: impl Into<String>) {
        self.troubles.truncate(REMEMBERED - 1);
        self.troubles.push_front(Trouble { at: seconds(at), what: what.into() });
    }
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}

impl Facts {
    /// Nothing is known yet but the mode, by kube-proxy's name.
    #[must_use]
    pub fn new(mode: &'static str) -> Self {
        Self { mode, known: Mutex::default(), plans: AtomicU64::new(0), counters: OnceLock::new() }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        // Every field is whole at any time, so a panic elsewhere leaves nothing half done.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// There is a newer plan, which goes to the kernel now.
    pub fn planned(&self, plan: Plan) {
        let mut known = self.known();
        (known.plan, known.waiting) = (Some(plan), true);
        self.plans.fetch_add(1, Ordering::Release);
    }

    /// Connections are counted here.
    pub fn has_counters(&self, counters: Arc<Counters>) {
        // Set once, at the start.
        let _ = self.counters.set(counters);
    }

    /// The services of the newest plan with its number, if that is another one.
    #[must_use]
    pub fn services_after(&self, plan: u64) -> Option<(u64, Services)> {
        if self.plans.load(Ordering::Acquire) == plan {
            return None;
        }
        let known = self.known();
        // While the lock is held no plan comes.
        let services = known.plan.as_ref().map(|plan| plan.services.clone()).unwrap_or_default();
        Some((self.plans.load(Ordering::Acquire), services))
    }

    fn view(&self, service: &fairlead_plan::Service) -> ServiceView {
        let connections = self.counters.get().map(|counters| counters.of(&service.key));
        ServiceView { connections, ..ServiceView::of(service) }
    }

    /// The kernel carries out the newest plan.
    pub fn synced(&self, report: &Report, took: Duration, at: SystemTime) {
        let mut known = self.known();
        (known.waiting, known.failing, known.synced, known.took) = (false, 0, Some(at), took);
        known.held = report.held;
        report.repaired.iter().for_each(|sentence| known.note(at, format!("repaired: {sentence}")));
        report.warnings.iter().for_each(|sentence| known.note(at, sentence.as_str()));
    }

    /// The kernel refused the plan; it is tried again.
    pub fn failed(&self, what: &str) {
        let mut known = self.known();
        known.failing = known.failing.saturating_add(1);
        known.note(SystemTime::now(), what);
    }

    /// What the plan says about a packet; `None` before the first plan.
    #[must_use]
    pub fn decide(&self, packet: &Packet) -> Option<Decision> {
        let plan = self.known().plan.clone();
        plan.map(|plan| Decision::of(&plan, packet))
    }

    /// Every service port, by name; none before the first plan.
    #[must_use]
    pub fn services(&self) -> Vec<ServiceView> {
        let plan = self.known().plan.clone().unwrap_or_default();
        plan.services.sorted().into_iter().map(|service| self.view(service)).collect()
    }

    /// The first service ports by name of those that are picked, and how many are picked.
    #[must_use]
    pub fn first_services(
        &self,
        most: usize,
        picked: impl Fn(&fairlead_plan::Service) -> bool,
    ) -> (Vec<ServiceView>, usize) {
        let plan = self.known().plan.clone().unwrap_or_default();
        let mut all = plan.services.sorted();
        all.retain(|service| picked(service));
        (all.iter().take(most).map(|service| self.view(service)).collect(), all.len())
    }

    /// How the program does.
    #[must_use]
    pub fn state(&self) -> State {
        let known = self.known();
        let plan = known.plan.clone().unwrap_or_default();
        let of_all = |count: fn(&fairlead_plan::Service) -> usize| plan.services.iter().map(|one| count(one)).sum();
        State {
            mode: self.mode.to_owned(),
            synced: known.synced.map(seconds),
            took: u64::try_from(known.took.as_micros()).unwrap_or(u64::MAX),
            waiting: known.waiting,
            failing: known.failing,
            services: plan.services.len(),
            frontends: of_all(|service| service.frontends.len()),
            endpoints: of_all(|service| service.pools.cluster.len()),
            rules: known.held.map(|held| held.rules),
            elements: known.held.map(|held| held.elements),
            troubles: known.troubles.iter().rev().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_troubles_are_kept_in_order_and_a_sync_ends_failing() {
        let facts = Facts::new("nftables");
        facts.planned(Plan::default());
        (0..REMEMBERED + 3).for_each(|number| facts.failed(&format!("failure {number}")));
        let state = facts.state();
        assert_eq!((state.failing, state.waiting, state.synced), (13, true, None));
        let what: Vec<&str> = state.troubles.iter().map(|trouble| trouble.what.as_str()).collect();
        assert_eq!((what.len(), what[0], what[REMEMBERED - 1]), (REMEMBERED, "failure 3", "failure 12"));
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(5);
        let held = [FamilyCounts { rules: 3, elements: 4 }; 2];
        let report = Report { held, repaired: vec!["a chain".to_owned()], ..Report::default() };
        facts.synced(&report, Duration::from_micros(7), at);
        let state = facts.state();
        assert_eq!((state.failing, state.waiting, state.synced, state.took), (0, false, Some(5), 7));
        assert_eq!((state.rules, state.elements), ([3; 2], [4; 2]));
        assert_eq!(
            state.troubles.last().expect("one is new"),
            &Trouble { at: 5, what: "repaired: a chain".to_owned() }
        );
    }
}
