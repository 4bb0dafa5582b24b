use super::batch::bare;
use super::list::{entries, head};
use super::*;
use crate::netlink::{ACK, Broken, DUMP, Message, Received, Socket, Wait, attributes, messages};

/// How many bytes leave in one system call, so that the answers fit into the socket.
const DATAGRAM: usize = 1 << 20;
/// Where the flags and the sequence number stand in a message.
const FLAGS_AT: usize = 6;
const SEQ_AT: usize = 8;
/// `nfgenmsg`
const FAMILY_HEADER: usize = 4;

/// A connection to ipset of the network namespace in which it was opened.
#[derive(Debug)]
pub struct Ipset {
    socket: Socket,
    seq: u32,
    buffer: Vec<u8>,
}

impl Ipset {
    /// Opens the connection; the kernel tries to load the module at that.
    ///
    /// # Errors
    /// [`IpsetError::Missing`] if the kernel has no ipset.
    pub fn open() -> Result<Self, IpsetError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(IpsetError::io("open"))?;
        let mut ipset = Self { socket, seq: 0, buffer: Vec::new() };
        ipset.seq += 1;
        match ipset.ask(bare(CMD_PROTOCOL, ACK, ipset.seq), "ask for the version", |_| ()) {
            // nfnetlink says so of subsystems that nobody registered.
            Err(IpsetError::Refused { errno: libc::EINVAL | libc::EOPNOTSUPP, .. }) => Err(IpsetError::Missing),
            other => other.map(|()| ipset),
        }
    }

    /// Sends a batch. Every message is tried, whatever becomes of the others.
    ///
    /// # Errors
    /// [`IpsetError::Refused`] names the first message that was refused.
    pub fn send(&mut self, batch: &SetBatch) -> Result<(), IpsetError> {
        batch.check()?;
        let (mut first, mut refused) = (0, None);
        while first < batch.messages.len() {
            let (mut bytes, mut end) = (0, first);
            while end < batch.messages.len() && (end == first || bytes + batch.messages[end].len() <= DATAGRAM) {
                bytes += batch.messages[end].len();
                end += 1;
            }
            self.part(batch, first..end, bytes, &mut refused)?;
            first = end;
        }
        refused.map_or(Ok(()), Err)
    }

    fn part(
        &mut self,
        batch: &SetBatch,
        range: std::ops::Range<usize>,
        bytes: usize,
        refused: &mut Option<IpsetError>,
    ) -> Result<(), IpsetError> {
        let mut datagram = Vec::with_capacity(bytes);
        let start_seq = self.seq.wrapping_add(1);
        for index in range.clone() {
            let at = datagram.len();
            self.seq = self.seq.wrapping_add(1);
            datagram.extend_from_slice(&batch.messages[index]);
            datagram[at + SEQ_AT..at + SEQ_AT + 4].copy_from_slice(&self.seq.to_ne_bytes());
            if index + 1 == range.end {
                datagram[at + FLAGS_AT] |= ACK as u8;
            }
        }
        self.socket.send(&datagram).map_err(IpsetError::io("send"))?;
        loop {
            self.socket.recv(&mut self.buffer, Wait::Block).map_err(IpsetError::io("receive"))?;
            for failure in messages(&self.buffer).filter_map(|message| message.failure()) {
                let place = failure.seq.wrapping_sub(start_seq) as usize;
                if place >= range.len() {
                    continue;
                }
                if failure.errno != 0 && refused.is_none() {
                    let what = batch.described[range.start + place].clone();
                    *refused = Some(IpsetError::Refused { what, errno: failure.errno });
                }
                if place + 1 == range.len() {
                    return Ok(());
                }
            }
        }
    }

    /// The sets of the network namespace, without their entries.
    ///
    /// # Errors
    /// As [`IpsetError`] says.
    pub fn sets(&mut self) -> Result<Vec<HeldSet>, IpsetError> {
        self.seq += 1;
        let mut request = bare(CMD_LIST, DUMP, self.seq);
        request.put(ATTR_FLAGS | NETWORK_ORDER, &FLAG_LIST_HEADER.to_be_bytes());
        let mut found = Vec::new();
        self.ask(request, "list the sets", |message| {
            found.extend(message.payload.get(FAMILY_HEADER..).and_then(|list| head(attributes(list))));
        })?;
        Ok(found)
    }

    /// The entries of a set, in no order.
    ///
    /// # Errors
    /// As [`IpsetError`] says; `ENOENT` if there is no such set.
    pub fn entries(&mut self, set: &str) -> Result<Vec<HeldEntry>, IpsetError> {
        self.seq += 1;
        let mut request = bare(CMD_LIST, DUMP, self.seq);
        request.put_text(ATTR_SETNAME, set);
        let mut found = Vec::new();
        self.ask(request, &format!("list the set {set}"), |message| {
            found.extend(message.payload.get(FAMILY_HEADER..).into_iter().flat_map(|list| entries(attributes(list))));
        })?;
        Ok(found)
    }

    fn ask(&mut self, request: Message, what: &str, each: impl FnMut(&Received<'_>)) -> Result<(), IpsetError> {
        let request = request.finish()?;
        self.socket.send(&request).map_err(IpsetError::io("send"))?;
        match self.socket.answer(self.seq, &mut self.buffer, each) {
            Ok(_) => Ok(()),
            Err(Broken::Refused(failure)) => Err(IpsetError::Refused { what: what.to_owned(), errno: failure.errno }),
            Err(broken) => Err(IpsetError::io("receive")(broken.into())),
        }
    }
}
