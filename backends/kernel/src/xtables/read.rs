//! Rules of both variants as the kernel shows them, made typed again. What is read is written again and compared, so that a rule
//! is either understood or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

use super::blob::HeldRule;
use super::blob::entry::{ACCEPT, DROP, RETURN};
use super::{Extension, Interface, Ip, Net, Rule, Target, compat};
use crate::nft::Expr;

impl HeldRule<'_> {
    /// The rule; `None` if it is none that can be written here.
    #[must_use]
    pub fn rule(&self, ip: Ip) -> Option<Rule> {
        let header = self.entry.header();
        let mut rule = Rule {
            source: header.source,
            destination: header.destination,
            interface: header.interface,
            protocol: header.protocol,
            matches: Vec::new(),
            target: match (self.jump, self.entry.verdict()) {
                (Some(chain), _) => Target::Jump(chain.to_owned()),
                (None, Some(RETURN)) => Target::Return,
                (None, Some(ACCEPT)) => Target::Accept,
                (None, Some(DROP)) => Target::Drop,
                (None, Some(_)) => return None,
                (None, None) => Target::Return,
            },
        };
        for (target, name, revision, data) in self.entry.parts() {
            match target {
                false => rule.matches.push(Extension::read(name, revision, data)?),
                true if name.is_empty() => {}
                true => rule.target = Target::Extension(Extension::read(name, revision, data)?),
            }
        }
        self.is(ip, &rule).then_some(rule)
    }
}

/// A prefix from an address and a mask.
pub(super) fn net(ip: Ip, addr: &[u8], mask: &[u8]) -> Option<IpNet> {
    let address = |bytes: &[u8]| -> Option<IpAddr> {
        Some(match ip {
            Ip::V4 => Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).into(),
            Ip::V6 => Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).into(),
        })
    };
    IpNet::with_netmask(address(addr)?, address(mask)?).ok()
}

/// A rule of the nf_tables variant; `None` if it is none that can be written here.
#[must_use]
pub fn rule_of(ip: Ip, expressions: &[u8]) -> Option<Rule> {
    const EQUAL: u32 = 0;
    let exprs = Expr::all(expressions);
    let target = Target::Accept;
    let mut rule =
        Rule { source: None, destination: None, interface: None, protocol: None, matches: Vec::new(), target };
    let mut place = |offset: u32, net: Net| match (ip, offset) {
        (Ip::V4, 12) | (Ip::V6, 8) => rule.source = Some(net),
        _ => rule.destination = Some(net),
    };
    let mut rest = exprs.as_slice();
    loop {
        let taken = match *rest {
            [] => break,
            [Expr::MetaLoad { key: compat::META_IIFNAME, .. }, Expr::Cmp { op, data }, ..] => {
                let prefix = data.last() != Some(&0);
                let name = std::str::from_utf8(data).ok()?.trim_end_matches('\0').to_owned();
                rule.interface = Some(Interface { name, prefix, negated: op != EQUAL });
                2
            }
            [Expr::MetaLoad { key: compat::META_L4PROTO, .. }, Expr::Cmp { data: [number], .. }, ..] => {
                rule.protocol = Some(*number);
                2
            }
            [Expr::Payload { offset, .. }, Expr::Bitwise { mask, .. }, Expr::Cmp { op, data }, ..] => {
                place(offset, Net { net: net(ip, data, mask)?, negated: op != EQUAL });
                3
            }
            [Expr::Payload { offset, .. }, Expr::Cmp { op, data }, ..] => {
                place(offset, Net { net: net(ip, data, &vec![u8::MAX; data.len()])?, negated: op != EQUAL });
                2
            }
            [Expr::XtMatch { name, revision, data }, ..] => {
                rule.matches.push(Extension::read(name, u8::try_from(revision).ok()?, data)?);
                1
            }
            [Expr::XtTarget { name, revision, data }, ..] => {
                rule.target = Target::Extension(Extension::read(name, u8::try_from(revision).ok()?, data)?);
                1
            }
            [Expr::Verdict { code, chain }, ..] => {
                rule.target = compat::target(code, chain)?;
                1
            }
            [Expr::Counter, ..] => 1,
            _ => return None,
        };
        rest = &rest[taken..];
    }
    compat::expressions(ip, &rule).matches(expressions).then_some(rule)
}
