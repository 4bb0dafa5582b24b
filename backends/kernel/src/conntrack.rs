//! Tracked connections: list those over UDP, delete some, hear of those that begin.
//!
//! A UDP flow keeps its translation for as long as packets come, even to an endpoint that is gone, so flows that no
//! longer match the plan must be deleted. Which those are is decided elsewhere.

mod beginnings;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::netlink::{
    ACK, Attributes, Broken, DUMP, Message, REQUEST, Socket, TooLong, attributes, be_u16, be_u32, messages,
};
use crate::sysctl::{self, SysctlError};
pub use beginnings::{Beginnings, Heard};

const SUBSYSTEM: u16 = 1 << 8;
const NEW: u16 = SUBSYSTEM;
const GET: u16 = SUBSYSTEM | 1;
const DELETE: u16 = SUBSYSTEM | 2;
const NFGENMSG_LEN: usize = 4;

const CTA_TUPLE_ORIG: u16 = 1;
const CTA_TUPLE_REPLY: u16 = 2;
const CTA_STATUS: u16 = 3;
const CTA_MARK: u16 = 8;
const CTA_ID: u16 = 12;
const CTA_ZONE: u16 = 18;
const CTA_TUPLE_IP: u16 = 1;
const CTA_TUPLE_PROTO: u16 = 2;
const CTA_TUPLE_ZONE: u16 = 3;
const CTA_IP_V4_SRC: u16 = 1;
const CTA_IP_V4_DST: u16 = 2;
const CTA_IP_V6_SRC: u16 = 3;
const CTA_IP_V6_DST: u16 = 4;
const CTA_PROTO_NUM: u16 = 1;
const CTA_PROTO_SRC_PORT: u16 = 2;
const CTA_PROTO_DST_PORT: u16 = 3;

/// `IPS_SEEN_REPLY`, a bit of [`Flow::status`]: there was an answer.
pub const ANSWERED: u32 = 1 << 1;
/// `IPS_DST_NAT`, a bit of [`Flow::status`]: a rule has given the connection another destination.
pub const TRANSLATED: u32 = 1 << 5;

/// Deletions that travel in one datagram. Their acknowledgements fit the receive queue many times over.
const DELETE_AT_ONCE: usize = 256;

/// Why conntrack did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum ConntrackError {
    /// The socket failed, or the kernel refused.
    #[error("conntrack: cannot {what}: {source}{}", hint(.source))]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A request did not fit.
    #[error("conntrack: {0}")]
    TooLong(#[from] TooLong),
}

/// Makes the kernel load `nf_conntrack`, as it does for whoever asks for flows. True if it has answered.
pub(crate) fn load() -> bool {
    let asked = Conntrack::open().and_then(|mut conntrack| conntrack.udp_flows(false, &mut |_| ()));
    asked.is_ok()
}

/// One direction of a tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Source port.
    pub sport: u16,
    /// Destination port.
    pub dport: u16,
}

/// A tracked connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// IP protocol number: 17 is UDP.
    pub protocol: u8,
    /// As the first packet came: towards the service.
    pub original: Tuple,
    /// As answers come: from the endpoint that was chosen.
    pub reply: Tuple,
    /// Conntrack zone of the original direction; 0 is the default.
    pub zone: u16,
    /// `IPS_*` bits: 1 expected, [`ANSWERED`], 4 assured, 8 confirmed, 0x10 source translated, [`TRANSLATED`].
    pub status: u32,
    /// The kernel's number for it; differs when the same addresses meet again.
    pub id: u32,
    /// The connection's mark.
    pub mark: u32,
}

/// A connection to conntrack of the network namespace in which it was opened. One user at a time.
#[derive(Debug)]
pub struct Conntrack {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Conntrack {
    /// Opens the connection.
    ///
    /// # Errors
    /// If the kernel has no nfnetlink.
    pub fn open() -> Result<Self, ConntrackError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(failed("open the socket"))?;
        Ok(Self { socket, seq: 0, buffer: Vec::new() })
    }

    /// Hands out every UDP flow of a family. Flows come and go meanwhile: one that lives all the time may still be missed or come
    /// twice if the kernel resizes its table in between.
    ///
    /// # Errors
    /// If the kernel lacks `nf_conntrack_netlink`, or the process `CAP_NET_ADMIN`.
    pub fn udp_flows(&mut self, ipv6: bool, each: &mut dyn FnMut(&Flow)) -> Result<(), ConntrackError> {
        const UDP: u8 = 17;
        self.flows(ipv6, UDP, each)
    }

