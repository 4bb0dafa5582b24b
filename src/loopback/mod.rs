//! Node ports on loopback, for `--nodeport-addresses=localhost`.
//!
//! The kernel forwards no packet that comes from a loopback address, so these node ports cannot be elements of a map: a
//! small proxy answers on 127.0.0.1 and ::1 and carries each connection to one endpoint. Only TCP, since only there a
//! connection says when it ends. Endpoints see an address of this node as the client, whatever `externalTrafficPolicy` says,
//! and `sessionAffinity` has no effect: all clients are the one address of this node. Established connections outlive
//! their endpoint's removal and their service, as they do in the kernel.
//!
//! A thread of its own does this, so that bulk traffic never delays the loop that programs the kernel.

mod connection;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use fairlead_kernel::process;
use fairlead_plan::{Family, Frontend, Plan, Protocol, Service};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tracing::{debug, info, warn};

use crate::metrics::{Cause, Metrics};
use connection::Permits;

/// How long after a port was found taken the next attempt comes.
const RETRY: Duration = Duration::from_secs(5);
/// Connections open at once over all ports; more wait.
const MAX_CONNECTIONS: usize = 1024;
/// A quarter of the files that this process may open can be connections of two files each: half is left for everything else.
const FILES_FOR_EACH_CONNECTION: u64 = 4;
/// What Linux allows a process unless told otherwise.
const USUAL_FILES: u64 = 1024;
/// `errno` when the kernel has no IPv6.
const EAFNOSUPPORT: i32 = 97;

/// The handle to the thread, which ends when this is dropped.
#[derive(Debug)]
pub struct Loopback {
    plans: watch::Sender<Plan>,
}

impl Loopback {
    /// Starts the thread, in the network namespace of the caller.
    ///
    /// # Errors
    /// If the thread or what it waits with cannot be made.
    pub fn start(metrics: Arc<Metrics>) -> io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (plans, wanted) = watch::channel(Plan::default());
        let limits = Limits { retry: RETRY, connections: connections() };
        std::thread::Builder::new()
            .name("loopback".into())
            .spawn(move || runtime.block_on(serve(wanted, metrics, limits)))?;
        Ok(Self { plans })
    }

    /// The kernel carries out this plan now.
    pub fn programmed(&self, plan: Plan) {
        self.plans.send_replace(plan);
    }
}

/// How many connections may be open at once. Each takes two files and each port one, so the limit of files is raised.
fn connections() -> usize {
    let files = process::raise_open_files().unwrap_or_else(|error| {
        warn!("the limit of open files stays as it is: {error}");
        USUAL_FILES
    });
    usize::try_from(files / FILES_FOR_EACH_CONNECTION).unwrap_or(MAX_CONNECTIONS).clamp(1, MAX_CONNECTIONS)
}

#[derive(Debug, Clone, Copy)]
struct Limits {
    retry: Duration,
    connections: usize,
}

/// Answers for the newest plan until the sender of plans is gone.
async fn serve(mut plans: watch::Receiver<Plan>, metrics: Arc<Metrics>, limits: Limits) {
    let mut ports = Ports::new(metrics, limits.connections);
    let mut retry = interval_at(Instant::now() + limits.retry, limits.retry);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let plan = plans.borrow_and_update().clone();
        ports.follow(plan).await;
        loop {
            tokio::select! {
                changed = plans.changed() => match changed {
                    Ok(()) => break,
                    Err(_) => return,
                },
                _ = retry.tick(), if !ports.taken.is_empty() => ports.try_again().await,
            }
        }
    }
}

/// The ports and who answers there.
struct Ports {
    plan: Plan,
    wanted: BTreeMap<SocketAddr, Arc<Service>>,
    open: BTreeMap<SocketAddr, Open>,
    /// Wanted, and not open since somebody else has them.
    taken: BTreeSet<SocketAddr>,
    permits: Arc<Permits>,
    metrics: Arc<Metrics>,
}

