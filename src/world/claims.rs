use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;
use std::sync::Arc;

use fairlead_plan::{Family, Frontend, FrontendAddr, Protocol, ServiceKey};

use crate::object::{Kind, ObjectName};
use crate::resolve::{Note, ObjectRef, PortModel, ServiceModel};

/// What only one service port can have: a packet's protocol and destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct Claim {
    protocol: Protocol,
    family: Family,
    addr: FrontendAddr,
}

impl Claim {
    fn of(key: &ServiceKey, frontend: &Frontend) -> Self {
        Self { protocol: key.protocol, family: key.family, addr: frontend.addr() }
    }
}

/// How good a claim is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Strength {
    /// The API server has allocated the address to this Service.
    Allocated,
    /// Somebody has written it into the Service.
    Written,
}

/// The first one in order wins.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Claimant {
    strength: Strength,
    /// A Service without creation time is younger than any other.
    ageless: bool,
    created: Option<Box<str>>,
    key: Arc<ServiceKey>,
}

/// Who owns which frontend.
#[derive(Debug, Default)]
pub(super) struct Claims {
    /// Not sorted, as the names of [`super::store`] are not: each change looks here.
    claimants: HashMap<Claim, Vec<Claimant>>,
}

impl Claims {
    /// Replaces the claims of a Service. Gives back the other Services that may have won or lost something by it.
    pub(super) fn replace(&mut self, was: Option<&ServiceModel>, now: Option<&ServiceModel>) -> BTreeSet<ObjectName> {
        let (was, now) = (wanted(was), wanted(now));
        let mut touched = BTreeSet::new();
        for (claim, claimant) in was.iter().filter(|entry| !now.contains(entry)) {
            if let Some(claimants) = self.claimants.get_mut(claim) {
                claimants.retain(|other| other != claimant);
                touched.extend(claimants.iter().map(|other| name_of(&other.key)));
                if claimants.is_empty() {
                    self.claimants.remove(claim);
                }
            }
        }
        for (claim, claimant) in now.into_iter().filter(|entry| !was.contains(entry)) {
            let claimants = self.claimants.entry(claim).or_insert_with(|| Vec::with_capacity(1));
            touched.extend(claimants.iter().map(|other| name_of(&other.key)));
            let at = claimants.partition_point(|other| *other < claimant);
            claimants.insert(at, claimant);
        }
        touched
    }

    /// The frontends that a Service asks for and somebody else owns, with the owner.
    pub(super) fn lost<'a>(&self, model: &'a ServiceModel) -> Vec<Lost<'a>> {
        let all = model.ports.iter().flat_map(|port| port.frontends.iter().map(move |frontend| (port, frontend)));
        all.filter_map(|(port, frontend)| {
            let winner = self.claimants.get(&Claim::of(&port.key, frontend))?.first()?;
            let lost = winner.key != port.key;
            let allocated = winner.strength == Strength::Allocated;
            lost.then(|| Lost { port, frontend, winner: Arc::clone(&winner.key), allocated })
        })
        .collect()
    }
}

fn name_of(key: &ServiceKey) -> ObjectName {
    ObjectName { namespace: key.namespace.clone(), name: key.name.clone() }
}

fn wanted(model: Option<&ServiceModel>) -> Vec<(Claim, Claimant)> {
    let of_port = |model: &ServiceModel, port: &PortModel| -> Vec<(Claim, Claimant)> {
        let claimant = |frontend: &Frontend| Claimant {
            strength: match frontend {
                Frontend::ClusterIp(_) => Strength::Allocated,
                Frontend::ExternalIp(_) | Frontend::LoadBalancer { .. } | Frontend::NodePort(_) => Strength::Written,
            },
            ageless: model.created.is_none(),
            created: model.created.clone(),
            key: Arc::clone(&port.key),
        };
        port.frontends.iter().map(|frontend| (Claim::of(&port.key, frontend), claimant(frontend))).collect()
    };
    model.into_iter().flat_map(|model| model.ports.iter().flat_map(move |port| of_port(model, port))).collect()
}

/// A frontend that another service port owns.
#[derive(Debug)]
pub(super) struct Lost<'a> {
    pub(super) port: &'a PortModel,
    pub(super) frontend: &'a Frontend,
    winner: Arc<ServiceKey>,
    allocated: bool,
}

impl Lost<'_> {
    pub(super) fn note(&self, uid: Option<&str>) -> Note {
        let key = &self.port.key;
        let what = match self.frontend {
            Frontend::ClusterIp(addr) => claimed("ClusterIP", *addr),
            Frontend::ExternalIp(addr) => claimed("external IP", *addr),
            Frontend::LoadBalancer { addr, .. } => claimed("load-balancer address", *addr),
            Frontend::NodePort(port) => format!("node port {port}"),
        };
        let why = if self.allocated { "whose ClusterIP it is" } else { "the older Service" };
        let message = format!(
            "{what} ({}, {}) belongs to {}/{}, {why}; it does not lead to this Service until that one gives it up",
            key.protocol,
            key.family.label(),
            self.winner.namespace,
            self.winner.name,
        );
        let object = ObjectRef {
            kind: Kind::Service,
            namespace: key.namespace.clone(),
            name: key.name.clone(),
            uid: uid.map(Into::into),
        };
        Note { object, reason: Note::FRONTEND_CONFLICT, message }
    }
}

fn claimed(what: &str, addr: SocketAddr) -> String {
    format!("{what} {} port {}", addr.ip(), addr.port())
}
