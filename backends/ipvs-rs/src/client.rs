//! Requests and their answers over a socket of the caller's.

use std::io;
use std::iter::Peekable;

use netlink_packet_core::{
    DecodeError, Emitable, NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    NetlinkPayload,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlMessage};

use crate::attribute::{MessageAttribute, ServiceAttribute};
use crate::message::{FAMILY_NAME, FAMILY_VERSION};
use crate::{Command, Destination, Info, Message, Request, Service, ServiceId, Timeouts};

/// How many messages go into one datagram. Only those that fail are answered, and so many answers fit into any socket.
const MESSAGES_PER_SEND: usize = 1_000;
/// A netlink header.
const HEADER: usize = 16;
/// What a datagram begins with a place for.
const FIRST_SIZE: usize = 128;
const ENOENT: i32 = 2;
const EINTR: i32 = 4;
const ENOMEM: i32 = 12;
const ENODEV: i32 = 19;
/// How often a dump is read when services change under it.
const ATTEMPTS: u32 = 10;
/// The longest content of an attribute.
const ATTRIBUTE_MAX: usize = u16::MAX as usize - 4;

/// A netlink socket of the protocol `NETLINK_GENERIC` (16), bound, connected to the kernel.
pub trait Transport {
    /// Sends one datagram.
    ///
    /// # Errors
    /// What the system says.
    fn send(&mut self, datagram: &[u8]) -> io::Result<()>;

    /// Waits for one datagram and puts it into the buffer instead of what is there.
    ///
    /// # Errors
    /// What the system says.
    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()>;
}

/// Why an exchange with the kernel failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The kernel has no IPVS.
    #[error("the kernel has no IPVS: the module ip_vs is not loaded and could not be loaded")]
    NoIpvs,
    /// The socket failed.
    #[error("the netlink socket failed: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused a request.
    #[error("cannot {what}: {}", io::Error::from_raw_os_error(*.errno))]
    Refused {
        /// What was asked.
        what: &'static str,
        /// The error number.
        errno: i32,
    },
    /// The kernel's answer could not be read.
    #[error("the kernel's answer is not understood: {0}")]
    Answer(#[from] DecodeError),
    /// Services changed each time they were read.
    #[error("the services changed on every attempt to read them; read them again later")]
    Interrupted,
    /// A name is so long that its attribute would not fit; nothing was sent.
    #[error("message {0} has an attribute longer than 65531 bytes")]
    TooLong(usize),
}

/// A message of a batch that the kernel refused; those before and behind it were carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refusal {
    /// Its place in the batch.
    pub index: usize,
    /// The error number.
    pub errno: i32,
}

/// A connection to IPVS of the network namespace that the socket belongs to.
#[derive(Debug)]
pub struct Client<T> {
    transport: T,
    family: u16,
    sequence: u32,
    buffer: Vec<u8>,
}

