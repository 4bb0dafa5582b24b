//! The vocabulary of the tables: what is there, who connects where, and what must come of it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use fairlead::resolve::Settings;
use fairlead_lab::objects::{Service, Slice};
use fairlead_lab::{Addresses, Lab, PORTS, cluster_ip, external_ip};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

/// A situation and what must be true in it, step by step.
pub struct Scenario {
    /// What it shows, as a sentence.
    pub sentence: &'static str,
    /// Changes the settings that all scenarios share.
    pub settings: fn(&mut Settings),
    /// An external address that node `a` has itself, as load balancers on the node do it.
    pub vip_on_node: Option<u8>,
    /// Which families the Services have.
    pub stack: Stack,
    /// What happens.
    pub steps: Vec<Step>,
}

/// The families of the Services of a scenario that runs for one family.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stack {
    /// That one alone.
    Single,
    /// Both, that one being the second.
    Secondary,
}

/// The objects of the moment, and what they must lead to.
pub struct Step {
    pub objects: Objects,
    pub checks: Vec<Check>,
    /// The number of local endpoints that the health-check node port of `web` must tell.
    pub health: Option<usize>,
}

/// What the API server holds, beside the Nodes.
#[derive(Clone, Default)]
pub struct Objects {
    pub services: Vec<Service>,
    pub slices: Vec<Slice>,
    /// Other manifests.
    pub more: Vec<Value>,
    /// The zone of node `a`.
    pub zone: Option<&'static str>,
}

/// One connection that somebody tries, many times, with each protocol.
#[derive(Clone)]
pub struct Check {
    pub from: &'static str,
    pub to: To,
    pub protocols: &'static [Protocol],
    pub expect: Expect,
    /// Bytes to send and to get back.
    pub payload: usize,
    /// The source, if it is not the main address of `from`.
    pub bind: Option<Addresses>,
}

/// Where to connect to.
#[derive(Clone, Copy, Debug)]
pub enum To {
    /// The n-th ClusterIP.
    Cluster(u8, u16),
    /// The n-th external address.
    External(u8, u16),
    /// The main address of a place.
    Place(&'static str, u16),
    /// The second address of a node.
    Second(&'static str, u16),
    /// Loopback.
    Loopback(u16),
    /// An address that is none of these.
    Other(Addresses, u16),
}

/// What must come of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// Each of these is reached and no other; `a1` is pod a1 at the first port of [`PORTS`], `a1:8081` at another.
    Reaches(Vec<&'static str>, Source),
    /// The client is told at once that nobody is there.
    Refused,
    /// Nobody answers.
    Silence,
    /// fairlead does nothing with the packet, and so the kernel says this.
    Ignored(Untouched),
}

/// What the kernel does with a packet that fairlead does not touch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Untouched {
    /// It reaches the node, where nobody listens.
    Refused,
    /// It goes on to the default gateway, which answers nothing.
    Silence,
}

/// Whom the endpoint sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The client.
    Kept,
    /// Node `a`.
    Masqueraded,
    /// The client, but an endpoint that reaches itself sees node `a`.
    KeptExceptSelf,
}

pub const TCP_AND_UDP: &[Protocol] = &[Protocol::Tcp, Protocol::Udp];

impl Scenario {
    pub fn new(sentence: &'static str) -> Self {
        Self { sentence, settings: |_| (), vip_on_node: None, stack: Stack::Single, steps: Vec::new() }
    }

    pub fn settings(mut self, change: fn(&mut Settings)) -> Self {
        self.settings = change;
        self
    }

    pub fn vip_on_node(mut self, host: u8) -> Self {
        self.vip_on_node = Some(host);
        self
    }

    pub fn secondary_family(mut self) -> Self {
        self.stack = Stack::Secondary;
        self
    }

    /// Adds a step. Objects of the step before that this one does not name are gone.
    pub fn given(mut self, objects: Objects) -> Self {
        self.steps.push(Step { objects, checks: Vec::new(), health: None });
        self
    }

    /// Adds a check to the last step.
    pub fn then(mut self, check: Check) -> Self {
        self.last().checks.push(check);
        self
    }

    /// Checks the health-check node port of `web` in the last step.
    pub fn then_healthy_endpoints(mut self, local: usize) -> Self {
        self.last().health = Some(local);
        self
    }

