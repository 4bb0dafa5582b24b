//! One entry: `struct ipt_entry` or `struct ip6t_entry`, its matches and its target.

use std::hash::Hasher;
use std::net::IpAddr;

use ipnet::IpNet;

use super::super::{Extension, Interface, Ip, Net, Rule, Target};
use super::{Broken, shape};

/// Where things are in the header of an entry.
#[derive(Debug, Clone, Copy)]
pub struct Shape {
    /// The length of the header.
    pub header: usize,
    /// `nfcache`, behind the addresses; `target_offset`, `next_offset` and `comefrom` follow.
    pub cache: usize,
    /// `flags`; `invflags` follows.
    pub flags: usize,
    /// `proto`
    pub proto: usize,
}

/// Header of a match or target: its size, a name of 29 bytes, the revision.
const EXTENSION_HEADER: usize = 32;
const NAME: usize = 29;
const ALIGN: usize = 8;
/// The target of the entries that begin a chain and end the table.
const ERROR: &str = "ERROR";
/// The longest name of an interface with its zero.
const INTERFACE: usize = 16;
/// `XT_CONTINUE` and the like are negative; `-NF_ACCEPT - 1`.
pub const ACCEPT: i32 = -2;
pub const DROP: i32 = -1;
/// `XT_RETURN`
pub const RETURN: i32 = -5;
const INVERT_INTERFACE: u8 = 0x01;
const INVERT_SOURCE: u8 = 0x08;
const INVERT_DESTINATION: u8 = 0x10;
/// `IP6T_F_PROTO`
const HAS_PROTOCOL: u8 = 0x01;

/// An entry in a table.
#[derive(Debug, Clone, Copy)]
pub struct Entry<'a> {
    ip: Ip,
    at: usize,
    bytes: &'a [u8],
}

/// What a header asks.
#[derive(Debug)]
pub struct Header {
    pub source: Option<Net>,
    pub destination: Option<Net>,
    pub interface: Option<Interface>,
    pub protocol: Option<u8>,
}

fn u16_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().map(|bytes| usize::from(u16::from_ne_bytes(*bytes)))
}

impl<'a> Entry<'a> {
    /// The entry at this offset.
    pub fn at(ip: Ip, table: &'a [u8], at: usize) -> Result<Self, Broken> {
        let shape = shape(ip);
        let rest = table.get(at..).ok_or((at, "an offset beyond the end"))?;
        let len = u16_at(rest, shape.cache + 6).ok_or((at, "an entry beyond the end"))?;
        let target = u16_at(rest, shape.cache + 4).ok_or((at, "an entry beyond the end"))?;
        let bytes = rest.get(..len).ok_or((at, "an entry that does not end"))?;
        if target < shape.header || target + EXTENSION_HEADER > len {
            return Err((at, "a target outside its entry"));
        }
        Ok(Self { ip, at, bytes })
    }

    pub fn next(&self) -> usize {
        self.at + self.bytes.len()
    }

    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    fn target_at(&self) -> usize {
        u16_at(self.bytes, shape(self.ip).cache + 4).unwrap_or_default()
    }

    fn target_name(&self) -> &'a [u8] {
        let name = &self.bytes[self.target_at() + 2..][..NAME];
        name.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// Where in the entry the verdict of the standard target is.
    pub fn verdict_at(&self) -> Option<usize> {
        self.target_name().is_empty().then(|| self.target_at() + EXTENSION_HEADER)
    }

