//! Two modes at once, while one takes over from the other.
//!
//! Our marks lead packets to IPVS by the address that the client asked for. Rules of another mode that translate this address
//! between the mark and IPVS would make the packet one that IPVS does not know, and the node would refuse it. So as long as
//! there are both, marked packets are translated before the others have their turn: to the address that they have. That is no
//! change, but the kernel asks no other chain once it has been decided.

use fairlead_kernel::nft::{Batch, ChainSpec, Exprs, HookSpec, Nfproto, Nft, NftError};
use fairlead_kernel::restore;
use fairlead_plan::{Family, SyncError};

use crate::error::Error;
use crate::mark::{Marks, Tag};
use crate::structure::SERVICES;

/// The table, in both families; it is there only while modes change.
const TABLE: &str = "fairlead-ipvs";
/// Before everybody who translates destinations (-100).
const PRIORITY: i32 = -101;
/// `NF_INET_PRE_ROUTING` and `NF_INET_LOCAL_OUT`, and the names of the chains there.
const HOOKS: [(&str, u32); 2] = [("prerouting", 0), ("output", 3)];

/// Whether this mode carries out a plan in this network namespace: its rules are there, not only what kube-proxy has too.
///
/// # Errors
/// If the rules cannot be read.
pub fn has_rules() -> Result<bool, SyncError> {
    let save = restore::save(false, "mangle").map_err(Error::from)?;
    let declaration = format!(":{SERVICES} ");
    Ok(save.lines().any(|line| line.starts_with(&declaration)))
}

/// Whether a table of a mode that translates in nf_tables is here, fairlead's or kube-proxy's.
///
/// # Errors
/// If the kernel has nf_tables and cannot be asked.
pub fn others_translate() -> Result<bool, SyncError> {
    Ok(has_table(&["fairlead", "kube-proxy"]).map_err(Error::from)?)
}

/// Whether [`pin`] is in force.
pub fn is_pinned() -> Result<bool, NftError> {
    has_table(&[TABLE])
}

fn has_table(names: &[&str]) -> Result<bool, NftError> {
    let mut nft = match Nft::open() {
        Err(error) if error.is_unsupported() => return Ok(false),
        opened => opened?,
    };
    for proto in Family::BOTH.map(proto) {
        for name in names {
            if nft.table(proto, name)?.is_some() {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// Keeps the rules of other modes from translating packets that are on their way to IPVS, until [`unpin`].
///
/// # Errors
/// If the kernel has no nf_tables with nat, or refuses.
pub fn pin(masquerade_mark: u32) -> Result<(), SyncError> {
    let mut batch = Batch::new();
    for family in Family::BOTH {
        let proto = proto(family);
        batch.add_table(proto, TABLE, None);
        for (name, hook) in HOOKS {
            let hook = Some(HookSpec { kind: "nat", hook, priority: PRIORITY });
            batch.add_chain(proto, TABLE, &ChainSpec { name, hook, userdata: None });
            batch.flush_chain(proto, TABLE, name);
            batch.add_rule(proto, TABLE, name, &rule(family, Marks::new(masquerade_mark)).0, None);
        }
    }
    let sent = Nft::open().and_then(|mut nft| nft.commit(&batch));
    Ok(sent.map_err(Error::from)?)
}

/// Lets other modes translate again.
///
/// # Errors
/// If the kernel refuses.
pub fn unpin() -> Result<(), SyncError> {
    Ok(remove().map_err(Error::from)?)
}

/// As [`unpin`].
pub fn remove() -> Result<(), NftError> {
    let mut nft = match Nft::open() {
        Err(error) if error.is_unsupported() => return Ok(()),
        opened => opened?,
    };
    let mut batch = Batch::new();
    for proto in Family::BOTH.map(proto) {
        if nft.table(proto, TABLE)?.is_some() {
            batch.del_table(proto, TABLE);
        }
    }
    if batch.is_empty() { Ok(()) } else { nft.commit(&batch) }
}

const fn proto(family: Family) -> Nfproto {
    match family {
        Family::V4 => Nfproto::Ipv4,
        Family::V6 => Nfproto::Ipv6,
    }
}

/// `meta mark & tag == frontend dnat to ip daddr`
fn rule(family: Family, marks: Marks) -> Exprs {
    const REG_1: u32 = 1;
    const MARK: u32 = 3;
    const EQUAL: u32 = 0;
    const NETWORK: u32 = 1;
    const DESTINATION: u32 = 1;
    // Where the destination address stands in the header, and how long it is.
    let (at, length) = match family {
        Family::V4 => (16, 4),
        Family::V6 => (24, 16),
    };
    let (value, mask) = marks.tag(Tag::Frontend);
    let mut rule = Exprs::new();
    rule.meta_load(MARK, REG_1);
    rule.bitwise(REG_1, REG_1, 4, &mask.to_ne_bytes(), &[0; 4]);
    rule.cmp(EQUAL, REG_1, &value.to_ne_bytes());
    rule.payload(NETWORK, at, length, REG_1);
    rule.nat(DESTINATION, proto(family) as u32, REG_1, None, None, None, None);
    rule
}
