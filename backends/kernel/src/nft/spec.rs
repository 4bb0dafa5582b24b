/// A chain to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ChainSpec<'a> {
    /// Its name, at most 255 bytes.
    pub name: &'a str,
    /// Where packets enter it; `None` for a chain that is only jumped to.
    pub hook: Option<HookSpec<'a>>,
    /// Bytes that the kernel keeps for us, at most 256 (kernel 5.7). The kernel does not change those of a chain that
    /// exists.
    pub userdata: Option<Vec<u8>>,
}

/// How a base chain hangs in the packet path. Its policy is always accept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HookSpec<'a> {
    /// `filter`, `nat` or `route`.
    pub kind: &'a str,
    /// `NF_INET_*`: 0 prerouting, 1 input, 2 forward, 3 output, 4 postrouting.
    pub hook: u32,
    /// Lower runs earlier; conntrack is at -200, destination NAT at -100, filter at 0, source NAT at 100.
    pub priority: i32,
}

/// A set or map to create.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SetSpec<'a> {
    /// Its name, at most 255 bytes.
    pub name: &'a str,
    /// nft's number for the key's type; a concatenation packs 6 bits for each part, first part highest. Only shown to
    /// people.
    pub key_type: u32,
    /// Bytes of the key; each part of a concatenation is padded to 4.
    pub key_len: u32,
    /// Type and length of a map's values. `(0xffff_ff00, 16)` for verdicts. The map flag is set on its own.
    pub data: Option<(u32, u32)>,
    /// `NFT_SET_*`: constant 2, interval 4, timeout 0x10, dynamic 0x20, concatenation 0x80.
    pub flags: u32,
    /// Bytes of each part of the key. The kernel needs them only for intervals over a concatenation.
    pub field_lens: Vec<u32>,
    /// Greatest number of elements. Selects a faster hash, cannot be changed later; beyond it elements fail with
    /// `ENFILE`.
    pub size: Option<u32>,
    /// How long an element lives unless it says otherwise, in milliseconds; needs the timeout flag.
    pub timeout_ms: Option<u64>,
    /// Bytes that the kernel keeps for us, at most 256. nft keeps the `typeof` of a set here.
    pub userdata: Option<Vec<u8>>,
}

/// An element of a set or map.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Element<'a> {
    /// The key, or the first key of an interval over a concatenation.
    pub key: &'a [u8],
    /// The last key of an interval over a concatenation (kernel 5.6).
    pub key_end: Option<&'a [u8]>,
    /// A map's value. May be left out where the element is deleted.
    pub data: Option<Data<'a>>,
    /// In a plain interval set: this key is the first one after the interval.
    pub interval_end: bool,
}

/// The value of a map's element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Data<'a> {
    /// Plain bytes.
    Value(&'a [u8]),
    /// Continue in this chain and do not come back.
    Goto(&'a str),
    /// Continue in this chain, then after the rule that looked up.
    Jump(&'a str),
    /// Drop the packet.
    Drop,
    /// Accept the packet.
    Accept,
}
