//! A service port as people and scripts look at it.

use std::net::SocketAddr;

use fairlead_plan::{Action, Frontend, FrontendAddr, Origin, Pool, Route, Service};
use serde::{Deserialize, Serialize};

use crate::explain::{kind, name};

/// A service port in one family.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceView {
    /// `namespace/name:port`
    pub name: String,
    /// `tcp`, `udp` or `sctp`.
    pub protocol: String,
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// By which addresses it is reached.
    pub frontends: Vec<FrontendView>,
    /// For how many seconds a client goes to the endpoint that it went to last; `None` if it may go to another each time.
    pub affinity_seconds: Option<u32>,
    /// Where packets may go.
    pub endpoints: Vec<EndpointView>,
    /// Connections that have begun through it since the start of the program; `None` without `--service-counters`.
    #[serde(default)]
    pub connections: Option<u64>,
}

/// A way in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrontendView {
    /// What it is called in Services.
    pub kind: String,
    /// Address and port, or the port on this node's addresses.
    pub address: String,
    /// The sources that may use it; empty for all.
    pub allow: Vec<String>,
    /// What happens to packets of pods, of this node, and of others.
    pub policy: [String; 3],
}

/// Where packets may go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointView {
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it is on this node.
    pub local: bool,
}

impl ServiceView {
    /// Of the plan.
    #[must_use]
    pub fn of(service: &Service) -> Self {
        let mut endpoints: Vec<EndpointView> = service
            .endpoints()
            .map(|endpoint| EndpointView { address: endpoint.addr(), local: endpoint.local })
            .collect();
        endpoints.sort_by_key(|endpoint| endpoint.address);
        endpoints.dedup();
        Self {
            name: name(&service.key),
            protocol: service.key.protocol.name().to_owned(),
            family: service.key.family.label().to_owned(),
            frontends: service.frontends.iter().map(|frontend| FrontendView::of(service, frontend)).collect(),
            affinity_seconds: service.affinity.map(|affinity| affinity.timeout_seconds),
            endpoints,
            connections: None,
        }
    }

    /// What all of its frontends do, in a word for each that is different.
    #[must_use]
    pub fn policy(&self) -> String {
        let mut words: Vec<&str> = Vec::new();
        for frontend in &self.frontends {
            // From outside the policy shows; pods and the node may do more.
            let word = frontend.policy[Origin::Outside as usize].split(',').next().unwrap_or_default();
            if !words.contains(&word) {
                words.push(word);
            }
        }
        words.join(" / ")
    }
}

impl FrontendView {
    fn of(service: &Service, frontend: &Frontend) -> Self {
        let allow = match frontend {
            Frontend::LoadBalancer { allow, .. } => allow.iter().map(ToString::to_string).collect(),
            Frontend::ClusterIp(_) | Frontend::ExternalIp(_) | Frontend::NodePort(_) => Vec::new(),
        };
        let address = match frontend.addr() {
            FrontendAddr::Addr(addr) => addr.to_string(),
            FrontendAddr::NodePort(port) => port.to_string(),
        };
        Self { kind: kind(frontend).to_owned(), address, allow, policy: policy(service.route(frontend)) }
    }
}

fn policy(route: &Route) -> [String; 3] {
    Origin::ALL.map(|origin| {
        let masqueraded = |masquerade| if masquerade { ", masqueraded" } else { "" };
        match route.from(origin) {
            Action::Forward { to: Pool::Cluster, masquerade } => format!("Cluster{}", masqueraded(masquerade)),
            Action::Forward { to: Pool::Local, masquerade } => format!("Local{}", masqueraded(masquerade)),
            Action::Reject => "rejected".to_owned(),
            Action::Drop => "dropped".to_owned(),
        }
    })
}
