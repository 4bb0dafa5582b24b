//! What is measured of the iptables mode alone.

use std::sync::Arc;

use fairlead_iptables::Figures;
use fairlead_plan::Family;
use prometheus::IntCounter;

use super::{Metrics, PLAIN, gauge};

impl Metrics {
    /// This is the iptables mode, and here are its figures.
    pub fn has_iptables(&self, figures: Arc<Figures>) {
        // Set once: a process has one mode.
        let _ = self.iptables.set(figures);
        self.table.localhost_accepted.with_label_values(PLAIN);
    }

    /// Somebody has connected to a node port on loopback.
    pub fn accepted_on_loopback(&self) {
        if self.iptables.get().is_some() {
            self.table.localhost_accepted.with_label_values(PLAIN).inc();
        }
    }

    /// Shows the figures of this moment. Whoever calls holds the tally, so that no two do so at once.
    pub(super) fn show_iptables(&self) {
        let Some(figures) = self.iptables.get() else { return };
        let table = &self.table;
        for family in Family::BOTH {
            let (of, label) = (figures.of(family), family.label());
            for one in of.tables {
                table.iptables_rules.with_label_values(&[one.name, label]).set(gauge(one.rules));
                table.iptables_last.with_label_values(&[one.name, label]).set(gauge(one.written));
            }
            raise(&table.iptables_failures.with_label_values(&[label]), of.failures);
            raise(&table.iptables_partial_failures.with_label_values(&[label]), of.failed_changes);
        }
        raise(&table.invalid_dropped.with_label_values(PLAIN), figures.invalid_dropped());
    }
}

fn raise(counter: &IntCounter, to: u64) {
    let shown = counter.get();
    counter.inc_by(to.saturating_sub(shown));
}
