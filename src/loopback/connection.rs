//! One connection: from the client to an endpoint of the service.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fairlead_plan::{Action, Endpoint, Origin, Service};
use socket2::{SockRef, TcpKeepalive};
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{sleep, timeout};
use tracing::{debug, trace, warn};

use crate::metrics::Metrics;

/// How many endpoints are tried for one connection.
const ATTEMPTS: usize = 3;
/// An endpoint that has not answered by then does not get the connection. Longer than TCP's first retransmission (1 s).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// A connection on which nothing was said for so long is probed, so that a node or pod that vanished is noticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Time between probes; Linux gives up after nine.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);

/// How many connections may be open.
#[derive(Debug)]
pub(super) struct Permits {
    free: Arc<Semaphore>,
    limit: usize,
    said: AtomicBool,
}

impl Permits {
    pub(super) fn new(limit: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(limit)), limit, said: AtomicBool::new(false) }
    }

    /// Waits for one. Said once, and again only after half of the connections have ended.
    async fn take(&self) -> Option<OwnedSemaphorePermit> {
        if self.free.available_permits() > self.limit / 2 {
            self.said.store(false, Ordering::Relaxed);
        }
        if let Ok(permit) = Arc::clone(&self.free).try_acquire_owned() {
            return Some(permit);
        }
        if !self.said.swap(true, Ordering::Relaxed) {
            warn!(
                "{} connections to node ports on loopback are open, which is the most; new ones wait until others end, so use \
                 ClusterIPs where many are needed",
                self.limit
            );
        }
        Arc::clone(&self.free).acquire_owned().await.ok()
    }
}

/// Accepts, counts and carries connections until it is dropped, which ends none of them.
pub(super) async fn accept(
    listener: TcpListener,
    service: watch::Receiver<Arc<Service>>,
    permits: Arc<Permits>,
    metrics: Arc<Metrics>,
) {
    loop {
        match listener.accept().await {
            Ok((client, _)) => {
                metrics.accepted_on_loopback();
                let Some(permit) = permits.take().await else { return };
                let service = service.clone();
                tokio::spawn(async move {
                    carry(client, &service).await;
                    drop(permit);
                });
            }
            Err(error) => {
                debug!("a connection to a node port on loopback could not be accepted: {error}");
                sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

async fn carry(mut client: TcpStream, service: &watch::Receiver<Arc<Service>>) {
    let Some(mut endpoint) = connect(service).await else { return reset(&client) };
    if let Err(error) = tune(&client).and_then(|()| tune(&endpoint)) {
        trace!("a connection is carried without keepalive: {error}");
    }
    if let Err(error) = copy_bidirectional(&mut client, &mut endpoint).await {
        trace!("a connection to a node port on loopback broke: {error}");
        // An orderly end would make what has arrived look complete.
        reset(&client);
        reset(&endpoint);
    }
}

/// A connection to an endpoint: a random one, and if that fails others. `None` if the plan has none or all fail.
async fn connect(service: &watch::Receiver<Arc<Service>>) -> Option<TcpStream> {
    let mut tried = Vec::new();
    while tried.len() < ATTEMPTS {
        // Asked each time: the plan may have taken the broken endpoint out meanwhile.
        let address = choose(pool(&service.borrow()), &tried)?;
        match timeout(CONNECT_TIMEOUT, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => debug!("endpoint {address} does not take a connection: {error}"),
            Err(_) => debug!("endpoint {address} does not answer"),
        }
        tried.push(address);
    }
    None
}

/// The endpoints that this node itself may use through the node port.
fn pool(service: &Service) -> &[Endpoint] {
    match service.external.from(Origin::Node) {
        Action::Forward { to, .. } => service.pools.get(to),
        Action::Reject | Action::Drop => &[],
    }
}

fn choose(pool: &[Endpoint], tried: &[SocketAddr]) -> Option<SocketAddr> {
    let mut left = pool.iter().map(|endpoint| endpoint.addr()).filter(|address| !tried.contains(address));
    let count = left.clone().count();
    // A hasher's random keys are fit for spreading load and need no further library.
    let random = usize::try_from(RandomState::new().build_hasher().finish() >> 32).unwrap_or_default();
    left.nth(random.checked_rem(count)?)
}

fn tune(stream: &TcpStream) -> io::Result<()> {
    // What one side sent at once goes on at once.
    stream.set_nodelay(true)?;
    let keepalive = TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL);
    SockRef::from(stream).set_tcp_keepalive(&keepalive)
}

/// Makes the end of this connection a reset.
fn reset(stream: &TcpStream) {
    // Fails only if the connection is gone already.
    let _ = stream.set_zero_linger();
}
