//! Fields into flags, and flags into fields.

use std::time::Duration;

use fairlead_plan::Family;
use ipnet::IpNet;

use super::kube_proxy::{
    ClientConnection, Conntrack, DetectLocal, Iptables, Ipvs, KubeProxyConfiguration, Logging, Nftables,
};
use super::names::sections;
use crate::config::UsageError;
use crate::config::duration::GoDuration;
use crate::config::flags::{LogFormat, RunFlags};

/// Every local address, and loopback beside it: where node ports answer in kube-proxy's iptables mode unless the file says
/// otherwise.
const EVERYWHERE: &str = "0.0.0.0/0,::/0";
const LOCALHOST: &str = "localhost";

/// Puts the fields into the flags that mean the same. The section that kube-proxy would read counts, so that a file without a
/// mode, which means iptables there and nft here, keeps the meaning of its other fields.
pub(super) fn into_flags(
    given: &KubeProxyConfiguration,
    flags: &mut RunFlags,
    on_line: &dyn Fn(&str) -> bool,
) -> Result<(), UsageError> {
    let file = given.clone().defaulted();
    flags.mode.mode.clone_from(&file.mode);
    if !on_line("manifests") {
        flags.api.kubeconfig = file.client_connection.kubeconfig;
    }
    flags.api.kube_api_qps = file.client_connection.qps;
    flags.api.kube_api_burst = file.client_connection.burst;
    flags.api.config_sync_period = file.config_sync_period.0;
    if !on_line("hostname_override") {
        flags.node.hostname_override = file.hostname_override;
    }
    flags.node.bind_address = file.bind_address;
    flags.http.healthz_bind_address = Some(file.healthz_bind_address);
    flags.http.metrics_bind_address = Some(file.metrics_bind_address);
    flags.http.bind_address_hard_fail = file.bind_address_hard_fail;
    let traffic = &mut flags.traffic;
    traffic.cluster_cidr = file.cluster_cidr;
    traffic.detect_local_mode = file.detect_local_mode;
    traffic.pod_bridge_interface = file.detect_local.bridge_interface;
    traffic.pod_interface_name_prefix = file.detect_local.interface_name_prefix;
    traffic.nodeport_addresses = node_port_addresses(&file.mode, &file.node_port_addresses, &file.iptables);
    let (mark, period) = sections(&file.mode);
    let (bit, all) = match mark {
        "nftables" => (file.nftables.masquerade_bit, file.nftables.masquerade_all),
        _ => (file.iptables.masquerade_bit, file.iptables.masquerade_all),
    };
    traffic.masquerade_all = all;
    traffic.iptables_masquerade_bit = bit.unwrap_or(traffic.iptables_masquerade_bit);
    let (longest, shortest) = match period {
        "nftables" => (file.nftables.sync_period, file.nftables.min_sync_period),
        "ipvs" => (file.ipvs.sync_period, file.ipvs.min_sync_period),
        _ => (file.iptables.sync_period, file.iptables.min_sync_period),
    };
    (flags.sync.iptables_sync_period, flags.sync.iptables_min_sync_period) = (longest.0, shortest.0);
    flags.accepted.feature_gates =
        file.feature_gates.iter().map(|(gate, on)| format!("{gate}={on}")).collect::<Vec<_>>().join(",");
    flags.process.oom_score_adj = file.oom_score_adj.unwrap_or(flags.process.oom_score_adj);
    ipvs(file.ipvs, flags);
    conntrack(&file.conntrack, flags);
    logs(&file.logging, flags, on_line)
}

