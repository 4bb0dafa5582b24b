//! Session affinity: chains and maps of one service.
//!
//! A client's endpoint is remembered as a number made from the endpoint's address. The number is looked up again on
//! every connection, so an endpoint that is gone is forgotten at once, by the kernel, and the client gets another; and
//! since all frontends of the service share the memory, a client meets the same endpoint through each of them. The memory
//! is a map filled by packets: neither changes of endpoints nor restarts touch it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use fairlead_plan::{Pool, Service, ServiceKey};

use crate::element::{Bytes, Element};
use crate::layout::{self, ENDPOINT, NAMES, number};
use crate::render::{self, Objects};
use crate::rules::{Chain, Datum, Field, Kind, Name, Set, Stmt, Value};

/// The map in which a service remembers its clients.
pub fn memory(key: &ServiceKey) -> Name {
    format!("affinity-{}", layout::suffix(key)).into()
}

/// The map from the number of an endpoint to its address.
pub fn endpoints(pool: Pool, key: &ServiceKey) -> Name {
    format!("endpoints-{}-{}", layout::pool_name(pool), layout::suffix(key)).into()
}

/// Adds what a service with affinity needs.
pub fn service(service: &Service, objects: &mut Objects) {
    let Some(affinity) = service.affinity else { return };
    let memory = memory(&service.key);
    objects.sets.push(Set::new(Name::clone(&memory), &[Kind::Addr], Value::Data(&[Kind::Number])).filled_by_packets());
    for pool in [Pool::Cluster, Pool::Local] {
        let used =
            service.frontends.iter().any(|frontend| render::pools_of(service, frontend).any(|used| used == pool));
        if used {
            self::pool(service, pool, &memory, affinity.timeout_seconds, objects);
        }
    }
}

fn pool(service: &Service, pool: Pool, memory: &Name, seconds: u32, objects: &mut Objects) {
    let suffix = format!("{}-{}", layout::pool_name(pool), layout::suffix(&service.key));
    let slots: Name = format!("slots-{suffix}").into();
    let endpoints = endpoints(pool, &service.key);
    objects.sets.push(
        Set::new(Name::clone(&slots), &[Kind::Index], Value::Data(&[Kind::Number]))
            .type_of(&[Field::Random { modulus: 65_536, offset: 0 }]),
    );
    objects
        .sets
        .push(Set::new(Name::clone(&endpoints), &[Kind::Number], Value::Data(ENDPOINT)).type_of(&[Field::Priority]));
    let in_pool = render::slots(service, pool);
    let numbers = numbers(in_pool.iter().map(|endpoint| endpoint.addr()));
    for (endpoint, slot) in in_pool.iter().zip(0_u32..) {
        let Some(number) = numbers.get(&endpoint.addr()) else { continue };
        let number = Bytes::EMPTY.number(*number);
        objects.elements.push(Element::pair(&slots, Bytes::EMPTY.number(slot), number));
        objects.elements.push(Element::pair(&endpoints, number, Bytes::EMPTY.socket(endpoint.addr())));
    }
    let chain = chain(service, &format!("sticky-{suffix}"), Pick { memory, slots, endpoints, seconds }, in_pool.len());
    let action = Bytes::EMPTY.number(number::sticky(pool, &service.key));
    objects.elements.push(Element::verdict(&NAMES.actions, action, Datum::Goto(Name::clone(&chain.name))));
    objects.chains.push(chain);
}

struct Pick<'a> {
    memory: &'a Name,
    slots: Name,
    endpoints: Name,
    seconds: u32,
}

fn chain(service: &Service, name: &str, pick: Pick<'_>, count: usize) -> Chain {
    let look_up = |key, map: &Name| Stmt::SetPriority { key: vec![key], map: Name::clone(map) };
    let remember = || Stmt::Remember { map: Name::clone(pick.memory), seconds: pick.seconds };
    let dnat = || Stmt::Dnat { key: vec![Field::Priority], map: Name::clone(&pick.endpoints) };
    let protocol = Stmt::L4Is(service.key.protocol);
    let modulus = u32::try_from(count.max(1)).unwrap_or(layout::LOCAL_SLOTS);
    let rules = vec![
        vec![look_up(Field::Saddr, pick.memory), remember(), protocol.clone(), dnat()],
        // Reached with a client that is unknown, or whose endpoint is gone.
        vec![Stmt::Forget { map: Name::clone(pick.memory) }],
        vec![look_up(Field::Random { modulus, offset: 0 }, &pick.slots)],
        vec![remember()],
        vec![protocol, dnat()],
    ];
    Chain::regular(name, rules)
}

/// A number for each endpoint, made from its address alone as far as no two collide, so that it stays the same when
/// others come and go.
fn numbers(endpoints: impl Iterator<Item = SocketAddr>) -> BTreeMap<SocketAddr, u32> {
    let mut sorted: Vec<SocketAddr> = endpoints.collect();
    sorted.sort_unstable();
    let mut taken = BTreeMap::new();
    for addr in sorted {
        let mut number = number::of_endpoint(addr);
        while taken.contains_key(&number) {
            number = number::ENDPOINT | number.wrapping_add(1);
        }
        taken.insert(number, addr);
    }
    taken.into_iter().map(|(number, addr)| (addr, number)).collect()
}
