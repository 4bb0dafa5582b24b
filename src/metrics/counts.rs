//! How much a plan holds.

use std::collections::BTreeSet;

use fairlead_plan::{Action, Family, Frontend, Plan, Service};

/// How much a plan holds for one family.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) service_ports: i64,
    pub(super) endpoints: i64,
    /// Service ports with internal policy Local and endpoints elsewhere only.
    pub(super) internal_not_local: i64,
    /// The same for the external policy.
    pub(super) external_not_local: i64,
}

impl Counts {
    pub(super) fn of(plan: &Plan, family: Family) -> Self {
        let mut counts = Self::default();
        for service in plan.services.iter().filter(|service| service.key.family == family) {
            counts.service_ports += 1;
            counts.endpoints += endpoints(service);
            // A plan drops traffic of a service for this reason only.
            let internal = service.cluster_ips().next().is_some() && service.internal.from_outside == Action::Drop;
            let outside = service.frontends.iter().any(|frontend| !matches!(frontend, Frontend::ClusterIp(_)));
            let external = outside && service.external.from_outside == Action::Drop;
            counts.internal_not_local += i64::from(internal);
            counts.external_not_local += i64::from(external);
        }
        counts
    }
}

fn endpoints(service: &Service) -> i64 {
    let (cluster, local) = (&service.pools.cluster, &service.pools.local);
    let count = if cluster.is_empty() || local.is_empty() {
        cluster.len() + local.len()
    } else {
        service.endpoints().map(|endpoint| endpoint.addr).collect::<BTreeSet<_>>().len()
    };
    i64::try_from(count).unwrap_or(i64::MAX)
}
