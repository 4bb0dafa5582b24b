//! From a service to what the kernel must hold for it. Pure.

use std::collections::HashSet;
use std::net::{IpAddr, SocketAddr};

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Action, Family, Frontend, FrontendAddr, Origin, Pool, Protocol, Service};
use ipvs_rs::{Flags, Scheduler, ServiceId};

use crate::entry::{self, Entry};
use crate::layout::Set;
use crate::mark::{Destination, Marks, Number, Row};

/// A virtual service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// By address or by mark.
    pub id: ServiceId,
    /// Of what its packets are.
    pub protocol: Protocol,
    /// How and for how long it chooses.
    pub style: Style,
    /// Where its connections go: sorted, none twice.
    pub endpoints: Vec<SocketAddr>,
}

impl Server {
    /// Whether this is one of its endpoints.
    pub fn has(&self, endpoint: &SocketAddr) -> bool {
        self.endpoints.binary_search(endpoint).is_ok()
    }
}

/// How a virtual service chooses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Style {
    /// The scheduler.
    pub scheduler: Scheduler,
    /// Its flags.
    pub flags: Flags,
    /// Persistence in seconds, 0 without.
    pub timeout: u32,
}

/// A frontend: the entry that leads packets to its servers. One that has two entries is two of these.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Way {
    /// Where it is found.
    pub entry: Entry,
    /// What the entry says.
    pub mark: u32,
    /// The virtual services behind it.
    pub servers: Vec<ServiceId>,
    /// Its address, if it has one, and whether unused ports of that are refused.
    pub address: Option<(IpAddr, bool)>,
}

/// What the kernel holds for one service.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Objects {
    /// Virtual services.
    pub servers: Vec<Server>,
    /// Frontends.
    pub ways: Vec<Way>,
    /// Entries that limit sources.
    pub limits: Vec<Entry>,
    /// Endpoints that could reach themselves; other services may have the same.
    pub hairpins: Vec<Entry>,
    /// Frontends that are left out because no number was free.
    pub unnumbered: Vec<SocketAddr>,
}

/// What rendering depends on beside the service.
#[derive(Debug, Clone)]
pub struct Context {
    /// The marks of this node.
    pub marks: Marks,
    /// How servers choose that do not say otherwise.
    pub scheduler: Scheduler,
    /// Those that the kernel does not have, of those that services ask for.
    pub missing: HashSet<Scheduler>,
}

impl Context {
    /// How a service chooses: as it says, if the kernel can do that.
    fn scheduler(&self, service: &Service) -> Scheduler {
        asked(service).filter(|asked| !self.missing.contains(asked)).unwrap_or_else(|| self.scheduler.clone())
    }
}

/// The scheduler that a service asks for.
pub fn asked(service: &Service) -> Option<Scheduler> {
    service.scheduler.as_deref()?.parse().ok()
}

/// Renders a service. `given` numbers the entries of addresses that have several servers; without a number they are left out.
pub fn service(context: &Context, service: &Service, given: &mut impl FnMut(&Entry) -> Option<u16>) -> Objects {
    let mut objects = Objects::default();
    for frontend in &service.frontends {
        let (lines, entries) = (Lines::of(service, frontend), entries(service, frontend));
        let number = match frontend.addr() {
            FrontendAddr::NodePort(port) => Number::NodePort(service.key.protocol, port),
            FrontendAddr::Addr(addr) if lines.by_mark() => match entries.first().and_then(&mut *given) {
                Some(number) => Number::Given(number),
                None => {
                    objects.unnumbered.push(addr);
                    continue;
                }
            },
            FrontendAddr::Addr(_) => Number::Given(0),
        };
        let mark = context.marks.entry(number, |origin| lines.row(origin));
        let address = match frontend.addr() {
            FrontendAddr::Addr(addr) => Some((addr.ip(), matches!(frontend, Frontend::ClusterIp(_)))),
            FrontendAddr::NodePort(_) => None,
        };
        let servers = lines.servers(context.marks, service, frontend, number);
        for entry in entries {
            let servers = servers.iter().map(|(id, _)| *id).collect();
            objects.ways.push(Way { entry, mark, servers, address });
            objects.limits.extend(limits(service, frontend, entry));
        }
        objects.servers.extend(servers.into_iter().map(|(id, target)| server(context, service, id, target)));
    }
    let local = service.endpoints().filter(|endpoint| endpoint.local);
    objects.hairpins = local.map(|endpoint| hairpin(service, endpoint.addr())).collect();
    sort(&mut objects.hairpins);
    sort(&mut objects.limits);
    objects
}

/// Sorts, and leaves one of each.
pub fn sort<T: Ord>(list: &mut Vec<T>) {
    list.sort_unstable();
    list.dedup();
}

/// Where a frontend leads, by origin.
struct Lines {
    /// The different pools, that of packets from outside first.
    targets: Vec<Pool>,
    rows: [Row; 3],
    /// Whether somebody is refused. IPVS takes what the node itself sends to a server by address whatever its mark says, so then
    /// there must be none.
    refuses: bool,
}

