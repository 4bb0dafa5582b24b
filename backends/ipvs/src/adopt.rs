//! From a kernel of which nothing is known to a plan: read, compare, write the difference.

use std::time::Instant;

use fairlead_plan::{Family, Plan, Priority, Report, Service};

use crate::backend::State;
use crate::doors::Doors;
use crate::error::Error;
use crate::held::Held;
use crate::layout::Set;
use crate::pin;
use crate::tables::{Tables, Wanted};
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
        let was = held.as_wanted(marks);
        tables.assume(&was);
        // What the node and most pods need is there before the rest.
        let first = |service: &&Service| service.priority != Priority::Other;
        let important = tables.wanted(all().filter(first));
        let now = tables.wanted(all().filter(|service| !first(service))).merged(&important);
        let before = was.clone().merged(&important);
        let mut writes = tables.difference(&was, &before, at);
        let rest = tables.difference(&before, &now, at);
        tables.forget_touched();
        shares(&tables, &held, &mut writes);
        let services = !(writes.is_empty() && rest.is_empty());
        // On a fresh node what is important works at once; what another proxy serves it serves until all is there, and nothing
        // of it goes before our rules lead elsewhere.
        let fresh = was.servers.is_empty() && !pin::is_pinned()?;
        let mut repaired = Vec::new();
        doors.begin(&writes, report)?;
        if fresh {
            repaired.extend(doors.make_rules(&plan.node, report)?);
        }
        doors.begin(&rest, report)?;
        if !fresh {
            repaired.extend(doors.make_rules(&plan.node, report)?);
        }
        doors.finish(&writes, report)?;
        doors.finish(&rest, report)?;
        if !self.settled {
            doors.remove_kube_proxys(report)?;
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

/// What several services need, compared with all that the kernel holds of it.
fn shares(tables: &Tables, held: &Held, writes: &mut Writes) {
    for (entry, wanted) in tables.all_shared() {
        if held.entries.get(&entry) != Some(&wanted.mark) {
            writes.add(entry, wanted);
        }
    }
    let shared = |set| matches!(set, Set::LoopBack | Set::Addresses);
    for entry in held.entries.keys().filter(|entry| shared(entry.set) && !tables.has_share(entry)) {
        writes.delete(*entry);
    }
}

impl Wanted {
    /// Both.
    fn merged(mut self, other: &Self) -> Self {
        self.servers.extend(other.servers.iter().map(|(id, server)| (*id, server.clone())));
        self.ways.extend(other.ways.iter().map(|(entry, way)| (*entry, way.clone())));
        self.limits.extend(other.limits.iter().copied());
        self
    }
}
