use super::HEADER_LEN;

/// The longest payload of an attribute: its `u16` length counts its own 4 header bytes too.
pub const ATTRIBUTE_MAX: usize = u16::MAX as usize - ATTRIBUTE_HEADER;
const ATTRIBUTE_HEADER: usize = 4;
const NESTED: u16 = 0x8000;

/// An attribute did not fit its 16-bit length. The kernel takes a wrapped length without complaint and drops most of
/// what was sent, so such a message must never leave.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("netlink attribute {kind} needs {len} bytes, a netlink attribute holds at most 65531")]
pub struct TooLong {
    /// The attribute's type.
    pub kind: u16,
    /// The payload's length in bytes.
    pub len: usize,
}

/// Rounds up to the 4 bytes to which netlink aligns messages and attributes.
pub(crate) const fn align(len: usize) -> usize {
    (len + 3) & !3
}

/// Appends one attribute. One that does not fit gets the greatest length there is, so that whatever encloses it does
/// not fit either.
pub(crate) fn put(bytes: &mut Vec<u8>, kind: u16, payload: &[u8]) -> Result<(), TooLong> {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
    bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    seal(bytes, at)
}

/// Starts a nested attribute; [`close`] it with the returned offset.
pub(crate) fn open(bytes: &mut Vec<u8>, kind: u16) -> usize {
    let at = bytes.len();
    bytes.extend_from_slice(&[0; ATTRIBUTE_HEADER]);
    bytes[at + 2..at + 4].copy_from_slice(&(kind | NESTED).to_ne_bytes());
    at
}

/// Ends the nested attribute that starts at `at`. May be called again after more was appended.
pub(crate) fn close(bytes: &mut Vec<u8>, at: usize) -> Result<(), TooLong> {
    seal(bytes, at)
}

fn seal(bytes: &mut Vec<u8>, at: usize) -> Result<(), TooLong> {
    let whole = bytes.len() - at;
    let len = u16::try_from(whole);
    bytes[at..at + 2].copy_from_slice(&len.unwrap_or(u16::MAX).to_ne_bytes());
    bytes.resize(at + align(whole), 0);
    let kind = u16::from_ne_bytes([bytes[at + 2], bytes[at + 3]]) & !NESTED;
    len.map(drop).map_err(|_| TooLong { kind, len: whole - ATTRIBUTE_HEADER })
}

/// One netlink message under construction.
///
/// The writer cannot fail half way: an attribute too long for its 16-bit length is remembered, and [`Message::finish`]
/// reports it instead of giving the bytes away.
#[derive(Debug)]
pub struct Message {
    bytes: Vec<u8>,
    fault: Option<TooLong>,
}

impl Message {
    /// Starts a message; `family_header` is the fixed part that follows `struct nlmsghdr` (`nfgenmsg`, `ifaddrmsg`,
    /// ...).
    #[must_use]
    pub fn new(kind: u16, flags: u16, seq: u32, family_header: &[u8]) -> Self {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(&header(0, kind, flags, seq));
        bytes.extend_from_slice(family_header);
        bytes.resize(align(bytes.len()), 0);
        Self { bytes, fault: None }
    }

    /// Appends an attribute.
    pub fn put(&mut self, kind: u16, payload: &[u8]) -> &mut Self {
        let result = put(&mut self.bytes, kind, payload);
        self.note(result)
    }

    /// Appends a number as nf_tables and conntrack want it: most significant byte first.
    pub fn put_u32(&mut self, kind: u16, value: u32) -> &mut Self {
        self.put(kind, &value.to_be_bytes())
    }

    /// Appends a string with its closing NUL.
    pub fn put_text(&mut self, kind: u16, value: &str) -> &mut Self {
        let at = open(&mut self.bytes, kind);
        self.bytes[at + 2..at + 4].copy_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value.as_bytes());
        self.bytes.push(0);
        let result = close(&mut self.bytes, at);
        self.note(result)
    }

    /// Appends a nested attribute whose content `fill` writes.
    pub fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) -> &mut Self {
        let at = open(&mut self.bytes, kind);
        fill(self);
        let result = close(&mut self.bytes, at);
        self.note(result)
    }

    /// The finished message.
    ///
    /// # Errors
    /// [`TooLong`] if any attribute did not fit.
    pub fn finish(mut self) -> Result<Vec<u8>, TooLong> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let len = u32::try_from(self.bytes.len()).map_err(|_| TooLong { kind: 0, len: self.bytes.len() })?;
        self.bytes[..4].copy_from_slice(&len.to_ne_bytes());
        Ok(self.bytes)
    }

    fn note(&mut self, result: Result<(), TooLong>) -> &mut Self {
        self.fault = self.fault.or(result.err());
        self
    }
}

/// `struct nlmsghdr`. The port number stays 0: the kernel knows the socket.
pub(crate) fn header(len: u32, kind: u16, flags: u16, seq: u32) -> [u8; HEADER_LEN] {
    let mut header = [0; HEADER_LEN];
    header[..4].copy_from_slice(&len.to_ne_bytes());
    header[4..6].copy_from_slice(&kind.to_ne_bytes());
    header[6..8].copy_from_slice(&flags.to_ne_bytes());
    header[8..12].copy_from_slice(&seq.to_ne_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_attribute_carries_its_length_without_padding_and_is_padded_to_four_bytes() {
        let mut bytes = Vec::new();
        put(&mut bytes, 7, &[1, 2, 3, 4, 5]).unwrap();
        let mut wanted = Vec::from(9u16.to_ne_bytes());
        wanted.extend(7u16.to_ne_bytes());
        wanted.extend([1, 2, 3, 4, 5, 0, 0, 0]);
        assert_eq!(bytes, wanted);
    }

    #[test]
    fn an_attribute_of_exactly_the_limit_fits_and_one_byte_more_does_not() {
        let mut bytes = Vec::new();
        assert_eq!(put(&mut bytes, 1, &vec![0; ATTRIBUTE_MAX]), Ok(()));
        let over = vec![0; ATTRIBUTE_MAX + 1];
        assert_eq!(put(&mut bytes, 1, &over), Err(TooLong { kind: 1, len: ATTRIBUTE_MAX + 1 }));
    }

    #[test]
    fn a_message_with_a_nest_over_the_limit_is_never_given_away() {
        let mut message = Message::new(1, 0, 0, &[]);
        message.nest(3, |message| {
            for _ in 0..70 {
                message.put(4, &[0; 1000]);
            }
        });
        assert_eq!(message.finish(), Err(TooLong { kind: 3, len: 70 * 1004 }));
    }

    #[test]
    fn a_message_states_its_whole_length_in_its_header() {
        let mut message = Message::new(0x0a00, 5, 9, &[2, 0, 0, 0]);
        message.put_text(1, "abc");
        let bytes = message.finish().unwrap();
        assert_eq!(bytes.len(), 28);
        assert_eq!(bytes[..4], 28u32.to_ne_bytes());
        assert_eq!(&bytes[24..], b"abc\0");
    }
}
