//! Follows a packet through rules, sets and virtual services: those of a plan, without a kernel, or those that the kernel holds.

use std::collections::{BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Branch, Family, Followed, Packet, Plan, Protocol, Verdict};
use ipnet::IpNet;
use ipvs_rs::ServiceId;

use crate::entry;
use crate::layout::Set;
use crate::mark::{Marks, Tag};
use crate::render::{self, Server};
use crate::rules::{Chain, Match, Rule, Target};
use crate::tables::Tables;
use crate::{Settings, structure};

/// How deep chains may call each other before it is taken for a circle.
const DEEPEST: usize = 16;

/// The kernel would refuse this, or it could not mean anything.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Fault(pub(crate) String);

/// Entries with their marks.
pub(crate) type Sets = HashMap<Set, HashMap<SetEntry, Option<u32>>>;

/// A table, one of the kernel's own chains in it, and the chain of ours to which it leads.
pub(crate) type Entrance = (&'static str, &'static str, &'static str);

/// What the kernel holds, or would hold for a plan.
#[derive(Debug)]
pub struct Tracer {
    pub(crate) marks: Marks,
    pub(crate) chains: [Vec<Chain>; 2],
    pub(crate) entrances: [Vec<Entrance>; 2],
    pub(crate) sets: [Sets; 2],
    pub(crate) servers: HashMap<ServiceId, Server>,
}

/// Where a packet is in its way.
struct Walk<'a> {
    packet: &'a Packet,
    family: Family,
    mark: u32,
    /// The rules that applied, each followed by what was found for it.
    steps: Vec<String>,
}

/// What a chain said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    Nothing,
    Drop,
    Accept,
    Reject,
}

impl Tracer {
    /// For a plan.
    #[must_use]
    pub fn new(plan: &Plan, settings: &Settings) -> Self {
        let mut tables = Tables::new(settings.context(&plan.node));
        let wanted = tables.wanted(plan.services.iter().map(|service| &**service));
        let chains = Family::BOTH.map(|family| structure::chains(family, &plan.node));
        let entrances = Family::BOTH.map(|family| {
            let all = chains[family as usize].iter();
            all.flat_map(|chain| chain.hooks.iter().map(|hook| (chain.table, *hook, chain.name))).collect()
        });
        let mut tracer = Self {
            marks: tables.context.marks,
            chains,
            entrances,
            sets: [HashMap::new(), HashMap::new()],
            servers: wanted.servers.iter().map(|(id, server)| (*id, server.clone())).collect(),
        };
        let ways = wanted.ways.values().map(|way| (way.entry, SetEntry { mark: Some(way.mark), ..way.entry.key }));
        let limits = wanted.limits.iter().map(|limit| (*limit, limit.key));
        for (entry, held) in ways.chain(limits).chain(tables.all_shared()) {
            let set = tracer.sets[entry.family as usize].entry(entry.set).or_default();
            set.insert(entry.key, held.mark);
        }
        tracer
    }

    /// What happens to the first packet of a connection.
    ///
    /// # Errors
    /// If the rules make no sense.
    pub fn trace(&self, packet: &Packet) -> Result<Verdict, Fault> {
        self.follow(packet).map(|followed| followed.verdict)
    }

    /// Where the first packet of a connection goes, and by which rules, entries and virtual service. The endpoints of a virtual
    /// service count as equally probable; to whom it sends whom is its scheduler's business.
    ///
    /// # Errors
    /// If the rules make no sense.
    pub fn follow(&self, packet: &Packet) -> Result<Followed, Fault> {
        let family = Family::of(packet.destination.ip());
        let mut walk = Walk { packet, family, mark: 0, steps: Vec::new() };
        let hook = if packet.interface.is_some() { "PREROUTING" } else { "OUTPUT" };
        match self.hook(&mut walk, "mangle", hook)? {
            Said::Drop => return Ok(ended(walk, Verdict::Drop)),
            Said::Reject => return Err(Fault("the table mangle cannot refuse".to_owned())),
            Said::Nothing | Said::Accept => {}
        }
        let leads_here = walk.mark & self.marks.tag_mask() == self.marks.tag(Tag::Frontend).0;
        let seen_by_ipvs = leads_here || packet.destination_is_local || packet.interface.is_none();
        if let Some(server) = seen_by_ipvs.then(|| self.server(&walk)).flatten() {
            return self.sent(walk, server);
        }
        if leads_here {
            return Err(Fault(format!("{packet:?} is marked {:#x}, and no virtual service is there", walk.mark)));
        }
        let hook = match (packet.interface.is_some(), packet.destination_is_local) {
            (false, _) => "OUTPUT",
            (true, true) => "INPUT",
            (true, false) => "FORWARD",
        };
        let verdict = match self.hook(&mut walk, "filter", hook)? {
            Said::Reject => Verdict::Reject,
            Said::Drop => Verdict::Drop,
            Said::Nothing | Said::Accept => Verdict::Pass,
        };
        Ok(ended(walk, verdict))
    }

