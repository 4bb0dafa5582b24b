//! The schedulers that services ask for by themselves.

use std::collections::BTreeMap;

use fairlead_plan::{Node, Report, Service};
use ipvs_rs::Scheduler;

use crate::backend::State;
use crate::error::Error;
use crate::render::{self, Context};

impl State {
    /// What rendering depends on, as far as it is known what the kernel lacks.
    pub fn context(&self, node: &Node) -> Context {
        let missing = self.tried.iter().filter(|(_, there)| !**there).map(|(scheduler, _)| scheduler.clone()).collect();
        Context { missing, ..self.settings.context(node) }
    }

    /// Finds out which of the schedulers that these services ask for the kernel has. Services that ask for another get what
    /// the rest has, and a warning says so.
    pub fn try_asked<'a>(
        &mut self,
        services: impl Iterator<Item = &'a Service>,
        report: &mut Report,
    ) -> Result<(), Error> {
        let mut without: BTreeMap<Box<str>, (usize, &Service)> = BTreeMap::new();
        for service in services {
            let Some(asked) = render::asked(service) else { continue };
            if !self.has(&asked)? {
                without.entry(asked.name().into()).or_insert((0, service)).0 += 1;
            }
        }
        report.warnings.extend(without.into_iter().map(|(name, (count, first))| {
            let instead = self.settings.scheduler.name();
            format!(
                "the kernel has no scheduler {name} (module ip_vs_{name}), for which {} asks and {} more; they get {instead}",
                first.key,
                count - 1
            )
        }));
        Ok(())
    }

    fn has(&mut self, scheduler: &Scheduler) -> Result<bool, Error> {
        if let Some(there) = self.tried.get(scheduler) {
            return Ok(*there);
        }
        let Some(doors) = self.doors.as_mut() else { return Ok(false) };
        let there = match doors.try_scheduler(scheduler) {
            Ok(()) => true,
            Err(Error::NoScheduler(_)) => false,
            Err(error) => return Err(error),
        };
        self.tried.insert(scheduler.clone(), there);
        Ok(there)
    }
}
