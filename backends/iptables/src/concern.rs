//! Which announcements of nf_tables are about something of ours.

use fairlead_kernel::nft::{Notice, NoticeKind};

use crate::door::Owner;
use crate::rules::Table;

/// Whether somebody changed a chain of the services, or took away what leads to one.
#[must_use]
pub fn concerns(notice: &Notice) -> bool {
    Owner::default().concerns(notice)
}

impl Owner {
    /// Whether somebody changed a chain of this owner, or what leads to one. Where others may lead to them, a new rule that does
    /// so is nobody's fault.
    pub fn concerns(&self, notice: &Notice) -> bool {
        if Table::BOTH.iter().all(|table| table.name() != notice.table) {
            return false;
        }
        let is_ours = (self.is_ours)(&notice.name);
        match notice.kind {
            NoticeKind::Table => notice.deleted,
            NoticeKind::Chain => is_ours || notice.deleted && is_own(&notice.name),
            NoticeKind::Rule => {
                let counts = notice.deleted || !self.is_led_to;
                is_ours || counts && notice.leads_to.as_deref().is_some_and(self.is_our_jump)
            }
            NoticeKind::Set | NoticeKind::Element | NoticeKind::Other => false,
        }
    }
}

/// Whether a chain is one of the kernel's own.
fn is_own(chain: &str) -> bool {
    fairlead_kernel::xtables::Hook::ALL.iter().any(|hook| hook.chain() == chain)
}
