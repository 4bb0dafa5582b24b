//! From Kubernetes objects to decisions. Pure: no clock, no I/O, no memory of earlier calls.
//!
//! Two steps. *Parsing* turns one object into a compact model and says in [`Note`]s what is wrong with it:
//! [`parse_service`], [`parse_slice`], [`NodeModel::parse`]. *Resolving* turns the model of a Service and the models of
//! its EndpointSlices into [`fairlead_plan::Service`]s: [`service`].
//!
//! ```text
//!   ServiceObject ── parse_service ──> ServiceModel ─┐ frontends   (which addresses, who may use them)
//!   SliceObject ──── parse_slice ────> SliceModel ───┤ endpoints   (which pods: ready, topology, local)
//!   NodeObject ───── NodeModel::parse > NodeFacts ───┤ routes      (from pod, node, outside: to which pool, or refused)
//!                                                    └ slots       (in which order, so that little changes)
//! ```
//!
//! Where this differs from kube-proxy 1.36 on purpose:
//! - A family for which the node has no known address gets no node ports under `primary`; kube-proxy opens them on all
//!   addresses of that family.
//! - Source ranges of which none can be read close the load-balancer addresses; kube-proxy opens them to everybody.
//! - Two slices that name one address without either terminating: the ready one counts; in kube-proxy chance decides.
//! - An address that several Services claim has one owner; see [`crate::world`].
//! - Addresses that can never be a service or an endpoint (unspecified, loopback, multicast) are refused.

mod address;
mod endpoints;
mod frontends;
mod model;
mod node;
mod note;
mod routes;
mod settings;
mod slices;
mod slots;
mod sources;
mod tally;
#[cfg(test)]
mod tests;

pub use frontends::{ANNOTATION_SCHEDULER, parse_service};
pub use model::{EndpointModel, Hints, PortModel, ServiceModel, SliceModel, SlicePortModel};
pub use node::{NodeFacts, NodeModel, facts, missing_addresses, parse_service_cidr};
pub use note::{Note, ObjectRef};
pub use settings::{DetectMode, NodePortAddresses, Settings};
pub use slices::{Names, owner, parse_slice};
pub use tally::{PerFamily, Tally};

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_plan::{Action, Family, Frontend, Pool, Pools, Priority, Protocol, Route, Service, Services};

use endpoints::Candidates;
use routes::Policy;

/// What one Service comes to.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Resolved {
    /// One for each port and family that has a frontend.
    pub services: Vec<Service>,
    /// What it adds to the counts.
    pub tally: Tally,
    /// How many endpoints on this node are ready: distinct addresses over all ports, of the family that has more (a
    /// dual-stack pod is one endpoint). Health-check node ports answer with it.
    pub local_ready: usize,
}

/// What [`service`] needs beside the Service itself.
#[derive(Debug, Clone, Copy)]
pub struct Surroundings<'a> {
    /// The configuration.
    pub settings: &'a Settings,
    /// This node.
    pub node: &'a NodeFacts,
    /// The services of the plan before, whose slots are kept.
    pub previous: &'a Services,
}

/// Decides everything about one Service.
///
/// `slices` are all EndpointSlices of the Service, of both families, in an order that is always the same. `granted`
/// says whether a port has a frontend that it asks for (another Service may own the address).
pub fn service<'a, G>(
    model: &ServiceModel,
    slices: impl Iterator<Item = &'a SliceModel> + Clone,
    around: Surroundings<'_>,
    granted: G,
) -> Resolved
where
    G: Fn(&PortModel, &Frontend) -> bool,
{
    let mut resolved = Resolved::default();
    resolved.tally.services = 1;
    let mut local_ready: PerFamily<BTreeSet<IpAddr>> = PerFamily::default();
    for port in &model.ports {
        let family = port.key.family;
        let candidates = Candidates::gather(slices.clone(), &port.key);
        local_ready[family].extend(candidates.local_ready());
        let wanted: Vec<_> = port.frontends.iter().filter(|frontend| granted(port, frontend)).collect();
        resolved.tally.frontend_conflicts += port.frontends.len() - wanted.len();
        if wanted.is_empty() {
            continue;
        }
        let frontends = wanted.into_iter().map(|frontend| sources::complete(frontend, model, around.node)).collect();
        let service = port_service(model, port, frontends, &candidates, around);
        resolved.tally.count(model, &service, candidates.usable());
        resolved.services.push(service);
    }
    resolved.local_ready = Family::BOTH.map(|family| local_ready[family].len()).into_iter().max().unwrap_or_default();
    resolved
}

fn port_service(
    model: &ServiceModel,
    port: &PortModel,
    frontends: Vec<Frontend>,
    candidates: &Candidates<'_>,
    around: Surroundings<'_>,
) -> Service {
    let policy = Policy {
        internal_local: model.internal_local,
        external_local: model.external_local,
        detector: around.node.detector[port.key.family],
        masquerade_all: around.settings.masquerade_all,
        usable: candidates.usable(),
        local: candidates.has_local(),
    };
    let is_internal = |frontend: &Frontend| matches!(frontend, Frontend::ClusterIp(_));
    let nobody_asks = Route::all(Action::Reject);
    let internal = if frontends.iter().any(is_internal) { policy.internal() } else { nobody_asks };
    let external = if frontends.iter().all(is_internal) { nobody_asks } else { policy.external() };
    let refers = |pool| [&internal, &external].into_iter().any(|route| routes::refers_to(route, pool));
    let cluster = if refers(Pool::Cluster) { candidates.cluster(around) } else { Vec::new() };
    let local = if refers(Pool::Local) { candidates.local() } else { Vec::new() };
    let old = around.previous.get(&port.key).map(|service| &service.pools);
    let kept = |pool, wanted| slots::keep(old.map_or(&[], |pools| pools.get(pool)), wanted);
    let serving = if port.key.protocol == Protocol::Udp { candidates.serving() } else { Vec::new() };
    Service {
        key: Arc::clone(&port.key),
        frontends,
        internal,
        external,
        pools: Pools { cluster: kept(Pool::Cluster, cluster), local: kept(Pool::Local, local) },
        affinity: model.affinity,
        scheduler: model.scheduler.clone(),
        serving,
        priority: model.priority,
    }
}

/// Which services a node needs first.
fn priority(namespace: &str, name: &str, app: Option<&str>) -> Priority {
    match (namespace, name) {
        ("default", "kubernetes") => Priority::Api,
        ("kube-system", "kube-dns" | "coredns") => Priority::Dns,
        _ if app == Some("kube-dns") => Priority::Dns,
        _ => Priority::Other,
    }
}