impl Lines {
    fn of(service: &Service, frontend: &Frontend) -> Self {
        let mut lines = Self { targets: Vec::new(), rows: [Row::DROP; 3], refuses: false };
        for origin in [Origin::Outside, Origin::Node, Origin::Pod] {
            let (target, masquerade) = match service.route(frontend).from(origin) {
                Action::Forward { to, masquerade } => (to, masquerade),
                Action::Reject => {
                    lines.rows[origin as usize] = Row::REFUSE;
                    lines.refuses = true;
                    continue;
                }
                Action::Drop => continue,
            };
            let known = lines.targets.iter().position(|other| *other == target);
            let place = known.unwrap_or(lines.targets.len());
            if known.is_none() {
                lines.targets.push(target);
            }
            lines.rows[origin as usize] = Row { to: Destination::SERVERS[place], masquerade };
        }
        lines
    }

    /// Whether an address needs servers by mark.
    fn by_mark(&self) -> bool {
        self.targets.len() > 1 || self.refuses && !self.targets.is_empty()
    }

    fn row(&self, origin: Origin) -> Row {
        self.rows[origin as usize]
    }

    /// The virtual services that the rows lead to. A mark says whether to masquerade, so what is reached both ways by mark is
    /// two of them.
    fn servers(&self, marks: Marks, service: &Service, frontend: &Frontend, number: Number) -> Vec<(ServiceId, Pool)> {
        let mut found = Vec::new();
        for row in self.rows.iter().filter(|row| row.to != Destination::None) {
            let id = match frontend.addr() {
                FrontendAddr::Addr(address) if row.to == Destination::First && !self.refuses => {
                    ServiceId::Address { protocol: protocol(service.key.protocol), address }
                }
                _ => ServiceId::Fwmark { family: family(service.key.family), mark: marks.server(number, *row) },
            };
            if found.iter().all(|(other, _)| *other != id) {
                found.push((id, self.targets[row.to as usize]));
            }
        }
        found
    }
}

fn server(context: &Context, service: &Service, id: ServiceId, target: Pool) -> Server {
    let pool = service.pools.get(target);
    let style = match (service.affinity, id) {
        (None, _) => Style { scheduler: context.scheduler(service), flags: Flags::default(), timeout: 0 },
        (Some(affinity), ServiceId::Address { .. }) => {
            Style { scheduler: context.scheduler(service), flags: Flags::PERSISTENT, timeout: affinity.timeout_seconds }
        }
        // The kernel does not translate ports of persistent services by mark, so these stick by a hash of the client.
        (Some(_), ServiceId::Fwmark { .. }) => {
            Style { scheduler: Scheduler::MaglevHash, flags: Flags::HASH_FALLBACK, timeout: 0 }
        }
    };
    let mut endpoints: Vec<SocketAddr> = pool.iter().map(|endpoint| endpoint.addr()).collect();
    sort(&mut endpoints);
    Server { id, protocol: service.key.protocol, style, endpoints }
}

fn entries(service: &Service, frontend: &Frontend) -> Vec<Entry> {
    let (family, protocol) = (service.key.family, service.key.protocol);
    let (set, addr) = match frontend {
        Frontend::ClusterIp(addr) => (Set::ClusterIp, *addr),
        Frontend::ExternalIp(addr) => (Set::ExternalIp, *addr),
        Frontend::LoadBalancer { addr, .. } => (Set::LoadBalancer, *addr),
        Frontend::NodePort(port) => return entry::node_port(family, protocol, *port),
    };
    vec![Entry { family, set, key: entry::place(protocol, addr) }]
}

fn limits(service: &Service, frontend: &Frontend, entry: Entry) -> Vec<Entry> {
    let Frontend::LoadBalancer { allow, .. } = frontend else { return Vec::new() };
    if allow.is_empty() {
        return Vec::new();
    }
    let sources = allow.iter().flat_map(|net| entry::halves(*net)).map(|net| Entry {
        family: service.key.family,
        set: Set::SourceCidr,
        key: SetEntry { second: Some(net.network()), prefix: Some(net.prefix_len()), ..entry.key },
    });
    sources.chain([Entry { set: Set::Firewall, ..entry }]).collect()
}

fn hairpin(service: &Service, addr: SocketAddr) -> Entry {
    let key = SetEntry { second: Some(addr.ip()), ..entry::place(service.key.protocol, addr) };
    Entry { family: service.key.family, set: Set::LoopBack, key }
}

/// As the library for IPVS calls it.
pub const fn protocol(protocol: Protocol) -> ipvs_rs::Protocol {
    match protocol {
        Protocol::Tcp => ipvs_rs::Protocol::Tcp,
        Protocol::Udp => ipvs_rs::Protocol::Udp,
        Protocol::Sctp => ipvs_rs::Protocol::Sctp,
    }
}

/// As the library for IPVS calls it.
pub const fn family(family: Family) -> ipvs_rs::Family {
    match family {
        Family::V4 => ipvs_rs::Family::V4,
        Family::V6 => ipvs_rs::Family::V6,
    }
}
