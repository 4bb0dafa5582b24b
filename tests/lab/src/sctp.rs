//! SCTP sockets of the one-to-one kind, which are used like TCP's (RFC 6458, section 4).

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpSocket, TcpStream};

use crate::Options;
use crate::probe::source;

/// The number of the protocol (IANA).
const SCTP: i32 = 132;
/// What a kernel without SCTP says (`asm-generic/errno.h`): EPROTONOSUPPORT, ESOCKTNOSUPPORT.
const UNSUPPORTED: [i32; 2] = [93, 94];
/// Connections that may wait for the server.
const BACKLOG: i32 = 1024;

/// Listens on an address; `None` if the kernel has no SCTP.
pub(crate) fn listen(addr: SocketAddr) -> io::Result<Option<TcpListener>> {
    let socket = match open(addr) {
        Err(error) if error.raw_os_error().is_some_and(|number| UNSUPPORTED.contains(&number)) => return Ok(None),
        opened => opened?,
    };
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(Some(socket.into()))
}

/// Opens an association with the source that the options ask for.
pub(crate) async fn connect(to: SocketAddr, options: &Options) -> io::Result<TcpStream> {
    let socket = open(to)?;
    // Unless it is bound to one address, a socket tells the peer all that its host has, and that one might use them, past
    // every translation.
    let from = SocketAddr::new(options.bind.map_or_else(|| own_address(to), Ok)?, options.source_port);
    socket.set_reuse_address(options.source_port != 0)?;
    socket.bind(&from.into())?;
    let socket = TcpSocket::from_std_stream(socket.into());
    if options.abort {
        socket.set_zero_linger()?;
    }
    socket.connect(to).await
}

fn open(addr: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::from(SCTP)))?;
    socket.set_nonblocking(true)?;
    Ok(socket)
}

/// The address that the kernel chooses on the way there; nothing is sent.
fn own_address(to: SocketAddr) -> io::Result<IpAddr> {
    let socket = UdpSocket::bind(source(to, &Options::default()))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}
