use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use fairlead_plan::Protocol;
use futures::StreamExt;
use tokio::net::{TcpSocket, TcpStream, UdpSocket};
use tokio::time::timeout;

use crate::wire::{Answer, DATAGRAM, SILENCE, parse, read_line, request, write_all};
use crate::{Place, sctp};

/// So many connections miss one of three endpoints about once in four million.
pub const CONNECTIONS: usize = 40;

/// What became of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Somebody answered.
    Reached {
        /// The name of the place that did, with the port behind a colon unless that is the first of [`crate::PORTS`].
        endpoint: String,
        /// The source that it saw.
        source: SocketAddr,
    },
    /// The sender was told that nobody is there: by a TCP reset or an ICMP port unreachable message (`ECONNREFUSED`).
    /// SCTP sockets only note that message and go on (`sctp_v4_err` in Linux), so for them a refusal is silence.
    Refused,
    /// Nothing came back within [`SILENCE`].
    ///
    /// A dropped UDP packet of the sender's own node gives it `EPERM`; so does a rejected one, for which the ICMP
    /// message follows. So `EPERM` decides nothing and the probe goes on to listen.
    Silence,
    /// Any other error: no verdict of a rule, but a fault of the lab or of the translation.
    Failed(String),
}

/// What became of many connections.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Seen {
    /// For each endpoint that answered the sources that it saw.
    pub reached: BTreeMap<String, BTreeSet<IpAddr>>,
    /// How many were refused.
    pub refused: usize,
    /// How many met silence.
    pub silence: usize,
    /// Everything else.
    pub failed: Vec<String>,
}

impl Seen {
    /// The endpoints that answered.
    #[must_use]
    pub fn endpoints(&self) -> BTreeSet<&str> {
        self.reached.keys().map(String::as_str).collect()
    }

    /// All sources that endpoints saw.
    #[must_use]
    pub fn sources(&self) -> BTreeSet<IpAddr> {
        self.reached.values().flatten().copied().collect()
    }

    fn count(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Reached { endpoint, source } => {
                self.reached.entry(endpoint).or_default().insert(source.ip());
            }
            Outcome::Refused => self.refused += 1,
            Outcome::Silence => self.silence += 1,
            Outcome::Failed(what) => self.failed.push(what),
        }
    }
}

/// How a probe is sent.
#[derive(Debug, Clone)]
pub struct Options {
    /// The source address; without one the kernel chooses.
    pub bind: Option<IpAddr>,
    /// The source port; 0 means one that has not been used for long: connections from one port to two virtual addresses of one
    /// endpoint are one connection to IPVS.
    pub source_port: u16,
    /// Bytes that are sent and must come back, beside the line's end.
    pub payload: usize,
    /// How many connections [`probe_set`] opens.
    pub connections: usize,
    /// How many of these at a time. Large UDP payloads overflow the server's buffer if many come at once.
    pub at_once: usize,
    /// How long to wait for an answer.
    pub patience: Duration,
    /// Whether to send a UDP request a second time after a third of that.
    pub resend: bool,
    /// Whether to end a TCP connection by a reset, which leaves no `TIME_WAIT` behind.
    pub abort: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            bind: None,
            source_port: 0,
            payload: 0,
            connections: CONNECTIONS,
            at_once: CONNECTIONS,
            patience: SILENCE,
            resend: true,
            abort: false,
        }
    }
}

/// Opens one connection from a place.
#[must_use]
pub fn probe(from: &Place, protocol: Protocol, to: SocketAddr) -> Outcome {
    probe_with(from, protocol, to, &Options::default())
}

/// Opens one connection in this way.
#[must_use]
pub fn probe_with(from: &Place, protocol: Protocol, to: SocketAddr, options: &Options) -> Outcome {
    from.run(|| block_on(attempt(from, protocol, to, options))).into()
}

/// Opens [`Options::connections`] connections, by default all at once, so silence costs its deadline once.
#[must_use]
pub fn probe_set(from: &Place, protocol: Protocol, to: SocketAddr, options: &Options) -> Seen {
    from.run(|| {
        block_on(async {
            let attempts = (0..options.connections).map(|_| attempt(from, protocol, to, options));
            let mut seen = Seen::default();
            let mut results = futures::stream::iter(attempts).buffer_unordered(options.at_once);
            while let Some(result) = results.next().await {
                seen.count(result.into());
            }
            seen
        })
    })
}

/// Runs a future on this thread, so that its sockets belong to this thread's namespace.
pub(crate) fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime needs a few file descriptors only").block_on(future)
}

impl From<io::Result<Answer>> for Outcome {
    fn from(result: io::Result<Answer>) -> Self {
        match result {
            Ok(Answer { endpoint, source }) => Self::Reached { endpoint, source },
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Self::Refused,
            Err(error) if error.kind() == io::ErrorKind::TimedOut => Self::Silence,
            Err(error) => Self::Failed(error.to_string()),
        }
    }
}

/// One request and its answer. No answer in time is [`io::ErrorKind::TimedOut`].
pub(crate) async fn attempt(from: &Place, protocol: Protocol, to: SocketAddr, options: &Options) -> io::Result<Answer> {
    let source_port = if options.source_port == 0 { from.next_source_port() } else { options.source_port };
    let options = &Options { source_port, ..options.clone() };
    let attempt = async {
        match protocol {
            Protocol::Tcp | Protocol::Sctp => attempt_stream(protocol, to, options).await,
            Protocol::Udp => attempt_udp(to, options).await,
        }
    };
    timeout(options.patience, attempt).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

async fn attempt_stream(protocol: Protocol, to: SocketAddr, options: &Options) -> io::Result<Answer> {
    let stream = connect(protocol, to, options).await?;
    let request = request(options.payload);
    write_all(&stream, &request).await?;
    parse(&read_line(&stream).await?, &request)
}

/// Opens a TCP connection or an SCTP association with the source that the options ask for.
pub(crate) async fn connect(protocol: Protocol, to: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    if protocol == Protocol::Sctp {
        return sctp::connect(to, options).await;
    }
    let socket = if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    if options.bind.is_some() || options.source_port != 0 {
        socket.set_reuseaddr(true)?;
        socket.bind(source(to, options))?;
    }
    if options.abort {
        socket.set_zero_linger()?;
    }
    socket.connect(to).await
}

/// Where to send from: what the options say, else anything.
pub(crate) fn source(to: SocketAddr, options: &Options) -> SocketAddr {
    let any = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    SocketAddr::new(options.bind.unwrap_or(any), options.source_port)
}

async fn attempt_udp(to: SocketAddr, options: &Options) -> io::Result<Answer> {
    let socket = UdpSocket::bind(source(to, options)).await?;
    socket.connect(to).await?;
    let request = request(options.payload);
    send(&socket, &request).await?;
    let mut answer = vec![0; DATAGRAM];
    if options.resend
        && let Ok(received) = timeout(options.patience / 3, socket.recv(&mut answer)).await
    {
        return parse(&answer[..received?], &request);
    }
    if options.resend {
        send(&socket, &request).await?;
    }
    let length = socket.recv(&mut answer).await?;
    parse(&answer[..length], &request)
}

/// Sends a datagram. `EPERM`, which netfilter gives to a local sender, does not yet tell drop from reject.
async fn send(socket: &UdpSocket, request: &[u8]) -> io::Result<()> {
    match socket.send(request).await {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        sent => sent.map(|_| ()),
    }
}
