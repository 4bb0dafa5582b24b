//! The list of all metrics: every name, its labels and its meaning, once.

use prometheus::core::Collector;
use prometheus::{CounterVec, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts, Registry};

/// kube-proxy's buckets: 1 ms, doubled up to 16.384 s.
pub(super) const SLOW: Buckets = || doubling(1e-3, 15);
/// 50 microseconds, doubled up to 6.5536 s: one change of one endpoint is to be seen in detail.
pub(super) const FAST: Buckets = || doubling(50e-6, 18);
/// kube-proxy's buckets for the time from a change of a pod to packets that follow it.
pub(super) const PROGRAMMING: Buckets = || {
    let fine = (1..60).map(f64::from);
    let medium = (60..120).step_by(5).map(f64::from);
    let coarse = (120..=300).step_by(30).map(f64::from);
    [0.25, 0.5].into_iter().chain(fine).chain(medium).chain(coarse).collect()
};
/// For what has none.
const NONE: Buckets = Vec::new;

/// Upper bounds in seconds.
pub(super) type Buckets = fn() -> Vec<f64>;

fn doubling(first: f64, count: i32) -> Vec<f64> {
    (0..count).map(|power| first * 2f64.powi(power)).collect()
}

/// What the list says about one metric.
#[derive(Debug, Clone, Copy)]
pub struct Declared {
    /// The name that a scrape shows.
    pub name: &'static str,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// One sentence.
    pub help: &'static str,
    /// The Rust type, which is the kind of metric.
    pub kind: &'static str,
}

/// A kind of metric that can be made from its declaration.
trait Kind: Collector + Clone + Sized + 'static {
    fn make(declared: &Declared, buckets: Buckets) -> prometheus::Result<Self>;
}

macro_rules! kind {
    ($($kind:ident),*) => {$(
        impl Kind for $kind {
            fn make(declared: &Declared, _: Buckets) -> prometheus::Result<Self> {
                Self::new(Opts::new(declared.name, declared.help), declared.labels)
            }
        }
    )*};
}

kind!(CounterVec, GaugeVec, IntCounterVec, IntGaugeVec);

impl Kind for HistogramVec {
    fn make(declared: &Declared, buckets: Buckets) -> prometheus::Result<Self> {
        Self::new(HistogramOpts::new(declared.name, declared.help).buckets(buckets()), declared.labels)
    }
}

/// Makes and registers one metric. The list is constant and a test makes all of it, so this cannot fail later.
fn register<T: Kind>(registry: &Registry, declared: &Declared, buckets: Buckets) -> T {
    let metric = T::make(declared, buckets).expect("the declaration is valid");
    registry.register(Box::new(metric.clone())).expect("the name is declared once");
    metric
}

macro_rules! metrics {
    ($($field:ident: $kind:ident $(($buckets:ident))?, $name:literal, [$($label:literal),*], $help:literal;)*) => {
        /// One handle for each metric.
        #[derive(Debug)]
        pub(super) struct Table {
            $(pub(super) $field: $kind,)*
        }

        /// Every metric of fairlead.
        pub const DECLARED: &[Declared] = &[
            $(Declared { name: $name, labels: &[$($label),*], help: $help, kind: stringify!($kind) },)*
        ];

        impl Table {
            pub(super) fn new(registry: &Registry) -> Self {
                let mut list = DECLARED.iter();
                Self {
                    $($field: {
                        let declared = list.next().expect("the list has an entry for each field");
                        #[allow(unused_mut, unused_assignments, reason = "only histograms have buckets")]
                        let mut buckets = NONE;
                        $(buckets = $buckets;)?
                        register(registry, declared, buckets)
                    },)*
                }
            }
        }
    };
}

