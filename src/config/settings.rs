//! The settings of each command, complete and valid.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use fairlead_iptables::Variant;
use fairlead_kernel::sysctl::SysctlError;
use fairlead_plan::Family;

use super::flags::{
    ApiFlags, ConntrackFlags, LogFlags, ModeFlag, NodeFlags, RenderFlags, RunFlags, TrafficFlags, boolean,
};
use super::ipvs::{self, IpvsSettings};
use super::{
    Configuration, ConntrackSettings, Host, LogFormat, Part, RenderOutput, UsageError, address, overlay, traffic,
};
use crate::resolve;

/// Everything that `fairlead` needs to run.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// How the kernel is programmed.
    pub mode: Mode,
    /// What only mode ipvs looks at.
    pub ipvs: IpvsSettings,
    /// Where objects come from.
    pub source: ApiSource,
    /// `configSyncPeriod`; read and checked, without effect.
    pub resync: Duration,
    /// What decides about packets, this node's name among it.
    pub traffic: resolve::Settings,
    /// Whether TCP node ports answer on 127.0.0.1 and ::1 as well (`localhost` among `nodePortAddresses`).
    pub loopback_node_ports: bool,
    /// How packets reach pods of other nodes.
    pub overlay: crate::overlay::Settings,
    /// Time to wait after one sync before the next (`minSyncPeriod`).
    pub min_sync_period: Duration,
    /// Longest time from a failed sync to the next attempt (`syncPeriod`). A change that has waited for twice as long
    /// makes the node unhealthy.
    pub sync_period: Duration,
    /// Limits and timeouts of connection tracking.
    pub conntrack: ConntrackSettings,
    /// Where `/healthz`, `/livez` and `/readyz` answer.
    pub healthz: Option<SocketAddr>,
    /// Where `/metrics` and `/proxyMode` answer.
    pub metrics: Option<SocketAddr>,
    /// Whether the program stops if one of the two addresses is taken (`bindAddressHardFail`).
    pub bind_hard_fail: bool,
    /// Whether connections are counted by service port ([`crate::counters`]); not in mode ipvs, whatever this says.
    pub service_counters: bool,
    /// Where commands on this node ask (a path in the file system).
    pub socket: Option<PathBuf>,
    /// Wanted value of `/proc/self/oom_score_adj`.
    pub oom_score_adj: i32,
    /// How logs are written.
    pub log: LogSettings,
    /// All settings in the form of files: what `/configz` shows.
    pub configuration: Configuration,
    /// The files that the settings come from.
    pub files: Vec<PathBuf>,
    /// What the flags and the file are to be told about, one sentence each.
    pub said: Vec<String>,
}

impl Settings {
    /// What an operator should know at the start although it is allowed, one sentence each.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let counters = (self.service_counters && self.mode == Mode::Ipvs).then(|| ipvs::COUNTS_ITSELF.to_owned());
        self.said.iter().cloned().chain(counters).chain(traffic::notes(&self.traffic)).collect()
    }

    /// Whether connections are counted by service port.
    #[must_use]
    pub fn counts_connections(&self) -> bool {
        self.service_counters && self.mode != Mode::Ipvs
    }
}

/// Where objects come from.
#[derive(Debug, Clone, PartialEq)]
pub enum ApiSource {
    /// A Kubernetes API server.
    Api(ApiSettings),
    /// The files of a directory.
    Manifests(PathBuf),
}

/// How to reach the API server. With neither field set the pod's service account says so.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// A kubeconfig file.
    pub kubeconfig: Option<PathBuf>,
    /// URL of the API server; stronger than the kubeconfig.
    pub master: Option<String>,
    /// `clientConnection.qps`; read and checked, without effect.
    pub qps: f32,
    /// `clientConnection.burst`; read and checked, without effect.
    pub burst: u32,
}

/// How the kernel is programmed. Modes that are not built yet cannot be asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// nf_tables over netlink.
    Nft,
    /// The chains of kube-proxy's iptables mode, in this variant or the one that the host uses.
    Iptables(Option<Variant>),
    /// Virtual services of IPVS.
    Ipvs,
}

impl Mode {
    /// As after `--mode`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::Iptables(_) => "iptables",
            Self::Ipvs => "ipvs",
        }
    }

    /// kube-proxy's name, as `/proxyMode` answers it and as tools expect it.
    #[must_use]
    pub const fn kube_proxy_name(self) -> &'static str {
        match self {
            Self::Nft => "nftables",
            Self::Iptables(_) => "iptables",
            Self::Ipvs => "ipvs",
        }
    }
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogSettings {
    /// Text or JSON.
    pub format: LogFormat,
    /// klog's verbosity, 0 to 255.
    pub verbosity: u8,
}

/// From this verbosity on, each change is logged.
const VERBOSITY_DEBUG: u8 = 2;
/// From this verbosity on, each write to the kernel is logged.
const VERBOSITY_TRACE: u8 = 4;

impl LogSettings {
    pub(super) fn new(flags: &LogFlags) -> Self {
        Self { format: flags.logging_format, verbosity: flags.verbosity }
    }

