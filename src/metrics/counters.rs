//! Connections by service port, with `--service-counters`.

use std::sync::Arc;

use super::Metrics;
use crate::counters::Counters;

impl Metrics {
    /// Connections are counted here.
    pub fn has_counters(&self, counters: Arc<Counters>) {
        // Set once, at the start.
        let _ = self.counters.set(counters);
    }

    /// Shows the counts of this moment. A service port has its series from its first connection on, so that a node does not have one
    /// for each of the many that nobody on it uses. Whoever calls holds the tally, so that no two do so at once.
    pub(super) fn show_counters(&self) {
        let Some(counters) = self.counters.get() else { return };
        let metric = &self.table.service_connections;
        // Those of Services that are gone go with them.
        metric.reset();
        for (key, count) in counters.used() {
            let labels = [&*key.namespace, &*key.name, &*key.port_name, key.protocol.name(), key.family.label()];
            metric.with_label_values(&labels).inc_by(count);
        }
    }
}
