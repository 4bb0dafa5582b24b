//! How the overlay fills its metrics. Its series exist only where there is an overlay.

use std::time::Duration;

use fairlead_plan::Family;

use super::{Metrics, PLAIN, gauge};
use crate::resolve::PerFamily;

/// What can be repaired.
const REPAIRED: [&str; 7] = ["device", "neighbour", "forwarding entry", "nexthop", "route", "extra", "rules"];

impl Metrics {
    /// This node has an overlay.
    pub fn has_overlay(&self) {
        let table = &self.table;
        for what in REPAIRED {
            table.overlay_repairs.with_label_values(&[what]);
        }
        table.overlay_writes.with_label_values(PLAIN);
        for metric in [&table.overlay_compare, &table.overlay_change] {
            metric.with_label_values(PLAIN);
        }
        self.overlay_peers(PerFamily::default(), 0, 0, false);
        self.overlay_silent(0);
    }

    /// How many peers there are, how many are refused by us, how many by the kernel, and whether the devices are there.
    pub fn overlay_peers(&self, peers: PerFamily<usize>, refused: usize, failing: usize, up: bool) {
        let table = &self.table;
        for family in Family::BOTH {
            table.overlay_peers.with_label_values(&[family.label()]).set(gauge(peers[family]));
        }
        table.overlay_refused.with_label_values(PLAIN).set(gauge(refused));
        table.overlay_failing.with_label_values(PLAIN).set(gauge(failing));
        table.overlay_up.with_label_values(PLAIN).set(up.into());
    }

    /// So many peers did not answer when they were asked.
    pub fn overlay_silent(&self, silent: usize) {
        self.table.overlay_silent.with_label_values(PLAIN).set(gauge(silent));
    }

    /// How this node takes part: backend, interface, its address, the prefix of its pods, and whether they are translated. Each
    /// family once.
    pub fn overlay_info<'a>(&self, families: impl Iterator<Item = (Family, [&'a str; 5])>) {
        self.table.overlay_info.reset();
        for (family, [backend, interface, address, pods, masquerade]) in families {
            let labels = [family.label(), backend, interface, address, pods, masquerade];
            self.table.overlay_info.with_label_values(&labels).set(1);
        }
    }

    /// So many changes were sent to the kernel.
    pub fn overlay_wrote(&self, count: usize) {
        self.table.overlay_writes.with_label_values(PLAIN).inc_by(count as u64);
    }

    /// So many things of this kind were put right.
    pub fn overlay_repaired(&self, what: &str, count: u64) {
        self.table.overlay_repairs.with_label_values(&[what]).inc_by(count);
    }

    /// A look or comparison took so long.
    pub fn overlay_compared(&self, took: Duration) {
        self.table.overlay_compare.with_label_values(PLAIN).observe(took.as_secs_f64());
    }

    /// A change of a Node was in the kernel so long after it had arrived.
    pub fn overlay_changed(&self, took: Duration) {
        self.table.overlay_change.with_label_values(PLAIN).observe(took.as_secs_f64());
    }
}
