//! From one service of a plan to what the kernel must hold for it. Pure.

use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Action, Endpoint, Frontend, FrontendAddr, Origin, Pool, Pools, Protocol, Service};

use crate::element::{Bytes, Element};
use crate::layout::{Keyspace, LOCAL_SLOTS, NAMES, number};
use crate::rules::{Chain, Set};
use crate::{sticky, structure};

/// What the kernel must hold for one service port.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Objects {
    /// Elements that belong to this service alone, sorted.
    pub elements: Vec<Element>,
    /// Elements that several services may need, for example both ports of one ClusterIP; sorted, no doubles.
    pub shared: Vec<Element>,
    /// Pool sizes beyond [`structure::READY_COUNTS`], which need a chain each.
    pub counts: Vec<(Keyspace, Pool, u32)>,
    /// Sets of a service with session affinity.
    pub sets: Vec<Set>,
    /// Chains of a service with session affinity.
    pub chains: Vec<Chain>,
}

/// Everything for one service port.
#[must_use]
pub fn service(service: &Service) -> Objects {
    beside(service, None)
}

/// Two states of a service port without what is sure to be the same: where nothing but endpoints differs, the elements of slots
/// that both fill alike. Most changes are one slot of many.
#[must_use]
pub fn both(was: Option<&Service>, now: Option<&Service>) -> (Objects, Objects) {
    let (Some(was), Some(now)) = (was, now) else {
        return (was.map(service).unwrap_or_default(), now.map(service).unwrap_or_default());
    };
    let is_alike = was.frontends == now.frontends
        && (was.internal, was.external) == (now.internal, now.external)
        && was.affinity.is_none()
        && now.affinity.is_none();
    let (old, new) = (is_alike.then_some(&was.pools), is_alike.then_some(&now.pools));
    (beside(was, new), beside(now, old))
}

fn beside(service: &Service, known: Option<&Pools>) -> Objects {
    let mut objects = Objects::default();
    for frontend in &service.frontends {
        self::frontend(service, frontend, known, &mut objects);
    }
    shared(service, &mut objects);
    if service.affinity.is_some() {
        sticky::service(service, &mut objects);
    }
    objects.elements.sort_unstable();
    objects.shared.sort_unstable();
    objects.shared.dedup();
    objects.counts.sort_unstable();
    objects.counts.dedup();
    objects
}

/// The endpoints of a pool that fit into the map.
pub fn slots(service: &Service, pool: Pool) -> &[Endpoint] {
    let endpoints = service.pools.get(pool);
    &endpoints[..endpoints.len().min(LOCAL_SLOTS as usize)]
}

/// Which pools the routes of a frontend lead to.
pub fn pools_of(service: &Service, frontend: &Frontend) -> impl Iterator<Item = Pool> {
    let route = *service.route(frontend);
    [Pool::Cluster, Pool::Local].into_iter().filter(move |pool| {
        Origin::ALL.into_iter().any(|origin| matches!(route.from(origin), Action::Forward { to, .. } if to == *pool))
    })
}

fn frontend(service: &Service, frontend: &Frontend, known: Option<&Pools>, objects: &mut Objects) {
    let space = match frontend.addr() {
        FrontendAddr::Addr(_) => Keyspace::Address,
        FrontendAddr::NodePort(_) => Keyspace::NodePort,
    };
    let key = key(service.key.protocol, frontend.addr());
    let numbers = Origin::ALL.map(|origin| action(service, space, service.route(frontend).from(origin), origin));
    if let Some(number) = for_all(numbers) {
        objects.elements.push(Element::pair(NAMES.frontends(space), key, Bytes::EMPTY.number(number)));
    } else {
        let each = Origin::ALL.into_iter().zip(numbers);
        objects.elements.extend(
            each.map(|(origin, number)| Element::pair(NAMES.from(space, origin), key, Bytes::EMPTY.number(number))),
        );
    }
    if service.affinity.is_none() {
        for pool in pools_of(service, frontend) {
            endpoints((service, pool), space, key, known, objects);
        }
    }
    if let Frontend::LoadBalancer { addr, allow } = frontend
        && !allow.is_empty()
    {
        objects.elements.push(Element::member(&NAMES.restricted, key));
        objects.elements.extend(allow.iter().map(|net| Element {
            key_end: Some(from_source(service.key.protocol, *addr, net.broadcast())),
            ..Element::member(&NAMES.allowed, from_source(service.key.protocol, *addr, net.network()))
        }));
    }
}

