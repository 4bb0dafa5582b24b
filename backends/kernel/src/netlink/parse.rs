use std::io;

use super::{HEADER_LEN, KIND_ERROR, write::align};

const TYPE_MASK: u16 = 0x3fff;
const CAPPED: u16 = 0x100;
const ACK_ATTRIBUTES: u16 = 0x200;
const ERROR_TEXT: u16 = 1;
const ERROR_OFFSET: u16 = 2;

/// `struct nlmsghdr` of a received message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Header {
    /// Message type.
    pub kind: u16,
    /// `NLM_F_*` flags.
    pub flags: u16,
    /// Sequence number of the request that this answers.
    pub seq: u32,
    /// Port of the socket that asked for it; in a notification: of the socket that made the change, 0 for the kernel.
    pub port: u32,
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Its header.
    pub header: Header,
    /// What follows the header.
    pub payload: &'a [u8],
    /// The whole message.
    pub bytes: &'a [u8],
}

/// What an `NLMSG_ERROR` message says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// Positive errno; 0 is an acknowledgement.
    pub errno: i32,
    /// Sequence number of the request.
    pub seq: u32,
    /// Offset into the request (from its header) of the attribute that was refused.
    pub offset: Option<u32>,
    /// The kernel's own words, where it has any.
    pub text: Option<String>,
}

impl Failure {
    /// The error as `std` knows it.
    #[must_use]
    pub fn io(&self) -> io::Error {
        io::Error::from_raw_os_error(self.errno)
    }
}

impl Received<'_> {
    /// Reads an error or acknowledgement; `None` if this is something else or cut short.
    #[must_use]
    pub fn failure(&self) -> Option<Failure> {
        if self.header.kind != KIND_ERROR {
            return None;
        }
        let errno = -i32::from_ne_bytes(*self.payload.first_chunk()?);
        let request = self.payload.get(4..4 + HEADER_LEN)?;
        let seq = ne_u32(&request[8..12])?;
        let mut failure = Failure { errno, seq, offset: None, text: None };
        if self.header.flags & ACK_ATTRIBUTES == 0 {
            return Some(failure);
        }
        let echoed = if self.header.flags & CAPPED == 0 { ne_u32(&request[..4])? as usize } else { HEADER_LEN };
        for attribute in attributes(self.payload.get(4 + align(echoed)..).unwrap_or_default()) {
            match attribute.kind {
                ERROR_TEXT => failure.text = text(attribute.payload).map(str::to_owned),
                ERROR_OFFSET => failure.offset = ne_u32(attribute.payload),
                _ => {}
            }
        }
        Some(failure)
    }
}

/// The messages of one datagram. Ends at the first one that is cut short.
#[must_use]
pub fn messages(datagram: &[u8]) -> Messages<'_> {
    Messages(Raw::new(datagram))
}

/// See [`messages`].
#[derive(Debug, Clone)]
pub struct Messages<'a>(Raw<'a>);

impl<'a> Iterator for Messages<'a> {
    type Item = Received<'a>;

    fn next(&mut self) -> Option<Received<'a>> {
        let (_, bytes) = self.0.next()?;
        let header = Header {
            kind: ne_u16(&bytes[4..6])?,
            flags: ne_u16(&bytes[6..8])?,
            seq: ne_u32(&bytes[8..12])?,
            port: ne_u32(&bytes[12..16])?,
        };
        Some(Received { header, payload: &bytes[HEADER_LEN..], bytes })
    }
}

/// Whole messages with their offsets, headers included.
#[derive(Debug, Clone)]
pub(crate) struct Raw<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Raw<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }
}

impl<'a> Iterator for Raw<'a> {
    type Item = (usize, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..)?;
        let len = ne_u32(rest.get(..4)?)? as usize;
        if len < HEADER_LEN {
            return None;
        }
        let message = rest.get(..len)?;
        let at = self.at;
        self.at += align(len);
        Some((at, message))
    }
}

/// One attribute.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attribute<'a> {
    /// Type, without the "nested" and "network byte order" bits.
    pub kind: u16,
    /// The content.
    pub payload: &'a [u8],
    /// Where the attribute's header starts, counted from the start of what [`attributes`] was given.
    pub offset: usize,
}

impl<'a> Attribute<'a> {
    /// The attributes inside this one.
    #[must_use]
    pub fn nested(&self) -> Attributes<'a> {
        attributes(self.payload)
    }
}

/// Takes a list of attributes apart. Ends at the first one that is cut short.
#[must_use]
pub fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { bytes, at: 0 }
}

/// See [`attributes`].
#[derive(Debug, Clone)]
pub struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Attributes<'a> {
    /// The content of the first attribute of this type.
    #[must_use]
    pub fn get(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find(|attribute| attribute.kind == kind).map(|attribute| attribute.payload)
    }
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Attribute<'a>;

    fn next(&mut self) -> Option<Attribute<'a>> {
        let rest = self.bytes.get(self.at..)?;
        let len = ne_u16(rest.get(..2)?)? as usize;
        let kind = ne_u16(rest.get(2..4)?)? & TYPE_MASK;
        let payload = rest.get(4..len)?;
        let offset = self.at;
        self.at += align(len);
        Some(Attribute { kind, payload, offset })
    }
}

pub(crate) fn ne_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_ne_bytes(*bytes))
}

pub(crate) fn ne_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(crate) fn be_u16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|bytes| u16::from_be_bytes(*bytes))
}

pub(crate) fn be_u32(bytes: &[u8]) -> Option<u32> {
    bytes.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

pub(crate) fn be_u64(bytes: &[u8]) -> Option<u64> {
    bytes.first_chunk().map(|bytes| u64::from_be_bytes(*bytes))
}

/// A string attribute up to its NUL; `None` if it is not UTF-8.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).ok()
}

#[cfg(test)]
mod tests {
    use super::super::{Message, put};
    use super::*;

    #[test]
    fn attributes_are_read_back_as_written_and_the_nested_bit_is_gone() {
        let mut message = Message::new(3, 0, 4, &[]);
        message.put_u32(1, 5).nest(2, |message| {
            message.put_text(9, "pod");
        });
        let bytes = message.finish().unwrap();
        let received = messages(&bytes).next().unwrap();
        assert_eq!((received.header.kind, received.header.seq), (3, 4));
        let list: Vec<_> = attributes(received.payload).collect();
        assert_eq!(list[0].payload, 5u32.to_be_bytes());
        assert_eq!((list[1].kind, list[1].offset), (2, 8));
        assert_eq!(list[1].nested().get(9).and_then(text), Some("pod"));
    }

    #[test]
    fn input_that_is_cut_short_ends_the_walk_and_never_panics() {
        let mut bytes = Vec::new();
        put(&mut bytes, 1, &[1, 2, 3, 4, 5]).unwrap();
        put(&mut bytes, 2, &[1, 2, 3, 4]).unwrap();
        for len in 0..bytes.len() {
            assert!(attributes(&bytes[..len]).count() <= 1, "length {len}");
            assert_eq!(messages(&bytes[..len]).count(), 0);
        }
        assert_eq!(attributes(&[0, 0, 0, 0, 0, 0, 0, 0]).count(), 0);
    }
}
