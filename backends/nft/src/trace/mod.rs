//! Answers for one packet by interpreting the rules and elements that a plan becomes.
//!
//! The interpreter walks the same typed rules that [`crate::encode`] hands to the kernel, over the same elements, and knows
//! nothing about plans: so it shows whether the rules say what [`Plan::decide`] says. Random numbers are not drawn: every
//! value is tried, and the answer is the set of all endpoints that can come out. Nothing is assumed to work: a table that
//! the kernel would refuse is a [`Fault`] ([`check`]).
//!
//! What is walked is the first packet of a connection: prerouting, or output if the node itself sends it, and then
//! postrouting. Delivery to the node itself (the input hook) is not walked, because a packet does not say which endpoints are
//! addresses of this node.

mod check;
mod choices;
mod follow;
mod machine;
mod statement;
mod table;

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Family, Packet, Plan, Pool, ServiceKey, Verdict};

use crate::element::Bytes;
use crate::layout::number;
use crate::rules::{Datum, Name};
use crate::sticky;
pub(crate) use statement::number as number_of;

use choices::Choices;
use machine::Machine;
use table::Table;

/// Why a packet cannot be followed: the kernel would refuse the table, or the table does what no verdict can say. One
/// sentence, for people; there is nothing that a caller could do about it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(crate) String);

/// How one way through the table ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// At an endpoint.
    Forward {
        /// Which one.
        endpoint: SocketAddr,
        /// Whether it sees an address of this node as the source.
        masqueraded: bool,
    },
    /// The sender is told that nobody is there.
    Reject,
    /// Nobody answers.
    Drop,
    /// The packet goes on as it came.
    Pass,
}

/// One way through the table: what happens for one outcome of every random number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Path {
    /// The rules that applied, each followed by the elements that were found for it, one line each.
    pub steps: Vec<String>,
    /// How it ends.
    pub end: End,
    /// The packet mark that it leaves with; it came with 0.
    pub mark: u32,
    /// The `meta priority` that it leaves with; it came with 0.
    pub priority: u32,
    /// One packet in so many takes it.
    pub one_in: u64,
    /// How many of the steps come before the first random number.
    pub certain: usize,
}

/// Clients remembered by services with affinity: map and source address to the number of an endpoint.
pub(crate) type Memory = BTreeMap<(Name, Bytes), u32>;

/// The tables of both families, ready to answer for many packets.
#[derive(Debug)]
pub struct Tracer {
    tables: [Table; 2],
    memory: [Memory; 2],
}

/// What the nft mode does with a packet under a plan. For many packets make one [`Tracer`].
///
/// # Errors
/// If the kernel would refuse what the plan becomes.
pub fn trace(plan: &Plan, packet: &Packet) -> Result<Verdict, Fault> {
    Tracer::new(plan)?.verdict(packet)
}

impl Tracer {
    /// Renders a plan. No client is remembered.
    ///
    /// # Errors
    /// If the kernel would refuse a rule, a set or an element.
    pub fn new(plan: &Plan) -> Result<Self, Fault> {
        let [v4, v6] = Family::BOTH.map(|family| Table::new(family, plan));
        let tables = [v4?, v6?];
        tables.iter().try_for_each(check::table)?;
        Ok(Self { tables, memory: <[Memory; 2]>::default() })
    }

    /// Lets a service with affinity remember that this client went to this endpoint, which may be gone by now.
    ///
    /// # Errors
    /// If the service has no memory.
    pub fn remember(&mut self, service: &ServiceKey, client: IpAddr, endpoint: SocketAddr) -> Result<(), Fault> {
        let table = &self.tables[service.family as usize];
        let memory = sticky::memory(service);
        table.contents(&memory).map_err(|_| Fault(format!("{service} has no session affinity")))?;
        let wanted = Datum::Bytes(Bytes::EMPTY.socket(endpoint));
        let pools = [Pool::Cluster, Pool::Local].map(|pool| sticky::endpoints(pool, service));
        let known = pools.iter().find_map(|map| table.contents(map).ok()?.key_of(&wanted));
        let number = known.and_then(|key| statement::number(&key)).unwrap_or_else(|| number::of_endpoint(endpoint));
        self.memory[service.family as usize].insert((memory, Bytes::EMPTY.addr(client)), number);
        Ok(())
    }

    /// What happens to a packet.
    ///
    /// # Errors
    /// If a rule asks what this packet cannot answer, or if the outcomes are such that no verdict describes them: an
    /// endpoint for one random number and a refusal for another.
    pub fn verdict(&self, packet: &Packet) -> Result<Verdict, Fault> {
        let mut verdict: Option<Verdict> = None;
        self.each_path(packet, false, |path| {
            let next = verdict_of(path.end);
            match (&mut verdict, next) {
                (None, next) => verdict = Some(next),
                (
                    Some(Verdict::Forward { endpoints, masqueraded }),
                    Verdict::Forward { endpoints: e, masqueraded: m },
                ) => {
                    endpoints.extend(e);
                    masqueraded.extend(m);
                }
                (Some(one), other) if *one == other => {}
                (Some(one), other) => return Err(Fault(format!("chance decides between {one:?} and {other:?}"))),
            }
            Ok(())
        })?;
        verdict.ok_or_else(|| Fault("no way through the table".to_owned()))
    }

    /// Every way that a packet can take, with the rules and elements on it.
    ///
    /// # Errors
    /// If a rule asks what this packet cannot answer.
    pub fn steps(&self, packet: &Packet) -> Result<Vec<Path>, Fault> {
        let mut paths = Vec::new();
        self.each_path(packet, true, |path| {
            paths.push(path);
            Ok(())
        })?;
        Ok(paths)
    }

    fn each_path(
        &self,
        packet: &Packet,
        record: bool,
        mut each: impl FnMut(Path) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        let family = Family::of(packet.destination.ip());
        if Family::of(packet.source) != family {
            return Err(Fault(format!("a packet from {} to {} cannot be", packet.source, packet.destination)));
        }
        let (table, memory) = (&self.tables[family as usize], &self.memory[family as usize]);
        let mut choices = Choices::default();
        loop {
            each(Machine::new(table, packet, memory, &mut choices, record).run()?)?;
            if !choices.advance() {
                return Ok(());
            }
        }
    }
}

fn verdict_of(end: End) -> Verdict {
    match end {
        End::Forward { endpoint, masqueraded } => Verdict::Forward {
            endpoints: BTreeSet::from([endpoint]),
            masqueraded: masqueraded.then_some(endpoint).into_iter().collect(),
        },
        End::Reject => Verdict::Reject,
        End::Drop => Verdict::Drop,
        End::Pass => Verdict::Pass,
    }
}
