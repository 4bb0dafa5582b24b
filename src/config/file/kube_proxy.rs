//! `KubeProxyConfiguration` of `kubeproxy.config.k8s.io/v1alpha1`, field by field.
//!
//! Zero values (`""`, `0`, `0s`, `null`, an empty list) mean kube-proxy's default where it has one: kubeadm writes every
//! field. [`KubeProxyConfiguration::defaulted`] puts the defaults in.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::config::duration::GoDuration;

/// The group and version that are read and written.
pub const API_VERSION: &str = "kubeproxy.config.k8s.io/v1alpha1";
/// The kind.
pub const KIND: &str = "KubeProxyConfiguration";

/// kube-proxy's own defaults.
const MASQUERADE_BIT: i32 = 14;
const SYNC_PERIOD: GoDuration = GoDuration(Duration::from_secs(30));
const RESYNC_PERIOD: GoDuration = GoDuration(Duration::from_secs(15 * 60));

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct KubeProxyConfiguration {
    /// [`API_VERSION`]
    pub api_version: String,
    /// [`KIND`]
    pub kind: String,
    /// `AllowServiceExternalIPs` has a meaning here.
    pub feature_gates: BTreeMap<String, bool>,
    /// How to reach the API server.
    pub client_connection: ClientConnection,
    /// Logs.
    pub logging: Logging,
    /// Name of this node; the flag of that name is stronger.
    pub hostname_override: String,
    /// Address of this node, and the family that is the first.
    pub bind_address: String,
    /// Where `/healthz` answers.
    pub healthz_bind_address: String,
    /// Where `/metrics` answers.
    pub metrics_bind_address: String,
    /// Stop if one of the two is taken.
    pub bind_address_hard_fail: bool,
    /// Go's profiles; without meaning here.
    pub enable_profiling: bool,
    /// Without meaning here: fairlead hides no metrics.
    pub show_hidden_metrics_for_version: String,
    /// `""` (fairlead's default, nft), `iptables`, `ipvs` or `nftables`.
    pub mode: String,
    /// Settings of mode iptables; masquerading also of mode ipvs.
    pub iptables: Iptables,
    /// Settings of mode ipvs.
    pub ipvs: Ipvs,
    /// Settings of mode nftables, and of mode `""`.
    pub nftables: Nftables,
    /// Settings of Windows; without meaning here.
    pub winkernel: Winkernel,
    /// How traffic of pods is recognised.
    pub detect_local_mode: String,
    /// Names for that.
    pub detect_local: DetectLocal,
    #[serde(rename = "clusterCIDR")]
    /// Prefixes of pods, a pair with a comma for both families.
    pub cluster_cidr: String,
    /// Where node ports answer.
    pub node_port_addresses: Vec<String>,
    /// How readily the kernel ends the process when memory is short.
    pub oom_score_adj: Option<i32>,
    /// Limits and timeouts of connection tracking.
    pub conntrack: Conntrack,
    /// Checked, without effect.
    pub config_sync_period: GoDuration,
    /// Unused in kube-proxy as well.
    pub port_range: String,
    /// Windows; without meaning here.
    pub windows_run_as_service: bool,
}

/// `clientConnection`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ClientConnection {
    /// A kubeconfig file; empty for the pod's service account.
    pub kubeconfig: String,
    /// Without meaning here: fairlead asks for JSON.
    pub accept_content_types: String,
    /// The same.
    pub content_type: String,
    /// Checked, without effect.
    pub qps: f32,
    /// Checked, without effect.
    pub burst: i32,
}

/// `logging`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Logging {
    /// `text` or `json`.
    pub format: String,
    /// Nanoseconds or a duration; without meaning here, as nothing is buffered.
    pub flush_frequency: Value,
    /// As `-v`.
    pub verbosity: u8,
    /// Without meaning here; `RUST_LOG` does it.
    pub vmodule: Value,
    /// Streams and buffers; without meaning here.
    pub options: Value,
}

/// `iptables`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Iptables {
    /// Bit of the packet mark, 0 to 31.
    pub masquerade_bit: Option<i32>,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Node ports on loopback; true unless it is written otherwise.
    pub localhost_node_ports: Option<bool>,
    /// Longest time to the next attempt.
    pub sync_period: GoDuration,
    /// Pause between two syncs.
    pub min_sync_period: GoDuration,
}

/// `nftables`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Nftables {
    /// Bit of the packet mark, 0 to 31.
    pub masquerade_bit: Option<i32>,
    /// Masquerade all traffic to ClusterIPs.
    pub masquerade_all: bool,
    /// Longest time to the next attempt.
    pub sync_period: GoDuration,
    /// Pause between two syncs.
    pub min_sync_period: GoDuration,
}