    /// Whether a check is made with SCTP.
    pub fn speaks_sctp(&self) -> bool {
        let mut checks = self.steps.iter().flat_map(|step| &step.checks);
        checks.any(|check| check.protocols.contains(&Protocol::Sctp))
    }

    fn last(&mut self) -> &mut Step {
        self.steps.last_mut().expect("checks come after objects")
    }
}

impl Objects {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn service(mut self, service: Service) -> Self {
        self.services.push(service);
        self
    }

    pub fn slice(mut self, slice: Slice) -> Self {
        self.slices.push(slice);
        self
    }

    pub fn more(mut self, manifest: Value) -> Self {
        self.more.push(manifest);
        self
    }

    pub fn zone(mut self, zone: &'static str) -> Self {
        self.zone = Some(zone);
        self
    }
}

/// Begins a check. It expects silence until told otherwise.
pub fn from(place: &'static str) -> Check {
    let to = To::Loopback(0);
    Check { from: place, to, protocols: TCP_AND_UDP, expect: Expect::Silence, payload: 1, bind: None }
}

impl Check {
    pub fn to(mut self, to: To) -> Self {
        self.to = to;
        self
    }

    pub fn by(mut self, protocols: &'static [Protocol]) -> Self {
        self.protocols = protocols;
        self
    }

    pub fn bound_to(mut self, addresses: Addresses) -> Self {
        self.bind = Some(addresses);
        self
    }

    pub fn with_payload(mut self, bytes: usize) -> Self {
        self.payload = bytes;
        self
    }

    /// Reaches these with the client's own address.
    pub fn reaches(mut self, endpoints: &[&'static str]) -> Self {
        self.expect = Expect::Reaches(endpoints.to_vec(), Source::Kept);
        self
    }

    /// Reaches these with an address of node `a`.
    pub fn reaches_masqueraded(mut self, endpoints: &[&'static str]) -> Self {
        self.expect = Expect::Reaches(endpoints.to_vec(), Source::Masqueraded);
        self
    }

    /// Reaches these, itself among them.
    pub fn reaches_also_itself(mut self, endpoints: &[&'static str]) -> Self {
        self.expect = Expect::Reaches(endpoints.to_vec(), Source::KeptExceptSelf);
        self
    }

    pub fn finds_refusal(mut self) -> Self {
        self.expect = Expect::Refused;
        self
    }

    pub fn finds_silence(mut self) -> Self {
        self.expect = Expect::Silence;
        self
    }

    /// fairlead leaves the packets alone, and so the kernel does this.
    pub fn finds_nobody(mut self, untouched: Untouched) -> Self {
        self.expect = Expect::Ignored(untouched);
        self
    }
}

impl To {
    pub fn address(self, lab: &Lab, family: Family) -> SocketAddr {
        let loopback = Addresses { v4: Ipv4Addr::LOCALHOST, v6: Ipv6Addr::LOCALHOST };
        let (addresses, port) = match self {
            Self::Cluster(host, port) => (cluster_ip(host), port),
            Self::External(host, port) => (external_ip(host), port),
            Self::Place(name, port) => (*lab.place(name).addresses(), port),
            Self::Second(name, port) => (*lab.node(name).second(), port),
            Self::Loopback(port) => (loopback, port),
            Self::Other(addresses, port) => (addresses, port),
        };
        SocketAddr::new(addresses.of(family), port)
    }
}

/// The address of an endpoint by the name that the lab gives it.
pub fn endpoint_address(lab: &Lab, family: Family, name: &str) -> SocketAddr {
    let (place, port) = match name.split_once(':') {
        Some((place, port)) => (place, port.parse().expect("the port of an endpoint is a number")),
        None => (name, PORTS[0]),
    };
    SocketAddr::new(lab.place(place).addr(family), port)
}

/// The place in which an endpoint is.
pub fn place_of(endpoint: &str) -> &str {
    endpoint.split(':').next().unwrap_or(endpoint)
}

impl Check {
    /// The source address that the first packet has.
    pub fn source(&self, lab: &Lab, family: Family) -> IpAddr {
        match (self.bind, self.to) {
            (Some(bind), _) => bind.of(family),
            (None, To::Loopback(_)) => self.to.address(lab, family).ip(),
            (None, _) => lab.place(self.from).addr(family),
        }
    }
}

impl fmt::Display for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} to {:?}: {:?}", self.from, self.to, self.expect)
    }
}
