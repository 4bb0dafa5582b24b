use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_plan::Plan;

use crate::object::ObjectName;
use crate::resolve::{Note, Tally};

/// What [`super::World::apply`] did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Applied {
    /// Whether the next plan may differ from the last one.
    pub changed: bool,
}

/// What [`super::World::plan`] comes to.
#[derive(Debug, Clone)]
pub struct Planned {
    /// What this node must do.
    pub plan: Plan,
    /// What is wrong with objects and was not said before, by object.
    pub notes: Vec<Note>,
    /// The Services that a load balancer asks about, with their answers. The same `Arc` if nothing has changed.
    pub health_checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
    /// What there is to serve, over all Services.
    pub counts: Tally,
    /// When the changes of endpoints that this plan is the first to hold were triggered, by the clock of the control
    /// plane. Changes from before the start of this process are left out, their latency would be that of the start.
    pub triggers: Vec<SystemTime>,
}

/// A `healthCheckNodePort`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HealthCheck {
    /// Where to listen.
    pub port: u16,
    /// How many endpoints on this node are ready; terminating ones do not count although they may get traffic.
    pub local_ready: usize,
}