/// The slots of a pool, but for those that `known` fills alike.
fn endpoints(
    (service, pool): (&Service, Pool),
    space: Keyspace,
    key: Bytes,
    known: Option<&Pools>,
    objects: &mut Objects,
) {
    let first = match pool {
        Pool::Cluster => 0,
        Pool::Local => LOCAL_SLOTS,
    };
    let endpoints = slots(service, pool);
    let map = NAMES.endpoints(space);
    let known = known.map_or(&[] as &[Endpoint], |pools| pools.get(pool));
    let is_known = |at: usize, addr: SocketAddr| known.get(at).is_some_and(|endpoint| endpoint.addr() == addr);
    for ((at, endpoint), slot) in endpoints.iter().enumerate().zip(first..) {
        let addr = endpoint.addr();
        if !is_known(at, addr) {
            objects.elements.push(Element::pair(map, key.number(slot), Bytes::EMPTY.socket(addr)));
        }
    }
    let count = count(endpoints);
    if count > structure::READY_COUNTS {
        objects.counts.push((space, pool, count));
    }
}

/// One number that says of each origin what its own says, if there is one: where all packets go to the same place, and those of
/// nodes are masqueraded as those from outside are. So a change of a pool's size is a change of one element, not of three.
fn for_all(numbers: [u32; 3]) -> Option<u32> {
    let all = numbers.into_iter().fold(0, |all, number| all | number);
    let says = |(number, origin)| all & !number::MASQUERADE | all & number::masquerade(origin) == number;
    numbers.into_iter().zip(Origin::ALL).all(says).then_some(all)
}

/// The number that says what to do with packets of an origin.
fn action(service: &Service, space: Keyspace, action: Action, origin: Origin) -> u32 {
    match action {
        Action::Reject => number::REFUSE,
        Action::Drop => number::DROP,
        Action::Forward { to, masquerade } => {
            let leads_to = match service.affinity {
                Some(_) => number::sticky(to, &service.key),
                None => number::spread(space, to, count(slots(service, to))),
            };
            leads_to | if masquerade { number::masquerade(origin) } else { 0 }
        }
    }
}

/// The size of a pool, which [`slots`] bounds.
pub fn count(endpoints: &[Endpoint]) -> u32 {
    u32::try_from(endpoints.len()).unwrap_or(LOCAL_SLOTS)
}

fn shared(service: &Service, objects: &mut Objects) {
    let member = |set, key| Element::member(set, key);
    objects.shared.extend(service.cluster_ips().map(|ip| member(&NAMES.cluster_ips, Bytes::EMPTY.addr(ip))));
    let local = service.endpoints().filter(|endpoint| endpoint.local).map(|endpoint| endpoint.addr().ip());
    objects.shared.extend(local.map(|ip| member(&NAMES.hairpin, Bytes::EMPTY.addr(ip).addr(ip))));
    if service.key.protocol == Protocol::Tcp {
        let port = |port| Bytes::EMPTY.proto(service.key.protocol.number()).port(port);
        let mut last = None;
        for addr in service.endpoints().map(|endpoint| endpoint.addr()) {
            let now = (Bytes::EMPTY.block(addr.ip()), port(addr.port()));
            // Most endpoints of a service have the port of the one before, and many its block.
            if last.is_none_or(|(block, _)| block != now.0) {
                objects.shared.push(member(&NAMES.tcp_blocks, now.0));
            }
            if last.is_none_or(|(_, port)| port != now.1) {
                objects.shared.push(member(&NAMES.tcp_ports, now.1));
            }
            last = Some(now);
        }
    }
}

/// The key of a frontend.
fn key(protocol: Protocol, addr: FrontendAddr) -> Bytes {
    let key = Bytes::EMPTY.proto(protocol.number());
    match addr {
        FrontendAddr::Addr(addr) => key.socket(addr),
        FrontendAddr::NodePort(port) => key.port(port),
    }
}

fn from_source(protocol: Protocol, addr: SocketAddr, source: IpAddr) -> Bytes {
    Bytes::EMPTY.proto(protocol.number()).socket(addr).addr(source)
}