/// A port that answers.
struct Open {
    service: watch::Sender<Arc<Service>>,
    listener: JoinHandle<()>,
}

impl Ports {
    fn new(metrics: Arc<Metrics>, connections: usize) -> Self {
        Self {
            plan: Plan::default(),
            wanted: BTreeMap::new(),
            open: BTreeMap::new(),
            taken: BTreeSet::new(),
            permits: Arc::new(Permits::new(connections)),
            metrics,
        }
    }

    async fn follow(&mut self, plan: Plan) {
        for address in self.differing(plan) {
            self.settle(address).await;
        }
    }

    /// Takes in a plan; gives the addresses of the services that it changes.
    fn differing(&mut self, plan: Plan) -> BTreeSet<SocketAddr> {
        let was = std::mem::replace(&mut self.plan, plan);
        let changes: Vec<_> = was.services.changes(&self.plan.services).collect();
        let mut touched = BTreeSet::new();
        // All that goes before all that comes: one service may have given its port to another.
        for address in changes.iter().filter_map(|change| change.was).flat_map(|service| addresses(service)) {
            self.wanted.remove(&address);
            touched.insert(address);
        }
        for service in changes.iter().filter_map(|change| change.now) {
            for address in addresses(service) {
                self.wanted.insert(address, Arc::clone(service));
                touched.insert(address);
            }
        }
        touched
    }

    async fn settle(&mut self, address: SocketAddr) {
        let Some(service) = self.wanted.get(&address).map(Arc::clone) else {
            self.taken.remove(&address);
            if let Some(open) = self.open.remove(&address) {
                open.listener.abort();
                // The next plan may want the port again at once, so wait until it is closed.
                let _ = open.listener.await;
                debug!("nobody answers on {address} any more");
            }
            return;
        };
        match self.open.get(&address) {
            Some(open) => {
                open.service.send_replace(service);
            }
            None => self.open(address, service).await,
        }
    }

    async fn open(&mut self, address: SocketAddr, service: Arc<Service>) {
        match TcpListener::bind(address).await {
            Ok(listener) => {
                if self.taken.remove(&address) {
                    info!("the node port of {} answers on {address} now", service.key);
                }
                let (sender, receiver) = watch::channel(service);
                let listener = tokio::spawn(connection::accept(
                    listener,
                    receiver,
                    Arc::clone(&self.permits),
                    Arc::clone(&self.metrics),
                ));
                self.open.insert(address, Open { service: sender, listener });
            }
            // Nobody can speak IPv6 to a node without it.
            Err(error) if error.raw_os_error() == Some(EAFNOSUPPORT) => {}
            Err(error) => {
                self.metrics.failed(Cause::Listen);
                if self.taken.insert(address) {
                    warn!(
                        "the node port of {} cannot answer on {address} ({error}); free the port, fairlead tries again every \
                         {} s",
                        service.key,
                        RETRY.as_secs()
                    );
                }
            }
        }
    }

    async fn try_again(&mut self) {
        for address in self.taken.clone() {
            self.settle(address).await;
        }
    }
}

/// Where a service answers on loopback.
fn addresses(service: &Service) -> impl Iterator<Item = SocketAddr> + '_ {
    let loopback: IpAddr = match service.key.family {
        Family::V4 => Ipv4Addr::LOCALHOST.into(),
        Family::V6 => Ipv6Addr::LOCALHOST.into(),
    };
    let carried = service.key.protocol == Protocol::Tcp;
    service.frontends.iter().filter(move |_| carried).filter_map(move |frontend| match frontend {
        Frontend::NodePort(port) => Some(SocketAddr::new(loopback, *port)),
        Frontend::ClusterIp(_) | Frontend::ExternalIp(_) | Frontend::LoadBalancer { .. } => None,
    })
}

#[cfg(test)]
mod tests;