/// An unset list means every local address but in mode nftables, and in mode iptables loopback as well.
fn node_port_addresses(mode: &str, list: &[String], iptables: &Iptables) -> String {
    let in_iptables = matches!(mode, "" | "iptables");
    let mut all = match (list, mode) {
        ([], "nftables") => return "primary".to_owned(),
        ([], _) => EVERYWHERE.to_owned(),
        (list, _) => list.join(","),
    };
    let holds_loopback = |text: &String| text.trim().parse().is_ok_and(|net: IpNet| net.contains(&loopback()));
    let loopback_too = list.is_empty() || list.iter().any(holds_loopback);
    if in_iptables
        && loopback_too
        && iptables.localhost_node_ports == Some(true)
        && !list.iter().any(|one| one == LOCALHOST)
    {
        // With localhost in the list a family that is not named has no node ports.
        for (family, everything) in Family::BOTH.into_iter().zip(EVERYWHERE.split(',')) {
            let names = |text: &String| text.trim().parse().is_ok_and(|net: IpNet| Family::of(net.addr()) == family);
            if !list.is_empty() && !list.iter().any(names) {
                all = format!("{all},{everything}");
            }
        }
        all = format!("{all},{LOCALHOST}");
    }
    all
}

fn loopback() -> std::net::IpAddr {
    std::net::Ipv4Addr::LOCALHOST.into()
}

fn ipvs(file: Ipvs, flags: &mut RunFlags) {
    let ipvs = &mut flags.ipvs;
    ipvs.ipvs_sync_period = file.sync_period.0;
    ipvs.ipvs_min_sync_period = file.min_sync_period.0;
    ipvs.ipvs_scheduler = file.scheduler;
    ipvs.ipvs_exclude_cidrs = file.exclude_cidrs.join(",");
    ipvs.ipvs_strict_arp = file.strict_arp;
    ipvs.ipvs_tcp_timeout = file.tcp_timeout.0;
    ipvs.ipvs_tcpfin_timeout = file.tcp_fin_timeout.0;
    ipvs.ipvs_udp_timeout = file.udp_timeout.0;
}

fn conntrack(file: &Conntrack, flags: &mut RunFlags) {
    let conntrack = &mut flags.conntrack;
    let or = |field: Option<GoDuration>, flag: Duration| field.map_or(flag, |field| field.0);
    conntrack.conntrack_max_per_core = file.max_per_core.unwrap_or(conntrack.conntrack_max_per_core);
    conntrack.conntrack_min = file.min.unwrap_or(conntrack.conntrack_min);
    conntrack.conntrack_tcp_be_liberal = file.tcp_be_liberal;
    conntrack.conntrack_tcp_timeout_established =
        or(file.tcp_established_timeout, conntrack.conntrack_tcp_timeout_established);
    conntrack.conntrack_tcp_timeout_close_wait =
        or(file.tcp_close_wait_timeout, conntrack.conntrack_tcp_timeout_close_wait);
    conntrack.conntrack_udp_timeout = file.udp_timeout.0;
    conntrack.conntrack_udp_timeout_stream = file.udp_stream_timeout.0;
}

fn logs(file: &Logging, flags: &mut RunFlags, on_line: &dyn Fn(&str) -> bool) -> Result<(), UsageError> {
    if !on_line("logging_format") {
        flags.process.log.logging_format = match file.format.as_str() {
            "" | "text" => LogFormat::Text,
            "json" => LogFormat::Json,
            other => return Err(UsageError::value("--logging-format", other, "no such value; use one of text, json")),
        };
    }
    if !on_line("verbosity") {
        flags.process.log.verbosity = file.verbosity;
    }
    Ok(())
}

