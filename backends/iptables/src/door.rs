//! What both variants have in common: the whole of a family's chains in the form of the variant, and how a sync fails.

use fairlead_kernel::nft::NftError;
use fairlead_kernel::xtables::{self, Hook, XtablesError};
use fairlead_plan::{Family, SyncError};

use crate::encode;

use crate::name;
use crate::rules::Table;
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
    /// Rules among them that were written, by table.
    pub rules: [u64; 2],
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
        for (rules, more) in self.rules.iter_mut().zip(other.rules) {
            *rules += more;
        }
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

/// Whose chains are read and written: everybody's are told by their names.
#[derive(Debug, Clone, Copy)]
pub struct Owner {
    /// Whether a chain is of this owner.
    pub is_ours: fn(&str) -> bool,
    /// Whether a rule in one of the kernel's own chains that leads there is of this owner.
    pub is_our_jump: fn(&str) -> bool,
    /// Whether chains of others may lead to ours.
    pub is_led_to: bool,
}

impl Default for Owner {
    /// The owner of the services' chains.
    fn default() -> Self {
        Self { is_ours: name::is_ours, is_our_jump, is_led_to: true }
    }
}

/// A rule in one of the kernel's own chains that leads to one of ours, in the kernel's terms.
#[derive(Debug, Clone)]
pub struct Lead {
    /// In which of the kernel's own chains.
    pub hook: Hook,
    /// The rule.
    pub rule: xtables::Rule,
    /// At the end, where others have had their say, instead of in front. All of one chain are alike in this.
    pub last: bool,
}

/// The jumps of one table to the services' chains.
pub fn jumps(family: Family, table: Table) -> Vec<Lead> {
    let jumps = structure::jumps().into_iter().filter(|jump| jump.table == table);
    let ip = encode::ip(family);
    jumps.map(|jump| Lead { hook: jump.hook, rule: encode::rule(ip, &jump.rule), last: false }).collect()
}

/// Whether a rule in one of the kernel's own chains that leads there is ours to remove. Other programs may mark packets for
/// masquerading through our chain.
pub fn is_our_jump(to: &str) -> bool {
    name::is_ours(to) && to != name::MARK_MASQ
}

/// Compares a chain of the kernel's own with the wanted jumps, of which the last stands uppermost. Whether they must be put in
/// front, all of them so that the way to a state does not matter, and the numbers of the rules that must be cut out then.
pub fn sort_out<R>(
    rules: impl Iterator<Item = R>,
    wanted: usize,
    leads_to_us: impl Fn(&R) -> bool,
    is: impl Fn(&R, usize) -> bool,
) -> (bool, Vec<usize>) {
    let ours: Vec<(usize, R)> = rules.enumerate().filter(|(_, rule)| leads_to_us(rule)).collect();
    let right = ours.len() == wanted && ours.iter().zip((0..wanted).rev()).all(|((_, rule), jump)| is(rule, jump));
    if right { (false, Vec::new()) } else { (wanted > 0, ours.into_iter().map(|(number, _)| number).collect()) }
}
