use std::io;
use std::net::IpAddr;

use super::{Address, Forwarding, Link, Neighbour, Refusal, Route, RouteFilter, Write};
use super::{fib, link, neighbour, uapi::*};
use crate::netlink::{ACK, Broken, DUMP, Failure, Message, REQUEST, Received, Socket, TooLong, Wait, messages};

/// Changes that travel in one datagram. Should all of them be refused, the answers still fit the receive queue.
const AT_ONCE: usize = 512;
/// How often a dump is begun again when something changed under it.
const ATTEMPTS: u32 = 10;
const FLAGS_AT: usize = 6;

/// Why rtnetlink could not be used at all. What becomes of a single change says [`Refusal`].
#[derive(Debug, thiserror::Error)]
pub enum RtnlError {
    /// The socket failed, or the kernel refused to list something.
    #[error("rtnetlink: cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A request did not fit.
    #[error("rtnetlink: {0}")]
    TooLong(#[from] TooLong),
}

/// A connection to rtnetlink of the network namespace in which it was opened. One user at a time.
#[derive(Debug)]
pub struct Rtnl {
    socket: Socket,
    port: u32,
    seq: u32,
    buffer: Vec<u8>,
}

impl Rtnl {
    /// Opens the connection.
    ///
    /// # Errors
    /// What the system says.
    pub fn open() -> Result<Self, RtnlError> {
        let socket = Socket::open(libc::NETLINK_ROUTE).map_err(failed("open the socket"))?;
        // Lets the kernel filter dumps; one that cannot lists more, and what is too much is left out here.
        let _ = socket.check_strictly();
        let port = socket.port_id().map_err(failed("ask for the socket's address"))?;
        Ok(Self { socket, port, seq: 0, buffer: Vec::new() })
    }

    /// The port by which a [`super::Listener`] tells our changes from those of others.
    #[must_use]
    pub const fn port_id(&self) -> u32 {
        self.port
    }

    /// Every interface.
    ///
    /// # Errors
    /// If they cannot be listed, or kept changing.
    pub fn links(&mut self) -> Result<Vec<Link>, RtnlError> {
        let mask = [(IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS)];
        self.list("list interfaces", RTM_GETLINK, &link::header(0, 0, 0), &mask, RTM_NEWLINK, |found, message| {
            found.extend(Link::read(message));
        })
    }

    /// Every address of both families.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn addresses(&mut self) -> Result<Vec<Address>, RtnlError> {
        let header = [0; ADDRESS_HEADER];
        self.list("list addresses", RTM_GETADDR, &header, &[], RTM_NEWADDR, |found, message| {
            found.extend(Address::read(message));
        })
    }