/// `ipvs`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Ipvs {
    /// Time between two looks at everything.
    pub sync_period: GoDuration,
    /// Pause between two syncs.
    pub min_sync_period: GoDuration,
    /// Name of a scheduler.
    pub scheduler: String,
    /// Virtual services in these prefixes are left alone.
    #[serde(rename = "excludeCIDRs")]
    pub exclude_cidrs: Vec<String>,
    /// Answer ARP only on the interface that has the address.
    #[serde(rename = "strictARP")]
    pub strict_arp: bool,
    /// Idle TCP connections.
    pub tcp_timeout: GoDuration,
    /// TCP connections after a FIN.
    pub tcp_fin_timeout: GoDuration,
    /// UDP flows.
    pub udp_timeout: GoDuration,
}

/// `detectLocal`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DetectLocal {
    /// For `BridgeInterface`.
    pub bridge_interface: String,
    /// For `InterfaceNamePrefix`.
    pub interface_name_prefix: String,
}

/// `conntrack`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Conntrack {
    /// Entries for each CPU; 0 leaves the limit alone.
    pub max_per_core: Option<i64>,
    /// Entries at least.
    pub min: Option<i64>,
    /// Idle TCP connections; 0 leaves the kernel's value alone.
    pub tcp_established_timeout: Option<GoDuration>,
    /// TCP connections in CLOSE_WAIT.
    pub tcp_close_wait_timeout: Option<GoDuration>,
    /// Accept segments outside the window.
    pub tcp_be_liberal: bool,
    /// UDP flows without answer.
    pub udp_timeout: GoDuration,
    /// UDP flows with answers.
    pub udp_stream_timeout: GoDuration,
}

/// `winkernel`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
#[expect(missing_docs, reason = "settings of Windows, which are only carried along")]
pub struct Winkernel {
    pub network_name: String,
    pub source_vip: String,
    #[serde(rename = "enableDSR")]
    pub enable_dsr: bool,
    pub root_hns_endpoint_name: String,
    pub forward_health_check_vip: bool,
}

impl KubeProxyConfiguration {
    /// With every default in its place. kube-proxy's `minSyncPeriod` of 1 s is not among them: it is there because a sync costs
    /// it a listing, and here a change costs what changed.
    #[must_use]
    pub fn defaulted(mut self) -> Self {
        (self.api_version, self.kind) = (API_VERSION.to_owned(), KIND.to_owned());
        let v6 = self.bind_address.contains(':');
        text(&mut self.bind_address, "0.0.0.0");
        text(&mut self.healthz_bind_address, if v6 { "[::]:10256" } else { "0.0.0.0:10256" });
        text(&mut self.metrics_bind_address, if v6 { "[::1]:10249" } else { "127.0.0.1:10249" });
        text(&mut self.detect_local_mode, "ClusterCIDR");
        text(&mut self.logging.format, "text");
        let connection = &mut self.client_connection;
        text(&mut connection.content_type, "application/vnd.kubernetes.protobuf");
        if connection.qps == 0.0 {
            connection.qps = 5.0;
        }
        if connection.burst == 0 {
            connection.burst = 10;
        }
        time(&mut self.config_sync_period, RESYNC_PERIOD);
        time(&mut self.iptables.sync_period, SYNC_PERIOD);
        time(&mut self.nftables.sync_period, SYNC_PERIOD);
        time(&mut self.ipvs.sync_period, SYNC_PERIOD);
        self.iptables.masquerade_bit.get_or_insert(MASQUERADE_BIT);
        self.iptables.localhost_node_ports.get_or_insert(true);
        self.nftables.masquerade_bit.get_or_insert(MASQUERADE_BIT);
        self.oom_score_adj.get_or_insert(-999);
        let conntrack = &mut self.conntrack;
        conntrack.max_per_core.get_or_insert(32_768);
        conntrack.min.get_or_insert(131_072);
        conntrack.tcp_established_timeout.get_or_insert(GoDuration(Duration::from_secs(24 * 3600)));
        conntrack.tcp_close_wait_timeout.get_or_insert(GoDuration(Duration::from_secs(3600)));
        self
    }
}

fn text(field: &mut String, default: &str) {
    if field.is_empty() {
        default.clone_into(field);
    }
}

fn time(field: &mut GoDuration, default: GoDuration) {
    if field.0.is_zero() {
        *field = default;
    }
}
