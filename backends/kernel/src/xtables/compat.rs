//! Rules as `iptables-nft` writes them: addresses in nf_tables' own terms, matches and targets through `nft_compat`.

use std::net::IpAddr;

use super::{Interface, Ip, Net, Rule, Target};
use crate::nft::Exprs;

const REG: u32 = 1;
const NETWORK: u32 = 1;
pub(super) const META_IIFNAME: u32 = 6;
pub(super) const META_L4PROTO: u32 = 16;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const ACCEPT: i32 = 1;
const DROP: i32 = 0;
const JUMP: i32 = -3;
const RETURN: i32 = -5;

/// The expressions of a rule, comparable with what the kernel shows.
#[must_use]
pub fn expressions(ip: Ip, rule: &Rule) -> Exprs {
    let mut exprs = Exprs::new();
    if let Some(interface) = &rule.interface {
        came_in_by(interface, &mut exprs);
    }
    if let Some(protocol) = rule.protocol {
        exprs.meta_load(META_L4PROTO, REG).cmp(EQUAL, REG, &[protocol]);
    }
    let (source_at, destination_at) = match ip {
        Ip::V4 => (12, 16),
        Ip::V6 => (8, 24),
    };
    for (net, at) in [(&rule.source, source_at), (&rule.destination, destination_at)] {
        if let Some(net) = net {
            address(*net, at, &mut exprs);
        }
    }
    for one in &rule.matches {
        exprs.xt_match(one.name, one.revision, &one.data);
    }
    exprs.counter();
    match &rule.target {
        Target::Jump(chain) => exprs.verdict(JUMP, Some(chain)),
        Target::Return => exprs.verdict(RETURN, None),
        Target::Accept => exprs.verdict(ACCEPT, None),
        Target::Drop => exprs.verdict(DROP, None),
        Target::Extension(target) => exprs.xt_target(target.name, target.revision, &target.data),
    };
    exprs
}

/// What a verdict means; `None` if no rule here has it.
pub(super) fn target(code: i32, chain: Option<&str>) -> Option<Target> {
    Some(match (code, chain) {
        (JUMP, Some(chain)) => Target::Jump(chain.to_owned()),
        (RETURN, None) => Target::Return,
        (ACCEPT, None) => Target::Accept,
        (DROP, None) => Target::Drop,
        _ => return None,
    })
}

fn compare(negated: bool) -> u32 {
    if negated { NOT_EQUAL } else { EQUAL }
}

fn came_in_by(interface: &Interface, exprs: &mut Exprs) {
    let mut name = interface.name.clone().into_bytes();
    if !interface.prefix {
        name.push(0);
    }
    exprs.meta_load(META_IIFNAME, REG).cmp(compare(interface.negated), REG, &name);
}

fn address(Net { net, negated }: Net, at: u32, exprs: &mut Exprs) {
    let bytes = |addr: IpAddr| match addr {
        IpAddr::V4(addr) => addr.octets().to_vec(),
        IpAddr::V6(addr) => addr.octets().to_vec(),
    };
    let addr = bytes(net.network());
    let len = u32::from(net.max_prefix_len()) / 8;
    exprs.payload(NETWORK, at, len, REG);
    if net.prefix_len() < net.max_prefix_len() {
        exprs.bitwise(REG, REG, len, &bytes(net.netmask()), &vec![0; addr.len()]);
    }
    exprs.cmp(compare(negated), REG, &addr);
}
