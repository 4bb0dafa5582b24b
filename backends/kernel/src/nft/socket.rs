use std::io::{self, IoSlice};
use std::thread;
use std::time::Duration;

use super::describe::describe;
use super::error::RECEIVE;
use super::uapi::*;
use super::{Batch, Dumped, Nfproto, NftError};
use crate::netlink::{
    ACK, Broken, DUMP, Failure, HEADER_LEN, Message, REQUEST, Raw, Received, Socket, Wait, align, be_u16, header,
    messages,
};

/// How often a dump is begun when the ruleset changes under it, any table of the network namespace counting.
const DUMP_ATTEMPTS: u32 = 10;
/// Longest pause before the next attempt: others often write several transactions in a row.
const PAUSE_MAX: Duration = Duration::from_millis(16);
const FLAGS_AT: usize = 6;

/// A connection to nf_tables of the network namespace in which it was opened. One user at a time.
#[derive(Debug)]
pub struct Nft {
    socket: Socket,
    port: u32,
    seq: u32,
    /// An exchange was broken off: the rest of its replies may still come.
    unread: bool,
    buffer: Vec<u8>,
}

impl Nft {
    /// Opens the connection.
    ///
    /// # Errors
    /// [`NftError::is_unsupported`] if the kernel has no nfnetlink.
    pub fn open() -> Result<Self, NftError> {
        let socket = Socket::open(libc::NETLINK_NETFILTER).map_err(NftError::io("open"))?;
        let port = socket.port_id().map_err(NftError::io("getsockname"))?;
        Ok(Self { socket, port, seq: 0, unread: false, buffer: Vec::new() })
    }

    /// The port by which notices tell our changes from those of others.
    #[must_use]
    pub fn port_id(&self) -> u32 {
        self.port
    }

