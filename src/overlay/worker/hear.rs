//! What of others' changes concerns the overlay.

use std::time::Instant;

use fairlead_kernel::route::{Change, TABLE_MAIN};

use super::{GATHER, Worker};
use crate::overlay::desired::{Key, Value};
use crate::overlay::diff::{self, PROTOCOL};

impl Worker {
    /// Somebody else has changed something.
    pub(super) fn hear(&mut self, change: &Change) {
        if let Change::Route { destination, protocol, table: TABLE_MAIN, deleted: false, .. } = change
            && *protocol != PROTOCOL
            && self.peers.get(&Key::Route(*destination)).is_some()
        {
            self.contested.insert(*destination);
        }
        if self.concerns(change) {
            self.doubt();
        } else if self.is_around(change) {
            self.look_at.get_or_insert_with(|| Instant::now() + GATHER);
        }
    }

    /// Whether what we hold may be other than it was. Forwarding entries are announced without a name, so what is as
    /// wanted is taken for our own doing.
    fn concerns(&self, change: &Change) -> bool {
        let tunnel = |index: u32| self.indices.iter().find(|(_, ours)| **ours == index).map(|(tunnel, _)| *tunnel);
        let underlay = |index: u32| self.local.families().any(|(_, half)| half.underlay.index == index);
        match change {
            Change::Link { index, name } => {
                tunnel(*index).is_some()
                    || underlay(*index)
                    || self.devices.iter().any(|device| device.spec.name == *name)
            }
            Change::Address(index) => tunnel(*index).is_some(),
            Change::Neighbour { entry, deleted } => {
                tunnel(entry.index).is_some_and(|tunnel| match self.peers.get(&Key::Neighbour(tunnel, entry.addr)) {
                    Some((Value::Mac(mac), _)) => *deleted || !entry.permanent || entry.mac != Some(mac),
                    _ => entry.permanent && !deleted,
                })
            }
            Change::Forwarding { entry, deleted } => {
                tunnel(entry.index).is_some_and(|tunnel| match self.peers.get(&Key::Forwarding(tunnel, entry.mac)) {
                    Some((Value::End(end), _)) => *deleted || !diff::agrees(entry, end),
                    _ => !deleted && (entry.permanent || !self.settings.learning),
                })
            }
            Change::Route { destination, index, protocol, table, .. } => {
                let ours = *protocol == PROTOCOL || tunnel(*index).is_some();
                *table == TABLE_MAIN && (ours || self.peers.get(&Key::Route(*destination)).is_some())
            }
            Change::Hop { id, protocol, .. } => *protocol == PROTOCOL || self.peers.get(&Key::Hop(*id)).is_some(),
            Change::Setting => false,
        }
    }

    /// Whether it may change who this node is or what the kernel lets through: interfaces, addresses, the default route, what is on the
    /// link, settings.
    fn is_around(&self, change: &Change) -> bool {
        match change {
            Change::Link { .. } | Change::Address(_) | Change::Setting => true,
            Change::Neighbour { .. } | Change::Forwarding { .. } | Change::Hop { .. } => false,
            Change::Route { destination, index, table, .. } => {
                let underlay = self.local.families().any(|(_, half)| half.underlay.index == *index);
                *table == TABLE_MAIN && (destination.prefix_len() == 0 || underlay)
            }
        }
    }
}