    /// Hands out every flow of a family and protocol that has ports (TCP 6, UDP 17, SCTP 132).
    ///
    /// # Errors
    /// As [`Conntrack::udp_flows`].
    pub fn flows(&mut self, ipv6: bool, protocol: u8, each: &mut dyn FnMut(&Flow)) -> Result<(), ConntrackError> {
        self.list(ipv6, &|found| found == protocol, each)
    }

    /// Hands out every flow of a family, of all protocols that have ports: in one walk of the kernel's table.
    ///
    /// # Errors
    /// As [`Conntrack::udp_flows`].
    pub fn every_flow(&mut self, ipv6: bool, each: &mut dyn FnMut(&Flow)) -> Result<(), ConntrackError> {
        self.list(ipv6, &|_| true, each)
    }

    fn list(
        &mut self,
        ipv6: bool,
        wanted: &dyn Fn(u8) -> bool,
        each: &mut dyn FnMut(&Flow),
    ) -> Result<(), ConntrackError> {
        self.seq = self.seq.wrapping_add(1);
        let family = address_family(ipv6);
        let request = Message::new(GET, REQUEST | DUMP, self.seq, &nfgenmsg(family)).finish()?;
        self.socket.send(&request).map_err(failed("ask for the flows"))?;
        let result = self.socket.answer(self.seq, &mut self.buffer, |message| {
            let list = message.payload.get(NFGENMSG_LEN..).unwrap_or_default();
            if message.header.kind == NEW
                && let Some(flow) = flow(&attributes(list), wanted)
            {
                each(&flow);
            }
        });
        result.map(drop).map_err(|broken| failed("list the flows")(broken.into()))
    }

    /// Deletes exactly this flow; false if it was gone, or ended and began anew since it was listed.
    ///
    /// # Errors
    /// As [`Conntrack::udp_flows`].
    pub fn delete(&mut self, flow: &Flow) -> Result<bool, ConntrackError> {
        Ok(self.delete_all(std::slice::from_ref(flow))? == 1)
    }

    /// Deletes these flows; returns how many were still there.
    ///
    /// # Errors
    /// As [`Conntrack::udp_flows`]. The first refusal is reported after all of its group of requests were tried.
    pub fn delete_all(&mut self, flows: &[Flow]) -> Result<usize, ConntrackError> {
        let mut deleted = 0;
        for group in flows.chunks(DELETE_AT_ONCE) {
            let first = self.seq.wrapping_add(1);
            let mut datagram = Vec::new();
            for flow in group {
                self.seq = self.seq.wrapping_add(1);
                datagram.extend_from_slice(&request(flow, self.seq)?);
            }
            self.socket.send(&datagram).map_err(failed("ask for the deletion of flows"))?;
            deleted += self.acknowledged(first, group)?;
        }
        Ok(deleted)
    }

    /// How many connections the kernel tracks in the calling thread's network namespace, of all protocols.
    ///
    /// # Errors
    /// If conntrack is not loaded.
    pub fn count() -> Result<u64, SysctlError> {
        sysctl::read_number("net/netfilter/nf_conntrack_count")
    }

    /// Reads one answer for each of a group of deletions.
    fn acknowledged(&mut self, first: u32, group: &[Flow]) -> Result<usize, ConntrackError> {
        let mut deleted = 0;
        let mut waiting = group.len();
        let mut refused = None;
        while waiting > 0 {
            let received = self.socket.recv(&mut self.buffer, crate::netlink::Wait::Block);
            received.map_err(failed("read what became of deletions"))?;
            for failure in messages(&self.buffer).filter_map(|message| message.failure()) {
                let Some(flow) = group.get(failure.seq.wrapping_sub(first) as usize) else { continue };
                waiting -= 1;
                match failure.errno {
                    0 => deleted += 1,
                    libc::ENOENT => {}
                    _ => _ = refused.get_or_insert((flow, failure)),
                }
            }
        }
        match refused {
            None => Ok(deleted),
            Some((flow, failure)) => {
                let Tuple { src, dst, sport, dport } = flow.original;
                let source = Broken::Refused(failure).into();
                let what = format!("delete the flow from {src} port {sport} to {dst} port {dport}");
                Err(ConntrackError::Io { what, source })
            }
        }
    }
}

