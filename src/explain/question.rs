//! What is asked, and the packet that it means on this node.

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

use anyhow::{Context, bail};
use fairlead_kernel::address::local_addresses;
use fairlead_kernel::route::Rtnl;
use fairlead_plan::{Packet, Protocol};

/// Who sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum From {
    /// This node, with the address that it takes for that destination.
    Node,
    /// This address.
    Addr(IpAddr),
}

/// Where to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct To {
    /// The address.
    pub addr: IpAddr,
    /// The port; `None` stands for each that Services have there.
    pub port: Option<u16>,
    /// The protocol; `None` stands for TCP, or for the one that the port has.
    pub protocol: Option<Protocol>,
}

/// A text is no sender or destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NotThat {
    /// Of a sender.
    #[error("is no sender; write an address, or node for this node itself")]
    From,
    /// Of a destination.
    #[error("is no destination; write it like 10.96.0.10, 10.96.0.10:53, 10.96.0.10:53/udp or [fd00:96::a]:53/udp")]
    To,
}

impl FromStr for From {
    type Err = NotThat;

    fn from_str(text: &str) -> Result<Self, NotThat> {
        match text {
            "node" => Ok(Self::Node),
            text => text.parse().map(Self::Addr).map_err(|_| NotThat::From),
        }
    }
}

impl FromStr for To {
    type Err = NotThat;

    fn from_str(text: &str) -> Result<Self, NotThat> {
        let (place, protocol) = match text.split_once('/') {
            Some((place, name)) => {
                let named = |protocol: &Protocol| protocol.name().eq_ignore_ascii_case(name);
                (place, Some(Protocol::ALL.into_iter().find(named).ok_or(NotThat::To)?))
            }
            None => (text, None),
        };
        let bare = place.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(place);
        if let Ok(addr) = bare.parse() {
            let whole = protocol.is_none();
            return whole.then_some(Self { addr, port: None, protocol }).ok_or(NotThat::To);
        }
        let socket: SocketAddr = place.parse().map_err(|_| NotThat::To)?;
        Ok(Self { addr: socket.ip(), port: Some(socket.port()), protocol })
    }
}

impl fmt::Display for To {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.port {
            Some(port) => write!(f, "{}", SocketAddr::new(self.addr, port)),
            None => write!(f, "{}", self.addr),
        }
    }
}

/// The packet as this node sees it: where it comes in is where answers to its source would go out, unless `interface` says
/// otherwise.
///
/// # Errors
/// If the kernel cannot be read, or does not know the way back to the source.
pub fn packet(from: From, interface: Option<&str>, to: SocketAddr, protocol: Protocol) -> anyhow::Result<Packet> {
    let mut kernel = Rtnl::open()?;
    let local = local_addresses()?;
    let is_local = |wanted: IpAddr| wanted.is_loopback() || local.iter().any(|(_, addr, _)| *addr == wanted);
    let source = match from {
        From::Addr(source) => source,
        From::Node => kernel.source_towards(to.ip())?.with_context(|| {
            format!("this node has no route to {}, so it sends nothing there; name the source", to.ip())
        })?,
    };
    if source.is_ipv4() != to.is_ipv4() {
        bail!("a packet from {source} to {} cannot be: the one is IPv4 and the other IPv6", to.ip());
    }
    let (source_is_local, destination_is_local) = (is_local(source), is_local(to.ip()));
    let interface = match interface {
        Some(name) => Some(name.to_owned()),
        None if source_is_local => None,
        None => Some(way_back(&mut kernel, source)?),
    };
    Ok(Packet { protocol, source, destination: to, interface, source_is_local, destination_is_local })
}

fn way_back(kernel: &mut Rtnl, source: IpAddr) -> anyhow::Result<String> {
    let index = kernel.interface_towards(source)?.with_context(|| {
        format!("this node has no route back to {source}; name the interface by which it comes in with --interface")
    })?;
    let link = kernel.links()?.into_iter().find(|link| link.index == index);
    Ok(link.with_context(|| format!("the interface towards {source} is gone"))?.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn to(text: &str) -> Result<To, NotThat> {
        text.parse()
    }

    #[test]
    fn destinations_have_a_port_and_a_protocol_or_not() {
        let v4: IpAddr = [10, 96, 0, 10].into();
        let v6: IpAddr = [0xfd00, 0x96, 0, 0, 0, 0, 0, 0xa].into();
        assert_eq!(to("10.96.0.10"), Ok(To { addr: v4, port: None, protocol: None }));
        assert_eq!(to("10.96.0.10:53"), Ok(To { addr: v4, port: Some(53), protocol: None }));
        assert_eq!(to("10.96.0.10:53/UDP"), Ok(To { addr: v4, port: Some(53), protocol: Some(Protocol::Udp) }));
        for text in ["fd00:96::a", "[fd00:96::a]"] {
            assert_eq!(to(text), Ok(To { addr: v6, port: None, protocol: None }));
        }
        assert_eq!(to("[fd00:96::a]:53/sctp"), Ok(To { addr: v6, port: Some(53), protocol: Some(Protocol::Sctp) }));
        for text in ["", "web", "10.96.0.10:", "10.96.0.10:65536", "10.96.0.10/tcp", "10.96.0.10:53/icmp", "[fd00::a"] {
            assert_eq!(to(text), Err(NotThat::To), "{text}");
        }
    }

    #[test]
    fn senders_are_addresses_or_the_node() {
        assert_eq!("node".parse(), Ok(From::Node));
        assert_eq!("::1".parse(), Ok(From::Addr([0, 0, 0, 0, 0, 0, 0, 1].into())));
        assert_eq!("web-1".parse::<From>(), Err(NotThat::From));
    }
}
