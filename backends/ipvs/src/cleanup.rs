//! Takes everything of this mode out of the kernel, kube-proxy's of the same names included.

use fairlead_kernel::ipset::SetBatch;
use fairlead_kernel::restore;
use fairlead_plan::{Family, Node};
use ipvs_rs::Message;

use crate::backend::State;
use crate::doors::Doors;
use crate::error::Error;
use crate::held::Held;
use crate::layout::{self, LINK, Set};
use crate::mark::Marks;
use crate::{rules, structure};

impl State {
    /// Removes rules, then virtual services, sets, routes and the link.
    pub fn cleanup(&mut self) -> Result<(), Error> {
        (self.settled, self.certain) = (false, false);
        let mut doors = match Doors::open() {
            // Where these are missing nothing can be left: they are opened before anything is written.
            Err(Error::Ipvs(ipvs_rs::Error::NoIpvs)) => return Ok(()),
            Err(Error::Sets(error)) if error.is_unsupported() => return Ok(()),
            doors => doors?,
        };
        let node = Node::default();
        let marks = Marks::new(node.masquerade_mark);
        let sets = doors.ipset.sets()?;
        let ours = Set::ALL.into_iter().flat_map(|set| Family::BOTH.map(|family| set.name(family)));
        let ours: Vec<_> = ours.filter(|name| sets.iter().any(|set| set.name == *name)).collect();
        // The rules match on sets, which therefore stay as long as they do: without sets there are no rules.
        if !ours.is_empty() {
            remove_rules(&node)?;
        }
        let held = Held::read(&mut doors, marks, &[], &self.settings.exclude_cidrs)?;
        let gone: Vec<Message> = held.servers.keys().map(Message::del_service).collect();
        if let Some(refusal) = doors.ipvs.apply(&gone)?.first() {
            return Err(Error::refused(&gone[refusal.index], refusal.errno));
        }
        let mut batch = SetBatch::new();
        for name in ours {
            batch.destroy(name);
        }
        doors.ipset.send(&batch)?;
        for family in Doors::families() {
            doors.links.lead_here_no_more(family == Family::V6, &layout::mark_route(marks))?;
        }
        if let Some(link) = doors.links.link(LINK)? {
            doors.links.delete(link.index)?;
        }
        Ok(())
    }
}

fn remove_rules(node: &Node) -> Result<(), Error> {
    for family in Doors::families() {
        let (v6, chains) = (family == Family::V6, structure::chains(family, node));
        let mut input = String::new();
        for table in structure::TABLES {
            input += &rules::removal(table, &chains, &restore::save(v6, table)?).unwrap_or_default();
        }
        if !input.is_empty() {
            restore::restore(v6, &input)?;
        }
    }
    Ok(())
}
