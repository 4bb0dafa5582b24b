//! Another mode has taken over: its rules are there, and what this mode has goes without taking connections along.
//!
//! New connections go to the other mode from here on; those that IPVS has are served until they end, for a while. Then conntrack
//! forgets them, since it would go on leading their packets where nobody is: datagrams of a flow are then translated by the
//! other mode, and the endpoint that it chooses resets a TCP connection that it does not know.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::thread;
use std::time::{Duration, Instant};

use fairlead_kernel::conntrack::{Conntrack, Flow, TRANSLATED};
use fairlead_kernel::restore;
use fairlead_plan::{Family, Node, Report, SyncError};
use ipvs_rs::ServiceId;

use crate::backend::{IpvsBackend, State, lock};
use crate::cleanup::{open, remove};
use crate::doors::Doors;
use crate::error::Error;
use crate::held::Held;
use crate::mark::Marks;
use crate::structure::SERVICES;

/// So long answers to datagrams, and the ends of short connections, may take.
const ANSWERS: Duration = Duration::from_secs(1);
/// So long connections may take to end.
const PATIENCE: Duration = Duration::from_secs(5);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(100);

impl IpvsBackend {
    /// Takes everything of this mode out of the kernel, kube-proxy's included, after another mode has taken over. Blocks for up to
    /// five seconds if there are connections. Says how many had to be cut, if any.
    ///
    /// # Errors
    /// What could not be removed.
    pub fn leave(&mut self) -> Result<Option<String>, SyncError> {
        let mut report = Report::default();
        let cut = lock(&self.state).leave(&mut report)?;
        let mut told = report.warnings;
        told.extend((cut > 0).then(|| {
            let seconds = PATIENCE.as_secs();
            format!(
                "connections through IPVS that had not ended {seconds} seconds after mode ipvs was left are cut: {cut}"
            )
        }));
        Ok((!told.is_empty()).then(|| told.join("; ")))
    }
}

impl State {
    fn leave(&mut self, report: &mut Report) -> Result<u64, Error> {
        (self.settled, self.certain) = (false, false);
        let Some(mut doors) = open()? else { return Ok(0) };
        let held = self.held(&mut doors)?;
        // Where there are no sets there are no rules, and nothing that IPVS does is ours.
        if doors.all_sets()?.is_empty() && held.servers.is_empty() {
            remove(&mut doors, &held)?;
            return Ok(0);
        }
        turn_away()?;
        // From here on the node's own connections have the source that they have without IPVS.
        doors.clear_link(Marks::new(Node::default().masquerade_mark), report)?;
        let cut = wait(&mut doors, &held)?;
        remove(&mut doors, &held)?;
        forget(&held)?;
        Ok(cut)
    }
}

/// Lets connections that begin pass by. kube-proxy has nothing that would have to: it marks nothing that others translate.
fn turn_away() -> Result<(), Error> {
    for family in Doors::families() {
        let v6 = family == Family::V6;
        let declaration = format!(":{SERVICES} ");
        if restore::save(v6, "mangle")?.lines().any(|line| line.starts_with(&declaration)) {
            // Behind the rule for what IPVS has just sent.
            let rule = format!("-I {SERVICES} 2 -m conntrack ! --ctstatus CONFIRMED -j RETURN");
            restore::restore(v6, &format!("*mangle\n{rule}\nCOMMIT\n"))?;
        }
    }
    Ok(())
}

/// Waits until nothing is under way, but not for ever; gives back how many connections are.
fn wait(doors: &mut Doors, held: &Held) -> Result<u64, Error> {
    let began = Instant::now();
    let mut busy: Vec<ServiceId> = Vec::new();
    for id in held.servers.keys() {
        if doors.ipvs.destinations(id)?.iter().any(|one| one.connections.active + one.connections.inactive > 0) {
            busy.push(*id);
        }
    }
    if busy.is_empty() {
        return Ok(0);
    }
    loop {
        thread::sleep(PAUSE);
        let mut open = 0;
        for id in &busy {
            open += doors.ipvs.destinations(id)?.iter().map(|one| u64::from(one.connections.active)).sum::<u64>();
        }
        let waited = began.elapsed();
        if waited >= PATIENCE || waited >= ANSWERS && open == 0 {
            return Ok(open);
        }
    }
}

/// Conntrack forgets what IPVS has translated.
fn forget(held: &Held) -> Result<(), Error> {
    let endpoints: HashSet<SocketAddr> =
        held.servers.values().flat_map(|(_, destinations)| destinations).map(|one| one.address).collect();
    if endpoints.is_empty() {
        return Ok(());
    }
    let mut conntrack = Conntrack::open()?;
    let mut flows: Vec<Flow> = Vec::new();
    for ipv6 in [false, true] {
        conntrack.every_flow(ipv6, &mut |flow| {
            let to = SocketAddr::new(flow.original.dst, flow.original.dport);
            let from = SocketAddr::new(flow.reply.src, flow.reply.sport);
            // What has the mark of a translation a rule has translated, and not IPVS.
            if flow.zone == 0 && flow.status & TRANSLATED == 0 && to != from && endpoints.contains(&from) {
                flows.push(*flow);
            }
        })?;
    }
    conntrack.delete_all(&flows)?;
    Ok(())
}