    /// The ports that frontends have at an address, without node ports.
    #[must_use]
    pub fn ports(&self, addr: IpAddr) -> BTreeSet<(Protocol, u16)> {
        let sets = &self.sets[Family::of(addr) as usize];
        let entries = Set::FRONTENDS.iter().filter_map(|set| sets.get(set)).flat_map(HashMap::keys);
        let here = entries.filter(|entry| entry.ip == Some(addr));
        let port = |entry: &SetEntry| Some((entry.protocol.and_then(entry::protocol)?, entry.port?));
        here.filter_map(port).collect()
    }

    /// By the whole mark, else by address.
    fn server(&self, walk: &Walk<'_>) -> Option<&Server> {
        let by_mark = ServiceId::Fwmark { family: render::family(walk.family), mark: walk.mark };
        let protocol = render::protocol(walk.packet.protocol);
        let by_address = ServiceId::Address { protocol, address: walk.packet.destination };
        self.servers.get(&by_mark).or_else(|| self.servers.get(&by_address))
    }

    fn sent(&self, mut walk: Walk<'_>, server: &Server) -> Result<Followed, Fault> {
        if server.protocol != walk.packet.protocol {
            return Err(Fault(format!("{:?} gets packets of {}", server.id, walk.packet.protocol)));
        }
        if server.endpoints.is_empty() {
            return Err(Fault(format!("{:?} has no endpoints, and what IPVS says of that is not heard", server.id)));
        }
        walk.steps.push(format!("ipvs: the virtual service {} chooses by {}", server.id, server.style.scheduler));
        let branches = server.endpoints.iter().map(|endpoint| self.branch(&walk, *endpoint, server.endpoints.len()));
        let branches = branches.collect::<Result<Vec<Branch>, Fault>>()?;
        let hidden = branches.iter().filter(|branch| branch.masqueraded).filter_map(|branch| branch.endpoint);
        let verdict =
            Verdict::Forward { endpoints: server.endpoints.iter().copied().collect(), masqueraded: hidden.collect() };
        Ok(Followed { steps: walk.steps, branches, verdict })
    }

    /// The rest of the way to one of so many endpoints.
    fn branch(&self, walk: &Walk<'_>, endpoint: SocketAddr, of: usize) -> Result<Branch, Fault> {
        let packet = Packet { destination: endpoint, ..walk.packet.clone() };
        let mut walk = Walk { packet: &packet, family: walk.family, mark: walk.mark, steps: Vec::new() };
        // The packet goes through OUTPUT again, towards the endpoint.
        self.hook(&mut walk, "mangle", "OUTPUT")?;
        if walk.mark & !self.marks.masquerade != 0 {
            return Err(Fault(format!("a packet to {endpoint} keeps the mark {:#x}", walk.mark)));
        }
        let masqueraded = self.masqueraded(&mut walk)?;
        #[expect(clippy::cast_precision_loss, reason = "a share is for people")]
        let share = 1.0 / of as f64;
        Ok(Branch { endpoint: Some(endpoint), share, masqueraded, steps: walk.steps })
    }

    fn masqueraded(&self, walk: &mut Walk<'_>) -> Result<bool, Fault> {
        // Masquerade ends the chain as acceptance does.
        Ok(self.hook(walk, "nat", "POSTROUTING")? == Said::Accept)
    }

    fn hook(&self, walk: &mut Walk<'_>, table: &str, hook: &str) -> Result<Said, Fault> {
        let entrances = &self.entrances[walk.family as usize];
        for (_, _, chain) in entrances.iter().filter(|(of, at, _)| *of == table && *at == hook) {
            let said = self.chain(walk, table, chain, 0)?;
            if said != Said::Nothing {
                return Ok(said);
            }
        }
        Ok(Said::Nothing)
    }

