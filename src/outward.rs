//! What the loop tells others: metrics, health, load balancers, the API, connection tracking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use fairlead_kernel::address;
use fairlead_plan::Plan;
use tokio::sync::watch;
use tracing::{info, warn};

use crate::flows::Flows;
use crate::health::{self, Health, WantedChecks, check_addresses};
use crate::local::Facts;
use crate::loopback::Loopback;
use crate::metrics::{Cause, Metrics, Synced};
use crate::object::{self, ObjectName};
use crate::overlay::Overlay;
use crate::resolve::{Note, Tally};
use crate::watch::{Cause as ProblemCause, Note as Event, Problem, Publisher, Regarding, Severity};
use crate::world::{HealthCheck, Planned};

/// Everybody who wants to know.
pub struct Outward {
    /// Prometheus.
    pub metrics: Arc<Metrics>,
    /// Commands on this node.
    pub facts: Arc<Facts>,
    /// The health servers.
    pub health: Arc<Health>,
    /// The listeners of health-check node ports.
    pub checks: watch::Sender<WantedChecks>,
    /// Events of the API.
    pub publisher: Publisher,
    /// Connection tracking.
    pub flows: Flows,
    /// Node ports on loopback, if they are asked for.
    pub loopback: Option<Loopback>,
    /// What the listeners of health-check node ports were last told.
    pub answered: Answered,
    /// The overlay, if it is ours.
    pub overlay: Option<Overlay>,
}

/// What decides where health-check node ports answer.
#[derive(Debug, Default)]
pub struct Answered {
    checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
    node_ports: Vec<ipnet::IpNet>,
}

impl Outward {
    /// The source has trouble.
    pub fn problem(&self, problem: &Problem) {
        match problem.cause {
            ProblemCause::Connection | ProblemCause::Refused | ProblemCause::Expired | ProblemCause::ListFallback => {
                self.metrics.failed(Cause::Watch);
            }
            ProblemCause::File | ProblemCause::Duplicate | ProblemCause::IgnoredKind | ProblemCause::Object => {
                self.metrics.failed(Cause::Input);
            }
        }
    }

    /// The source says something, about Nodes perhaps.
    pub fn heard(&self, event: &object::Event) {
        if let Some(overlay) = &self.overlay {
            self.notes(overlay.hear(event));
        }
    }

    /// Something is wrong with objects.
    pub fn notes(&self, notes: Vec<Note>) {
        notes.into_iter().for_each(|note| complain(&self.metrics, &self.publisher, note));
    }

    /// A plan was made.
    pub fn planned(&mut self, planned: Planned) {
        self.notes(planned.notes);
        self.facts.planned(planned.plan.clone());
        let node = &planned.plan.node;
        if !Arc::ptr_eq(&self.answered.checks, &planned.health_checks)
            || self.answered.node_ports != node.node_port_addresses
        {
            self.answered =
                Answered { checks: Arc::clone(&planned.health_checks), node_ports: node.node_port_addresses.clone() };
            let local = address::local_addresses().unwrap_or_default();
            let local: Vec<_> = local.into_iter().map(|(_, addr, _)| addr).collect();
            let addresses = check_addresses(&node.node_port_addresses, &local);
            self.checks.send_replace(WantedChecks { checks: planned.health_checks, addresses });
        }
    }

    /// A sync succeeded; `oldest` is when the oldest change arrived that it did not carry.
    pub fn synced(&self, synced: &Synced<'_>, plan: &Plan, counts: &Tally, oldest: Option<Instant>) {
        self.metrics.synced(synced);
        self.facts.synced(synced.report, synced.took, synced.at);
        self.metrics.programmed(counts);
        if !self.health.verdict(Instant::now()).ready {
            info!("ready: the first sync is in the kernel");
        }
        self.health.synced(oldest, synced.at);
        // A full sync is the first one, or follows a repair or a failure: rules may have been missing before.
        self.flows.programmed(plan.clone(), synced.full);
        if let Some(loopback) = &self.loopback {
            loopback.programmed(plan.clone());
        }
    }
}

/// Says what is wrong with an object: in the log, in a metric, as an Event.
pub fn complain(metrics: &Metrics, publisher: &Publisher, note: Note) {
    warn!("{}: {}", note.object, note.message);
    metrics.rejected(note.object.kind, note.reason);
    publisher.publish(event(note));
}

/// Says what a server has to say, as an Event.
pub fn server_note(publisher: &Publisher, node_name: &str, note: health::Note) {
    let (kind, namespace, name) = match note.about {
        Some(about) => ("Service", about.namespace.to_string(), about.name.to_string()),
        None => ("Node", String::new(), node_name.to_owned()),
    };
    publisher.publish(Event {
        regarding: Regarding { api_version: "v1".into(), kind: kind.into(), namespace, name, uid: None },
        severity: Severity::Warning,
        reason: note.reason.to_owned(),
        message: note.text,
    });
}

fn event(note: Note) -> Event {
    use crate::object::Kind;
    let api_version = match note.object.kind {
        Kind::Service | Kind::Node => "v1",
        Kind::EndpointSlice => "discovery.k8s.io/v1",
        Kind::ServiceCidr => "networking.k8s.io/v1",
    };
    let object = note.object;
    Event {
        regarding: Regarding {
            api_version: api_version.into(),
            kind: object.kind.name().into(),
            namespace: object.namespace.into(),
            name: object.name.into(),
            uid: object.uid.map(Into::into),
        },
        severity: Severity::Warning,
        reason: note.reason.to_owned(),
        message: note.message,
    }
}
