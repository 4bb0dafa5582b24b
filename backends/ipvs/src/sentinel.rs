//! Looks from time to time at what tells cheaply whether somebody else has changed what is ours: neither IPVS nor ipset
//! announces changes.

use std::sync::{Arc, Mutex};

use fairlead_plan::Family;

use crate::backend::{State, lock};
use crate::error::Error;
use crate::layout::{self, LINK, Set};

/// Compares counts, the route, and one virtual service. It does not see everything: what keeps all counts as they are is
/// found when everything is looked at.
#[derive(Debug, Clone)]
pub struct Sentinel(pub(crate) Arc<Mutex<State>>);

impl Sentinel {
    /// What somebody has changed, in words, if anything.
    #[must_use]
    pub fn changed(&self) -> Option<String> {
        let mut state = lock(&self.0);
        if !state.certain {
            return None;
        }
        match state.changed() {
            Ok(changed) => changed,
            Err(error) => Some(error.to_string()),
        }
    }
}

impl State {
    fn changed(&mut self) -> Result<Option<String>, Error> {
        let Some(doors) = self.doors.as_mut() else { return Ok(None) };
        let sets = doors.ipset.sets()?;
        for family in &self.families {
            let ours = |name: &str| Set::ALL.into_iter().any(|set| set.name(*family) == name);
            let held: u64 = sets.iter().filter(|set| ours(&set.name)).map(|set| u64::from(set.elements)).sum();
            let wanted = self.tables.entries(*family) + self.tables.draining.ways(*family);
            if held != wanted {
                let label = family.label();
                return Ok(Some(format!("sets hold {held} entries instead of {wanted} ({label})")));
            }
            let route = layout::mark_route(self.tables.context.marks);
            if !doors.links.leads_here(*family == Family::V6, &route)? {
                return Ok(Some(format!("marked packets are no longer delivered to {LINK} ({})", family.label())));
            }
        }
        match self.tables.witness {
            Some(id) if doors.ipvs.service(&id)?.is_none() => Ok(Some(format!("the virtual service {id} is gone"))),
            _ => Ok(None),
        }
    }
}
