//! Health-check node ports: one port for each Service of type LoadBalancer with policy Local, on which a load balancer
//! asks whether this node has endpoints (`spec.healthCheckNodePort`).

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_plan::Family;
use hyper::StatusCode;
use hyper::header::HeaderValue;
use ipnet::IpNet;
use serde::Serialize;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use super::listen::{Answer, Asked, RETRY, Scope, answer, bind, serve};
use super::{Health, Note, Notes};
use crate::metrics::{Cause, Metrics};
use crate::object::ObjectName;
use crate::world::HealthCheck;

/// Load balancers spread by this number of endpoints.
const WEIGHT: &str = "x-load-balancing-endpoint-weight";
const JSON: &str = "application/json";
/// `errno` when the kernel has no IPv6.
const EAFNOSUPPORT: i32 = 97;

/// What all Services want, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct WantedChecks {
    /// By Service.
    pub checks: Arc<BTreeMap<ObjectName, HealthCheck>>,
    /// The addresses to answer on, from [`check_addresses`].
    pub addresses: Vec<IpAddr>,
}

/// Where health-check node ports answer: where node ports do. `local` are the addresses of this node.
#[must_use]
pub fn check_addresses(node_port_addresses: &[IpNet], local: &[IpAddr]) -> Vec<IpAddr> {
    let mut all = BTreeSet::new();
    for family in Family::BOTH {
        let nets = || node_port_addresses.iter().filter(|net| Family::of(net.addr()) == family);
        if nets().any(|net| net.prefix_len() == 0) {
            all.insert(match family {
                Family::V4 => IpAddr::from(Ipv4Addr::UNSPECIFIED),
                Family::V6 => IpAddr::from(Ipv6Addr::UNSPECIFIED),
            });
            continue;
        }
        all.extend(nets().filter(|net| net.prefix_len() == net.max_prefix_len()).map(IpNet::addr));
        all.extend(local.iter().filter(|addr| nets().any(|net| net.contains(*addr))));
    }
    all.into_iter().filter(|addr| !addr.is_loopback()).collect()
}

/// Answers for every wanted Service until the sender of `wanted` is gone. Listeners that stay wanted stay open; one that
/// cannot be opened is tried again every 5 s, and said once.
pub async fn serve_checks(
    wanted: watch::Receiver<WantedChecks>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    notes: Notes,
) {
    serve_checks_with(RETRY, wanted, health, metrics, notes).await;
}

pub(super) async fn serve_checks_with(
    retry: Duration,
    mut wanted: watch::Receiver<WantedChecks>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    notes: Notes,
) {
    let (open, said) = (BTreeMap::new(), BTreeSet::new());
    let mut checks = Checks { wanted: wanted.clone(), health, metrics, notes, open, said };
    loop {
        let sockets = sockets(&wanted.borrow_and_update());
        let complete = checks.settle(&sockets).await;
        let changed = tokio::select! {
            changed = wanted.changed() => changed,
            () = tokio::time::sleep(retry), if !complete => Ok(()),
        };
        if changed.is_err() {
            return;
        }
    }
}

fn sockets(wanted: &WantedChecks) -> BTreeSet<Key> {
    let of = |(name, check): (&ObjectName, &HealthCheck)| {
        let (name, port) = (name.clone(), check.port);
        let addresses = wanted.addresses.iter();
        addresses.map(move |ip| (SocketAddr::new(*ip, port), name.clone())).collect::<Vec<_>>()
    };
    wanted.checks.iter().flat_map(of).collect()
}

/// One listener.
type Key = (SocketAddr, ObjectName);

struct Checks {
    wanted: watch::Receiver<WantedChecks>,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    notes: Notes,
    open: BTreeMap<Key, Open>,
    /// What cannot be opened and has been said.
    said: BTreeSet<Key>,
}

/// Closes its listener and its connections when dropped.
struct Open(JoinHandle<()>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Checks {
    /// Makes what is open what is wanted. Says whether it is.
    async fn settle(&mut self, wanted: &BTreeSet<Key>) -> bool {
        let unwanted: Vec<Key> = self.open.keys().filter(|key| !wanted.contains(*key)).cloned().collect();
        for key in unwanted {
            if let Some(mut open) = self.open.remove(&key) {
                open.0.abort();
                // Its port may be wanted by another Service at once, so wait until it is closed.
                let _ = (&mut open.0).await;
            }
        }
        self.said.retain(|key| wanted.contains(key));
        let mut complete = true;
        for key in wanted.iter().filter(|key| !self.open.contains_key(*key)).cloned().collect::<Vec<_>>() {
            match bind(key.0, Scope::OneFamily) {
                Ok(listener) => {
                    self.said.remove(&key);
                    let answering = self.answering(key.1.clone());
                    self.open.insert(key, Open(tokio::spawn(serve(listener, answering))));
                }
                // Nobody can reach a node without IPv6 over IPv6.
                Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {}
                Err(error) => {
                    complete = false;
                    self.failed(key, &error);
                }
            }
        }
        complete
    }

    fn failed(&mut self, key: Key, error: &io::Error) {
        self.metrics.failed(Cause::Listen);
        let (address, service) = key.clone();
        if !self.said.insert(key) {
            return;
        }
        let text = format!(
            "the health-check node port of Service {service} cannot answer on {address} ({error}), so load balancers take \
             this node for one without endpoints; free the port, fairlead tries again every {} s",
            RETRY.as_secs()
        );
        tracing::warn!("{text}");
        // Nobody listens only while the program ends.
        let _ = self.notes.send(Note { about: Some(service), reason: "FailedToStartServiceHealthcheck", text });
    }

    fn answering(&self, service: ObjectName) -> super::listen::Answering {
        let (wanted, health) = (self.wanted.clone(), Arc::clone(&self.health));
        Arc::new(move |_: &Asked<'_>| {
            let local = wanted.borrow().checks.get(&service).map_or(0, |check| check.local_ready);
            check_answer(&service, local, health.verdict(Instant::now()).healthy)
        })
    }
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    service: Name<'a>,
    local_endpoints: usize,
    service_proxy_healthy: bool,
}

#[derive(Debug, Serialize)]
struct Name<'a> {
    namespace: &'a str,
    name: &'a str,
}

fn check_answer(service: &ObjectName, local: usize, healthy: bool) -> Answer {
    let good = healthy && local > 0;
    let body = Body {
        service: Name { namespace: &service.namespace, name: &service.name },
        local_endpoints: local,
        service_proxy_healthy: healthy,
    };
    let mut text = Vec::new();
    let tabs = serde_json::ser::PrettyFormatter::with_indent(b"\t");
    let written = body.serialize(&mut serde_json::Serializer::with_formatter(&mut text, tabs));
    debug_assert!(written.is_ok(), "a value without maps can always be written to memory");
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let mut answer = answer(status, JSON, text);
    answer.headers_mut().insert(WEIGHT, HeaderValue::from(local));
    answer
}