fn request(flow: &Flow, seq: u32) -> Result<Vec<u8>, TooLong> {
    let original = &flow.original;
    let family = address_family(original.src.is_ipv6());
    let mut message = Message::new(DELETE, REQUEST | ACK, seq, &nfgenmsg(family));
    message.nest(CTA_TUPLE_ORIG, |m| {
        m.nest(CTA_TUPLE_IP, |m| {
            put_address(m, original.src, CTA_IP_V4_SRC, CTA_IP_V6_SRC);
            put_address(m, original.dst, CTA_IP_V4_DST, CTA_IP_V6_DST);
        });
        m.nest(CTA_TUPLE_PROTO, |m| {
            m.put(CTA_PROTO_NUM, &[flow.protocol]);
            m.put(CTA_PROTO_SRC_PORT, &original.sport.to_be_bytes());
            m.put(CTA_PROTO_DST_PORT, &original.dport.to_be_bytes());
        });
    });
    message.put(CTA_ZONE, &flow.zone.to_be_bytes()).put_u32(CTA_ID, flow.id);
    message.finish()
}

fn put_address(message: &mut Message, address: IpAddr, v4: u16, v6: u16) {
    match address {
        IpAddr::V4(address) => message.put(v4, &address.octets()),
        IpAddr::V6(address) => message.put(v6, &address.octets()),
    };
}

/// Reads a flow; `None` for a protocol that is not wanted, or without ports.
fn flow(list: &Attributes<'_>, wanted: impl Fn(u8) -> bool) -> Option<Flow> {
    let original = attributes(list.clone().get(CTA_TUPLE_ORIG)?);
    let protocol = *attributes(original.clone().get(CTA_TUPLE_PROTO)?).get(CTA_PROTO_NUM)?.first()?;
    if !wanted(protocol) {
        return None;
    }
    let number = |kind| list.clone().get(kind).and_then(be_u32).unwrap_or(0);
    let zone = list.clone().get(CTA_ZONE).or_else(|| original.clone().get(CTA_TUPLE_ZONE));
    Some(Flow {
        protocol,
        original: tuple(&original)?,
        reply: tuple(&attributes(list.clone().get(CTA_TUPLE_REPLY)?))?,
        zone: zone.and_then(be_u16).unwrap_or(0),
        status: number(CTA_STATUS),
        id: number(CTA_ID),
        mark: number(CTA_MARK),
    })
}

fn tuple(list: &Attributes<'_>) -> Option<Tuple> {
    let ip = attributes(list.clone().get(CTA_TUPLE_IP)?);
    let ports = attributes(list.clone().get(CTA_TUPLE_PROTO)?);
    Some(Tuple {
        src: address(&ip, CTA_IP_V4_SRC, CTA_IP_V6_SRC)?,
        dst: address(&ip, CTA_IP_V4_DST, CTA_IP_V6_DST)?,
        sport: ports.clone().get(CTA_PROTO_SRC_PORT).and_then(be_u16)?,
        dport: ports.get(CTA_PROTO_DST_PORT).and_then(be_u16)?,
    })
}

fn address(list: &Attributes<'_>, v4: u16, v6: u16) -> Option<IpAddr> {
    if let Some(bytes) = list.clone().get(v4) {
        return bytes.first_chunk().map(|bytes: &[u8; 4]| Ipv4Addr::from(*bytes).into());
    }
    list.clone().get(v6)?.first_chunk().map(|bytes: &[u8; 16]| Ipv6Addr::from(*bytes).into())
}

const fn address_family(ipv6: bool) -> u8 {
    (if ipv6 { libc::AF_INET6 } else { libc::AF_INET }) as u8
}

fn nfgenmsg(family: u8) -> [u8; NFGENMSG_LEN] {
    [family, 0, 0, 0]
}

fn failed(what: &str) -> impl FnOnce(io::Error) -> ConntrackError {
    move |source| ConntrackError::Io { what: what.to_owned(), source }
}

fn hint(error: &io::Error) -> &'static str {
    match error.raw_os_error() {
        Some(libc::EPERM) => "; the process needs CAP_NET_ADMIN in this network namespace",
        Some(libc::EOPNOTSUPP | libc::EINVAL | libc::EPROTONOSUPPORT) => {
            "; the kernel module nf_conntrack_netlink must be loaded"
        }
        _ => "",
    }
}
