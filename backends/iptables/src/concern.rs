//! Which announcements of nf_tables are about something of ours.

use fairlead_kernel::nft::{Notice, NoticeKind};

use crate::door::is_our_jump;
use crate::name;
use crate::rules::Table;

/// Whether somebody changed a chain of ours, or took away what leads to one. Other programs add and delete rules in the
/// kernel's own chains all the time.
#[must_use]
pub fn concerns(notice: &Notice) -> bool {
    if Table::BOTH.iter().all(|table| table.name() != notice.table) {
        return false;
    }
    match notice.kind {
        NoticeKind::Table => notice.deleted,
        NoticeKind::Chain => name::is_ours(&notice.name) || notice.deleted && is_own(&notice.name),
        NoticeKind::Rule => {
            name::is_ours(&notice.name) || notice.deleted && notice.leads_to.as_deref().is_some_and(is_our_jump)
        }
        NoticeKind::Set | NoticeKind::Element | NoticeKind::Other => false,
    }
}

/// Whether a chain is one of the kernel's own.
pub fn is_own(chain: &str) -> bool {
    fairlead_kernel::xtables::Hook::ALL.iter().any(|hook| hook.chain() == chain)
}
