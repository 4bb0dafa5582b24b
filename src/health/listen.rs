//! Listening and serving: what all servers have in common.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HOST, HeaderValue, X_CONTENT_TYPE_OPTIONS};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::{Note, Notes};
use crate::metrics::{Cause, Metrics};

/// How long after a failure to listen the next attempt comes.
pub(super) const RETRY: Duration = Duration::from_secs(5);
/// A client that has not sent the head of a request by then is cut off, also between two requests.
const HEAD_TIMEOUT: Duration = Duration::from_secs(10);
/// More connections than this to one listener wait; a load balancer has a handful.
const MAX_CONNECTIONS: usize = 256;
/// The kernel's queue of connections that are not accepted yet.
const BACKLOG: i32 = 128;
/// How long to wait when the process has no file descriptor left for a connection.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Any of the answers of this module.
pub(super) type Answer = Response<Full<Bytes>>;
/// Answers a request; the method does not matter.
pub(super) type Answering = Arc<dyn Fn(&Asked<'_>) -> Answer + Send + Sync>;

/// What an answer may depend on.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) path: &'a str,
    /// Behind the question mark.
    pub(super) query: &'a str,
    /// The header of that name.
    pub(super) host: Option<&'a str>,
    /// Who asks.
    pub(super) peer: IpAddr,
}

/// A server has no address to answer on and is not to wait for it.
#[derive(Debug, thiserror::Error)]
#[error("{what} cannot answer on {address} ({cause}); free the port or choose another with {flag}")]
pub struct ListenError {
    what: &'static str,
    address: SocketAddr,
    cause: io::Error,
    flag: &'static str,
}

/// What a server is and where it answers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Server {
    pub(super) what: &'static str,
    pub(super) flag: &'static str,
    pub(super) reason: &'static str,
    pub(super) address: SocketAddr,
    /// Stop instead of trying again.
    pub(super) hard_fail: bool,
}

impl Server {
    /// Serves for ever.
    pub(super) async fn run(self, answering: Answering, metrics: &Metrics, notes: &Notes) -> Result<(), ListenError> {
        let mut said = false;
        let listener = loop {
            match bind(self.address, Scope::BothFamilies) {
                Ok(listener) => break listener,
                Err(cause) => {
                    metrics.failed(Cause::Listen);
                    let error = ListenError { what: self.what, address: self.address, cause, flag: self.flag };
                    if self.hard_fail {
                        return Err(error);
                    }
                    if !said {
                        said = true;
                        let text = format!("{error}; fairlead tries again every {} s", RETRY.as_secs());
                        tracing::warn!("{text}");
                        // Nobody listens only while the program ends.
                        let _ = notes.send(Note { about: None, reason: self.reason, text });
                    }
                    tokio::time::sleep(RETRY).await;
                }
            }
        };
        tracing::info!("{} answers on {}", self.what, self.address);
        serve(listener, answering).await;
        Ok(())
    }
}

/// Whether a listener on `::` also answers IPv4.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// As Go does it for an address that an operator wrote.
    BothFamilies,
    /// Another listener has the same port for the other family.
    OneFamily,
}

#[expect(
    clippy::disallowed_methods,
    reason = "a listener for HTTP, and only this library can bind one family of a port"
)]
pub(super) fn bind(address: SocketAddr, scope: Scope) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(scope == Scope::OneFamily || !address.ip().is_unspecified())?;
    }
    // A restart must not wait for the closed connections of the process before.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts and answers until it is dropped, which also ends its connections.
pub(super) async fn serve(listener: TcpListener, answering: Answering) {
    let permits = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        let Ok(permit) = Arc::clone(&permits).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, peer)) => {
                let answering = Arc::clone(&answering);
                connections.spawn(async move {
                    converse(stream, peer.ip(), answering).await;
                    drop(permit);
                });
            }
            Err(error) => {
                tracing::debug!("a connection for health or metrics could not be accepted: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

async fn converse(stream: TcpStream, peer: IpAddr, answering: Answering) {
    let service = service_fn(|request: Request<Incoming>| {
        let uri = request.uri();
        let host = request.headers().get(HOST).map(|host| host.to_str().unwrap_or("?"));
        let answer = answering(&Asked { path: uri.path(), query: uri.query().unwrap_or_default(), host, peer });
        async move { Ok::<_, std::convert::Infallible>(answer) }
    });
    let mut http = hyper::server::conn::http1::Builder::new();
    http.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT);
    if let Err(error) = http.serve_connection(TokioIo::new(stream), service).await {
        tracing::trace!("a connection for health or metrics ended: {error}");
    }
}

/// An answer with a body of this type.
pub(super) fn answer(status: StatusCode, content: &'static str, body: impl Into<Bytes>) -> Answer {
    let mut answer = Response::new(Full::new(body.into()));
    *answer.status_mut() = status;
    answer.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(content));
    answer.headers_mut().insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
