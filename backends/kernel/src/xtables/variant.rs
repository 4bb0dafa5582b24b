//! Which of the two variants this host uses.

use super::{Ip, Xtables};
use crate::nft::{Nfproto, Nft, NftError};

/// Where `iptables` keeps its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Variant {
    /// In memory of its own, replaced as a whole.
    Legacy,
    /// In nf_tables.
    Nft,
}

/// Chains in `mangle` by which the kubelet tells the variant.
const HINTS: [&str; 2] = ["KUBE-IPTABLES-HINT", "KUBE-KUBELET-CANARY"];
/// The tables of both variants.
const TABLES: [&str; 5] = ["raw", "mangle", "nat", "filter", "security"];

/// The variant that this network namespace uses, decided as the wrappers in the images of Kubernetes do: the one in which the
/// kubelet has left its hint, else the one with more rules, else nf_tables.
///
/// # Errors
/// If nf_tables can be asked but not read.
pub fn used_here() -> Result<Variant, NftError> {
    let legacy = legacy_tables();
    let mut nft = match Nft::open() {
        Ok(nft) => nft,
        Err(error) if error.is_unsupported() => return Ok(Variant::Legacy),
        Err(error) => return Err(error),
    };
    for (ip, proto) in [(Ip::V4, Nfproto::Ipv4), (Ip::V6, Nfproto::Ipv6)] {
        if nft.chains(proto, "mangle")?.iter().any(|chain| HINTS.contains(&&*chain.name)) {
            return Ok(Variant::Nft);
        }
        if legacy.contains(&(ip, "mangle")) && legacy_hint(ip) {
            return Ok(Variant::Legacy);
        }
    }
    let mut in_nft = 0;
    for proto in [Nfproto::Ipv4, Nfproto::Ipv6] {
        for table in TABLES {
            in_nft += nft.rules(proto, table)?.len();
        }
    }
    let in_legacy: usize = legacy.iter().map(|(ip, table)| legacy_rules(*ip, table)).sum();
    Ok(if in_legacy > in_nft { Variant::Legacy } else { Variant::Nft })
}

/// Tables of the legacy variant that exist. Asking for another one would make it.
fn legacy_tables() -> Vec<(Ip, &'static str)> {
    let files = [(Ip::V4, "/proc/thread-self/net/ip_tables_names"), (Ip::V6, "/proc/thread-self/net/ip6_tables_names")];
    let mut all = Vec::new();
    for (ip, file) in files {
        let names = std::fs::read_to_string(file).unwrap_or_default();
        all.extend(
            TABLES.into_iter().filter(|table| names.lines().any(|name| name == *table)).map(|table| (ip, table)),
        );
    }
    all
}

fn legacy_hint(ip: Ip) -> bool {
    let read = Xtables::open(ip)
        .and_then(|tables| tables.read("mangle", |view| HINTS.iter().any(|hint| view.chain(hint).is_some())));
    read.is_ok_and(|(_, hint)| hint)
}

fn legacy_rules(ip: Ip, table: &str) -> usize {
    let read = Xtables::open(ip).and_then(|tables| {
        tables.read(table, |view| view.chains().iter().map(|chain| view.rules(chain).count()).sum())
    });
    read.map_or(0, |(_, rules)| rules)
}

/// Whether a table of the legacy variant exists; asking for it in another way would make it.
#[must_use]
pub fn legacy_table_exists(ip: Ip, table: &str) -> bool {
    legacy_tables().contains(&(ip, table))
}
