//! What one family's tables shall hold for a plan, and what changes from one plan to the next. Pure.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_plan::{Change, Family, Frontend, FrontendAddr, Node, Plan, Protocol, Service};

use crate::dispatch::{self, Place};
use crate::render::{self, Setting};
use crate::rules::{Chain, Rule, Table, host};
use crate::{name, refuse, structure};

/// A chain under which packets are shared out by destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Root {
    /// `nat`: translated by address.
    Services,
    /// `nat`: translated by node port.
    NodePorts,
    /// `filter`: ClusterIPs that refuse.
    Refused,
    /// `filter`: unused ports of ClusterIPs.
    Unused,
    /// `filter`: other addresses that refuse.
    RefusedExternal,
    /// `filter`: node ports that refuse.
    RefusedNodePorts,
    /// `filter`: addresses that are closed to some sources.
    Closed,
}

impl Root {
    const ALL: [Self; 7] = [
        Self::Services,
        Self::NodePorts,
        Self::Refused,
        Self::Unused,
        Self::RefusedExternal,
        Self::RefusedNodePorts,
        Self::Closed,
    ];

    const fn place(self) -> (Table, &'static str) {
        match self {
            Self::Services => (Table::Nat, name::SERVICES),
            Self::NodePorts => (Table::Nat, name::NODE_PORTS),
            Self::Refused => (Table::Filter, name::SERVICES),
            Self::Unused => (Table::Filter, name::CLUSTER_IPS),
            Self::RefusedExternal => (Table::Filter, name::EXTERNAL_SERVICES),
            Self::RefusedNodePorts => (Table::Filter, name::NODE_PORTS),
            Self::Closed => (Table::Filter, name::FIREWALL),
        }
    }

    /// How the names of its branches begin, different for all in one table.
    const fn branches(self) -> &'static str {
        match self {
            Self::Services | Self::Refused => name::CLUSTER,
            Self::NodePorts | Self::RefusedExternal => name::EXTERNAL,
            Self::Unused => name::CLUSTER_IP,
            Self::RefusedNodePorts => name::LOCAL,
            Self::Closed => name::RANGES,
        }
    }
}

/// Why there is a rule in a dispatch.
#[derive(Debug, Clone)]
enum Leaf {
    /// A frontend of a service, by its number.
    Frontend(Arc<Service>, usize),
    /// The unused ports of a ClusterIP that so many service ports have.
    ClusterIp(IpAddr, usize),
}

/// Chains by table and name.
pub type Chains = BTreeMap<(Table, String), Vec<Rule>>;

/// What is to be done to chains.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// To make.
    pub new: Chains,
    /// To fill anew.
    pub changed: Chains,
    /// To remove.
    pub remove: BTreeSet<(Table, String)>,
}

impl Changes {
    /// Nothing.
    pub fn is_empty(&self) -> bool {
        self.new.is_empty() && self.changed.is_empty() && self.remove.is_empty()
    }
}

/// What a family's tables shall hold.
#[derive(Debug)]
pub struct Desired {
    /// Which family.
    pub family: Family,
    node: Arc<Node>,
    setting: Setting,
    sctp: bool,
    leaves: BTreeMap<Root, BTreeMap<Place, Leaf>>,
    /// Chains of the dispatch: a number for their content, and how many rules.
    dispatched: HashMap<(Root, String), (u64, usize)>,
    /// By table.
    rules: [usize; 2],
}

impl Desired {
    /// For a whole plan; every chain goes through `each`. Without `sctp` services of SCTP are left out.
    pub fn whole(plan: &Plan, family: Family, sctp: bool, mut each: impl FnMut(Chain)) -> Self {
        let mut desired = Self {
            family,
            node: Arc::clone(&plan.node),
            setting: Setting::new(family, &plan.node),
            sctp,
            leaves: Root::ALL.map(|root| (root, BTreeMap::new())).into(),
            dispatched: HashMap::new(),
            rules: Table::BOTH.map(|table| structure::jumps().iter().filter(|jump| jump.table == table).count()),
        };
        for chain in structure::constant(family, &plan.node) {
            desired.rules[chain.table as usize] += chain.rules.len();
            each(chain);
        }
        for service in plan.services.iter() {
            if desired.has(service) {
                for chain in render::chains(&desired.setting, service) {
                    desired.rules[chain.table as usize] += chain.rules.len();
                    each(chain);
                }
                desired.insert(service, &mut BTreeSet::new());
            }
        }
        let dispatch = desired.dispatch(&Root::ALL.into());
        dispatch.new.into_iter().for_each(|((table, name), rules)| each(Chain { table, name, rules }));
        desired
    }

