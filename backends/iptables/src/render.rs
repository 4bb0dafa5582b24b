//! The chains of one service. Pure.

use std::collections::BTreeSet;

use fairlead_plan::{Action, Endpoint, Family, Frontend, Node, Pool, Route, Service};
use ipnet::IpNet;

use crate::name;
use crate::origin::Origins;
use crate::rules::{Chain, Match, Rule, Table, Target, host};

/// What rendering needs to know besides the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Setting {
    /// Which addresses there are.
    pub family: Family,
    /// How origins are told apart.
    pub origins: Origins,
}

impl Setting {
    /// For one family on this node.
    pub fn new(family: Family, node: &Node) -> Self {
        Self { family, origins: Origins::new(family, node) }
    }
}

/// How packets get from a ClusterIP to the endpoints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Inner {
    /// Straight to this pool's chain, in which those are marked that need it.
    Straight(Pool, Marked),
    /// Through a chain that tells origins apart.
    Split,
    /// Not at all.
    Nowhere,
}

/// Who is masqueraded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Marked {
    Nobody,
    Everybody,
    AllButPods,
}

/// All chains of a service, in both tables.
pub fn chains(setting: &Setting, service: &Service) -> Vec<Chain> {
    let mut chains = Vec::new();
    let inner = inner(setting, service);
    if has_internal(service) && inner == Inner::Split {
        chains.push(Chain::new(Table::Nat, name::internal(&service.key), entry(setting, service, &service.internal)));
    }
    if has_external(service) && forwards(setting, &service.external) {
        chains.push(Chain::new(Table::Nat, name::external(&service.key), entry(setting, service, &service.external)));
        for (number, ranges) in ranges(service).into_iter().enumerate() {
            chains.push(allowed(service, number, ranges));
        }
    }
    for pool in pools(setting, service) {
        let mut rules = marks(setting, service, inner, pool);
        rules.extend(picks(service, pool));
        chains.push(Chain::new(Table::Nat, name::pool(&service.key, pool), rules));
    }
    chains.extend(endpoints(setting, service));
    chains.extend(crate::refuse::chains(setting, service));
    chains
}

/// The rule of `KUBE-SERVICES` or `KUBE-NODEPORTS` in the table nat that finds a frontend.
pub fn dispatch(setting: &Setting, service: &Service, frontend: &Frontend) -> Rule {
    let key = &service.key;
    let to = match frontend {
        _ if !forwards(setting, service.route(frontend)) => None,
        Frontend::ClusterIp(_) => match inner(setting, service) {
            Inner::Straight(pool, _) => Some(name::pool(key, pool)),
            Inner::Split => Some(name::internal(key)),
            Inner::Nowhere => None,
        },
        Frontend::LoadBalancer { allow, .. } if !allow.is_empty() => Some(name::ranges(key, number_of(service, allow))),
        _ => Some(name::external(key)),
    };
    // What is refused or dropped is so in the table filter; a node port of the same number must not take it.
    let rule = Rule::to(to.map_or(Target::Accept, Target::Jump));
    find(rule, service, frontend, kind(frontend))
}

/// What kube-proxy says of a kind of frontend.
pub const fn kind(frontend: &Frontend) -> &'static str {
    match frontend {
        Frontend::ClusterIp(_) => " cluster IP",
        Frontend::ExternalIp(_) => " external IP",
        Frontend::LoadBalancer { .. } => " loadbalancer IP",
        Frontend::NodePort(_) => "",
    }
}

/// The rule for packets to this frontend.
pub fn find(rule: Rule, service: &Service, frontend: &Frontend, words: &str) -> Rule {
    let key = &service.key;
    let rule = rule.says(format!("{}{words}", name::service_port(key)));
    match frontend.addr() {
        fairlead_plan::FrontendAddr::Addr(addr) => rule.going_to(host(addr.ip())).port(key.protocol, addr.port()),
        fairlead_plan::FrontendAddr::NodePort(port) => rule.port(key.protocol, port),
    }
}

/// Whether any packet is forwarded.
pub fn forwards(setting: &Setting, route: &Route) -> bool {
    setting.origins.actions(route).any(|action| matches!(action, Action::Forward { .. }))
}

const fn is_internal(frontend: &Frontend) -> bool {
    matches!(frontend, Frontend::ClusterIp(_))
}

pub fn has_internal(service: &Service) -> bool {
    service.frontends.iter().any(is_internal)
}

pub fn has_external(service: &Service) -> bool {
    !service.frontends.iter().all(is_internal)
}

/// Every different list of sources that its load balancers let in.
pub fn ranges(service: &Service) -> Vec<&[IpNet]> {
    let mut all: Vec<&[IpNet]> = Vec::new();
    for frontend in &service.frontends {
        if let Frontend::LoadBalancer { allow, .. } = frontend
            && !allow.is_empty()
            && !all.contains(&allow.as_slice())
        {
            all.push(allow);
        }
    }
    all
}

pub fn number_of(service: &Service, allow: &[IpNet]) -> usize {
    ranges(service).iter().position(|ranges| *ranges == allow).unwrap_or_default()
}

