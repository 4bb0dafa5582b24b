//! What an operator can measure. [`DECLARED`] is the whole list; [`Metrics`] is how the rest of the program fills it.
//!
//! Names are kube-proxy's where the meaning is the same, so that dashboards and alerts go on working.

mod counters;
mod declared;
mod iptables;
mod overlay;
mod process;
mod reference;

use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fairlead_iptables::Figures;
use fairlead_plan::{Family, Report, SyncError};
use prometheus::{Gauge, IntCounter, IntGauge, Registry, TextEncoder};

pub use declared::{DECLARED, Declared};
pub use reference::reference;

use crate::counters::Counters;
use crate::object::Kind;
use crate::resolve::Tally;
use declared::Table;
use process::Process;

/// The label values of a metric without labels.
const PLAIN: &[&str] = &[];
/// What can be repaired, as the value of the label `what`: whichever the sentence of a report names first.
const REPAIRED: [&str; 6] = ["table", "chain", "rule", "element", "map", "set"];
/// What a repair of anything else is called.
const REPAIRED_OTHER: &str = "other";

/// Why something went wrong, as the label `cause`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// This kernel cannot do what the mode needs.
    Unsupported,
    /// The kernel refused a sync.
    Sync,
    /// Connection tracking could not be read or changed.
    Conntrack,
    /// A sysctl could not be read or written.
    Sysctl,
    /// A port on which fairlead answers is taken: HTTP, or a node port on loopback.
    Listen,
    /// A source of objects failed.
    Watch,
    /// An object or file could not be understood.
    Input,
    /// The notifications of the kernel were lost.
    Notifications,
    /// The overlay: no interface, a device or peer that the kernel refuses.
    Overlay,
}

impl Cause {
    /// All of them; each has its series from the start.
    pub const ALL: [Self; 9] = [
        Self::Unsupported,
        Self::Sync,
        Self::Conntrack,
        Self::Sysctl,
        Self::Listen,
        Self::Watch,
        Self::Input,
        Self::Notifications,
        Self::Overlay,
    ];

    const fn label(self) -> &'static str {
        match self {
            Self::Unsupported => "unsupported",
            Self::Sync => "sync",
            Self::Conntrack => "conntrack",
            Self::Sysctl => "sysctl",
            Self::Listen => "listen",
            Self::Watch => "watch",
            Self::Input => "input",
            Self::Notifications => "notifications",
            Self::Overlay => "overlay",
        }
    }
}

/// Which health question was answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Question {
    /// `/healthz`
    Healthz,
    /// `/livez`
    Livez,
}

/// One successful sync.
#[derive(Debug)]
pub struct Synced<'a> {
    /// What the backend says.
    pub report: &'a Report,
    /// How long the call took.
    pub took: Duration,
    /// Whether the kernel was read first (`was` was `None`).
    pub full: bool,
    /// For each change that it carried: the time since its event arrived.
    pub waited: &'a [Duration],
    /// For each change that says so, when the pod or Service changed
    /// (`endpoints.kubernetes.io/last-change-trigger-time`). One sync carries both families, so both count it.
    pub triggers: &'a [SystemTime],
    /// When it ended.
    pub at: SystemTime,
}

/// Series that are touched between the arrival of a change and the kernel: looking them up by their labels would cost more than
/// the rest of the bookkeeping.
#[derive(Debug)]
struct Path {
    service_changes: IntCounter,
    endpoint_changes: IntCounter,
    services_pending: IntGauge,
    endpoints_pending: IntGauge,
    last_queued: [Gauge; 2],
}

impl Path {
    fn new(table: &Table) -> Self {
        Self {
            service_changes: table.service_changes.with_label_values(PLAIN),
            endpoint_changes: table.endpoint_changes.with_label_values(PLAIN),
            services_pending: table.service_changes_pending.with_label_values(PLAIN),
            endpoints_pending: table.endpoint_changes_pending.with_label_values(PLAIN),
            last_queued: Family::BOTH.map(|family| table.last_queued.with_label_values(&[family.label()])),
        }
    }
}

