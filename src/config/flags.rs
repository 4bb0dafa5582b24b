//! The command line as clap sees it. Names and defaults are kube-proxy's where the meaning is.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand, ValueEnum};

use super::accepted::{AcceptedFlags, FileFlags};
use super::duration;
use super::look::{ExplainFlags, ServicesFlags, StatusFlags};
use super::overlay::OverlayFlags;
use crate::local::DEFAULT_SOCKET;

const ABOUT: &str = "Carry the traffic of Kubernetes Services on one node, in the place of kube-proxy";
const EXAMPLES: &str = "\
Examples:
  fairlead --kubeconfig=/var/lib/kube-proxy/kubeconfig.conf --cluster-cidr=10.244.0.0/16
  fairlead --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1
  fairlead --manifests=./manifests --hostname-override=node-1 -v=2
  fairlead render -f ./manifests --hostname-override=node-1
  fairlead overlay probe
  fairlead overlay trace 10.244.2.11
  fairlead status
  fairlead explain 10.244.1.5 10.96.0.10:53/udp
  fairlead cleanup
  fairlead man overlay probe | man -l -
  source <(fairlead completions bash)

Flags have kube-proxy's names and defaults where they mean the same. Durations are written like 30s, 1m30s or 1h.";

const HEALTHZ: &str = "Where /healthz, /livez, /readyz and, to this node alone, the status page answer; empty for nowhere [default: 0.0.0.0:10256, or [::]:10256]";
const METRICS: &str = "Where /metrics, /proxyMode, /configz and, to this node alone, the status page answer; empty for nowhere [default: 127.0.0.1:10249, or [::1]:10249]";

/// The whole command line.
#[derive(Debug, Parser)]
#[command(name = "fairlead", about = ABOUT, after_help = EXAMPLES, version, disable_help_subcommand = true)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true, max_term_width = 110)]
pub(super) struct CommandLine {
    #[command(subcommand)]
    pub(super) command: Option<Subcommands>,
    #[command(flatten)]
    pub(super) run: RunFlags,
}