    /// How many rules that is, by table.
    pub fn rules(&self) -> [u64; 2] {
        self.rules.map(|rules| rules as u64)
    }

    fn has(&self, service: &Service) -> bool {
        service.key.family == self.family && (self.sctp || service.key.protocol != Protocol::Sctp)
    }

    /// Goes on to the next plan.
    pub fn step(&mut self, changes: &[Change<'_>]) -> Changes {
        let mut all = Changes::default();
        let mut dirty = BTreeSet::new();
        let ours: Vec<Change<'_>> = changes
            .iter()
            .map(|Change { was, now }| Change { was: was.filter(|s| self.has(s)), now: now.filter(|s| self.has(s)) })
            .collect();
        let (found_alike, others): (Vec<&Change<'_>>, Vec<&Change<'_>>) = ours
            .iter()
            .partition(|Change { was, now }| was.zip(*now).is_some_and(|(was, now)| self.is_found_alike(was, now)));
        for now in found_alike.into_iter().filter_map(|change| change.now) {
            for (root, place, number) in self.places(now) {
                self.tree(root).insert(place, Leaf::Frontend(Arc::clone(now), number));
            }
        }
        // An address may pass from one service to another.
        for was in others.iter().filter_map(|change| change.was) {
            self.remove(was, &mut dirty);
        }
        for now in others.iter().filter_map(|change| change.now) {
            self.insert(now, &mut dirty);
        }
        for Change { was, now } in &ours {
            self.chains(*was, *now, &mut all);
        }
        let dispatch = self.dispatch(&dirty);
        all.new.extend(dispatch.new);
        all.changed.extend(dispatch.changed);
        all.remove.extend(dispatch.remove);
        all
    }

    fn chains(&mut self, was: Option<&Arc<Service>>, now: Option<&Arc<Service>>, all: &mut Changes) {
        let render = |service: Option<&Arc<Service>>| {
            let chains = service.map(|service| render::chains(&self.setting, service)).unwrap_or_default();
            chains.into_iter().map(|chain| ((chain.table, chain.name), chain.rules)).collect::<BTreeMap<_, _>>()
        };
        let (old, new) = (render(was), render(now));
        for ((table, _), rules) in &new {
            self.rules[*table as usize] += rules.len();
        }
        for ((table, _), rules) in &old {
            self.rules[*table as usize] -= rules.len();
        }
        all.remove.extend(old.keys().filter(|key| !new.contains_key(*key)).cloned());
        for (key, rules) in new {
            match old.get(&key) {
                None => all.new.insert(key, rules),
                Some(was) if *was != rules => all.changed.insert(key, rules),
                Some(_) => None,
            };
        }
    }

    /// Whether the rules that find a service stay as they are, as when it only changes endpoints: with 10,000 services it takes
    /// 50 ms to render all of a dispatch.
    fn is_found_alike(&self, was: &Arc<Service>, now: &Arc<Service>) -> bool {
        let rules = |service: &Arc<Service>| {
            let rule = |(root, place, number)| {
                (root, place, number, self.leaf(root, &Leaf::Frontend(Arc::clone(service), number)))
            };
            self.places(service).into_iter().map(rule).collect::<Vec<_>>()
        };
        was.frontends == now.frontends && rules(was) == rules(now)
    }

    /// Where a service has rules in the dispatch.
    fn places(&self, service: &Service) -> Vec<(Root, Place, usize)> {
        let mut all = Vec::new();
        for (number, frontend) in service.frontends.iter().enumerate() {
            let internal = matches!(frontend, Frontend::ClusterIp(_));
            let closed = matches!(frontend, Frontend::LoadBalancer { allow, .. } if !allow.is_empty());
            let (ip, port, translate, refuse) = match frontend.addr() {
                FrontendAddr::Addr(addr) if internal => (Some(addr.ip()), addr.port(), Root::Services, Root::Refused),
                FrontendAddr::Addr(addr) if closed => (Some(addr.ip()), addr.port(), Root::Services, Root::Closed),
                FrontendAddr::Addr(addr) => (Some(addr.ip()), addr.port(), Root::Services, Root::RefusedExternal),
                FrontendAddr::NodePort(port) => (None, port, Root::NodePorts, Root::RefusedNodePorts),
            };
            let place = Place { ip, port: Some((service.key.protocol, port)) };
            all.push((translate, place, number));
            if refuse::dispatch(&self.setting, service, frontend).is_some() {
                all.push((refuse, place, number));
            }
        }
        all
    }

    fn insert(&mut self, service: &Arc<Service>, dirty: &mut BTreeSet<Root>) {
        for (root, place, number) in self.places(service) {
            dirty.insert(root);
            self.tree(root).insert(place, Leaf::Frontend(Arc::clone(service), number));
        }
        for ip in service.cluster_ips() {
            let leaf = self.tree(Root::Unused).entry(unused(ip)).or_insert(Leaf::ClusterIp(ip, 0));
            if let Leaf::ClusterIp(_, users) = leaf {
                *users += 1;
                if *users == 1 {
                    dirty.insert(Root::Unused);
                }
            }
        }
    }

    fn remove(&mut self, service: &Service, dirty: &mut BTreeSet<Root>) {
        for (root, place, _) in self.places(service) {
            dirty.insert(root);
            self.tree(root).remove(&place);
        }
        for ip in service.cluster_ips() {
            let tree = self.tree(Root::Unused);
            let last = match tree.get_mut(&unused(ip)) {
                Some(Leaf::ClusterIp(_, users)) => {
                    *users -= 1;
                    *users == 0
                }
                _ => false,
            };
            if last {
                tree.remove(&unused(ip));
                dirty.insert(Root::Unused);
            }
        }
    }

    fn tree(&mut self, root: Root) -> &mut BTreeMap<Place, Leaf> {
        self.leaves.entry(root).or_default()
    }

    fn leaf(&self, root: Root, leaf: &Leaf) -> Rule {
        match leaf {
            Leaf::ClusterIp(ip, _) => Rule::jump(name::REJECT).going_to(host(*ip)),
            Leaf::Frontend(service, number) => {
                let frontend = &service.frontends[*number];
                let translate = || render::dispatch(&self.setting, service, frontend);
                match root {
                    Root::Services | Root::NodePorts => translate(),
                    _ => refuse::dispatch(&self.setting, service, frontend).unwrap_or_else(translate),
                }
            }
        }
    }

    /// All chains of one dispatch.
    fn render(&self, root: Root) -> Vec<Chain> {
        let (table, chain) = root.place();
        let sorted: Vec<(Place, &Leaf)> = self.leaves[&root].iter().map(|(place, leaf)| (*place, leaf)).collect();
        let (between, mut chains) = dispatch::tree(table, root.branches(), &sorted, &|leaf| self.leaf(root, leaf));
        let mut rules = structure::frame(self.family, &self.node, table, chain);
        rules.head.extend(between);
        rules.head.extend(rules.tail);
        chains.push(Chain::new(table, chain, rules.head));
        chains
    }

    /// What is different in these dispatches since the last time.
    fn dispatch(&mut self, dirty: &BTreeSet<Root>) -> Changes {
        let mut all = Changes::default();
        for root in dirty {
            let mut seen = BTreeSet::new();
            for Chain { table, name, rules } in self.render(*root) {
                let now = (number(&rules), rules.len());
                let was = self.dispatched.insert((*root, name.clone()), now);
                let count = &mut self.rules[table as usize];
                *count = *count + now.1 - was.map_or(0, |(_, rules)| rules);
                seen.insert(name.clone());
                match was {
                    None => all.new.insert((table, name), rules),
                    Some((was, _)) if was != now.0 => all.changed.insert((table, name), rules),
                    Some(_) => None,
                };
            }
            let gone: Vec<_> =
                self.dispatched.keys().filter(|(of, name)| of == root && !seen.contains(name)).cloned().collect();
            for key in gone {
                let (table, _) = root.place();
                self.rules[table as usize] -= self.dispatched.remove(&key).map_or(0, |(_, rules)| rules);
                all.remove.insert((table, key.1));
            }
        }
        all
    }
}

const fn unused(ip: IpAddr) -> Place {
    Place { ip: Some(ip), port: None }
}

fn number(rules: &[Rule]) -> u64 {
    let mut hasher = DefaultHasher::new();
    rules.hash(&mut hasher);
    hasher.finish()
}
