//! What the data of matches and targets mean: the counterpart of [`Extension`]'s constructors.

use std::net::{IpAddr, SocketAddr};

use super::{ConntrackState, Extension, Ip};

/// What a match or target asks or does.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Meaning {
    /// [`Extension::comment`]
    Comment(String),
    /// [`Extension::tcp_ports`], [`Extension::udp_ports`], [`Extension::sctp_ports`]
    Ports(u16, u16),
    /// [`Extension::mark_is`] with the bits of the mask as the value, negated or not.
    Marked(u32, bool),
    /// [`Extension::source_is_local`]
    SourceIsLocal,
    /// [`Extension::destination_is_local`]
    DestinationIsLocal,
    /// [`Extension::conntrack`]
    Conntrack(ConntrackState, bool),
    /// [`Extension::random`]
    Random(u32),
    /// [`Extension::recent_check`]
    RecentCheck(String, u32),
    /// [`Extension::recent_set`]
    RecentSet(String),
    /// [`Extension::set_mark`]
    SetMark(u32),
    /// [`Extension::flip_mark`]
    FlipMark(u32),
    /// [`Extension::masquerade`]
    Masquerade,
    /// [`Extension::dnat`]
    Dnat(SocketAddr),
    /// [`Extension::reject`]
    Reject,
    /// [`Extension::reject_with_reset`]
    RejectWithReset,
}

/// The names that extensions of ours have.
const NAMES: [&str; 13] = [
    "comment",
    "tcp",
    "udp",
    "sctp",
    "mark",
    "addrtype",
    "conntrack",
    "statistic",
    "recent",
    "MARK",
    "MASQUERADE",
    "DNAT",
    "REJECT",
];

impl Extension {
    /// A match or target as it was read; `None` if it is none that can be written here.
    pub(super) fn read(name: &str, revision: u8, data: &[u8]) -> Option<Self> {
        let name = NAMES.into_iter().find(|known| *known == name)?;
        Some(Self { name, revision, data: data.to_vec() })
    }

    /// What it means; `None` if none of the constructors makes it.
    #[must_use]
    pub fn meaning(&self, ip: Ip) -> Option<Meaning> {
        let meaning = self.guess(ip)?;
        (meaning.write(ip, self.name) == *self).then_some(meaning)
    }

    /// What it means if it is one of ours.
    fn guess(&self, ip: Ip) -> Option<Meaning> {
        Some(match self.name {
            "comment" => Meaning::Comment(text(self.data.get(..256)?)?),
            "tcp" | "udp" => Meaning::Ports(self.u16_at(4)?, self.u16_at(6)?),
            "sctp" => Meaning::Ports(self.u16_at(0)?, self.u16_at(2)?),
            "mark" => Meaning::Marked(self.u32_at(4)?, *self.data.get(8)? != 0),
            "addrtype" if self.u16_at(0)? != 0 => Meaning::SourceIsLocal,
            "addrtype" => Meaning::DestinationIsLocal,
            "conntrack" => Meaning::Conntrack(ConntrackState::of(self.u16_at(150)?), self.u16_at(148)? != 0),
            "statistic" => Meaning::Random(self.u32_at(4)?),
            "recent" => {
                let list = text(self.data.get(10..210)?)?;
                match self.u32_at(0)? {
                    0 => Meaning::RecentSet(list),
                    seconds => Meaning::RecentCheck(list, seconds),
                }
            }
            "MARK" if self.u32_at(4)? == 0 => Meaning::FlipMark(self.u32_at(0)?),
            "MARK" => Meaning::SetMark(self.u32_at(0)?),
            "MASQUERADE" => Meaning::Masquerade,
            "DNAT" => Meaning::Dnat(self.destination(ip)?),
            "REJECT" if *self == Self::reject_with_reset(ip) => Meaning::RejectWithReset,
            "REJECT" => Meaning::Reject,
            _ => return None,
        })
    }

