use fairlead_plan::{Action, Origin, Pool, Route};

/// Everything that decides where packets of one service port go.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policy {
    /// `internalTrafficPolicy: Local`
    pub(super) internal_local: bool,
    /// `externalTrafficPolicy: Local`
    pub(super) external_local: bool,
    /// Whether traffic of pods can be told from other traffic in this family.
    pub(super) detector: bool,
    /// `masqueradeAll`
    pub(super) masquerade_all: bool,
    /// Whether any node has an endpoint that could be used.
    pub(super) usable: bool,
    /// Whether this node has one.
    pub(super) local: bool,
}

impl Policy {
    /// What a ClusterIP does.
    ///
    /// What does not come from a pod is masqueraded, because the answer of a pod on another node would not come back
    /// this way. Without a detector everything could be a pod, and a pod's address must be kept.
    pub(super) fn internal(self) -> Route {
        if !self.usable {
            return Route::all(Action::Reject);
        }
        let to = if self.internal_local { Pool::Local } else { Pool::Cluster };
        if to == Pool::Local && !self.local {
            return Route::all(Action::Drop);
        }
        let elsewhere = Action::Forward { to, masquerade: self.masquerade_all || self.detector };
        Route {
            from_pod: Action::Forward { to, masquerade: self.masquerade_all },
            from_node: elsewhere,
            from_outside: elsewhere,
        }
    }

    /// What external addresses and node ports do.
    ///
    /// With policy Local, pods and the node itself are treated as if their packets went to the load balancer and came
    /// back to a node that has endpoints: neither policy nor the lack of local endpoints stops them.
    pub(super) fn external(self) -> Route {
        if !self.usable {
            return Route::all(Action::Reject);
        }
        let cluster = |masquerade| Action::Forward { to: Pool::Cluster, masquerade };
        if !self.external_local {
            return Route::all(cluster(true));
        }
        let from_outside =
            if self.local { Action::Forward { to: Pool::Local, masquerade: false } } else { Action::Drop };
        // Without a detector no packet counts as a pod's; the row says what happens to it as one from outside.
        let from_pod = if self.detector { cluster(false) } else { from_outside };
        Route { from_pod, from_node: cluster(true), from_outside }
    }
}

/// Whether some packet may go to this pool.
pub(super) fn refers_to(route: &Route, pool: Pool) -> bool {
    Origin::ALL.into_iter().any(|origin| matches!(route.from(origin), Action::Forward { to, .. } if to == pool))
}