    fn chain(&self, walk: &mut Walk<'_>, table: &str, name: &str, depth: usize) -> Result<Said, Fault> {
        if depth > DEEPEST {
            return Err(Fault(format!("the chain {name} comes back to itself")));
        }
        let chain = self.chains[walk.family as usize].iter().find(|chain| chain.table == table && chain.name == name);
        let chain = chain.ok_or_else(|| Fault(format!("there is no chain {name} in {table}")))?;
        for (rule, number) in chain.rules.iter().zip(1..) {
            let Rule(matches, target) = rule;
            if !matches.iter().all(|one| self.holds(walk, one)) {
                continue;
            }
            walk.steps.push(format!("{table} {name} {number}:{}", rule.text(walk.family)));
            match target {
                Target::Return => return Ok(Said::Nothing),
                Target::Drop => return Ok(Said::Drop),
                Target::Accept | Target::Masquerade => return Ok(Said::Accept),
                Target::Reject => return Ok(Said::Reject),
                Target::Goto(to) => return self.chain(walk, table, to, depth + 1),
                Target::Jump(to) => match self.chain(walk, table, to, depth + 1)? {
                    Said::Nothing => {}
                    said => return Ok(said),
                },
                Target::Mark(value, mask) => walk.mark = (walk.mark & !mask) | value,
                Target::Flip(bits) => walk.mark ^= bits,
                Target::MapMark(set) => {
                    if let Some(mark) = self.entry(walk, *set).flatten() {
                        walk.mark = mark;
                        walk.steps.push(format!("  {}: mark {mark:#x}", set.name(walk.family)));
                    }
                }
            }
        }
        Ok(Said::Nothing)
    }

    fn holds(&self, walk: &Walk<'_>, one: &Match) -> bool {
        let packet = walk.packet;
        match one {
            Match::Source(net) => net.contains(&packet.source),
            Match::Destination(net) => net.contains(&packet.destination.ip()),
            Match::Interface(name, false) => packet.interface.as_ref() == Some(name),
            Match::Interface(name, true) => {
                packet.interface.as_ref().is_some_and(|other| other.starts_with(name.as_str()))
            }
            Match::Icmp | Match::Known | Match::Related | Match::Answer | Match::Translated => false,
            Match::New => true,
            Match::Protocol(protocol) => packet.protocol == *protocol,
            Match::Mark { value, mask, not } => (walk.mark & mask == *value) != *not,
            Match::InSet(set, not) => self.entry(walk, *set).is_some() != *not,
            Match::SourceIsLocal => packet.source_is_local,
            Match::DestinationIsLocal => packet.destination_is_local,
        }
    }

    /// The entry of a set that is about a packet.
    fn entry(&self, walk: &Walk<'_>, set: Set) -> Option<Option<u32>> {
        let packet = walk.packet;
        let entries = self.sets[walk.family as usize].get(&set)?;
        let place = entry::place(packet.protocol, packet.destination);
        match set {
            Set::SourceCidr => entries.keys().find(|held| in_net(held, &place, packet.source)).map(|_| None),
            Set::LoopBack => entries.get(&SetEntry { second: Some(packet.source), ..place }).copied(),
            Set::Firewall | Set::ClusterIp | Set::ExternalIp | Set::LoadBalancer => entries.get(&place).copied(),
            Set::NodePortTcp | Set::NodePortUdp | Set::NodePortSctp => {
                entries.get(&entry::at_node(packet.protocol, packet.destination)).copied()
            }
            Set::Addresses => {
                entries.get(&SetEntry { ip: Some(packet.destination.ip()), ..SetEntry::default() }).copied()
            }
        }
    }
}

/// A packet that no virtual service gets.
fn ended(walk: Walk<'_>, verdict: Verdict) -> Followed {
    let only = Branch { endpoint: None, share: 1.0, masqueraded: false, steps: Vec::new() };
    Followed { steps: walk.steps, branches: vec![only], verdict }
}

fn in_net(held: &SetEntry, place: &SetEntry, source: IpAddr) -> bool {
    let same = SetEntry { second: None, prefix: None, ..*held } == *place;
    let net = held.second.zip(held.prefix).and_then(|(ip, prefix)| IpNet::new(ip, prefix).ok());
    same && net.is_some_and(|net| net.contains(&source))
}