    fn destination(&self, ip: Ip) -> Option<SocketAddr> {
        let addr: IpAddr = match ip {
            Ip::V4 => <[u8; 4]>::try_from(self.data.get(4..8)?).ok()?.into(),
            Ip::V6 => <[u8; 16]>::try_from(self.data.get(4..20)?).ok()?.into(),
        };
        Some(SocketAddr::new(addr, u16::from_be_bytes(self.data.get(36..38)?.try_into().ok()?)))
    }

    fn u16_at(&self, at: usize) -> Option<u16> {
        self.data.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
    }

    fn u32_at(&self, at: usize) -> Option<u32> {
        self.data.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
    }
}

impl Meaning {
    /// The extension that means it, of those of a name.
    fn write(&self, ip: Ip, name: &str) -> Extension {
        match self {
            Self::Comment(words) => Extension::comment(words),
            Self::Ports(first, last) => match name {
                "udp" => Extension::udp_ports(*first, *last),
                "sctp" => Extension::sctp_ports(*first, *last),
                _ => Extension::tcp_ports(*first, *last),
            },
            Self::Marked(bits, negated) => Extension::mark_is(*bits, *bits, *negated),
            Self::SourceIsLocal => Extension::source_is_local(),
            Self::DestinationIsLocal => Extension::destination_is_local(),
            Self::Conntrack(states, negated) => Extension::conntrack(*states, *negated),
            Self::Random(threshold) => Extension::random(*threshold),
            Self::RecentCheck(list, seconds) => Extension::recent_check(list, *seconds, ip),
            Self::RecentSet(list) => Extension::recent_set(list, ip),
            Self::SetMark(bits) => Extension::set_mark(*bits),
            Self::FlipMark(bits) => Extension::flip_mark(*bits),
            Self::Masquerade => Extension::masquerade(ip),
            Self::Dnat(to) => Extension::dnat(*to),
            Self::Reject => Extension::reject(ip),
            Self::RejectWithReset => Extension::reject_with_reset(ip),
        }
    }
}

fn text(field: &[u8]) -> Option<String> {
    let bytes = field.split(|byte| *byte == 0).next()?;
    std::str::from_utf8(bytes).ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_extension_tells_what_it_was_made_for() {
        let v4 = SocketAddr::new([10, 244, 1, 5].into(), 8080);
        let v6 = SocketAddr::new([0xfd00, 0x244, 0, 0, 0, 0, 0, 5].into(), 53);
        for (ip, to) in [(Ip::V4, v4), (Ip::V6, v6)] {
            let all = [
                ("comment", Meaning::Comment("default/web:http cluster IP".to_owned())),
                ("tcp", Meaning::Ports(80, 81)),
                ("udp", Meaning::Ports(53, 53)),
                ("sctp", Meaning::Ports(1, u16::MAX)),
                ("mark", Meaning::Marked(0x4000, true)),
                ("addrtype", Meaning::SourceIsLocal),
                ("addrtype", Meaning::DestinationIsLocal),
                ("conntrack", Meaning::Conntrack(ConntrackState::RELATED | ConntrackState::ESTABLISHED, false)),
                ("conntrack", Meaning::Conntrack(ConntrackState::DNAT, true)),
                ("statistic", Meaning::Random(715_827_883)),
                ("recent", Meaning::RecentCheck("KUBE-SEP-A".to_owned(), 10_800)),
                ("recent", Meaning::RecentSet("KUBE-SEP-A".to_owned())),
                ("MARK", Meaning::SetMark(0x4000)),
                ("MARK", Meaning::FlipMark(0x4000)),
                ("MASQUERADE", Meaning::Masquerade),
                ("DNAT", Meaning::Dnat(to)),
                ("REJECT", Meaning::Reject),
                ("REJECT", Meaning::RejectWithReset),
            ];
            for (name, meaning) in all {
                let written = meaning.write(ip, name);
                assert_eq!(written.name, name);
                assert_eq!(written.meaning(ip), Some(meaning));
                let read = Extension::read(name, written.revision, &written.data).expect("its name is known");
                assert_eq!(read, written);
                for at in 0..read.data.len() {
                    let mut other = read.clone();
                    other.data[at] ^= 1;
                    assert_ne!(other.meaning(ip), written.meaning(ip), "{name}: byte {at} does not count");
                }
            }
        }
    }
}