/// All metrics of one process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    table: Table,
    path: Path,
    /// What the kernel carries out, shown at a scrape.
    tally: Mutex<Option<Tally>>,
    /// In mode iptables.
    iptables: OnceLock<Arc<Figures>>,
    /// With `--service-counters`.
    counters: OnceLock<Arc<Counters>>,
}

impl Metrics {
    /// Registers everything. Series whose labels are known exist from the start, so that a rate over them is right.
    ///
    /// # Panics
    /// Never, as long as the test that makes the list passes.
    #[must_use]
    pub fn new(version: &str, mode: &str) -> Self {
        let registry = Registry::new();
        let table = Table::new(&registry);
        table.build_info.with_label_values(&[version, mode]).set(1);
        for metric in [&table.writes, &table.transactions] {
            metric.with_label_values(PLAIN);
        }
        for metric in [&table.conflicts, &table.ready] {
            metric.with_label_values(PLAIN);
        }
        for metric in [&table.sync_seconds, &table.event_to_kernel] {
            metric.with_label_values(PLAIN);
        }
        for family in Family::BOTH.map(Family::label) {
            table.nft_failures.with_label_values(&[family]);
            table.conntrack_deleted.with_label_values(&[family]);
        }
        for cause in Cause::ALL {
            table.failures.with_label_values(&[cause.label()]);
        }
        for what in REPAIRED.into_iter().chain([REPAIRED_OTHER]) {
            table.repairs.with_label_values(&[what]);
        }
        let path = Path::new(&table);
        Self { registry, table, path, tally: Mutex::default(), iptables: OnceLock::new(), counters: OnceLock::new() }
    }

    /// A sync was asked for.
    pub fn queued(&self, at: SystemTime) {
        self.path.last_queued.iter().for_each(|metric| metric.set(unix(at)));
    }

    /// A sync succeeded.
    pub fn synced(&self, sync: &Synced<'_>) {
        let (table, report) = (&self.table, sync.report);
        let took = sync.took.as_secs_f64();
        let kind = if sync.full { &table.sync_full } else { &table.sync_partial };
        for (family, held) in Family::BOTH.iter().zip(report.held) {
            let label = &[family.label()];
            table.sync.with_label_values(label).observe(took);
            kind.with_label_values(label).observe(took);
            table.last_sync.with_label_values(label).set(unix(sync.at));
            table.rules.with_label_values(label).set(gauge(held.rules));
            table.elements.with_label_values(label).set(gauge(held.elements));
        }
        table.sync_seconds.with_label_values(PLAIN).observe(took);
        for waited in sync.waited {
            table.event_to_kernel.with_label_values(PLAIN).observe(waited.as_secs_f64());
        }
        for trigger in sync.triggers {
            let since = sync.at.duration_since(*trigger).unwrap_or_default().as_secs_f64();
            for family in Family::BOTH {
                table.programming.with_label_values(&[family.label()]).observe(since);
            }
        }
        table.writes.with_label_values(PLAIN).inc_by(report.writes);
        table.transactions.with_label_values(PLAIN).inc_by(u64::from(report.transactions));
        for sentence in &report.repaired {
            table.repairs.with_label_values(&[repaired(sentence)]).inc();
        }
    }

    /// A sync failed.
    pub fn sync_failed(&self, error: &SyncError) {
        if self.iptables.get().is_none() {
            for family in Family::BOTH {
                self.table.nft_failures.with_label_values(&[family.label()]).inc();
            }
        }
        self.failed(match error {
            SyncError::Unsupported(_) => Cause::Unsupported,
            SyncError::Failed(_) => Cause::Sync,
        });
    }

    /// Something went wrong and will be tried again.
    pub fn failed(&self, cause: Cause) {
        self.table.failures.with_label_values(&[cause.label()]).inc();
    }

    /// The kernel carries out a plan that comes to these counts.
    pub fn programmed(&self, tally: &Tally) {
        *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Some(*tally);
        self.table.ready.with_label_values(PLAIN).set(1);
    }