#[derive(Debug, Subcommand)]
pub(super) enum Subcommands {
    /// Remove everything that fairlead has put into the kernel of this node, and what kube-proxy has left there in any of its modes,
    /// then exit
    Cleanup(CleanupFlags),
    /// Print what this node would do with the objects in some files, without touching the kernel
    Render(Box<RenderFlags>),
    /// Print how the fairlead of this node does: mode, sync, Services, rules, connection tracking, overlay, peers, last failures;
    /// exits with 1 if anything is wrong
    Status(StatusFlags),
    /// Print the Services that the fairlead of this node knows: frontends, policy, affinity, endpoints
    Services(ServicesFlags),
    /// Print the journey of one packet, read from the kernel: which rules and elements apply, which endpoints with which probability,
    /// masquerade, connection tracking, route, tunnel; and what the plan says. Exits with 1 if the kernel differs from the plan
    Explain(ExplainFlags),
    /// Print a script that completes commands and flags of fairlead in a shell
    Completions {
        /// The shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Print the manual page of fairlead, or of one of its commands, as roff for man
    Man {
        /// The command, such as status or overlay list
        #[arg(value_name = "COMMAND")]
        of: Vec<String>,
    },
    /// Print the table of all metrics and what they mean, as Markdown
    Metrics,
    /// Look at the overlay of this node
    #[command(disable_help_subcommand = true, subcommand_required = true)]
    Overlay {
        #[command(subcommand)]
        command: OverlayCommands,
    },
}

#[derive(Debug, Subcommand)]
pub(super) enum OverlayCommands {
    /// Print the ways to pods of other nodes, read from the kernel, and what is wrong with each; exits with 1 if anything is
    List(OverlayListFlags),
    /// Send to every peer through the tunnel and print which do not answer and why; exits with 1 if any does not
    Probe(OverlayProbeFlags),
    /// Print every decision by which this node's kernel sends a packet to an address: route, neighbour, forwarding entry, tunnel,
    /// underlay; exits with 1 if the packet gets lost on the way
    Trace(OverlayTraceFlags),
}

#[derive(Debug, Args)]
pub(super) struct OverlayListFlags {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// A file of Node objects to compare with, as `kubectl get nodes -o yaml` writes it, or a directory of such files; may be
    /// given several times. Without any, names of nodes are not known and nothing is missed
    #[arg(short = 'f', long = "filename", value_name = "FILE")]
    pub(super) files: Vec<PathBuf>,
    /// What the annotations' keys on Nodes begin with
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com")]
    pub(super) kube_annotation_prefix: String,
}

#[derive(Debug, Args)]
pub(super) struct OverlayProbeFlags {
    #[command(flatten)]
    pub(super) list: OverlayListFlags,
    /// How long an answer may take. Who does not answer is asked three times
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1s")]
    pub(super) timeout: Duration,
}

#[derive(Debug, Args)]
pub(super) struct OverlayTraceFlags {
    /// Where the packet goes, such as a pod
    #[arg(value_name = "IP")]
    pub(super) to: IpAddr,
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
}

#[derive(Debug, Args)]
pub(super) struct RunFlags {
    #[command(flatten)]
    pub(super) mode: ModeFlag,
    #[command(flatten)]
    pub(super) file: FileFlags,
    #[command(flatten, next_help_heading = "Where objects come from")]
    pub(super) api: ApiFlags,
    #[command(flatten, next_help_heading = "This node")]
    pub(super) node: NodeFlags,
    #[command(flatten, next_help_heading = "Service traffic")]
    pub(super) traffic: TrafficFlags,
    #[command(flatten, next_help_heading = "Overlay")]
    pub(super) overlay: OverlayFlags,
    #[command(flatten, next_help_heading = "Programming the kernel")]
    pub(super) sync: SyncFlags,
    #[command(flatten, next_help_heading = "Mode ipvs")]
    pub(super) ipvs: IpvsFlags,
    #[command(flatten, next_help_heading = "Connection tracking")]
    pub(super) conntrack: ConntrackFlags,
    #[command(flatten, next_help_heading = "Health and metrics")]
    pub(super) http: HttpFlags,
    #[command(flatten, next_help_heading = "Process and logs")]
    pub(super) process: ProcessFlags,
    #[command(flatten, next_help_heading = "From kube-proxy")]
    pub(super) accepted: AcceptedFlags,
}

#[derive(Debug, Args)]
pub(super) struct ModeFlag {
    /// How the kernel is programmed: nft, iptables or ipvs. nftables means nft
    #[arg(long, visible_alias = "proxy-mode", default_value = "nft", value_name = "MODE")]
    pub(super) mode: String,
    /// For --mode=iptables: legacy, nft, or auto for the one that this host uses
    #[arg(long, default_value = "auto", value_name = "VARIANT")]
    pub(super) iptables_variant: String,
}

#[derive(Debug, Args)]
pub(super) struct ApiFlags {
    /// File that says how to reach and authenticate to the API server. Without it and --master: the pod's service account
    #[arg(long, value_name = "FILE", default_value = "", hide_default_value = true)]
    pub(super) kubeconfig: String,
    /// URL of the API server; stronger than what the kubeconfig says
    #[arg(long, value_name = "URL", default_value = "", hide_default_value = true)]
    pub(super) master: String,
    /// Read objects from the YAML and JSON files of this directory and follow their changes, instead of an API server
    #[arg(long, value_name = "DIR", conflicts_with_all = ["kubeconfig", "master"])]
    pub(super) manifests: Option<PathBuf>,
    /// Accepted because kube-proxy has it; without effect: fairlead holds four watches and limits its Events itself
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    pub(super) kube_api_qps: f32,
    /// Accepted because kube-proxy has it; without effect
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) kube_api_burst: i32,
    /// Accepted because kube-proxy has it; without effect: the kernel is compared every hour, and at once when it was changed
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "15m")]
    pub(super) config_sync_period: Duration,
}

#[derive(Debug, Args)]
pub(super) struct NodeFlags {
    /// Name of this node in the cluster. Without it: the host's name in lower case
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) hostname_override: String,
    /// Address of this node. An unspecified one (0.0.0.0, ::) says only which family is the first
    #[arg(long, value_name = "IP", default_value = "0.0.0.0")]
    pub(super) bind_address: String,
}

