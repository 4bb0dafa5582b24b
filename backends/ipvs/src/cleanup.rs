//! Takes everything of this mode out of the kernel, kube-proxy's of the same names included.

use fairlead_kernel::ipset::SetBatch;
use fairlead_plan::{Family, Node};
use ipvs_rs::Message;

use crate::backend::State;
use crate::doors::Doors;
use crate::error::Error;
use crate::held::Held;
use crate::layout::{self, LINK};
use crate::mark::Marks;
use crate::{pin, stay};

impl State {
    /// Removes rules, then virtual services, sets, routes and the link.
    pub fn cleanup(&mut self) -> Result<(), Error> {
        (self.settled, self.certain) = (false, false);
        stay::remove_all()?;
        let Some(mut doors) = open()? else { return Ok(()) };
        let held = self.held(&mut doors)?;
        remove(&mut doors, &held)
    }

    /// What there is of this mode.
    pub fn held(&self, doors: &mut Doors) -> Result<Held, Error> {
        Held::read(doors, Marks::new(Node::default().masquerade_mark), &[], &self.settings.exclude_cidrs)
    }
}

/// The doors; `None` where they lead nowhere, so that nothing can be left: they are opened before anything is written.
pub fn open() -> Result<Option<Doors>, Error> {
    match Doors::open() {
        Err(Error::Ipvs(ipvs_rs::Error::NoIpvs)) => Ok(None),
        Err(Error::Sets(error)) if error.is_unsupported() => Ok(None),
        doors => doors.map(Some),
    }
}

/// Removes what is held, and what it needed.
pub fn remove(doors: &mut Doors, held: &Held) -> Result<(), Error> {
    let sets = doors.all_sets()?;
    // The rules match on sets, which therefore stay as long as they do: without sets there are no rules.
    if !sets.is_empty() {
        Doors::remove_rules(&doors.save_rules()?, false)?;
    }
    let gone: Vec<Message> = held.servers.keys().map(Message::del_service).collect();
    if let Some(refusal) = doors.ipvs.apply(&gone)?.first() {
        return Err(Error::refused(&gone[refusal.index], refusal.errno));
    }
    let mut batch = SetBatch::new();
    sets.iter().for_each(|name| batch.destroy(name));
    doors.ipset.send(&batch)?;
    let marks = Marks::new(Node::default().masquerade_mark);
    for family in Doors::families() {
        doors.links.lead_here_no_more(family == Family::V6, &layout::mark_route(marks))?;
    }
    if let Some(link) = doors.links.link(LINK)? {
        doors.links.delete(link.index)?;
    }
    Ok(pin::remove()?)
}
