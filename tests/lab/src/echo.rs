//! Servers in every node and pod, all on one thread of the test process.

use std::io;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context, Result};
use fairlead_plan::{Family, Protocol};
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use crate::wire::{DATAGRAM, PORTS, answer, read_line, write_all};
use crate::{Place, place, sctp};

/// Sockets of one namespace that nobody serves yet, with what they call themselves.
#[derive(Default)]
struct Sockets {
    listeners: Vec<(Arc<str>, Protocol, TcpListener)>,
    datagrams: Vec<(Arc<str>, UdpSocket)>,
}

/// Answers until dropped.
#[derive(Debug)]
pub(crate) struct Servers {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Servers {
    /// Opens the sockets of all places before it returns.
    pub(crate) fn start<'a>(places: impl Iterator<Item = &'a Place>) -> Result<Self> {
        let places: Vec<_> = places.cloned().collect();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let sockets = std::thread::scope(|scope| {
            let walk = || places.iter().map(open).collect::<Result<Vec<_>>>();
            scope.spawn(walk).join().expect("opening sockets does not panic")
        })?;
        let (stop, stopped) = oneshot::channel();
        let serve = move || {
            runtime.block_on(async {
                for sockets in sockets {
                    serve(sockets);
                }
                // Dropping the sender ends the wait too.
                let _ = stopped.await;
            });
        };
        let thread = std::thread::Builder::new().name("echo".to_owned()).spawn(serve)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            eprintln!("the echo servers of the lab have panicked");
        }
    }
}

/// Moves the calling thread into the namespace of the place and opens its sockets there.
///
/// Each is bound to one address, so that a node with several answers from the one that was asked.
fn open(place: &Place) -> Result<Sockets> {
    place::enter(place.namespace())?;
    let mut sockets = Sockets::default();
    for family in Family::BOTH {
        for port in PORTS {
            let name: Arc<str> =
                if port == PORTS[0] { place.name().into() } else { format!("{}:{port}", place.name()).into() };
            let addr = SocketAddr::new(place.addr(family), port);
            let listener = TcpListener::bind(addr).with_context(|| format!("cannot listen on {addr}"))?;
            listener.set_nonblocking(true)?;
            sockets.listeners.push((name.clone(), Protocol::Tcp, listener));
            if let Some(listener) = sctp::listen(addr).with_context(|| format!("cannot listen on {addr} by SCTP"))? {
                sockets.listeners.push((name.clone(), Protocol::Sctp, listener));
            }
            let datagram = UdpSocket::bind(addr).with_context(|| format!("cannot receive on {addr}"))?;
            datagram.set_nonblocking(true)?;
            sockets.datagrams.push((name, datagram));
        }
    }
    Ok(sockets)
}

fn serve(sockets: Sockets) {
    for (name, protocol, listener) in sockets.listeners {
        tokio::spawn(accept(name, protocol, listener));
    }
    for (name, socket) in sockets.datagrams {
        tokio::spawn(receive(name, socket));
    }
}

async fn accept(name: Arc<str>, protocol: Protocol, listener: TcpListener) -> io::Result<()> {
    /// How long to wait when the process has no file descriptor left.
    const RECOVERY: Duration = Duration::from_millis(10);
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                // SCTP has an option of its own for this, and answers of one line do not wait anyway.
                if protocol == Protocol::Tcp && stream.set_nodelay(true).is_err() {
                    continue;
                }
                tokio::spawn(converse(name.clone(), stream, peer));
            }
            Err(_) => tokio::time::sleep(RECOVERY).await,
        }
    }
}

/// Answers every line until the client closes, so a client can hold a connection for as long as it wants.
async fn converse(name: Arc<str>, stream: TcpStream, peer: SocketAddr) -> io::Result<()> {
    loop {
        let line = read_line(&stream).await?;
        if line.is_empty() {
            return Ok(());
        }
        write_all(&stream, &answer(&name, peer, &line)).await?;
    }
}

async fn receive(name: Arc<str>, socket: UdpSocket) -> io::Result<()> {
    let socket = tokio::net::UdpSocket::from_std(socket)?;
    let mut datagram = vec![0; DATAGRAM];
    loop {
        // An error here is an ICMP message about an earlier answer: that client has gone.
        let Ok((length, peer)) = socket.recv_from(&mut datagram).await else { continue };
        let _ = socket.send_to(&answer(&name, peer, &datagram[..length]), peer).await;
    }
}