    /// The neighbours on an interface, of both families.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn neighbours(&mut self, index: u32) -> Result<Vec<Neighbour>, RtnlError> {
        self.neighbours_where(index, |_| true)
    }

    /// Those of them that are wanted, without keeping the others.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn neighbours_where(
        &mut self,
        index: u32,
        wanted: impl Fn(&Neighbour) -> bool,
    ) -> Result<Vec<Neighbour>, RtnlError> {
        self.gather("list neighbours", |kernel, each| {
            kernel.each_neighbour(index, |entry| {
                if wanted(&entry) {
                    each(entry)
                }
            })
        })
    }

    /// Tells the same without keeping them; false if they changed meanwhile, so that not all are of one moment.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn each_neighbour(&mut self, index: u32, mut each: impl FnMut(Neighbour)) -> Result<bool, RtnlError> {
        let header = [AF_UNSPEC; NEIGHBOUR_HEADER];
        let filter = [(NDA_IFINDEX, index)];
        self.dump("list neighbours", RTM_GETNEIGH, &header, &filter, RTM_NEWNEIGH, |message| {
            let is_ip = neighbour::Header::read(message).is_some_and(|header| header.family != AF_BRIDGE);
            let found = Neighbour::read(message).filter(|neighbour| is_ip && neighbour.index == index);
            found.into_iter().for_each(&mut each);
        })
    }

    /// The forwarding entries of a VXLAN device.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn forwarding(&mut self, index: u32) -> Result<Vec<Forwarding>, RtnlError> {
        self.gather("list forwarding entries", |kernel, each| kernel.each_forwarding(index, each))
    }

    /// Tells the same, as [`Rtnl::each_neighbour`] does.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn each_forwarding(&mut self, index: u32, mut each: impl FnMut(Forwarding)) -> Result<bool, RtnlError> {
        let mut header = [0; NEIGHBOUR_HEADER];
        header[0] = AF_BRIDGE;
        header[4..8].copy_from_slice(&index.to_ne_bytes());
        self.dump("list forwarding entries", RTM_GETNEIGH, &header, &[], RTM_NEWNEIGH, |message| {
            let found = Forwarding::read(message).filter(|entry| entry.index == index);
            found.into_iter().for_each(&mut each);
        })
    }

    /// The routes that pass a filter.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn routes(&mut self, filter: RouteFilter) -> Result<Vec<Route>, RtnlError> {
        self.gather("list routes", |kernel, each| kernel.each_route(filter, each))
    }

    /// Tells the same, as [`Rtnl::each_neighbour`] does.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn each_route(&mut self, filter: RouteFilter, mut each: impl FnMut(Route)) -> Result<bool, RtnlError> {
        let (header, attributes) = filter.request();
        let result = self.dump("list routes", RTM_GETROUTE, &header, &attributes, RTM_NEWROUTE, |message| {
            Route::read(message).filter(|route| filter.wants(route)).into_iter().for_each(&mut each);
        });
        match result {
            // A filter for a table that was never used.
            Err(RtnlError::Io { source, .. }) if source.raw_os_error() == Some(libc::ENOENT) => Ok(true),
            other => other,
        }
    }

    /// The default routes of a family in the main table, without keeping the others.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn default_routes(&mut self, ipv6: bool) -> Result<Vec<Route>, RtnlError> {
        let filter = RouteFilter { ipv6, table: super::TABLE_MAIN, protocol: None, index: None };
        self.gather("list routes", |kernel, each| {
            kernel.each_route(filter, |route| {
                if route.destination.prefix_len() == 0 {
                    each(route);
                }
            })
        })
    }

    /// The index of the interface through which a packet to this address would leave; `None` if it cannot.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn interface_towards(&mut self, addr: IpAddr) -> Result<Option<u32>, RtnlError> {
        self.ask_for(addr, false, fib::interface)
    }

    /// The entry of the routing tables that a packet to this address meets first, if any.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn route_towards(&mut self, addr: IpAddr) -> Result<Option<Route>, RtnlError> {
        self.ask_for(addr, true, Route::met)
    }

    /// The address that a packet of this node's own to an address gets as its source; `None` if no route leads there.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn source_towards(&mut self, addr: IpAddr) -> Result<Option<IpAddr>, RtnlError> {
        self.ask_for(addr, false, fib::source)
    }

    fn ask_for<T>(
        &mut self,
        addr: IpAddr,
        entry: bool,
        read: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, RtnlError> {
        self.ask("look up a route", |seq| fib::lookup(addr, entry, seq), read)
    }

    /// Asks for one thing; `None` if the kernel has none.
    pub(super) fn ask<T>(
        &mut self,
        what: &'static str,
        request: impl Fn(u32) -> Message,
        read: impl Fn(&Received<'_>) -> Option<T>,
    ) -> Result<Option<T>, RtnlError> {
        self.seq = self.seq.wrapping_add(1);
        self.socket.send(&request(self.seq).finish()?).map_err(failed(what))?;
        let mut found = None;
        let result = self.socket.answer(self.seq, &mut self.buffer, |message| found = read(message));
        match result {
            Ok(_) => Ok(found),
            Err(Broken::Refused(_)) => Ok(None),
            Err(broken) => Err(failed(what)(broken.into())),
        }
    }

    /// The VNIs that an external device with a filter takes; empty for any other device.
    ///
    /// # Errors
    /// As [`Rtnl::links`].
    pub fn vnis(&mut self, index: u32) -> Result<Vec<u32>, RtnlError> {
        let header = link::tunnel_header(index);
        let ranges = self.list("list VNIs", RTM_GETTUNNEL, &header, &[], RTM_NEWTUNNEL, |found, message| {
            found.extend(link::read_vnis(message));
        })?;
        Ok(ranges.into_iter().flat_map(|(first, last)| first..=last).collect())
    }

    /// Makes these changes in order. One that is refused does not keep the others from being made; deleting what is not
    /// there and adding an address or local route that is there are no refusals.
    ///
    /// # Errors
    /// If the socket fails; then it is unknown which were made.
    pub fn write(&mut self, writes: &[Write]) -> Result<Vec<Refusal>, RtnlError> {
        let mut refused = Vec::new();
        for (round, group) in writes.chunks(AT_ONCE).enumerate() {
            self.write_group(round * AT_ONCE, group, &mut refused)?;
        }
        Ok(refused)
    }

    fn write_group(&mut self, offset: usize, group: &[Write], refused: &mut Vec<Refusal>) -> Result<(), RtnlError> {
        let first = self.seq.wrapping_add(1);
        let mut datagram = Vec::with_capacity(group.len() * 128);
        let mut last = 0;
        for write in group {
            self.seq = self.seq.wrapping_add(1);
            last = datagram.len();
            datagram.extend_from_slice(&write.message(self.seq).finish()?);
            // Refusals are answered in any case; only the last message needs an answer if all went well.
            datagram[last + FLAGS_AT] &= !(ACK as u8);
        }
        datagram[last + FLAGS_AT] |= ACK as u8;
        self.socket.send(&datagram).map_err(failed("send changes"))?;
        loop {
            self.socket.recv(&mut self.buffer, Wait::Block).map_err(failed("read what became of changes"))?;
            for Failure { errno, seq, text, .. } in messages(&self.buffer).filter_map(|message| message.failure()) {
                let at = seq.wrapping_sub(first) as usize;
                let Some(write) = group.get(at) else { continue };
                if errno != 0 && !write.is_done(errno) {
                    refused.push(Refusal { at: offset + at, errno, text });
                }
                if at + 1 == group.len() {
                    return Ok(());
                }
            }
        }
    }

    pub(super) fn list<T>(
        &mut self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        numbers: &[(u16, u32)],
        wanted: u16,
        read: impl Fn(&mut Vec<T>, &Received<'_>),
    ) -> Result<Vec<T>, RtnlError> {
        self.whole(what, |kernel, found| {
            kernel.dump(what, kind, header, numbers, wanted, |message| read(found, message))
        })
    }

    /// Keeps what is told, of one moment.
    pub(super) fn gather<T>(
        &mut self,
        what: &'static str,
        tell: impl Fn(&mut Self, &mut dyn FnMut(T)) -> Result<bool, RtnlError>,
    ) -> Result<Vec<T>, RtnlError> {
        self.whole(what, |kernel, found| tell(kernel, &mut |one| found.push(one)))
    }

    /// Tries again until what is found is of one moment.
    fn whole<T>(
        &mut self,
        what: &'static str,
        fill: impl Fn(&mut Self, &mut Vec<T>) -> Result<bool, RtnlError>,
    ) -> Result<Vec<T>, RtnlError> {
        for _ in 0..ATTEMPTS {
            let mut found = Vec::new();
            if fill(self, &mut found)? {
                return Ok(found);
            }
        }
        let source = io::Error::new(io::ErrorKind::Interrupted, "they changed each time they were read");
        Err(failed(what)(source))
    }

    /// False if something changed meanwhile, so that what was told is not of one moment.
    pub(super) fn dump(
        &mut self,
        what: &'static str,
        kind: u16,
        header: &[u8],
        numbers: &[(u16, u32)],
        wanted: u16,
        mut each: impl FnMut(&Received<'_>),
    ) -> Result<bool, RtnlError> {
        self.seq = self.seq.wrapping_add(1);
        let mut request = Message::new(kind, REQUEST | DUMP, self.seq, header);
        for (kind, number) in numbers {
            request.put(*kind, &number.to_ne_bytes());
        }
        self.socket.send(&request.finish()?).map_err(failed(what))?;
        let result = self.socket.answer(self.seq, &mut self.buffer, |message| {
            if message.header.kind == wanted {
                each(message);
            }
        });
        match result {
            Ok(whole) => Ok(whole),
            Err(Broken::Refused(failure)) if matches!(failure.errno, libc::EINTR | libc::EAGAIN) => Ok(false),
            Err(broken) => Err(failed(what)(broken.into())),
        }
    }
}

pub(super) fn failed(what: &'static str) -> impl FnOnce(io::Error) -> RtnlError {
    move |source| RtnlError::Io { what, source }
}