impl<T: Transport> Client<T> {
    /// Asks for the number under which the kernel has IPVS; the kernel tries to load the module `ip_vs` at that.
    ///
    /// # Errors
    /// [`Error::NoIpvs`] if there is none.
    pub fn open(transport: T) -> Result<Self, Error> {
        let mut client = Self { transport, family: 0, sequence: 0, buffer: Vec::new() };
        let ask =
            GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: vec![GenlCtrlAttrs::FamilyName(FAMILY_NAME.to_owned())] };
        let mut family = None;
        let asked = client.exchange("look for IPVS", ask, NLM_F_ACK, |answer: &GenlCtrl| {
            family = family.or_else(|| {
                answer.nlas.iter().find_map(|nla| match nla {
                    GenlCtrlAttrs::FamilyId(id) => Some(*id),
                    _ => None,
                })
            });
            Ok(())
        });
        match (asked, family) {
            (Err(Error::Refused { errno: ENOENT, .. }), _) | (Ok(_), None) => Err(Error::NoIpvs),
            (Err(error), _) => Err(error),
            (Ok(_), Some(id)) => {
                client.family = id;
                Ok(client)
            }
        }
    }

    /// The socket.
    pub const fn transport(&mut self) -> &mut T {
        &mut self.transport
    }

    /// Carries out messages in their order, many in one system call, and gives those that the kernel refused.
    ///
    /// # Errors
    /// If the socket fails; then some of the messages may have been carried out.
    pub fn apply<R: Request>(&mut self, requests: impl IntoIterator<Item = R>) -> Result<Vec<Refusal>, Error> {
        let (mut requests, mut first, mut refused) = (requests.into_iter().peekable(), 0, Vec::new());
        let mut datagram = Vec::with_capacity(FIRST_SIZE);
        while requests.peek().is_some() {
            datagram.clear();
            let count = self.fill(&mut datagram, first, &mut requests)?;
            self.transport.send(&datagram)?;
            self.outcome(first, count, &mut refused)?;
            first += count;
        }
        Ok(refused)
    }

    /// Fills a datagram with the next messages, as many as go into one, and says how many that are.
    fn fill(
        &mut self,
        datagram: &mut Vec<u8>,
        first: usize,
        requests: &mut Peekable<impl Iterator<Item = impl Request>>,
    ) -> Result<usize, Error> {
        let mut count = 0;
        while let Some(request) = requests.next() {
            count += 1;
            let is_last = count == MESSAGES_PER_SEND || requests.peek().is_none();
            // The last one is always answered, which ends the answers.
            let flags = if is_last { NLM_F_ACK } else { 0 };
            self.sequence = self.sequence.wrapping_add(1);
            if !append(datagram, &request, self.family, flags, self.sequence) {
                return Err(Error::TooLong(first + count - 1));
            }
            if is_last {
                break;
            }
        }
        Ok(count)
    }

    /// Reads the answers to the last so many messages.
    fn outcome(&mut self, first: usize, count: usize, refused: &mut Vec<Refusal>) -> Result<(), Error> {
        let start = self.sequence.wrapping_add(1).wrapping_sub(count as u32);
        loop {
            self.transport.receive(&mut self.buffer)?;
            for message in split(&self.buffer) {
                let message = NetlinkMessage::<GenlMessage<Message>>::deserialize(message?)?;
                let index = message.header.sequence_number.wrapping_sub(start) as usize;
                let NetlinkPayload::Error(error) = &message.payload else { continue };
                // Left over from an exchange that failed.
                if index >= count {
                    continue;
                }
                if let Some(code) = error.code {
                    refused.push(Refusal { index: first + index, errno: code.get().saturating_neg() });
                }
                if index + 1 == count {
                    return Ok(());
                }
            }
        }
    }

    /// All virtual services of the network namespace.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub fn services(&mut self) -> Result<Vec<Service>, Error> {
        self.dump("list services", &Message::get_services(), |message, found: &mut Vec<Service>| {
            found.extend(message.service().map(Service::from_attributes).transpose()?);
            Ok(())
        })
    }

    /// The destinations of a virtual service.
    ///
    /// # Errors
    /// As [`Error`] says; `ESRCH` or an empty list if there is no such service.
    pub fn destinations(&mut self, service: &ServiceId) -> Result<Vec<Destination>, Error> {
        let request = Message::get_destinations(service);
        self.dump("list destinations", &request, |message, found: &mut Vec<Destination>| {
            let read = |list| Destination::from_attributes(service.family(), list);
            found.extend(message.destination().map(read).transpose()?);
            Ok(())
        })
    }

    /// One virtual service; `None` if there is none of that id.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub fn service(&mut self, id: &ServiceId) -> Result<Option<Service>, Error> {
        const ESRCH: i32 = 3;
        let mut found = None;
        let request = Message::new(Command::GetService, vec![MessageAttribute::Service(id.attributes())]);
        let asked = self.exchange("read a service", request, NLM_F_ACK, |message: &Message| {
            found = message.service().map(|list: &[ServiceAttribute]| Service::from_attributes(list)).transpose()?;
            Ok(())
        });
        match asked {
            Err(Error::Refused { errno: ESRCH, .. }) => Ok(None),
            other => other.map(|_| found),
        }
    }

    /// How long connections are remembered.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub fn timeouts(&mut self) -> Result<Timeouts, Error> {
        let mut timeouts = Timeouts::default();
        self.exchange(
            "read timeouts",
            Message::new(Command::GetConfig, Vec::new()),
            NLM_F_ACK,
            |message: &Message| {
                timeouts = Timeouts::from_attributes(&message.attributes);
                Ok(())
            },
        )?;
        Ok(timeouts)
    }

    /// The version, and the size of the connection table.
    ///
    /// # Errors
    /// As [`Error`] says.
    pub fn info(&mut self) -> Result<Info, Error> {
        let mut info = Info::default();
        self.exchange(
            "read the version",
            Message::new(Command::GetInfo, Vec::new()),
            NLM_F_ACK,
            |message: &Message| {
                info = Info::from_attributes(&message.attributes);
                Ok(())
            },
        )?;
        Ok(info)
    }

    /// Carries out one message.
    ///
    /// # Errors
    /// [`Error::Refused`] if the kernel does not.
    pub fn request(&mut self, what: &'static str, message: Message) -> Result<(), Error> {
        self.exchange(what, message, NLM_F_ACK, |_: &Message| Ok(())).map(drop)
    }

    fn dump<R: Default>(
        &mut self,
        what: &'static str,
        request: &Message,
        read: impl Fn(&Message, &mut R) -> Result<(), DecodeError>,
    ) -> Result<R, Error> {
        for _ in 0..ATTEMPTS {
            let mut found = R::default();
            match self.exchange(what, request.clone(), NLM_F_DUMP, |message| read(message, &mut found)) {
                Ok(true) => return Ok(found),
                Ok(false) | Err(Error::Refused { errno: EINTR | ENOMEM | ENODEV, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Interrupted)
    }

    /// Sends one request and reads its answer to the end. False if the kernel says that a dump is not of one state.
    fn exchange<F>(
        &mut self,
        what: &'static str,
        request: F,
        flags: u16,
        mut each: impl FnMut(&F) -> Result<(), DecodeError>,
    ) -> Result<bool, Error>
    where
        F: GenlFamily
            + Emitable
            + Clone
            + std::fmt::Debug
            + netlink_packet_core::ParseableParametrized<[u8], netlink_packet_generic::GenlHeader>,
    {
        const INTERRUPTED: u16 = 0x10;
        self.sequence = self.sequence.wrapping_add(1);
        let mut datagram = Vec::with_capacity(FIRST_SIZE);
        write(&mut datagram, request, self.family, flags, self.sequence);
        self.transport.send(&datagram)?;
        let mut consistent = true;
        loop {
            self.transport.receive(&mut self.buffer)?;
            for message in split(&self.buffer) {
                let message = NetlinkMessage::<GenlMessage<F>>::deserialize(message?)?;
                if message.header.sequence_number != self.sequence {
                    continue;
                }
                consistent &= message.header.flags & INTERRUPTED == 0;
                let code = match message.payload {
                    NetlinkPayload::InnerMessage(inner) => {
                        each(&inner.payload)?;
                        continue;
                    }
                    NetlinkPayload::Error(error) => error.code.map_or(0, std::num::NonZero::get),
                    NetlinkPayload::Done(done) => done.code.min(0),
                    _ => continue,
                };
                if code != 0 {
                    return Err(Error::Refused { what, errno: code.saturating_neg() });
                }
                return Ok(consistent);
            }
        }
    }
}

/// Appends one message of a batch; false if an attribute does not fit its length of 16 bits, as only names of the caller's may
/// not. What `write` does with any message, without a copy of it.
fn append(datagram: &mut Vec<u8>, request: &impl Request, family: u16, flags: u16, sequence: u32) -> bool {
    const GENERIC_HEADER: usize = 4;
    let at = datagram.len();
    datagram.extend_from_slice(&[0; 4]);
    datagram.extend_from_slice(&family.to_ne_bytes());
    datagram.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    datagram.extend_from_slice(&sequence.to_ne_bytes());
    datagram.extend_from_slice(&[0; 4]);
    datagram.extend_from_slice(&[request.command().into(), FAMILY_VERSION, 0, 0]);
    request.append(datagram);
    let length = datagram.len() - at;
    datagram[at..at + 4].copy_from_slice(&(length as u32).to_ne_bytes());
    length - HEADER - GENERIC_HEADER <= ATTRIBUTE_MAX
}

/// Appends one message.
fn write<F>(datagram: &mut Vec<u8>, payload: F, family: u16, flags: u16, sequence: u32)
where
    F: GenlFamily + Emitable + Clone + std::fmt::Debug,
{
    let mut inner = GenlMessage::from_payload(payload);
    inner.set_resolved_family_id(family);
    let mut message = NetlinkMessage::new(NetlinkHeader::default(), NetlinkPayload::InnerMessage(inner));
    message.header.flags = NLM_F_REQUEST | flags;
    message.header.sequence_number = sequence;
    message.finalize();
    let at = datagram.len();
    datagram.resize(at + align(message.buffer_len()), 0);
    message.serialize(&mut datagram[at..at + message.buffer_len()]);
}

/// The messages of a datagram.
fn split(datagram: &[u8]) -> impl Iterator<Item = Result<&[u8], DecodeError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let length = match NetlinkBuffer::new_checked(rest) {
            Ok(message) => message.length() as usize,
            Err(error) => {
                rest = &[];
                return Some(Err(error));
            }
        };
        let message = &rest[..length.max(HEADER).min(rest.len())];
        rest = rest.get(align(length)..).unwrap_or_default();
        Some(Ok(message))
    })
}

/// Messages begin at multiples of 4 bytes.
const fn align(length: usize) -> usize {
    length.next_multiple_of(4)
}
