//! The few messages of rtnetlink that bring marked packets to this machine: a dummy link, a route of type local over it in
//! a table of its own, and the rule that sends packets with a mark to that table.

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::address::AddressError;
use crate::netlink::{ACK, Broken, CREATE, EXCL, Failure, Message, REQUEST, Received, Socket, attributes, text};
use crate::sysctl;

const RTM_NEWLINK: u16 = 16;
const RTM_DELLINK: u16 = 17;
const RTM_GETLINK: u16 = 18;
const RTM_NEWROUTE: u16 = 24;
const RTM_GETROUTE: u16 = 26;
const RTM_NEWRULE: u16 = 32;
const RTM_DELRULE: u16 = 33;
/// `NLM_F_REPLACE`
const REPLACE: u16 = 0x100;

const IFLA_IFNAME: u16 = 3;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
/// No link-local address.
const ADDR_GEN_NONE: &str = "1";
const IFF_UP: u32 = 1;

const RTA_DST: u16 = 1;
const RTA_OIF: u16 = 4;
const RTA_TABLE: u16 = 15;
const RTA_MARK: u16 = 16;
const RTN_UNICAST: u8 = 1;
const RTN_LOCAL: u8 = 2;
const RT_SCOPE_HOST: u8 = 254;
/// The answer says which table it comes from.
const RTM_F_LOOKUP_TABLE: u32 = 0x1000;

const FRA_PRIORITY: u16 = 6;
const FRA_FWMARK: u16 = 10;
const FRA_TABLE: u16 = 15;
const FRA_FWMASK: u16 = 16;
/// Look up the table of the rule.
const FR_ACT_TO_TBL: u8 = 1;

/// The kind of link that is made here.
const DUMMY: &str = "dummy";
const LINK_HEADER: usize = 16;

/// Why a link, route or rule could not be made or read.
#[derive(Debug, thiserror::Error)]
#[error("cannot {what}: {source}")]
pub struct LinkError {
    what: String,
    source: io::Error,
}

impl LinkError {
    /// The kernel lacks the kind of link or the family: trying again is of no use.
    #[must_use]
    pub fn is_unsupported(&self) -> bool {
        matches!(self.source.raw_os_error(), Some(libc::EOPNOTSUPP | libc::EAFNOSUPPORT))
    }
}

impl From<AddressError> for LinkError {
    fn from(error: AddressError) -> Self {
        Self { what: "read addresses".to_owned(), source: io::Error::other(error) }
    }
}

/// A link by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    /// Its number.
    pub index: u32,
    /// Whether routes may lead over it.
    pub up: bool,
    /// Its kind, such as `dummy` or `veth`; `None` for hardware.
    pub kind: Option<String>,
}

/// Packets with these bits in their mark are delivered to this machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MarkRoute {
    /// Which bits must be how.
    pub mark: u32,
    /// Which bits count.
    pub mask: u32,
    /// The table with the one route.
    pub table: u32,
    /// Where the rule stands among the others.
    pub priority: u32,
}

/// A connection to rtnetlink of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Links {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

/// Whether this network namespace has IPv6.
#[must_use]
pub fn has_ipv6() -> bool {
    Path::new("/proc/thread-self/net/if_inet6").exists()
}

impl Links {
    /// Opens the connection.
    ///
    /// # Errors
    /// If the system gives no socket.
    pub fn open() -> Result<Self, LinkError> {
        let failed = |source| LinkError { what: "open rtnetlink".to_owned(), source };
        Ok(Self { socket: Socket::open(libc::NETLINK_ROUTE).map_err(failed)?, seq: 0, buffer: Vec::new() })
    }