#[derive(Debug, Args)]
pub(super) struct TrafficFlags {
    /// Prefixes of all pods, one for each family, for --detect-local-mode=ClusterCIDR
    #[arg(long, value_name = "CIDR,CIDR", default_value = "", hide_default_value = true)]
    pub(super) cluster_cidr: String,
    /// How traffic of pods is recognised: ClusterCIDR, NodeCIDR, BridgeInterface or InterfaceNamePrefix
    #[arg(long, value_name = "HOW", default_value = "ClusterCIDR")]
    pub(super) detect_local_mode: String,
    /// Name of the bridge behind which the pods are, for --detect-local-mode=BridgeInterface
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) pod_bridge_interface: String,
    /// How the names of the pods' interfaces begin, for --detect-local-mode=InterfaceNamePrefix
    #[arg(long, value_name = "PREFIX", default_value = "", hide_default_value = true)]
    pub(super) pod_interface_name_prefix: String,
    /// Let endpoints see an address of this node as the source of all traffic to ClusterIPs
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) masquerade_all: bool,
    /// Where node ports answer: prefixes of local addresses, or primary for the node's first address of each family. With
    /// localhost, alone or added to these, TCP node ports also answer on 127.0.0.1 and ::1, through a proxy: no UDP, no
    /// SCTP, no session affinity, at most 1024 connections at once
    #[arg(long, value_name = "CIDR,...", default_value = "primary")]
    pub(super) nodeport_addresses: String,
    /// Bit of the packet mark that says "masquerade", 0 to 31
    #[arg(long, value_name = "BIT", visible_alias = "masquerade-bit", default_value_t = 14)]
    pub(super) iptables_masquerade_bit: i32,
}

#[derive(Debug, Args)]
pub(super) struct SyncFlags {
    /// Time to wait before the kernel is programmed again; 0s programs each change at once
    #[arg(long, visible_alias = "min-sync-period", value_name = "DURATION", value_parser = duration::parse)]
    #[arg(default_value = "0s")]
    pub(super) iptables_min_sync_period: Duration,
    /// Longest time to the next attempt after a failure; a change that waits twice as long makes the node unhealthy
    #[arg(long, visible_alias = "sync-period", value_name = "DURATION", value_parser = duration::parse)]
    #[arg(default_value = "30s")]
    pub(super) iptables_sync_period: Duration,
}

#[derive(Debug, Args)]
pub(super) struct IpvsFlags {
    /// How virtual services choose an endpoint: rr, wrr, lc, wlc, sh, mh, dh, sed, nq, lblc, lblcr, fo, ovf, twos
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(super) ipvs_scheduler: String,
    /// Virtual services on addresses in these prefixes are left alone
    #[arg(long, value_name = "CIDR,...", default_value = "", hide_default_value = true)]
    pub(super) ipvs_exclude_cidrs: String,
    /// Answer ARP only on the interface that has the address
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) ipvs_strict_arp: bool,
    /// How long IPVS remembers an idle TCP connection; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) ipvs_tcp_timeout: Duration,
    /// How long IPVS remembers a TCP connection after a FIN; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) ipvs_tcpfin_timeout: Duration,
    /// How long IPVS remembers a UDP flow; 0s leaves the kernel's value
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) ipvs_udp_timeout: Duration,
    /// Time between two looks at everything that IPVS and ipset hold, which announce no changes of others
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "30s")]
    pub(super) ipvs_sync_period: Duration,
    /// Accepted because kube-proxy has it; --min-sync-period is for every mode
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) ipvs_min_sync_period: Duration,
}