/// The fields that say what these flags say; every mode's section the same.
pub(super) fn from_flags(flags: &RunFlags) -> KubeProxyConfiguration {
    let (traffic, sync, process) = (&flags.traffic, &flags.sync, &flags.process);
    let list = |text: &str| -> Vec<String> {
        text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(str::to_owned).collect()
    };
    let (bit, all) = (Some(traffic.iptables_masquerade_bit), traffic.masquerade_all);
    let (longest, shortest) = (GoDuration(sync.iptables_sync_period), GoDuration(sync.iptables_min_sync_period));
    let gates = list(&flags.accepted.feature_gates);
    let gate = |text: &String| text.split_once('=').map(|(gate, on)| (gate.trim().to_owned(), on.trim() == "true"));
    KubeProxyConfiguration {
        feature_gates: gates.iter().filter_map(gate).collect(),
        client_connection: ClientConnection {
            kubeconfig: flags.api.kubeconfig.clone(),
            qps: flags.api.kube_api_qps,
            burst: flags.api.kube_api_burst,
            ..ClientConnection::default()
        },
        logging: Logging {
            format: if process.log.logging_format == LogFormat::Json { "json" } else { "text" }.to_owned(),
            verbosity: process.log.verbosity,
            ..Logging::default()
        },
        hostname_override: flags.node.hostname_override.clone(),
        bind_address: flags.node.bind_address.clone(),
        healthz_bind_address: flags.http.healthz_bind_address.clone().unwrap_or_default(),
        metrics_bind_address: flags.http.metrics_bind_address.clone().unwrap_or_default(),
        bind_address_hard_fail: flags.http.bind_address_hard_fail,
        mode: if flags.mode.mode == "nft" { "nftables".to_owned() } else { flags.mode.mode.clone() },
        iptables: Iptables {
            masquerade_bit: bit,
            masquerade_all: all,
            localhost_node_ports: Some(false),
            sync_period: longest,
            min_sync_period: shortest,
        },
        nftables: Nftables {
            masquerade_bit: bit,
            masquerade_all: all,
            sync_period: longest,
            min_sync_period: shortest,
        },
        ipvs: ipvs_fields(flags),
        detect_local_mode: traffic.detect_local_mode.clone(),
        detect_local: DetectLocal {
            bridge_interface: traffic.pod_bridge_interface.clone(),
            interface_name_prefix: traffic.pod_interface_name_prefix.clone(),
        },
        cluster_cidr: traffic.cluster_cidr.clone(),
        node_port_addresses: list(&traffic.nodeport_addresses),
        oom_score_adj: Some(process.oom_score_adj),
        conntrack: conntrack_fields(flags),
        config_sync_period: GoDuration(flags.api.config_sync_period),
        ..KubeProxyConfiguration::default()
    }
}

fn ipvs_fields(flags: &RunFlags) -> Ipvs {
    let ipvs = &flags.ipvs;
    let exclude = ipvs.ipvs_exclude_cidrs.split(',').map(str::trim).filter(|part| !part.is_empty());
    Ipvs {
        sync_period: GoDuration(ipvs.ipvs_sync_period),
        // The flag of every mode.
        min_sync_period: GoDuration(flags.sync.iptables_min_sync_period),
        scheduler: ipvs.ipvs_scheduler.clone(),
        exclude_cidrs: exclude.map(str::to_owned).collect(),
        strict_arp: ipvs.ipvs_strict_arp,
        tcp_timeout: GoDuration(ipvs.ipvs_tcp_timeout),
        tcp_fin_timeout: GoDuration(ipvs.ipvs_tcpfin_timeout),
        udp_timeout: GoDuration(ipvs.ipvs_udp_timeout),
    }
}

fn conntrack_fields(flags: &RunFlags) -> Conntrack {
    let conntrack = &flags.conntrack;
    Conntrack {
        max_per_core: Some(conntrack.conntrack_max_per_core),
        min: Some(conntrack.conntrack_min),
        tcp_established_timeout: Some(GoDuration(conntrack.conntrack_tcp_timeout_established)),
        tcp_close_wait_timeout: Some(GoDuration(conntrack.conntrack_tcp_timeout_close_wait)),
        tcp_be_liberal: conntrack.conntrack_tcp_be_liberal,
        udp_timeout: GoDuration(conntrack.conntrack_udp_timeout),
        udp_stream_timeout: GoDuration(conntrack.conntrack_udp_timeout_stream),
    }
}
