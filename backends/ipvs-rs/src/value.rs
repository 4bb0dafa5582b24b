//! How the content of an attribute is laid out, and the macro that makes an attribute type of a table.

use netlink_packet_core::{DecodeError, Emitable, NlasIterator};

/// What an attribute holds.
pub(crate) trait Value: Sized {
    /// Whether it is a list of attributes.
    const NESTED: bool = false;
    fn length(&self) -> usize;
    /// Puts it at the end of what is there.
    fn append(&self, out: &mut Vec<u8>);
    /// Puts an attribute with it at the end of what is there.
    #[inline]
    fn append_as(&self, kind: u16, out: &mut Vec<u8>) {
        append(out, kind, |out| self.append(out));
    }
    fn parse(payload: &[u8]) -> Result<Self, DecodeError>;
}

/// Attributes begin at multiples of so many bytes.
const ALIGNED: usize = 4;

macro_rules! number {
    ($($number:ty)*) => {$(
        impl Value for $number {
            fn length(&self) -> usize {
                size_of::<Self>()
            }

            fn append(&self, out: &mut Vec<u8>) {
                out.extend_from_slice(&self.to_ne_bytes());
            }

            #[inline]
            fn append_as(&self, kind: u16, out: &mut Vec<u8>) {
                append_array(out, kind, self.to_ne_bytes());
            }

            fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
                array(payload).map(Self::from_ne_bytes)
            }
        }
    )*};
}

number!(u8 u16 u32 i32 u64);

impl<const N: usize> Value for [u8; N] {
    fn length(&self) -> usize {
        N
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self);
    }

    #[inline]
    fn append_as(&self, kind: u16, out: &mut Vec<u8>) {
        append_array(out, kind, *self);
    }

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        array(payload)
    }
}

/// A string with its closing NUL.
impl Value for String {
    fn length(&self) -> usize {
        self.len() + 1
    }

    fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(self.as_bytes());
        out.push(0);
    }

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        let text = payload.split(|byte| *byte == 0).next().unwrap_or_default();
        std::str::from_utf8(text).map(str::to_owned).map_err(|_| DecodeError::from("a name is not UTF-8"))
    }
}

/// A list of attributes.
impl<T: Emitable + Attribute> Value for Vec<T> {
    const NESTED: bool = true;

    fn length(&self) -> usize {
        self.iter().map(Emitable::buffer_len).sum()
    }

    fn append(&self, out: &mut Vec<u8>) {
        self.iter().for_each(|attribute| attribute.append(out));
    }

    fn parse(payload: &[u8]) -> Result<Self, DecodeError> {
        parse_list(payload)
    }
}

/// One attribute of some level.
pub(crate) trait Attribute: Sized {
    /// Puts it at the end of what is there.
    fn append(&self, out: &mut Vec<u8>);
    fn parse(kind: u16, payload: &[u8]) -> Result<Self, DecodeError>;
}

/// Puts an attribute at the end of what is there. One pass: attributes lie in each other, and their lengths, asked for before,
/// would be asked for once on every level.
#[inline]
pub(crate) fn append(out: &mut Vec<u8>, kind: u16, content: impl FnOnce(&mut Vec<u8>)) {
    let at = out.len();
    let [low, high] = kind.to_ne_bytes();
    out.extend_from_slice(&[0, 0, low, high]);
    content(out);
    // Whoever sends it has a look at the length of the whole.
    let length = out.len() - at;
    out[at..at + 2].copy_from_slice(&(length as u16).to_ne_bytes());
    out.extend_from_slice(&[0; ALIGNED][..length.next_multiple_of(ALIGNED) - length]);
}

/// The same of content whose length is known, as that of nearly all attributes.
#[inline]
fn append_array<const N: usize>(out: &mut Vec<u8>, kind: u16, content: [u8; N]) {
    const HEADER: usize = 4;
    /// That of an address.
    const LONGEST: usize = 16;
    const { assert!(N <= LONGEST) };
    let mut attribute = [0; HEADER + LONGEST];
    attribute[..2].copy_from_slice(&((HEADER + N) as u16).to_ne_bytes());
    attribute[2..HEADER].copy_from_slice(&kind.to_ne_bytes());
    attribute[HEADER..HEADER + N].copy_from_slice(&content);
    out.extend_from_slice(&attribute[..HEADER + N.next_multiple_of(ALIGNED)]);
}

/// What `netlink-packet-core` asks for: the same bytes, in a buffer of their length.
pub(crate) fn emit<T: Value>(value: &T, buffer: &mut [u8]) {
    let mut out = Vec::with_capacity(buffer.len());
    value.append(&mut out);
    buffer.copy_from_slice(&out);
}

pub(crate) fn parse_list<T: Attribute>(payload: &[u8]) -> Result<Vec<T>, DecodeError> {
    let one = |nla: Result<netlink_packet_core::NlaBuffer<&[u8]>, DecodeError>| {
        let nla = nla?;
        T::parse(nla.kind(), nla.value())
    };
    NlasIterator::new(payload).map(one).collect()
}

/// The start of the payload: newer kernels may make attributes longer.
fn array<const N: usize>(payload: &[u8]) -> Result<[u8; N], DecodeError> {
    let short = || DecodeError::from(format!("an attribute of {N} bytes has {}", payload.len()));
    payload.first_chunk().copied().ok_or_else(short)
}

/// An attribute type: one variant for each line, and one for what a newer kernel adds.
macro_rules! attributes {
    ($(#[$doc:meta])* $name:ident { $($(#[$line:meta])* $kind:literal => $variant:ident($value:ty),)* }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$line])* $variant($value),)*
            /// What this library does not know.
            Other(netlink_packet_core::DefaultNla),
        }

        impl netlink_packet_core::Nla for $name {
            fn value_len(&self) -> usize {
                match self {
                    $(Self::$variant(value) => $crate::value::Value::length(value),)*
                    Self::Other(other) => other.value_len(),
                }
            }

            fn kind(&self) -> u16 {
                let nested = |nested: bool| if nested { netlink_packet_core::NLA_F_NESTED } else { 0 };
                match self {
                    $(Self::$variant(_) => $kind | nested(<$value as $crate::value::Value>::NESTED),)*
                    Self::Other(other) => other.kind(),
                }
            }

            fn emit_value(&self, buffer: &mut [u8]) {
                match self {
                    $(Self::$variant(value) => $crate::value::emit(value, buffer),)*
                    Self::Other(other) => other.emit_value(buffer),
                }
            }
        }

        impl $crate::value::Attribute for $name {
            fn append(&self, out: &mut Vec<u8>) {
                let kind = netlink_packet_core::Nla::kind(self);
                match self {
                    $(Self::$variant(value) => $crate::value::Value::append_as(value, kind, out),)*
                    Self::Other(other) => $crate::value::append(out, kind, |out| {
                        let at = out.len();
                        out.resize(at + netlink_packet_core::Nla::value_len(other), 0);
                        netlink_packet_core::Nla::emit_value(other, &mut out[at..]);
                    }),
                }
            }

            fn parse(kind: u16, payload: &[u8]) -> Result<Self, netlink_packet_core::DecodeError> {
                Ok(match kind {
                    $($kind => Self::$variant(<$value as $crate::value::Value>::parse(payload)?),)*
                    _ => Self::Other(netlink_packet_core::DefaultNla::new(kind, payload.to_vec())),
                })
            }
        }
    };
}

pub(crate) use attributes;
