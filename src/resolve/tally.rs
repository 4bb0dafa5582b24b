use std::collections::BTreeSet;
use std::ops::{AddAssign, Index, IndexMut, SubAssign};

use fairlead_plan::{Action, Family, Frontend, Pool, Service};

use super::ServiceModel;
use super::routes::refers_to;

/// A value for each family.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PerFamily<T> {
    /// IPv4
    pub v4: T,
    /// IPv6
    pub v6: T,
}

impl<T> Index<Family> for PerFamily<T> {
    type Output = T;

    fn index(&self, family: Family) -> &T {
        match family {
            Family::V4 => &self.v4,
            Family::V6 => &self.v6,
        }
    }
}

impl<T> IndexMut<Family> for PerFamily<T> {
    fn index_mut(&mut self, family: Family) -> &mut T {
        match family {
            Family::V4 => &mut self.v4,
            Family::V6 => &mut self.v6,
        }
    }
}

/// What there is to serve: the share of one Service, or the sum over all.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Tally {
    /// Services that are served at all.
    pub services: usize,
    /// Service ports.
    pub service_ports: PerFamily<usize>,
    /// Endpoints of all service ports; an address that serves two ports counts twice.
    pub endpoints: PerFamily<usize>,
    /// Service ports with `internalTrafficPolicy: Local` whose usable endpoints are all on other nodes.
    pub no_local_internal: PerFamily<usize>,
    /// Service ports with `externalTrafficPolicy: Local` whose usable endpoints are all on other nodes.
    pub no_local_external: PerFamily<usize>,
    /// Node ports.
    pub node_ports: PerFamily<usize>,
    /// Frontends that a Service asks for and another one owns.
    pub frontend_conflicts: usize,
}

impl Tally {
    /// Adds one service port.
    pub(super) fn count(&mut self, model: &ServiceModel, service: &Service, usable: bool) {
        let family = service.key.family;
        self.service_ports[family] += 1;
        self.endpoints[family] += distinct(service);
        let is_node_port = |frontend: &&Frontend| matches!(frontend, Frontend::NodePort(_));
        self.node_ports[family] += service.frontends.iter().filter(is_node_port).count();
        let dropped = |action| action == Action::Drop;
        self.no_local_internal[family] +=
            usize::from(model.internal_local && usable && dropped(service.internal.from_outside));
        self.no_local_external[family] +=
            usize::from(model.external_local && usable && dropped(service.external.from_outside));
    }

    fn fields(&mut self) -> [&mut usize; 12] {
        [
            &mut self.services,
            &mut self.service_ports.v4,
            &mut self.service_ports.v6,
            &mut self.endpoints.v4,
            &mut self.endpoints.v6,
            &mut self.no_local_internal.v4,
            &mut self.no_local_internal.v6,
            &mut self.no_local_external.v4,
            &mut self.no_local_external.v6,
            &mut self.node_ports.v4,
            &mut self.node_ports.v6,
            &mut self.frontend_conflicts,
        ]
    }
}

impl AddAssign for Tally {
    fn add_assign(&mut self, mut other: Self) {
        self.fields().into_iter().zip(other.fields()).for_each(|(sum, part)| *sum += *part);
    }
}

impl SubAssign for Tally {
    fn sub_assign(&mut self, mut other: Self) {
        self.fields().into_iter().zip(other.fields()).for_each(|(sum, part)| *sum -= *part);
    }
}

/// How many endpoints are in at least one pool.
fn distinct(service: &Service) -> usize {
    let both = [Pool::Cluster, Pool::Local]
        .into_iter()
        .all(|pool| [&service.internal, &service.external].into_iter().any(|route| refers_to(route, pool)));
    if both {
        service.endpoints().map(|endpoint| endpoint.addr()).collect::<BTreeSet<_>>().len()
    } else {
        service.endpoints().count()
    }
}
