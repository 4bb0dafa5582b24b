use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Instant;

use super::read_until;

/// A UDP socket that speaks to one address, and hears when the other side says that nobody is there.
#[derive(Debug)]
pub struct Datagram {
    socket: UdpSocket,
}

impl Datagram {
    /// From this address, or the one that the route suggests, to that one.
    ///
    /// # Errors
    /// If the address is not this machine's, or no route leads there.
    pub fn open(from: Option<IpAddr>, to: SocketAddr) -> io::Result<Self> {
        let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
        let socket = UdpSocket::bind((from.unwrap_or(any), 0))?;
        socket.connect(to)?;
        Ok(Self { socket })
    }

    /// Sends one.
    ///
    /// # Errors
    /// What the system says, also about datagrams before.
    pub fn send(&self, payload: &[u8]) -> io::Result<()> {
        self.socket.send(payload).map(drop)
    }

    /// What has come back: an ICMP error as its error number, such as [`io::ErrorKind::ConnectionRefused`]; `None` if nothing
    /// came until then.
    #[must_use]
    pub fn refusal(&self, until: Instant) -> Option<io::Error> {
        read_until(&self.socket, &mut [0; 1], until).err()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_port_where_nobody_listens_refuses_and_one_with_a_listener_does_not() {
        for loopback in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let listener = UdpSocket::bind((loopback, 0)).unwrap();
            let at = listener.local_addr().unwrap();
            let ask = |at| {
                let datagram = Datagram::open(Some(loopback), at).unwrap();
                datagram.send(b"?").unwrap();
                datagram.refusal(Instant::now() + Duration::from_millis(100)).map(|error| error.kind())
            };
            assert_eq!(ask(at), None);
            drop(listener);
            assert_eq!(ask(at), Some(io::ErrorKind::ConnectionRefused));
        }
    }
}
