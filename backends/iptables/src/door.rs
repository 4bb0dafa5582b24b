//! What both variants have in common: the whole of a family's chains in the form of the variant, and how a sync fails.

use fairlead_kernel::nft::NftError;
use fairlead_kernel::xtables::XtablesError;
use fairlead_plan::{Family, SyncError};

use crate::name;
use crate::rules::{Jump, Table};
use crate::structure;

/// The canary of kube-proxy, by which it notices that rules were flushed, is in this table too.
pub const MANGLE: &str = "mangle";
/// Its name.
pub const CANARY: &str = "KUBE-PROXY-CANARY";
/// How many names a sentence about a repair has.
const NAMES_TOLD: usize = 5;

/// Why the kernel was not read or written.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The legacy variant.
    #[error(transparent)]
    Legacy(#[from] XtablesError),
    /// The nf_tables variant.
    #[error(transparent)]
    Nft(#[from] NftError),
    /// The kernel lacks something.
    #[error("{0}")]
    Lacks(String),
}

impl From<DoorError> for SyncError {
    fn from(error: DoorError) -> Self {
        match error {
            DoorError::Lacks(what) => Self::Unsupported(what),
            DoorError::Legacy(error) if error.is_unsupported() => Self::Unsupported(format!(
                "the kernel has no tables of the legacy variant of iptables ({error}); use --iptables-variant=nft"
            )),
            DoorError::Nft(error) if error.is_unsupported() => Self::Unsupported(format!(
                "the kernel cannot carry out the nf_tables variant of iptables ({error}); use --iptables-variant=legacy"
            )),
            other => Self::Failed(Box::new(other)),
        }
    }
}

/// What one adoption or step did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Done {
    /// Rules and chains written or deleted.
    pub writes: u64,
    /// Replacements of a table, or transactions.
    pub transactions: u32,
    /// What was found different, a sentence each.
    pub found: Vec<String>,
}

impl Done {
    /// Adds what another did.
    pub fn and(&mut self, other: Self) {
        self.writes += other.writes;
        self.transactions += other.transactions;
        self.found.extend(other.found);
    }

    /// Notes what was found in a table.
    pub fn found(&mut self, place: &str, what: &str, names: &[&str]) {
        if names.is_empty() {
            return;
        }
        let more = names.len().saturating_sub(NAMES_TOLD);
        let and = if more == 0 { String::new() } else { format!(" and {more} more") };
        let names = names[..names.len() - more].join(", ");
        self.found.push(format!("{what} in {place}: {names}{and}"));
    }
}

/// How people call a table of a family.
pub fn place(family: Family, table: &str) -> String {
    match family {
        Family::V4 => format!("iptables table {table}"),
        Family::V6 => format!("ip6tables table {table}"),
    }
}

/// The jumps of one table.
pub fn jumps(table: Table) -> Vec<Jump> {
    structure::jumps().into_iter().filter(|jump| jump.table == table).collect()
}

/// Whether a rule in one of the kernel's own chains that leads there is ours to remove. Other programs may mark packets for
/// masquerading through our chain.
pub fn is_our_jump(to: &str) -> bool {
    name::is_ours(to) && to != name::MARK_MASQ
}

/// Which of a chain's rules are the wanted jumps, and which are to be cut out: for each wanted jump whether it is there; the
/// numbers of rules that lead to us and are not wanted, or wanted but there already.
pub fn sort_out<R>(
    rules: impl Iterator<Item = R>,
    wanted: usize,
    leads_to_us: impl Fn(&R) -> bool,
    is: impl Fn(&R, usize) -> bool,
) -> (Vec<bool>, Vec<usize>) {
    let mut there = vec![false; wanted];
    let mut cut = Vec::new();
    for (number, rule) in rules.enumerate().filter(|(_, rule)| leads_to_us(rule)) {
        match (0..wanted).find(|jump| !there[*jump] && is(&rule, *jump)) {
            Some(jump) => there[jump] = true,
            None => cut.push(number),
        }
    }
    (there, cut)
}