    /// What its standard target says: an offset, or a negative verdict.
    pub fn verdict(&self) -> Option<i32> {
        let at = self.verdict_at()?;
        self.bytes.get(at..)?.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes))
    }

    /// The offset it leads to, if that is not just the next entry, as in a rule without a target.
    pub fn jump(&self) -> Option<usize> {
        usize::try_from(self.verdict()?).ok().filter(|to| *to != self.next())
    }

    /// Whether it leads to the next entry.
    pub fn falls_through(&self) -> bool {
        self.verdict().is_some_and(|to| usize::try_from(to) == Ok(self.next()))
    }

    /// The name of the chain that it begins.
    pub fn chain_name(&self) -> Option<&'a str> {
        if self.target_name() != ERROR.as_bytes() {
            return None;
        }
        let name = self.bytes.get(self.target_at() + EXTENSION_HEADER..)?.split(|byte| *byte == 0).next()?;
        std::str::from_utf8(name).ok()
    }

    /// Its matches (`false`) and its target (`true`) with their names and revisions, without the targets that every table has.
    pub fn extensions(&self) -> Vec<(bool, &'a str, u8)> {
        let mut all = Vec::new();
        let mut at = shape(self.ip).header;
        while let Some(bytes) = self.bytes.get(at..).filter(|bytes| bytes.len() >= EXTENSION_HEADER) {
            let name = bytes[2..2 + NAME].split(|byte| *byte == 0).next().unwrap_or_default();
            let target = at >= self.target_at();
            if let Some(name) = std::str::from_utf8(name).ok().filter(|name| !name.is_empty() && *name != ERROR) {
                all.push((target, name, bytes[2 + NAME]));
            }
            let size = u16_at(bytes, 0).unwrap_or_default();
            if target || size == 0 {
                break;
            }
            at += size;
        }
        all
    }

    /// Its matches (`false`) and its target (`true`) with name, revision and data.
    pub fn parts(&self) -> Vec<(bool, &'a str, u8, &'a [u8])> {
        let mut all = Vec::new();
        let mut at = shape(self.ip).header;
        while let Some(bytes) = self.bytes.get(at..).filter(|bytes| bytes.len() >= EXTENSION_HEADER) {
            let size = u16_at(bytes, 0).unwrap_or_default();
            let name = bytes[2..2 + NAME].split(|byte| *byte == 0).next().unwrap_or_default();
            let target = at >= self.target_at();
            let Some(data) = bytes.get(EXTENSION_HEADER..size) else { break };
            all.push((target, std::str::from_utf8(name).unwrap_or("?"), bytes[2 + NAME], data));
            if target {
                break;
            }
            at += size;
        }
        all
    }

    /// What its header asks about a packet, as far as rules of ours ask.
    pub fn header(&self) -> Header {
        let (shape, width) = (shape(self.ip), if self.ip == Ip::V4 { 4 } else { 16 });
        let part = |number: usize| self.bytes.get(number * width..(number + 1) * width).unwrap_or_default();
        let inverted = self.bytes.get(shape.flags + 1).copied().unwrap_or_default();
        let net = |addr: usize, bit: u8| {
            let (addr, mask) = (part(addr), part(addr + 2));
            let asked = mask.iter().any(|byte| *byte != 0) || inverted & bit != 0;
            let net = asked.then(|| super::super::read::net(self.ip, addr, mask)).flatten()?;
            Some(Net { net, negated: inverted & bit != 0 })
        };
        let name = self.bytes.get(4 * width..4 * width + INTERFACE).unwrap_or_default();
        let mask = self.bytes.get(4 * width + 2 * INTERFACE..).unwrap_or_default();
        let counted = mask.iter().take(INTERFACE).take_while(|byte| **byte != 0).count();
        let called = name.split(|byte| *byte == 0).next().and_then(|name| std::str::from_utf8(name).ok());
        let interface = called.filter(|_| counted > 0).map(|called| Interface {
            name: called.to_owned(),
            prefix: counted <= called.len(),
            negated: inverted & INVERT_INTERFACE != 0,
        });
        let protocol = u16_at(self.bytes, shape.proto).and_then(|number| u8::try_from(number).ok());
        Header {
            source: net(0, INVERT_SOURCE),
            destination: net(1, INVERT_DESTINATION),
            interface,
            protocol: protocol.filter(|number| *number != 0),
        }
    }

    /// How many packets it has matched.
    pub fn packets(&self) -> u64 {
        /// `struct xt_counters` is the last part of the header.
        const COUNTERS: usize = 16;
        let at = shape(self.ip).header - COUNTERS;
        self.bytes.get(at..).and_then(|rest| rest.first_chunk()).map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    }

    /// Everything that packets do not change, without the offset of a jump.
    pub fn hash_content(&self, jumps: bool, hasher: &mut impl Hasher) {
        let shape = shape(self.ip);
        hasher.write(&self.bytes[..shape.cache]);
        hasher.write(&self.bytes[shape.cache + 4..shape.cache + 8]);
        let end = match self.verdict_at() {
            Some(at) if jumps || self.falls_through() => at,
            _ => self.bytes.len(),
        };
        hasher.write(&self.bytes[shape.header..end]);
    }
}

/// Appends a rule; a jump leads to offset 0, and the name of its chain is given back.
pub fn write<'a>(ip: Ip, rule: &'a Rule, out: &mut Vec<u8>) -> Option<&'a str> {
    let from = out.len();
    header(ip, rule, out);
    for one in &rule.matches {
        extension(one, out);
    }
    let target_at = out.len() - from;
    let jump = match &rule.target {
        Target::Jump(chain) => {
            standard(0, out);
            Some(chain.as_str())
        }
        Target::Return => plain(RETURN, out),
        Target::Accept => plain(ACCEPT, out),
        Target::Drop => plain(DROP, out),
        Target::Extension(target) => {
            extension(target, out);
            None
        }
    };
    seal(ip, out, from, target_at);
    jump
}

