//! From a kernel of which nothing is known to a plan: read, compare, write the difference.

use std::time::Instant;

use fairlead_plan::{Family, Plan, Priority, Report, Service};

use crate::backend::State;
use crate::doors::Doors;
use crate::error::Error;
use crate::held::Held;
use crate::pin;
use crate::tables::Tables;
use crate::writes::Writes;

impl State {
    /// Makes the kernel hold the plan, whatever it holds.
    pub fn adopt(&mut self, plan: &Plan, report: &mut Report) -> Result<(), Error> {
        if self.doors.is_none() {
            let mut doors = Doors::open()?;
            doors.try_scheduler(&self.settings.scheduler)?;
            self.doors = Some(doors);
        }
        // A module may have been loaded meanwhile.
        self.tried.clear();
        self.try_asked(plan.services.iter().map(|service| &**service), report)?;
        let context = self.context(&plan.node);
        let marks = context.marks;
        let mut tables = Tables::new(context.clone());
        self.constant(plan, report)?;
        let Some(doors) = self.doors.as_mut() else { return Ok(()) };
        let at = Instant::now();
        let all = || {
            plan.services.iter().map(|service| &**service).filter(|service| self.families.contains(&service.key.family))
        };
        let mut held = Held::read(doors, marks, &plan.node.service_cidrs, &self.settings.exclude_cidrs)?;
        let places = || Tables::new(context.clone()).wanted(all()).servers.into_keys().collect();
        held.claim(doors, places)?;
        held.note_in(&mut tables, at);
        let mut was = held.as_wanted(marks);
        tables.assume(&was, held.shared());
        let fresh = was.servers.is_empty() && !pin::is_pinned()?;
        // What the node and most pods need is there before the rest.
        let (mut writes, mut rest) = (Writes::default(), Writes::default());
        let first = |service: &&Service| service.priority != Priority::Other;
        tables.put(all().filter(first), &mut was, at, &mut writes);
        tables.put(all().filter(|service| !first(service)), &mut was, at, &mut rest);
        tables.remove(&was, at, &mut rest);
        tables.settle_shares(&mut writes);
        report.warnings.extend(tables.tell_unnumbered());
        let services = !(writes.is_empty() && rest.is_empty());
        // On a fresh node what is important works at once; what another proxy serves it serves until all is there, and nothing
        // of it goes before our rules lead elsewhere.
        doors.begin(&writes, report)?;
        if !fresh {
            doors.begin(&rest, report)?;
        }
        let saved = doors.save_rules()?;
        let mut repaired = doors.make_rules(&saved, &plan.node, report)?;
        if fresh {
            doors.begin(&rest, report)?;
        }
        doors.finish(&writes, report)?;
        doors.finish(&rest, report)?;
        if !self.settled {
            doors.remove_kube_proxys(&saved, report)?;
        }
        doors.clear_link(marks, report)?;
        if services {
            repaired.push("virtual services or entries of sets".to_owned());
        }
        if self.settled {
            report.repaired.extend(repaired.iter().map(|what| format!("{what} were missing or changed")));
        }
        self.tables = tables;
        self.settled = true;
        Ok(())
    }

    /// Sysctls, sets, route.
    fn constant(&mut self, plan: &Plan, report: &mut Report) -> Result<(), Error> {
        self.families = Doors::families().collect();
        let without = |family: Family| {
            let of_family = plan.services.iter().any(|service| service.key.family == family);
            of_family && !self.families.contains(&family)
        };
        if without(Family::V6) {
            report.warnings.push("this node has no IPv6, so Services are served over IPv4 alone".to_owned());
        }
        let marks = self.settings.context(&plan.node).marks;
        let Some(doors) = self.doors.as_mut() else { return Ok(()) };
        doors.set_sysctls(&self.settings)?;
        doors.make_sets(report)?;
        doors.make_route(marks, report)
    }
}
