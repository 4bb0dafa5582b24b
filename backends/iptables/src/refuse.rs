//! What the table filter does with packets to a service that were not translated. Pure.

use fairlead_plan::{Action, Frontend, Protocol, Route, Service};

use crate::name;
use crate::render::{Setting, find, has_external, has_internal, number_of, ranges};
use crate::rules::{Chain, Rule, Table, Target};

/// What happens to packets to a frontend that are not forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Refusal {
    /// All are forwarded.
    None,
    /// All others alike.
    Alike(Action),
    /// By origin, in a chain.
    Split,
}

fn refusal(setting: &Setting, route: &Route) -> Refusal {
    // What is forwarded was translated and never gets here.
    let mut refused = setting.origins.actions(route).filter(|action| !matches!(action, Action::Forward { .. }));
    match refused.next() {
        None => Refusal::None,
        Some(first) if refused.all(|other| other == first) => Refusal::Alike(first),
        Some(_) => Refusal::Split,
    }
}

/// The target for an action that is not forwarding.
fn target(action: Action, protocol: Protocol) -> Target {
    match action {
        Action::Forward { .. } => Target::Return,
        Action::Drop => Target::Drop,
        // Answers by ICMP are limited to a few in a second; a reset is not.
        Action::Reject if protocol == Protocol::Tcp => Target::Reset,
        Action::Reject => Target::Reject,
    }
}

/// A reset can only be asked for in a rule that names TCP.
fn rule(action: Action, protocol: Protocol) -> Rule {
    Rule::to(target(action, protocol)).of(protocol)
}

/// The rule that refuses packets to this frontend; `None` if none can get there.
pub fn dispatch(setting: &Setting, service: &Service, frontend: &Frontend) -> Option<Rule> {
    let protocol = service.key.protocol;
    let route = service.route(frontend);
    let refusal = refusal(setting, route);
    if let Frontend::LoadBalancer { allow, .. } = frontend
        && !allow.is_empty()
    {
        let rule = match refusal {
            Refusal::None | Refusal::Alike(Action::Drop) => Rule::to(Target::Drop),
            _ => Rule::jump(name::ranges(&service.key, number_of(service, allow))),
        };
        return Some(find(rule, service, frontend, " loadbalancer IP, for other sources"));
    }
    let split = || match frontend {
        Frontend::ClusterIp(_) => name::internal(&service.key),
        _ => name::external(&service.key),
    };
    let words = match service.pools.cluster.is_empty() {
        true => " has no endpoints",
        false => " has no local endpoints",
    };
    let rule = match refusal {
        Refusal::None => return None,
        Refusal::Alike(action) => Rule::to(target(action, protocol)),
        Refusal::Split => Rule::jump(split()),
    };
    Some(find(rule, service, frontend, words))
}

/// The chains of a service in the table filter: only where origins or ranges differ.
pub fn chains(setting: &Setting, service: &Service) -> Vec<Chain> {
    let protocol = service.key.protocol;
    let mut chains = Vec::new();
    let mut split = |name: String, route: &Route| {
        if refusal(setting, route) == Refusal::Split {
            let rules = setting.origins.split(route, |action| vec![rule(action, protocol)]);
            chains.push(Chain::new(Table::Filter, name, rules));
        }
    };
    if has_internal(service) {
        split(name::internal(&service.key), &service.internal);
    }
    if has_external(service) {
        split(name::external(&service.key), &service.external);
    }
    for (number, allow) in ranges(service).into_iter().enumerate() {
        let refused = match refusal(setting, &service.external) {
            Refusal::None | Refusal::Alike(Action::Drop) => continue,
            Refusal::Alike(action) => rule(action, protocol),
            Refusal::Split => Rule::jump(name::external(&service.key)),
        };
        let mut rules: Vec<Rule> = allow.iter().map(|net| refused.clone().coming_from(*net, false)).collect();
        rules.push(Rule::to(Target::Drop));
        chains.push(Chain::new(Table::Filter, name::ranges(&service.key, number), rules));
    }
    chains
}