fn plain<'a>(verdict: i32, out: &mut Vec<u8>) -> Option<&'a str> {
    standard(verdict, out);
    None
}

/// Appends an entry that matches every packet and has a verdict: a policy or the return at the end of a chain.
pub fn write_verdict(ip: Ip, verdict: i32, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + shape(ip).header, 0);
    standard(verdict, out);
    seal(ip, out, from, shape(ip).header);
}

/// Appends the entry that begins a chain, or that ends the table and has the name `ERROR`.
pub fn write_name(ip: Ip, name: &str, out: &mut Vec<u8>) {
    let from = out.len();
    out.resize(from + shape(ip).header, 0);
    let mut data = name.as_bytes().to_vec();
    data.resize((data.len() + 1).max(30).next_multiple_of(ALIGN), 0);
    extension(&Extension { name: ERROR, revision: 0, data }, out);
    seal(ip, out, from, shape(ip).header);
}

fn seal(ip: Ip, out: &mut [u8], from: usize, target_at: usize) {
    let cache = from + shape(ip).cache;
    let len = out.len() - from;
    // An entry has a few matches of at most 300 bytes.
    let short = |value: usize| u16::try_from(value).unwrap_or(u16::MAX).to_ne_bytes();
    out[cache + 4..cache + 6].copy_from_slice(&short(target_at));
    out[cache + 6..cache + 8].copy_from_slice(&short(len));
}

fn standard(verdict: i32, out: &mut Vec<u8>) {
    let mut data = verdict.to_ne_bytes().to_vec();
    data.resize(ALIGN, 0);
    extension(&Extension { name: "", revision: 0, data }, out);
}

fn extension(one: &Extension, out: &mut Vec<u8>) {
    let size = u16::try_from(EXTENSION_HEADER + one.data.len()).unwrap_or(u16::MAX);
    out.extend_from_slice(&size.to_ne_bytes());
    let from = out.len();
    out.extend_from_slice(one.name.as_bytes());
    out.resize(from + NAME, 0);
    out.push(one.revision);
    out.extend_from_slice(&one.data);
}

fn header(ip: Ip, rule: &Rule, out: &mut Vec<u8>) {
    let from = out.len();
    let shape = shape(ip);
    let nets = [&rule.source, &rule.destination];
    for part in [Part::Address, Part::Mask] {
        nets.iter().for_each(|net| address(ip, net.as_ref(), part, out));
    }
    // The name that packets come in by, the one they leave by, then both masks.
    let (name, mask) = rule.interface.as_ref().map(interface).unwrap_or_default();
    for bytes in [name, [0; INTERFACE], mask, [0; INTERFACE]] {
        out.extend_from_slice(&bytes);
    }
    out.resize(from + shape.header, 0);
    let (flags, proto) = (from + shape.flags, from + shape.proto);
    if let Some(protocol) = rule.protocol {
        out[proto..proto + 2].copy_from_slice(&u16::from(protocol).to_ne_bytes());
        out[flags] = if ip == Ip::V6 { HAS_PROTOCOL } else { 0 };
    }
    let inverted = |net: &Option<Net>, bit| if net.is_some_and(|net| net.negated) { bit } else { 0 };
    let interface = rule.interface.as_ref().is_some_and(|interface| interface.negated);
    out[flags + 1] = inverted(&rule.source, INVERT_SOURCE)
        | inverted(&rule.destination, INVERT_DESTINATION)
        | if interface { INVERT_INTERFACE } else { 0 };
}

#[derive(Clone, Copy)]
enum Part {
    Address,
    Mask,
}

fn address(ip: Ip, net: Option<&Net>, part: Part, out: &mut Vec<u8>) {
    let addr = net.map(|Net { net, .. }| match part {
        Part::Address => net.network(),
        Part::Mask => mask(net),
    });
    match (ip, addr) {
        (Ip::V4, Some(IpAddr::V4(addr))) => out.extend_from_slice(&addr.octets()),
        (Ip::V6, Some(IpAddr::V6(addr))) => out.extend_from_slice(&addr.octets()),
        (Ip::V4, _) => out.extend_from_slice(&[0; 4]),
        (Ip::V6, _) => out.extend_from_slice(&[0; 16]),
    }
}

fn mask(net: &IpNet) -> IpAddr {
    net.netmask()
}

/// The name and which of its bytes count.
fn interface(interface: &Interface) -> ([u8; INTERFACE], [u8; INTERFACE]) {
    let (mut name, mut mask) = ([0; INTERFACE], [0; INTERFACE]);
    let len = interface.name.len().min(INTERFACE - 1);
    name[..len].copy_from_slice(&interface.name.as_bytes()[..len]);
    let counted = if interface.prefix { len } else { len + 1 };
    mask[..counted].fill(u8::MAX);
    (name, mask)
}
