//! The backend: its state, and the step from one plan to the next.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use fairlead_plan::{Backend, Family, FamilyCounts, Node, Plan, Report, SyncError};
use ipvs_rs::Scheduler;

use crate::doors::Doors;
use crate::error::Error;
use crate::sentinel::Sentinel;
use crate::tables::Tables;
use crate::watch::Watcher;
use crate::{Settings, structure};

/// The ipvs backend.
#[derive(Debug)]
pub struct IpvsBackend {
    pub(crate) state: Arc<Mutex<State>>,
    watcher: Watcher,
}

/// What the backend and the thread that waits for connections to end share.
#[derive(Debug)]
pub struct State {
    pub settings: Settings,
    pub doors: Option<Doors>,
    pub tables: Tables,
    pub families: Vec<Family>,
    /// Whether this process has ever brought the kernel to a plan: what is missing later was taken away by somebody.
    pub settled: bool,
    /// Whether the kernel holds what the tables say, as far as this process knows.
    pub certain: bool,
    /// The schedulers that services have asked for since the kernel was read last, and whether it has them.
    pub tried: HashMap<Scheduler, bool>,
}

impl IpvsBackend {
    /// A backend that has not touched the kernel yet. Its sockets will belong to the network namespace of the thread that
    /// calls [`Backend::sync`] first.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let tables = Tables::new(settings.context(&Node::default()));
        let state = State {
            settings,
            doors: None,
            tables,
            families: Vec::new(),
            settled: false,
            certain: false,
            tried: HashMap::new(),
        };
        Self { state: Arc::new(Mutex::new(state)), watcher: Watcher::default() }
    }

    /// Makes the settings of the kernel that this mode needs, and nothing else: for somebody with the privilege, before a
    /// program without it does the job.
    ///
    /// # Errors
    /// What the kernel lacks or refuses.
    pub fn prepare(&self) -> Result<(), SyncError> {
        let mut doors = Doors::open()?;
        Ok(doors.set_sysctls(&lock(&self.state).settings)?)
    }

    /// Whether the kernel has what this mode needs; changes nothing.
    ///
    /// # Errors
    /// What is missing.
    pub fn check(&self) -> Result<(), SyncError> {
        let mut doors = Doors::open()?;
        Ok(doors.try_scheduler(&lock(&self.state).settings.scheduler)?)
    }

    /// What tells whether somebody else changed what this backend wrote.
    #[must_use]
    pub fn sentinel(&self) -> Sentinel {
        Sentinel(Arc::clone(&self.state))
    }
}

/// The state after a panic of somebody else is of no use; what is done next reads the kernel.
pub fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(|poisoned: PoisonError<_>| {
        let mut state = poisoned.into_inner();
        state.certain = false;
        state
    })
}

impl State {
    /// From a plan that the kernel holds to the next.
    fn step(&mut self, was: &Plan, now: &Plan, report: &mut Report) -> Result<(), Error> {
        let changes: Vec<_> = was.services.changes(&now.services).collect();
        let tried = self.tried.len();
        self.try_asked(changes.iter().filter_map(|change| change.now).map(|service| &**service), report)?;
        // The node is the same.
        if self.tried.len() != tried {
            self.tables.context = self.context(&now.node);
        }
        let Some(doors) = self.doors.as_mut() else { return Ok(()) };
        let families = &self.families;
        let here = |service: &&fairlead_plan::Service| families.contains(&service.key.family);
        let new = changes.iter().filter_map(|change| change.now).map(|service| &**service).filter(here);
        let old = changes.iter().filter_map(|change| change.was).map(|service| &**service).filter(here);
        let writes = self.tables.step(old, new, Instant::now());
        report.warnings.extend(self.tables.tell_unnumbered());
        doors.write(&writes, report)
    }

    /// Another node means other constant rules; another mark means other entries, so everything is compared.
    fn sync(&mut self, was: Option<&Plan>, now: &Plan, report: &mut Report) -> Result<(), Error> {
        match was.filter(|_| self.certain) {
            Some(was) if was.node == now.node => self.step(was, now, report),
            _ => self.adopt(now, report),
        }
    }

    fn rules(&self, family: Family, node: &Node) -> u64 {
        structure::chains(family, node).iter().map(|chain| (chain.rules.len() + chain.hooks.len()) as u64).sum()
    }
}

impl Backend for IpvsBackend {
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
        let mut report = Report::default();
        let mut state = lock(&self.state);
        // What the thread waited for that looks after connections is not this call's.
        if let Some(doors) = state.doors.as_mut() {
            doors.take_waited();
        }
        let done = state.sync(was, now, &mut report);
        report.kernel = state.doors.as_mut().map(Doors::take_waited).unwrap_or_default();
        state.certain = done.is_ok();
        done?;
        report.held = Family::BOTH.map(|family| FamilyCounts {
            rules: if state.families.contains(&family) { state.rules(family, &now.node) } else { 0 },
            elements: state.tables.entries(family),
        });
        if !state.tables.draining.is_empty() {
            self.watcher.start(&self.state);
        }
        Ok(report)
    }

    fn cleanup(&mut self) -> Result<(), SyncError> {
        Ok(lock(&self.state).cleanup()?)
    }
}
