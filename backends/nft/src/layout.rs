//! The names of everything constant in fairlead's tables, and the numbers that travel in `meta priority`.

use std::sync::LazyLock;

use fairlead_plan::{Origin, Pool, ServiceKey};

use crate::rules::{Field, Kind, Name, Set, Value};

/// The name of our table, in the families `ip` and `ip6`.
pub const TABLE: &str = "fairlead";

/// Where the slots of [`Pool::Local`] begin in the map of endpoints; also how many slots a pool can have.
pub const LOCAL_SLOTS: u32 = 32_768;

/// By what a frontend is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Keyspace {
    /// Protocol, destination address, port.
    Address,
    /// Protocol and port, on the node's own addresses.
    NodePort,
}

impl Keyspace {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Address, Self::NodePort];

    /// The key of a frontend as fields of a packet.
    pub fn fields(self) -> Vec<Field> {
        match self {
            Self::Address => vec![Field::L4Proto, Field::Daddr, Field::Dport],
            Self::NodePort => vec![Field::L4Proto, Field::Dport],
        }
    }

    const fn prefix(self) -> &'static str {
        match self {
            Self::Address => "",
            Self::NodePort => "np-",
        }
    }
}

/// The names of the constant sets and maps.
pub struct Names {
    frontends: [Name; 2],
    from: [[Name; 3]; 2],
    endpoints: [Name; 2],
    /// Addresses whose unused ports are refused.
    pub cluster_ips: Name,
    /// Prefixes in which what belongs to no service is dropped.
    pub service_cidrs: Name,
    /// Sources that are pods.
    pub pod_cidrs: Name,
    /// Addresses on which node ports answer.
    pub node_port_addresses: Name,
    /// Frontends that only some sources may use.
    pub restricted: Name,
    /// Those sources.
    pub allowed: Name,
    /// Local endpoints that may reach themselves.
    pub hairpin: Name,
    /// Blocks of 256 addresses in which there are TCP endpoints.
    pub tcp_blocks: Name,
    /// Protocol and port of TCP endpoints.
    pub tcp_ports: Name,
    /// From number to verdict.
    pub actions: Name,
}

/// The one instance.
pub static NAMES: LazyLock<Names> = LazyLock::new(|| {
    let from =
        |space: Keyspace| Origin::ALL.map(|origin| format!("{}from-{}", space.prefix(), origin_name(origin)).into());
    Names {
        frontends: Keyspace::BOTH.map(|space| format!("{}frontends", space.prefix()).into()),
        from: Keyspace::BOTH.map(from),
        endpoints: Keyspace::BOTH.map(|space| format!("{}endpoints", space.prefix()).into()),
        cluster_ips: "cluster-ips".into(),
        service_cidrs: "service-cidrs".into(),
        pod_cidrs: "pod-cidrs".into(),
        node_port_addresses: "node-port-addresses".into(),
        restricted: "restricted".into(),
        allowed: "allowed".into(),
        hairpin: "hairpin".into(),
        tcp_blocks: "tcp-endpoint-blocks".into(),
        tcp_ports: "tcp-endpoint-ports".into(),
        actions: "actions".into(),
    }
});

impl Names {
    /// The map from frontend to action, of frontends that lead packets of every origin to the same place: nearly all.
    pub fn frontends(&self, space: Keyspace) -> &Name {
        &self.frontends[space as usize]
    }

    /// The map from frontend to action for packets of this origin, of frontends that lead each origin elsewhere.
    pub fn from(&self, space: Keyspace, origin: Origin) -> &Name {
        &self.from[space as usize][origin as usize]
    }

    /// The map from frontend and slot to endpoint.
    pub fn endpoints(&self, space: Keyspace) -> &Name {
        &self.endpoints[space as usize]
    }
}

/// How origins are called in names.
pub const fn origin_name(origin: Origin) -> &'static str {
    match origin {
        Origin::Pod => "pod",
        Origin::Node => "node",
        Origin::Outside => "outside",
    }
}

/// How pools are called in names.
pub const fn pool_name(pool: Pool) -> &'static str {
    match pool {
        Pool::Cluster => "cluster",
        Pool::Local => "local",
    }
}

/// What to do with a packet, as a number that a data map can hold.
///
/// Data elements cost the kernel a few microseconds, verdict elements a walk over the table; so frontends map to numbers. Rules
/// lead from there to pools of usual sizes, and the small map `actions` to what is rare.
pub mod number {
    use std::net::SocketAddr;

    use super::{Keyspace, Origin, Pool, ServiceKey};
    use crate::element::Bytes;

    const MASQUERADE_PODS: u32 = 1 << 28;
    const MASQUERADE_OTHERS: u32 = 1 << 29;
    /// Whose source is translated as well. Not part of the look-up in `actions`.
    pub const MASQUERADE: u32 = MASQUERADE_PODS | MASQUERADE_OTHERS;
    const NODE_PORT: u32 = 1 << 27;
    /// In every number of a pool: one without any bit would be shown by `nft` as no handle at all.
    const POOL: u32 = 1 << 26;
    const LOCAL: u32 = 1 << 30;
    const STICKY: u32 = 1 << 31;
    /// Set in every number that names an endpoint in an affinity map, and in no priority that other programs use.
    pub const ENDPOINT: u32 = 1 << 31;
    /// Tell the sender that nobody is there.
    pub const REFUSE: u32 = 0x0fff_fff1;
    /// Do not answer.
    pub const DROP: u32 = 0x0fff_fff2;