    /// The filter for `tracing-subscriber` that this verbosity stands for: libraries stay at warnings.
    #[must_use]
    pub const fn filter(&self) -> &'static str {
        match self.verbosity {
            0..VERBOSITY_DEBUG => "warn,fairlead=info",
            VERBOSITY_DEBUG..VERBOSITY_TRACE => "warn,fairlead=debug",
            VERBOSITY_TRACE.. => "info,fairlead=trace",
        }
    }
}

/// Settings of `fairlead cleanup`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cleanup {
    /// Whose state goes; empty means all of it, kube-proxy's included.
    pub only: Vec<Part>,
    /// How logs are written.
    pub log: LogSettings,
}

/// Settings of `fairlead overlay list`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayList {
    /// Whether JSON is printed.
    pub json: bool,
    /// Files and directories of Node objects to compare with.
    pub files: Vec<PathBuf>,
    /// What the annotations' keys begin with.
    pub annotation_prefix: String,
}

/// Settings of `fairlead overlay probe`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OverlayProbe {
    /// Whether JSON is printed.
    pub json: bool,
    /// Files and directories of Node objects to compare with.
    pub files: Vec<PathBuf>,
    /// What the annotations' keys begin with.
    pub annotation_prefix: String,
    /// How long an answer may take.
    pub timeout: Duration,
}

/// Settings of `fairlead overlay trace`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OverlayTrace {
    /// Where the packet goes.
    pub to: IpAddr,
    /// Whether JSON is printed.
    pub json: bool,
}

/// Settings of `fairlead status`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Status {
    /// Whether JSON is printed.
    pub json: bool,
    /// Where the running fairlead tells its health.
    pub health: SocketAddr,
    /// Where it tells its metrics and mode.
    pub metrics: SocketAddr,
    /// How long an answer of a peer may take.
    pub timeout: Duration,
    /// Where it answers what it knows.
    pub socket: Option<PathBuf>,
}

/// Settings of `fairlead render`.
#[derive(Debug, Clone, PartialEq)]
pub struct Render {
    /// Files and directories of objects.
    pub files: Vec<PathBuf>,
    /// What is printed.
    pub output: RenderOutput,
    /// For which mode.
    pub mode: Mode,
    /// What decides about packets, the name of the node for which it is printed among it. Both families.
    pub traffic: resolve::Settings,
}

pub(super) fn run(flags: &RunFlags, host: Host) -> Result<Settings, UsageError> {
    let mode = mode(&flags.mode)?;
    let bind_address = address::bind_address(&flags.node.bind_address)?;
    let (min, max) = (flags.sync.iptables_min_sync_period, flags.sync.iptables_sync_period);
    positive("--iptables-sync-period", max)?;
    positive("--config-sync-period", flags.api.config_sync_period)?;
    if min > max {
        let why = format!("is longer than --iptables-sync-period ({max:?}); make it shorter or that one longer");
        return Err(UsageError::value("--iptables-min-sync-period", &format!("{min:?}"), why));
    }
    let oom = flags.process.oom_score_adj;
    if !(-1000..=1000).contains(&oom) {
        let why = "is out of range; use -1000 (never) to 1000 (first)";
        return Err(UsageError::value("--oom-score-adj", &oom.to_string(), why));
    }
    let traffic = resolve::Settings {
        allow_external_ips: external_ips(&flags.accepted.feature_gates)?,
        ..traffic(mode, &flags.traffic, &flags.node, host)?
    };
    let localhost = matches!(mode, Mode::Iptables(_)) && flags.accepted.iptables_localhost_nodeports == Some(true);
    Ok(Settings {
        mode,
        ipvs: ipvs::settings(&flags.ipvs)?,
        source: source(&flags.api)?,
        resync: flags.api.config_sync_period,
        overlay: overlay::settings(&flags.overlay, &traffic.node_name, &traffic.families, &flags.traffic.cluster_cidr)?,
        traffic,
        loopback_node_ports: localhost || traffic::loopback_node_ports(&flags.traffic),
        min_sync_period: min,
        sync_period: max,
        conntrack: conntrack(&flags.conntrack)?,
        healthz: address::healthz(&flags.http, &flags.accepted, bind_address)?,
        metrics: address::metrics(&flags.http, &flags.accepted, bind_address)?,
        bind_hard_fail: flags.http.bind_address_hard_fail,
        service_counters: flags.http.service_counters,
        socket: super::look::path(&flags.http.socket),
        oom_score_adj: oom,
        log: LogSettings::new(&flags.process.log),
        configuration: Configuration::default(),
        files: flags.overlay.net_config_path.iter().cloned().collect(),
        said: Vec::new(),
    })
}