    /// Applies a batch as one transaction: all of it or nothing. An empty batch does nothing.
    ///
    /// # Errors
    /// [`NftError::Kernel`] names the first thing refused; then nothing was applied. After [`NftError::Overrun`] or
    /// [`NftError::Io`] the outcome is unknown.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), NftError> {
        batch.check()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.drain()?;
        let end_seq = batch.messages + 1;
        let begin = frame(NFNL_MSG_BATCH_BEGIN, 0);
        let end = frame(NFNL_MSG_BATCH_END, end_seq);
        // Only the last message asks for an acknowledgement; older kernels give none for the frame.
        let (before, after) = batch.bytes.split_at(batch.last);
        let (last, rest) = after.split_at(HEADER_LEN);
        let mut last = last.to_vec();
        last[FLAGS_AT] |= ACK as u8;
        let parts = [&begin, before, &last, rest, &end].map(IoSlice::new);
        self.unread = true;
        self.socket.send_parts(&parts).map_err(NftError::io("send"))?;
        self.outcome(batch)?;
        self.unread = false;
        Ok(())
    }

    /// Reads the replies to a batch. The kernel queued them before `send` returned, what it refused before the
    /// acknowledgement of the last message.
    fn outcome(&mut self, batch: &Batch) -> Result<(), NftError> {
        let mut acknowledged = false;
        let mut failed: Option<Failure> = None;
        while !acknowledged && is_there(self.socket.recv_short(&mut self.buffer, Wait::No))? {
            for failure in messages(&self.buffer).filter_map(|message| message.failure()) {
                if failure.errno == 0 {
                    acknowledged |= failure.seq == batch.messages;
                } else if failed.is_none() {
                    failed = Some(failure);
                }
            }
        }
        if let Some(failure) = failed {
            let what = match Raw::new(&batch.bytes).nth((failure.seq as usize).wrapping_sub(1)) {
                Some((_, message)) => describe(message, failure.offset),
                None => "run the transaction".to_owned(),
            };
            return Err(refused(failure, what));
        }
        if acknowledged {
            return Ok(());
        }
        let source = io::Error::new(io::ErrorKind::InvalidData, "the kernel did not acknowledge the transaction");
        Err(NftError::Io { call: RECEIVE, source })
    }

    /// Sends a request and gathers all messages of the answer.
    pub(super) fn get(
        &mut self,
        command: u16,
        family: Nfproto,
        names: &[(u16, &str)],
        dump: bool,
    ) -> Result<Vec<u8>, NftError> {
        let mut reply = Vec::new();
        self.hand_out(command, family, names, dump, &mut |piece| match piece {
            Dumped::Begin => reply.clear(),
            Dumped::Item(bytes) => {
                reply.extend_from_slice(bytes);
                reply.resize(align(reply.len()), 0);
            }
        })?;
        Ok(reply)
    }

    /// Sends a request and hands out the messages of the answer, with their headers, as they come.
    pub(super) fn hand_out(
        &mut self,
        command: u16,
        family: Nfproto,
        names: &[(u16, &str)],
        dump: bool,
        each: &mut dyn FnMut(Dumped<&[u8]>),
    ) -> Result<(), NftError> {
        for attempt in 0..DUMP_ATTEMPTS {
            if attempt > 0 {
                thread::sleep(Duration::from_millis(1 << attempt).min(PAUSE_MAX));
            }
            self.drain()?;
            self.seq = self.seq.wrapping_add(1);
            let flags = REQUEST | if dump { DUMP } else { ACK };
            let mut request = Message::new(kind(command), flags, self.seq, &nfgenmsg(family as u8, 0));
            for (kind, name) in names {
                request.put_text(*kind, name);
            }
            let request = request
                .finish()
                .map_err(|source| NftError::TooLong { what: "ask for a name that long".to_owned(), source })?;
            self.unread = true;
            self.socket.send(&request).map_err(NftError::io("send"))?;
            each(Dumped::Begin);
            if self.gather(&request, each)? {
                return Ok(());
            }
        }
        Err(NftError::Interrupted)
    }

    /// Whether rules can use this match or target of xtables; loads its module if there is one.
    ///
    /// # Errors
    /// If the kernel cannot be asked.
    pub fn knows_extension(
        &mut self,
        family: Nfproto,
        target: bool,
        name: &str,
        revision: u8,
    ) -> Result<bool, NftError> {
        self.drain()?;
        self.seq = self.seq.wrapping_add(1);
        let mut request = Message::new(COMPAT_GET, REQUEST | ACK, self.seq, &nfgenmsg(family as u8, 0));
        request.put_text(NFTA_COMPAT_NAME, name);
        request.put_u32(NFTA_COMPAT_REV, revision.into()).put_u32(NFTA_COMPAT_TYPE, target.into());
        let request =
            request.finish().map_err(|source| NftError::TooLong { what: "ask for a name that long".into(), source })?;
        self.socket.send(&request).map_err(NftError::io("send"))?;
        match self.gather(&request, &mut |_| {}) {
            Ok(_) => Ok(true),
            Err(NftError::Kernel { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Reads an answer to its end; false if the ruleset changed while the kernel wrote it.
    fn gather(&mut self, request: &[u8], each: &mut dyn FnMut(Dumped<&[u8]>)) -> Result<bool, NftError> {
        let mut one_state = true;
        let mut generation = None;
        let result = self.socket.answer(self.seq, &mut self.buffer, |message| {
            one_state &= same_generation(message, &mut generation);
            if one_state {
                each(Dumped::Item(message.bytes));
            }
        });
        self.unread = !matches!(result, Ok(_) | Err(Broken::Refused(_)));
        match result {
            Ok(consistent) => Ok(consistent && one_state),
            Err(Broken::Refused(failure)) if matches!(failure.errno, libc::EINTR | libc::ERESTART | libc::EAGAIN) => {
                Ok(false)
            }
            Err(Broken::Refused(failure)) => Err(refused(failure, describe(request, None))),
            Err(Broken::Overrun) => Err(NftError::Overrun),
            Err(Broken::Receive(error)) => Err(NftError::io(RECEIVE)(error)),
        }
    }

    /// Throws away replies that an earlier, failed exchange left behind.
    fn drain(&mut self) -> Result<(), NftError> {
        while self.unread {
            match is_there(self.socket.recv(&mut self.buffer, Wait::No)) {
                Ok(rest) => self.unread = rest,
                Err(NftError::Overrun) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Whether there was something to receive.
fn is_there(received: io::Result<()>) -> Result<bool, NftError> {
    match received {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(NftError::io(RECEIVE)(error)),
    }
}

/// Every message carries 16 bits of the ruleset's generation; dumps of elements show a change in no other way.
fn same_generation(message: &Received<'_>, generation: &mut Option<u16>) -> bool {
    let now = message.payload.get(2..4).and_then(be_u16);
    let first = *generation.get_or_insert(now.unwrap_or(0));
    now == Some(first)
}

fn refused(failure: Failure, mut what: String) -> NftError {
    if let Some(text) = failure.text {
        what = format!("{what} ({text})");
    }
    NftError::Kernel { errno: failure.errno, what }
}

/// The message that begins or ends a batch.
fn frame(kind: u16, seq: u32) -> Vec<u8> {
    const LEN: usize = HEADER_LEN + NFGENMSG_LEN;
    let mut bytes = header(LEN as u32, kind, REQUEST, seq).to_vec();
    bytes.extend_from_slice(&nfgenmsg(0, NFNL_SUBSYS_NFTABLES));
    bytes
}