    /// A change of an object arrived.
    pub fn changed(&self, kind: Kind) {
        match kind {
            Kind::Service => self.path.service_changes.inc(),
            Kind::EndpointSlice => self.path.endpoint_changes.inc(),
            Kind::Node | Kind::ServiceCidr => {}
        }
    }

    /// So many changes of Services and EndpointSlices have arrived that the kernel does not have yet.
    pub fn pending(&self, services: usize, slices: usize) {
        self.path.services_pending.set(gauge(services));
        self.path.endpoints_pending.set(gauge(slices));
    }

    /// Connection tracking was searched for stale flows.
    pub fn conntrack(&self, family: Family, took: Duration, deleted: u64) {
        self.table.conntrack_sync.with_label_values(&[family.label()]).observe(took.as_secs_f64());
        self.table.conntrack_deleted.with_label_values(&[family.label()]).inc_by(deleted);
    }

    /// A question about health was answered with this HTTP status.
    pub fn answered(&self, question: Question, code: u16) {
        let metric = match question {
            Question::Healthz => &self.table.healthz,
            Question::Livez => &self.table.livez,
        };
        metric.with_label_values(&[code.to_string()]).inc();
    }

    /// An object could not be used, in whole or in part. `reason` is a constant in CamelCase, as in
    /// [`crate::resolve::Note`].
    pub fn rejected(&self, kind: Kind, reason: &'static str) {
        self.table.rejected.with_label_values(&[kind.name(), reason]).inc();
    }

    /// Everything as text (Prometheus exposition format 0.0.4), with the figures of this moment.
    ///
    /// # Errors
    /// When a metric cannot be written; none of [`DECLARED`] can be the cause.
    pub fn scrape(&self) -> Result<String, prometheus::Error> {
        // Held to the end: two scrapes at once would count the CPU time twice.
        let tally = self.tally.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(tally) = &*tally {
            self.show(tally);
        }
        self.show_iptables();
        self.show_counters();
        self.process(Process::read());
        TextEncoder::new().encode_to_string(&self.registry.gather())
    }

    fn show(&self, tally: &Tally) {
        let table = &self.table;
        table.conflicts.with_label_values(PLAIN).set(gauge(tally.frontend_conflicts));
        for family in Family::BOTH {
            let label = family.label();
            table.service_ports.with_label_values(&[label]).set(gauge(tally.service_ports[family]));
            table.endpoints.with_label_values(&[label]).set(gauge(tally.endpoints[family]));
            let absent = &table.no_local_endpoints;
            absent.with_label_values(&[label, "internal"]).set(gauge(tally.no_local_internal[family]));
            absent.with_label_values(&[label, "external"]).set(gauge(tally.no_local_external[family]));
        }
    }

    fn process(&self, process: Process) {
        let table = &self.table;
        let gauges = [
            (&table.resident, process.resident_bytes),
            (&table.resident_peak, process.resident_peak_bytes),
            (&table.open_files, process.open_files),
        ];
        for (metric, value) in gauges {
            if let Some(value) = value {
                metric.with_label_values(PLAIN).set(value);
            }
        }
        if let Some(seconds) = process.cpu_seconds {
            let metric = table.cpu.with_label_values(PLAIN);
            metric.inc_by((seconds - metric.get()).max(0.0));
        }
        if let Some(started) = process.started {
            table.started.with_label_values(PLAIN).set(started);
        }
    }
}

fn unix(at: SystemTime) -> f64 {
    at.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64()
}

fn gauge<T: TryInto<i64>>(count: T) -> i64 {
    count.try_into().unwrap_or(i64::MAX)
}

/// The value of the label `what`.
fn repaired(sentence: &str) -> &'static str {
    let mut words = sentence.split(|c: char| !c.is_ascii_alphabetic());
    let kind = |word: &str| REPAIRED.into_iter().find(|what| word.strip_suffix('s').unwrap_or(word) == *what);
    words.find_map(kind).unwrap_or(REPAIRED_OTHER)
}

#[cfg(test)]
mod tests;