    /// The link of this name.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn link(&mut self, name: &str) -> Result<Option<Link>, LinkError> {
        let mut found = None;
        let asked = self.ask(
            RTM_GETLINK,
            ACK,
            &[0; LINK_HEADER],
            |message| {
                message.put_text(IFLA_IFNAME, name);
            },
            |answer| {
                found = read_link(answer);
            },
        );
        match asked {
            Err(failure) if failure.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            other => {
                other.map(|()| found).map_err(|source| LinkError { what: format!("look for the link {name}"), source })
            }
        }
    }

    /// Makes a dummy link without any address, up. The kernel tries to load the module `dummy` at that.
    ///
    /// # Errors
    /// [`LinkError::is_unsupported`] if the kernel has no dummy links.
    pub fn add_dummy(&mut self, name: &str) -> Result<(), LinkError> {
        let fill = |message: &mut Message| {
            message.put_text(IFLA_IFNAME, name);
            message.nest(IFLA_LINKINFO, |message| {
                message.put_text(IFLA_INFO_KIND, DUMMY);
            });
        };
        self.ask(RTM_NEWLINK, ACK | CREATE | EXCL, &link_header(0, 0), fill, |_| ())
            .map_err(|source| LinkError { what: format!("make the dummy link {name}"), source })?;
        // Before it is up, or it would have got a link-local address. Without IPv6 there is no such setting.
        let _ = sysctl::set(&format!("net/ipv6/conf/{name}/addr_gen_mode"), ADDR_GEN_NONE);
        match self.link(name)? {
            Some(link) => self.set_up(link.index),
            None => Ok(()),
        }
    }

    /// Lets routes lead over a link.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn set_up(&mut self, index: u32) -> Result<(), LinkError> {
        self.ask(RTM_NEWLINK, ACK, &link_header(index, IFF_UP), |_| (), |_| ())
            .map_err(|source| LinkError { what: "set the link up".to_owned(), source })
    }

    /// Deletes a link with its routes and addresses.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn delete(&mut self, index: u32) -> Result<(), LinkError> {
        self.ask(RTM_DELLINK, ACK, &link_header(index, 0), |_| (), |_| ())
            .map_err(|source| LinkError { what: "delete the link".to_owned(), source })
    }

    /// Whether packets with the mark are delivered here, by that table: asked as the kernel decides it.
    ///
    /// # Errors
    /// If the kernel does not say.
    pub fn leads_here(&mut self, v6: bool, route: &MarkRoute) -> Result<bool, LinkError> {
        // Addresses for documentation, which nobody has (RFC 5737, RFC 3849).
        let (address, bits): (IpAddr, u8) = if v6 {
            (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into(), 128)
        } else {
            (Ipv4Addr::new(192, 0, 2, 1).into(), 32)
        };
        let mut header = [0; 12];
        (header[0], header[1]) = (family(v6), bits);
        header[8..].copy_from_slice(&RTM_F_LOOKUP_TABLE.to_ne_bytes());
        let fill = |message: &mut Message| {
            message.put(RTA_DST, &octets(address)).put(RTA_MARK, &route.mark.to_ne_bytes());
        };
        let mut here = false;
        let asked = self.ask(RTM_GETROUTE, ACK, &header, fill, |answer| {
            let table = answer.payload.get(header.len()..).and_then(|list| attributes(list).get(RTA_TABLE));
            here = answer.payload.get(7) == Some(&RTN_LOCAL) && table == Some(&route.table.to_ne_bytes());
        });
        match asked {
            Ok(()) => Ok(here),
            // There is no route, which some tables say in their own words.
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ENETUNREACH | libc::EHOSTUNREACH | libc::EACCES | libc::EINVAL)
                ) =>
            {
                Ok(false)
            }
            Err(source) => Err(LinkError { what: "ask for a route".to_owned(), source }),
        }
    }

    /// Delivers packets with the mark to this machine.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lead_here(&mut self, v6: bool, link: u32, route: &MarkRoute) -> Result<(), LinkError> {
        let mut header = [0; 12];
        (header[0], header[6], header[7]) = (family(v6), RT_SCOPE_HOST, RTN_LOCAL);
        let fill = |message: &mut Message| {
            message.put(RTA_TABLE, &route.table.to_ne_bytes()).put(RTA_OIF, &link.to_ne_bytes());
        };
        let failed = |what: &str| {
            let what = format!("add the {what} for marked packets to table {}", route.table);
            |source| LinkError { what, source }
        };
        self.ask(RTM_NEWROUTE, ACK | CREATE | REPLACE, &header, fill, |_| ()).map_err(failed("route"))?;
        match self.rule(RTM_NEWRULE, ACK | CREATE | EXCL, v6, route) {
            Err(error) if error.raw_os_error() != Some(libc::EEXIST) => Err(failed("rule")(error)),
            _ => Ok(()),
        }
    }

    /// Takes the rule away; the route goes with the link.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn lead_here_no_more(&mut self, v6: bool, route: &MarkRoute) -> Result<(), LinkError> {
        loop {
            match self.rule(RTM_DELRULE, ACK, v6, route) {
                Ok(()) => {}
                Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::EAFNOSUPPORT)) => return Ok(()),
                Err(source) => return Err(LinkError { what: "delete the rule for marked packets".to_owned(), source }),
            }
        }
    }

    fn rule(&mut self, kind: u16, flags: u16, v6: bool, route: &MarkRoute) -> io::Result<()> {
        let mut header = [0; 12];
        (header[0], header[7]) = (family(v6), FR_ACT_TO_TBL);
        debug_assert_eq!(FR_ACT_TO_TBL, RTN_UNICAST, "the same byte in both headers");
        let fill = |message: &mut Message| {
            message.put(FRA_TABLE, &route.table.to_ne_bytes()).put(FRA_PRIORITY, &route.priority.to_ne_bytes());
            message.put(FRA_FWMARK, &route.mark.to_ne_bytes()).put(FRA_FWMASK, &route.mask.to_ne_bytes());
        };
        self.ask(kind, flags, &header, fill, |_| ())
    }

    fn ask(
        &mut self,
        kind: u16,
        flags: u16,
        header: &[u8],
        fill: impl FnOnce(&mut Message),
        each: impl FnMut(&Received<'_>),
    ) -> io::Result<()> {
        self.seq = self.seq.wrapping_add(1);
        let mut message = Message::new(kind, REQUEST | flags, self.seq, header);
        fill(&mut message);
        self.socket.send(&message.finish().map_err(io::Error::other)?)?;
        match self.socket.answer(self.seq, &mut self.buffer, each) {
            Ok(_) => Ok(()),
            Err(Broken::Refused(Failure { errno, .. })) => Err(io::Error::from_raw_os_error(errno)),
            Err(broken) => Err(broken.into()),
        }
    }
}

fn read_link(answer: &Received<'_>) -> Option<Link> {
    let number = |at: usize| answer.payload.get(at..)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
    let info = attributes(answer.payload.get(LINK_HEADER..)?).get(IFLA_LINKINFO);
    let kind = info.and_then(|info| attributes(info).get(IFLA_INFO_KIND)).and_then(text).map(str::to_owned);
    Some(Link { index: number(4)?, up: number(8)? & IFF_UP != 0, kind })
}

fn link_header(index: u32, flags: u32) -> [u8; LINK_HEADER] {
    let mut header = [0; LINK_HEADER];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    header[8..12].copy_from_slice(&flags.to_ne_bytes());
    header[12..].copy_from_slice(&flags.to_ne_bytes());
    header
}

const fn family(v6: bool) -> u8 {
    if v6 { libc::AF_INET6 as u8 } else { libc::AF_INET as u8 }
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