#[derive(Debug, Args)]
pub(super) struct ConntrackFlags {
    /// Connections to have room for, for each CPU; 0 leaves the kernel's limit alone
    #[arg(long, value_name = "N", default_value_t = 32_768)]
    pub(super) conntrack_max_per_core: i64,
    /// Connections to have room for, however few CPUs there are
    #[arg(long, value_name = "N", default_value_t = 131_072)]
    pub(super) conntrack_min: i64,
    /// Let the kernel accept TCP segments outside the window
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) conntrack_tcp_be_liberal: bool,
    /// How long an idle TCP connection is remembered; 0 leaves the kernel's value alone
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "24h")]
    pub(super) conntrack_tcp_timeout_established: Duration,
    /// How long a TCP connection in CLOSE_WAIT is remembered; 0 leaves the kernel's value alone
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1h")]
    pub(super) conntrack_tcp_timeout_close_wait: Duration,
    /// How long a UDP flow without an answer is remembered; 0 leaves the kernel's value alone
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) conntrack_udp_timeout: Duration,
    /// How long a UDP flow with answers is remembered; 0 leaves the kernel's value alone
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "0s")]
    pub(super) conntrack_udp_timeout_stream: Duration,
}

#[derive(Debug, Args)]
pub(super) struct HttpFlags {
    // Not a doc comment, which would take the brackets of the addresses for links.
    #[arg(long, value_name = "IP:PORT", help = HEALTHZ)]
    pub(super) healthz_bind_address: Option<String>,
    #[arg(long, value_name = "IP:PORT", help = METRICS)]
    pub(super) metrics_bind_address: Option<String>,
    /// Stop if an address above is taken, instead of trying again every 5 s
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) bind_address_hard_fail: bool,
    /// Count the connections that begin through each port of a Service. Costs some microseconds of processor time for each
    /// connection of the node, also those that reach no Service; not for --mode=ipvs
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", hide_default_value = true, action = ArgAction::Set)]
    pub(super) service_counters: bool,
    /// Where `fairlead explain`, `services` and `status` find this program: a socket for the owner of the process alone; empty for
    /// nowhere
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) socket: String,
}

#[derive(Debug, Args)]
pub(super) struct ProcessFlags {
    /// How likely the kernel ends this process when memory is short, -1000 to 1000
    #[arg(long, value_name = "N", default_value_t = -999, allow_negative_numbers = true)]
    pub(super) oom_score_adj: i32,
    #[command(flatten)]
    pub(super) log: LogFlags,
}

#[derive(Debug, Args)]
pub(super) struct LogFlags {
    /// How logs are written
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = LogFormat::Text)]
    pub(super) logging_format: LogFormat,
    /// How much is logged: 0 what matters, 2 each change, 4 each write to the kernel. RUST_LOG is stronger
    #[arg(short = 'v', long = "v", id = "verbosity", value_name = "LEVEL", default_value_t = 0)]
    pub(super) verbosity: u8,
}

/// How logs are written.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// One JSON object a line
    Json,
}

/// What has state of its own in the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Part {
    /// The tables fairlead
    Nft,
    /// Chains named KUBE-, in both variants
    Iptables,
    /// Virtual services and sets named KUBE-
    Ipvs,
    /// Devices, routes and rules to other nodes
    Overlay,
}

#[derive(Debug, Args)]
pub(super) struct CleanupFlags {
    /// Remove what one part has written and leave the rest: what is named KUBE- may be kube-proxy's
    #[arg(long, value_name = "PART,...", value_enum, value_delimiter = ',')]
    pub(super) only: Vec<Part>,
    #[command(flatten)]
    pub(super) log: LogFlags,
}

#[derive(Debug, Args)]
pub(super) struct RenderFlags {
    /// A file of objects, YAML or JSON, or a directory of such files; may be given several times
    #[arg(short = 'f', long = "filename", value_name = "FILE", required = true)]
    pub(super) files: Vec<PathBuf>,
    /// What to print
    #[arg(short = 'o', long, value_name = "WHAT", value_enum, default_value_t = RenderOutput::Text)]
    pub(super) output: RenderOutput,
    #[command(flatten)]
    pub(super) mode: ModeFlag,
    #[command(flatten, next_help_heading = "This node")]
    pub(super) node: NodeFlags,
    #[command(flatten, next_help_heading = "Service traffic")]
    pub(super) traffic: TrafficFlags,
}

/// What `fairlead render` prints.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum RenderOutput {
    /// The plan as comments, then the rules as text that `nft -f` loads
    #[default]
    Text,
    /// The plan as JSON
    Plan,
    /// The rules as JSON that `nft -j -f` loads
    Json,
}

/// A boolean as Go's flag package reads it.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("is neither yes nor no; write true or false".to_owned()),
    }
}
