//! Where a packet comes from, as matches of rules.

use fairlead_kernel::xtables::{Interface, Net};
use fairlead_plan::{Action, Family, LocalTraffic, Node, Origin, Route};

use crate::rules::{Match, Rule};

/// One way of recognising a packet of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromPod {
    Source(ipnet::IpNet),
    Interface { name: String, prefix: bool },
}

impl FromPod {
    /// The rule for packets that it recognises, or with `negated` for all others.
    pub fn on(&self, mut rule: Rule, negated: bool) -> Rule {
        match self {
            Self::Source(net) => rule.source = Some(Net { net: *net, negated }),
            Self::Interface { name, prefix } => {
                rule.interface = Some(Interface { name: name.clone(), prefix: *prefix, negated });
            }
        }
        rule
    }
}

/// The origins of packets of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origins {
    /// Any of these means a pod.
    pub pods: Vec<FromPod>,
}

impl Origins {
    /// As this node can tell them apart.
    pub fn new(family: Family, node: &Node) -> Self {
        let pods = match &node.local_traffic {
            LocalTraffic::Unknown => Vec::new(),
            LocalTraffic::Sources(nets) => {
                let of_family = nets.iter().filter(|net| Family::of(net.addr()) == family);
                of_family.map(|net| FromPod::Source(*net)).collect()
            }
            LocalTraffic::Interface(name) => vec![FromPod::Interface { name: name.clone(), prefix: false }],
            LocalTraffic::InterfacePrefix(name) => vec![FromPod::Interface { name: name.clone(), prefix: true }],
        };
        Self { pods }
    }

    /// Rules that do with each origin what `rules` makes of its action. What it makes must end the packet's way through
    /// the chain.
    pub fn split(&self, route: &Route, rules: impl Fn(Action) -> Vec<Rule>) -> Vec<Rule> {
        let [pod, node, outside] = Origin::ALL.map(|origin| route.from(origin));
        let mut all = Vec::new();
        // A pod is asked for first: a packet may look like both.
        if pod != outside || node != outside {
            for from in &self.pods {
                all.extend(rules(pod).into_iter().map(|rule| from.on(rule, false)));
            }
        }
        if node != outside {
            let from_here = |mut rule: Rule| {
                rule.matches.insert(0, Match::FromHere);
                rule
            };
            all.extend(rules(node).into_iter().map(from_here));
        }
        all.extend(rules(outside));
        all
    }

    /// The actions of origins that packets can have.
    pub fn actions<'r>(&self, route: &'r Route) -> impl Iterator<Item = Action> + use<'r> {
        let without_pods = usize::from(self.pods.is_empty());
        Origin::ALL.into_iter().skip(without_pods).map(|origin| route.from(origin))
    }
}