/// The one feature gate of kube-proxy that means something here.
fn external_ips(gates: &str) -> Result<bool, UsageError> {
    let mut allowed = true;
    for gate in gates.split(',').map(str::trim).filter(|gate| !gate.is_empty()) {
        let wrong =
            || UsageError::value("--feature-gates", gate, "is no gate; write it like AllowServiceExternalIPs=false");
        let (name, on) = gate.split_once('=').ok_or_else(wrong)?;
        let on = boolean(on.trim()).map_err(|_| wrong())?;
        if name.trim() == "AllowServiceExternalIPs" {
            allowed = on;
        }
    }
    Ok(allowed)
}

pub(super) fn render(flags: RenderFlags, host: Host) -> Result<Render, UsageError> {
    Ok(Render {
        mode: mode(&flags.mode)?,
        traffic: traffic(
            mode(&flags.mode)?,
            &flags.traffic,
            &flags.node,
            Host { families: Family::BOTH.to_vec(), ..host },
        )?,
        output: flags.output,
        files: flags.files,
    })
}

fn mode(flags: &ModeFlag) -> Result<Mode, UsageError> {
    let variant = match flags.iptables_variant.as_str() {
        "auto" => None,
        "legacy" => Some(Variant::Legacy),
        "nft" => Some(Variant::Nft),
        text => {
            let why = "no such variant; use auto, legacy or nft";
            return Err(UsageError::value("--iptables-variant", text, why));
        }
    };
    match flags.mode.as_str() {
        "" | "nft" | "nftables" => Ok(Mode::Nft),
        "iptables" => Ok(Mode::Iptables(variant)),
        "ipvs" => Ok(Mode::Ipvs),
        text => Err(UsageError::value("--mode", text, "no such mode; use nft, iptables or ipvs")),
    }
}

fn traffic(mode: Mode, traffic: &TrafficFlags, node: &NodeFlags, host: Host) -> Result<resolve::Settings, UsageError> {
    let bind_address = address::bind_address(&node.bind_address)?;
    Ok(resolve::Settings {
        node_name: node_name(node, host.name)?,
        bind_address: Some(bind_address).filter(|address| !address.is_unspecified()),
        families: host.families,
        ..traffic::settings(mode, traffic)?
    })
}

/// kube-proxy's rule: the flag, else the host's name; without spaces around and in lower case.
fn node_name(flags: &NodeFlags, host: Result<String, SysctlError>) -> Result<String, UsageError> {
    let given = flags.hostname_override.trim();
    let name = if given.is_empty() {
        let why = |error| format!("{error}; or name the node with --hostname-override.");
        host.map_err(|error| UsageError::sentence(why(error)))?
    } else {
        given.to_owned()
    };
    let name = name.trim().to_lowercase();
    if name.is_empty() {
        return Err(UsageError::sentence("this host has no name; name the node with --hostname-override."));
    }
    Ok(name)
}

fn source(flags: &ApiFlags) -> Result<ApiSource, UsageError> {
    if let Some(dir) = &flags.manifests {
        return Ok(ApiSource::Manifests(dir.clone()));
    }
    let given = |text: &str| Some(text.trim().to_owned()).filter(|text| !text.is_empty());
    let master = given(&flags.master);
    if let Some(url) = master.as_deref().filter(|url| !url.starts_with("http://") && !url.starts_with("https://")) {
        return Err(UsageError::value("--master", url, "is not a URL; write it like https://192.0.2.10:6443"));
    }
    let qps = flags.kube_api_qps;
    if !(qps.is_finite() && qps > 0.0) {
        return Err(UsageError::value(
            "--kube-api-qps",
            &qps.to_string(),
            "must be more than 0; kube-proxy's default is 5",
        ));
    }
    let burst = u32::try_from(flags.kube_api_burst).ok().filter(|burst| *burst > 0).ok_or_else(|| {
        let burst = flags.kube_api_burst.to_string();
        UsageError::value("--kube-api-burst", &burst, "must be more than 0; kube-proxy's default is 10")
    })?;
    Ok(ApiSource::Api(ApiSettings { kubeconfig: given(&flags.kubeconfig).map(PathBuf::from), master, qps, burst }))
}

pub(super) fn positive(flag: &str, duration: Duration) -> Result<(), UsageError> {
    if duration.is_zero() {
        return Err(UsageError::value(flag, "0s", "must be longer than nothing; write something like 30s"));
    }
    Ok(())
}

fn conntrack(flags: &ConntrackFlags) -> Result<ConntrackSettings, UsageError> {
    let count = |flag, value: i64| {
        let why = "must not be negative; write 0 to leave the kernel's value alone";
        u64::try_from(value).map_err(|_| UsageError::value(flag, &value.to_string(), why))
    };
    Ok(ConntrackSettings {
        max_per_core: count("--conntrack-max-per-core", flags.conntrack_max_per_core)?,
        min: count("--conntrack-min", flags.conntrack_min)?,
        tcp_be_liberal: flags.conntrack_tcp_be_liberal,
        tcp_timeout_established: flags.conntrack_tcp_timeout_established,
        tcp_timeout_close_wait: flags.conntrack_tcp_timeout_close_wait,
        udp_timeout: flags.conntrack_udp_timeout,
        udp_timeout_stream: flags.conntrack_udp_timeout_stream,
    })
}