    /// The source of packets of this origin is translated as well.
    pub const fn masquerade(origin: Origin) -> u32 {
        match origin {
            Origin::Pod => MASQUERADE_PODS,
            Origin::Node | Origin::Outside => MASQUERADE_OTHERS,
        }
    }

    const fn pool_bit(pool: Pool) -> u32 {
        match pool {
            Pool::Cluster => 0,
            Pool::Local => LOCAL,
        }
    }

    /// One of `count` slots of a pool, at random.
    pub const fn spread(space: Keyspace, pool: Pool, count: u32) -> u32 {
        let space = match space {
            Keyspace::Address => 0,
            Keyspace::NodePort => NODE_PORT,
        };
        POOL | space | pool_bit(pool) | count
    }

    /// The chain of this service that remembers clients.
    pub fn sticky(pool: Pool, key: &ServiceKey) -> u32 {
        STICKY | pool_bit(pool) | (fnv(super::suffix(key).as_bytes()) & 0x0fff_ffff)
    }

    /// The number by which a client's endpoint is remembered, as far as no two endpoints of a service collide.
    pub fn of_endpoint(addr: SocketAddr) -> u32 {
        ENDPOINT | fnv(Bytes::EMPTY.socket(addr).as_slice())
    }

    /// FNV-1a: small, and the same on every node and in every release, as what the kernel holds outlives us.
    fn fnv(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193))
    }
}

/// How a service port is called in names of its own chains and maps.
pub fn suffix(key: &ServiceKey) -> String {
    format!("{}/{}/{}/{}", key.namespace, key.name, key.protocol, key.port_name)
}

/// The chain that picks a slot at random, for pools of usual sizes.
pub fn usual_chain(space: Keyspace, pool: Pool) -> Name {
    format!("{}{}", space.prefix(), pool_name(pool)).into()
}

/// The chain that picks one of `count` slots at random.
pub fn spread_chain(space: Keyspace, pool: Pool, count: u32) -> Name {
    format!("{}{}-{count}", space.prefix(), pool_name(pool)).into()
}

const ADDRESS_KEY: &[Kind] = &[Kind::Proto, Kind::Addr, Kind::Port];
const NODE_PORT_KEY: &[Kind] = &[Kind::Proto, Kind::Port];
const ADDRESS_SLOT: &[Kind] = &[Kind::Proto, Kind::Addr, Kind::Port, Kind::Index];
const NODE_PORT_SLOT: &[Kind] = &[Kind::Proto, Kind::Port, Kind::Index];
const ANY_SLOT: Field = Field::Random { modulus: 65_536, offset: 0 };
const ADDRESS_SLOT_FIELDS: &[Field] = &[Field::L4Proto, Field::Daddr, Field::Dport, ANY_SLOT];
const NODE_PORT_SLOT_FIELDS: &[Field] = &[Field::L4Proto, Field::Dport, ANY_SLOT];
/// An endpoint: what `dnat` takes.
pub const ENDPOINT: &[Kind] = &[Kind::Addr, Kind::Port];
const NUMBER: &[Kind] = &[Kind::Number];

/// Declarations of the constant sets and maps. The kernel finds one by going through all before it, so what changes most stands
/// first.
pub fn sets() -> Vec<Set> {
    let names = &*NAMES;
    let frontends = |space| Set::new(Name::clone(names.frontends(space)), key(space), Value::Data(NUMBER));
    let endpoints = |space| {
        let (slot, fields) = match space {
            Keyspace::Address => (ADDRESS_SLOT, ADDRESS_SLOT_FIELDS),
            Keyspace::NodePort => (NODE_PORT_SLOT, NODE_PORT_SLOT_FIELDS),
        };
        Set::new(Name::clone(names.endpoints(space)), slot, Value::Data(ENDPOINT)).type_of(fields)
    };
    let from = |space| {
        let map = move |origin| Set::new(Name::clone(names.from(space, origin)), key(space), Value::Data(NUMBER));
        Origin::ALL.map(map)
    };
    let addr: &[Kind] = &[Kind::Addr];
    let set = |name: &Name, key| Set::new(Name::clone(name), key, Value::None);
    let mut sets = vec![
        endpoints(Keyspace::Address),
        frontends(Keyspace::Address),
        set(&names.cluster_ips, addr),
        endpoints(Keyspace::NodePort),
        frontends(Keyspace::NodePort),
        set(&names.tcp_blocks, addr),
        set(&names.tcp_ports, NODE_PORT_KEY),
        set(&names.hairpin, &[Kind::Addr, Kind::Addr]),
    ];
    sets.extend(Keyspace::BOTH.into_iter().flat_map(from));
    sets.extend([
        set(&names.service_cidrs, addr).intervals(),
        set(&names.pod_cidrs, addr).intervals(),
        set(&names.node_port_addresses, addr).intervals(),
        set(&names.restricted, ADDRESS_KEY),
        set(&names.allowed, &[Kind::Proto, Kind::Addr, Kind::Port, Kind::Addr]).intervals(),
        Set::new(Name::clone(&names.actions), NUMBER, Value::Verdict),
    ]);
    sets
}

const fn key(space: Keyspace) -> &'static [Kind] {
    match space {
        Keyspace::Address => ADDRESS_KEY,
        Keyspace::NodePort => NODE_PORT_KEY,
    }
}