metrics! {
    // kube-proxy's names, where the meaning is the same.
    sync: HistogramVec(SLOW), "kubeproxy_sync_proxy_rules_duration_seconds", ["ip_family"],
        "How long one sync of the kernel took; one sync carries both families.";
    sync_full: HistogramVec(SLOW), "kubeproxy_sync_full_proxy_rules_duration_seconds", ["ip_family"],
        "How long a sync that first read the kernel took.";
    sync_partial: HistogramVec(SLOW), "kubeproxy_sync_partial_proxy_rules_duration_seconds", ["ip_family"],
        "How long a sync of changes alone took.";
    last_sync: GaugeVec, "kubeproxy_sync_proxy_rules_last_timestamp_seconds", ["ip_family"],
        "When the last successful sync ended, in seconds since 1970.";
    last_queued: GaugeVec, "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", ["ip_family"],
        "When a sync was last asked for, in seconds since 1970.";
    programming: HistogramVec(PROGRAMMING), "kubeproxy_network_programming_duration_seconds", ["ip_family"],
        "Time from the change of a pod or Service to the end of the sync that carried it.";
    endpoint_changes_pending: IntGaugeVec, "kubeproxy_sync_proxy_rules_endpoint_changes_pending", [],
        "Changes of EndpointSlices that the kernel does not have yet.";
    endpoint_changes: IntCounterVec, "kubeproxy_sync_proxy_rules_endpoint_changes_total", [],
        "Changes of EndpointSlices seen.";
    service_changes_pending: IntGaugeVec, "kubeproxy_sync_proxy_rules_service_changes_pending", [],
        "Changes of Services that the kernel does not have yet.";
    service_changes: IntCounterVec, "kubeproxy_sync_proxy_rules_service_changes_total", [],
        "Changes of Services seen.";
    no_local_endpoints: IntGaugeVec, "kubeproxy_sync_proxy_rules_no_local_endpoints_total", ["ip_family", "traffic_policy"],
        "Service ports with policy Local that have endpoints in the cluster but none on this node.";
    nft_failures: IntCounterVec, "kubeproxy_sync_proxy_rules_nftables_sync_failures_total", ["ip_family"],
        "Syncs of nf_tables that failed; one sync carries both families.";
    iptables_rules: IntGaugeVec, "kubeproxy_sync_proxy_rules_iptables_total", ["table", "ip_family"],
        "Rules of ours in a table of iptables.";
    iptables_last: IntGaugeVec, "kubeproxy_sync_proxy_rules_iptables_last", ["table", "ip_family"],
        "Rules that the last sync wrote to a table of iptables.";
    iptables_failures: IntCounterVec, "kubeproxy_sync_proxy_rules_iptables_restore_failures_total", ["ip_family"],
        "Syncs of iptables from nothing that failed.";
    iptables_partial_failures: IntCounterVec, "kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total", ["ip_family"],
        "Changes of iptables that failed; each is followed by a sync from nothing.";
    invalid_dropped: IntCounterVec, "kubeproxy_iptables_ct_state_invalid_dropped_packets_total", [],
        "Forwarded packets that were dropped because conntrack could not place them; mode iptables counts them.";
    localhost_accepted: IntCounterVec, "kubeproxy_iptables_localhost_nodeports_accepted_packets_total", [],
        "First packets of connections to node ports on loopback; mode iptables counts them.";
    conntrack_sync: HistogramVec(SLOW), "kubeproxy_conntrack_reconciler_sync_duration_seconds", ["ip_family"],
        "How long one search for stale flows in connection tracking took.";
    conntrack_deleted: IntCounterVec, "kubeproxy_conntrack_reconciler_deleted_entries_total", ["ip_family"],
        "Stale flows deleted from connection tracking.";
    healthz: IntCounterVec, "kubeproxy_proxy_healthz_total", ["code"],
        "Answers of /healthz by HTTP status.";
    livez: IntCounterVec, "kubeproxy_proxy_livez_total", ["code"],
        "Answers of /livez by HTTP status.";

    // fairlead's own.
    rules: IntGaugeVec, "fairlead_rules", ["ip_family"],
        "Rules of ours in the kernel.";
    elements: IntGaugeVec, "fairlead_elements", ["ip_family"],
        "Elements of maps and sets of ours in the kernel, without those that packets make.";
    endpoints: IntGaugeVec, "fairlead_endpoints", ["ip_family"],
        "Endpoints in use, counted once for each service port.";
    service_ports: IntGaugeVec, "fairlead_service_ports", ["ip_family"],
        "Service ports programmed.";
    sync_seconds: HistogramVec(FAST), "fairlead_sync_duration_seconds", [],
        "How long one sync of the kernel took, in fine buckets.";
    event_to_kernel: HistogramVec(FAST), "fairlead_event_to_kernel_seconds", [],
        "Time from the arrival of a change to the moment when the kernel has it.";
    writes: IntCounterVec, "fairlead_writes_total", [],
        "Objects written to the kernel: elements, rules, chains and sets, added or deleted.";
    transactions: IntCounterVec, "fairlead_transactions_total", [],
        "Transactions sent to the kernel.";
    repairs: IntCounterVec, "fairlead_repairs_total", ["what"],
        "Things of ours that somebody else had changed and that were put right.";
    failures: IntCounterVec, "fairlead_failures_total", ["cause"],
        "What went wrong, by cause; each is tried again.";
    conflicts: IntGaugeVec, "fairlead_frontend_conflicts", [],
        "Addresses and ports that a Service claims and an older Service has.";
    rejected: IntCounterVec, "fairlead_objects_rejected_total", ["kind", "reason"],
        "Objects that could not be used, in whole or in part.";
    ready: IntGaugeVec, "fairlead_ready", [],
        "1 when the first complete sync is in the kernel.";
    build_info: IntGaugeVec, "fairlead_build_info", ["version", "mode"],
        "Always 1; the labels say what runs.";

    overlay_peers: IntGaugeVec, "fairlead_overlay_peers", ["ip_family"],
        "Nodes whose pods are reached through the overlay.";
    overlay_refused: IntGaugeVec, "fairlead_overlay_peers_refused", [],
        "Nodes and families that take part and cannot be reached: conflicts, other modes.";
    overlay_failing: IntGaugeVec, "fairlead_overlay_peers_failing", [],
        "Nodes and families whose way the kernel refuses; each is tried again.";
    overlay_silent: IntGaugeVec, "fairlead_overlay_peers_silent", [],
        "Nodes and families that did not answer through the overlay when they were last asked after the start.";
    overlay_info: IntGaugeVec, "fairlead_overlay_info",
        ["ip_family", "backend", "interface", "address", "pods", "masquerade"],
        "1, with labels for how this node takes part in the overlay.";
    overlay_up: IntGaugeVec, "fairlead_overlay_up", [],
        "1 when the devices of the overlay are as they should be and the interfaces below them carry packets.";
    overlay_compare: HistogramVec(FAST), "fairlead_overlay_compare_duration_seconds", [],
        "How long one look at this node or comparison of the whole overlay took.";
    overlay_change: HistogramVec(FAST), "fairlead_overlay_change_seconds", [],
        "Time from the arrival of a change of a Node to the moment when the kernel has it.";
    overlay_writes: IntCounterVec, "fairlead_overlay_writes_total", [],
        "Changes of devices, neighbours, forwarding entries, nexthop objects and routes sent to the kernel.";
    overlay_repairs: IntCounterVec, "fairlead_overlay_repairs_total", ["what"],
        "Things of the overlay that somebody else had changed and that were put right.";

    // Only with --service-counters.
    service_connections: IntCounterVec, "fairlead_service_connections_total",
        ["namespace", "service", "port", "protocol", "ip_family"],
        "Connections that have begun through a port of a Service on this node.";

    // The process, by the names that every Prometheus client uses.
    resident: IntGaugeVec, "process_resident_memory_bytes", [],
        "Resident memory of this process.";
    resident_peak: IntGaugeVec, "process_resident_memory_peak_bytes", [],
        "The most resident memory that this process has had.";
    cpu: CounterVec, "process_cpu_seconds_total", [],
        "CPU time of this process, user and system.";
    open_files: IntGaugeVec, "process_open_fds", [],
        "Open file descriptors of this process.";
    started: GaugeVec, "process_start_time_seconds", [],
        "When this process started, in seconds since 1970.";
}
