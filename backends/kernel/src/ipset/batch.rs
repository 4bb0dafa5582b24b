use super::*;
use crate::netlink::{CREATE, EXCL, Message, REQUEST, TooLong};

/// How many entries one message carries; its length has 16 bits, and an entry takes at most 100 bytes.
const ENTRIES_PER_MESSAGE: usize = 500;
/// Room for this many entries; kube-proxy's 65536 is too few for large clusters.
const MAX_ENTRIES: u32 = 1 << 20;

/// What entries of a set are made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SetKind {
    /// `hash:ip`
    Ip,
    /// `hash:ip,port`
    IpPort,
    /// `hash:ip,port,ip`
    IpPortIp,
    /// `hash:ip,port,net`
    IpPortNet,
    /// `hash:net`
    Net,
    /// `hash:net,port`
    NetPort,
    /// `bitmap:port`, all ports of TCP and UDP: packets of other protocols are in none
    Port,
}

impl SetKind {
    pub(super) const ALL: [Self; 7] =
        [Self::Ip, Self::IpPort, Self::IpPortIp, Self::IpPortNet, Self::Net, Self::NetPort, Self::Port];

    /// Its name in the kernel.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ip => "hash:ip",
            Self::IpPort => "hash:ip,port",
            Self::IpPortIp => "hash:ip,port,ip",
            Self::IpPortNet => "hash:ip,port,net",
            Self::Net => "hash:net",
            Self::NetPort => "hash:net,port",
            Self::Port => "bitmap:port",
        }
    }

    /// The first revision that has marks.
    const fn revision(self) -> u8 {
        match self {
            Self::Port => 3,
            Self::Ip => 4,
            Self::IpPort | Self::IpPortIp => 5,
            Self::Net => 6,
            Self::IpPortNet | Self::NetPort => 7,
        }
    }
}

/// A set to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SetSpec<'a> {
    /// Its name, at most [`NAME_MAX`] bytes.
    pub name: &'a str,
    /// What its entries are made of.
    pub kind: SetKind,
    /// Whether its addresses are IPv6; means nothing for [`SetKind::Port`].
    pub v6: bool,
    /// Whether entries carry marks.
    pub marks: bool,
}

/// Messages that leave in one system call.
#[derive(Debug, Default)]
pub struct SetBatch {
    pub(super) messages: Vec<Vec<u8>>,
    pub(super) described: Vec<String>,
    entries: u64,
    fault: Option<TooLong>,
}

impl SetBatch {
    /// An empty one.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// How many sets and entries it touches.
    #[must_use]
    pub const fn objects(&self) -> u64 {
        self.entries
    }

    /// Makes a set. It must not exist.
    pub fn create(&mut self, set: &SetSpec<'_>) {
        let family = if set.v6 { libc::AF_INET6 } else { libc::AF_INET } as u8;
        let mut message = start(CMD_CREATE, CREATE | EXCL, set.name);
        message.put_text(ATTR_TYPENAME, set.kind.name());
        message.put(ATTR_REVISION, &[set.kind.revision()]);
        message.put(ATTR_FAMILY, &[if set.kind == SetKind::Port { libc::AF_UNSPEC as u8 } else { family }]);
        message.nest(ATTR_DATA, |message| {
            if set.marks {
                message.put(DATA_FLAGS | NETWORK_ORDER, &FLAG_MARKS.to_be_bytes());
            }
            if set.kind == SetKind::Port {
                message.put(DATA_PORT | NETWORK_ORDER, &0u16.to_be_bytes());
                message.put(DATA_PORT_TO | NETWORK_ORDER, &u16::MAX.to_be_bytes());
            } else {
                message.put(DATA_MAXELEM | NETWORK_ORDER, &MAX_ENTRIES.to_be_bytes());
            }
        });
        self.push(message, 1, || format!("make the set {}", set.name));
    }

    /// Destroys a set. No rule may use it.
    pub fn destroy(&mut self, name: &str) {
        self.push(start(CMD_DESTROY, 0, name), 1, || format!("destroy the set {name}"));
    }

    /// Takes all entries out of a set.
    pub fn flush(&mut self, name: &str) {
        self.push(start(CMD_FLUSH, 0, name), 1, || format!("empty the set {name}"));
    }

    /// Lets two sets of one type change places, for all rules that use them, at once.
    pub fn swap(&mut self, one: &str, other: &str) {
        let mut message = start(CMD_SWAP, 0, one);
        // The second name stands where others have the type.
        message.put_text(ATTR_TYPENAME, other);
        self.push(message, 1, || format!("swap the sets {one} and {other}"));
    }

    /// Puts entries into a set. One that is there gets the mark given here.
    pub fn add(&mut self, set: &str, entries: &[SetEntry]) {
        self.entries(CMD_ADD, set, entries, "put entries into");
    }

    /// Takes entries out of a set, where they are in it.
    pub fn delete(&mut self, set: &str, entries: &[SetEntry]) {
        self.entries(CMD_DEL, set, entries, "take entries out of");
    }

    fn entries(&mut self, command: u16, set: &str, entries: &[SetEntry], what: &str) {
        for part in entries.chunks(ENTRIES_PER_MESSAGE) {
            let mut message = start(command, 0, set);
            message.put(ATTR_LINENO | NETWORK_ORDER, &1u32.to_be_bytes());
            message.nest(ATTR_ADT, |message| part.iter().for_each(|entry| entry.write(message)));
            self.push(message, part.len() as u64, || format!("{what} the set {set}"));
        }
    }

    fn push(&mut self, message: Message, entries: u64, what: impl FnOnce() -> String) {
        match message.finish() {
            Ok(bytes) => {
                self.messages.push(bytes);
                self.described.push(what());
                self.entries += entries;
            }
            Err(fault) => self.fault = self.fault.or(Some(fault)),
        }
    }

    pub(super) fn check(&self) -> Result<(), TooLong> {
        self.fault.map_or(Ok(()), Err)
    }
}

/// A message about one set, without a sequence number.
fn start(command: u16, flags: u16, set: &str) -> Message {
    let mut message = bare(command, flags, 0);
    message.put_text(ATTR_SETNAME, set);
    message
}

/// A message that says only which protocol it speaks.
pub(super) fn bare(command: u16, flags: u16, seq: u32) -> Message {
    let nfgenmsg = [libc::AF_INET as u8, 0, 0, 0];
    let mut message = Message::new((SUBSYSTEM << 8) | command, REQUEST | flags, seq, &nfgenmsg);
    message.put(ATTR_PROTOCOL, &[PROTOCOL_VERSION]);
    message
}