fn inner(setting: &Setting, service: &Service) -> Inner {
    let mut actions = setting.origins.actions(&service.internal);
    if !forwards(setting, &service.internal) {
        return Inner::Nowhere;
    }
    let Some(Action::Forward { to, .. }) = actions.next() else { return Inner::Split };
    if actions.any(|action| !matches!(action, Action::Forward { to: other, .. } if other == to)) {
        return Inner::Split;
    }
    let masqueraded = |action| matches!(action, Action::Forward { masquerade: true, .. });
    let Route { from_pod, from_node, from_outside } = service.internal;
    let [pod, node, outside] = [from_pod, from_node, from_outside].map(masqueraded);
    // Where pods cannot be told, none comes.
    let pod = if setting.origins.pods.is_empty() { outside } else { pod };
    match (pod, node, outside) {
        (false, false, false) => Inner::Straight(to, Marked::Nobody),
        (true, true, true) => Inner::Straight(to, Marked::Everybody),
        (false, true, true) => Inner::Straight(to, Marked::AllButPods),
        _ => Inner::Split,
    }
}

/// The pools that packets may be sent to.
fn pools(setting: &Setting, service: &Service) -> BTreeSet<Pool> {
    let mut routes = Vec::new();
    routes.extend(has_internal(service).then_some(&service.internal));
    routes.extend(has_external(service).then_some(&service.external));
    let actions = routes.into_iter().flat_map(|route| setting.origins.actions(route));
    actions
        .filter_map(|action| match action {
            Action::Forward { to, .. } => Some(to),
            Action::Reject | Action::Drop => None,
        })
        .collect()
}

/// A chain that tells origins apart.
fn entry(setting: &Setting, service: &Service, route: &Route) -> Vec<Rule> {
    setting.origins.split(route, |action| match action {
        Action::Forward { to, masquerade } => {
            let mark = masquerade.then(|| Rule::jump(name::MARK_MASQ));
            mark.into_iter().chain([Rule::jump(name::pool(&service.key, to))]).collect()
        }
        Action::Reject | Action::Drop => vec![Rule::to(Target::Accept)],
    })
}

/// A chain that lets only some sources in.
fn allowed(service: &Service, number: usize, ranges: &[IpNet]) -> Chain {
    let to = name::external(&service.key);
    let mut rules: Vec<Rule> = ranges.iter().map(|net| Rule::jump(&to).coming_from(*net, false)).collect();
    rules.push(Rule::to(Target::Accept).says("other sources are dropped in KUBE-PROXY-FIREWALL"));
    Chain::new(Table::Nat, name::ranges(&service.key, number), rules)
}

/// The rules at the head of a pool's chain, which external frontends use too.
fn marks(setting: &Setting, service: &Service, inner: Inner, pool: Pool) -> Vec<Rule> {
    let Inner::Straight(to, marked) = inner else { return Vec::new() };
    if to != pool || marked == Marked::Nobody {
        return Vec::new();
    }
    let mark = |frontend| {
        let rule = match (marked, setting.origins.pods.as_slice()) {
            (Marked::AllButPods, [one]) => one.on(Rule::jump(name::MARK_MASQ), true),
            (Marked::AllButPods, [_, ..]) => Rule::jump(name::MARK_NOT_POD),
            _ => Rule::jump(name::MARK_MASQ),
        };
        find(rule, service, frontend, " cluster IP")
    };
    service.frontends.iter().filter(|frontend| is_internal(frontend)).map(mark).collect()
}

/// The rules that pick an endpoint.
fn picks(service: &Service, pool: Pool) -> Vec<Rule> {
    let (key, endpoints) = (&service.key, service.pools.get(pool));
    let mut rules = Vec::new();
    if let Some(affinity) = service.affinity {
        for endpoint in endpoints {
            let list = name::endpoint(key, endpoint.addr());
            let remembered = Match::Remembered { list: list.clone(), seconds: affinity.timeout_seconds };
            rules.push(Rule::jump(list).when(remembered));
        }
    }
    for (number, endpoint) in endpoints.iter().enumerate() {
        let left = endpoints.len() - number;
        let rule = if has_chain(service, endpoint) {
            Rule::jump(name::endpoint(key, endpoint.addr()))
        } else {
            Rule::to(Target::Dnat(endpoint.addr())).of(key.protocol)
        };
        rules.push(if left > 1 { rule.when(Match::OneIn(left)) } else { rule });
    }
    rules
}

/// Only what is more than a translation needs a chain: an endpoint here, which may reach itself, or one that remembers
/// its clients. Ten times fewer chains are what makes a large table load ten times faster.
const fn has_chain(service: &Service, endpoint: &Endpoint) -> bool {
    endpoint.local || service.affinity.is_some()
}

fn endpoints(setting: &Setting, service: &Service) -> Vec<Chain> {
    let pools = pools(setting, service);
    let used: BTreeSet<Endpoint> = pools.into_iter().flat_map(|pool| service.pools.get(pool)).copied().collect();
    let with_chain = used.into_iter().filter(|endpoint| has_chain(service, endpoint));
    with_chain
        .map(|endpoint| {
            let name = name::endpoint(&service.key, endpoint.addr());
            let mut rules = Vec::new();
            if endpoint.local {
                rules.push(Rule::jump(name::MARK_MASQ).coming_from(host(endpoint.addr().ip()), false));
            }
            let mut dnat = Rule::to(Target::Dnat(endpoint.addr())).of(service.key.protocol);
            if service.affinity.is_some() {
                dnat = dnat.when(Match::Remember(name.clone()));
            }
            rules.push(dnat);
            Chain::new(Table::Nat, name, rules)
        })
        .collect()
}
