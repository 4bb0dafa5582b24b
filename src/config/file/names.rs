//! The field of the file that means what a flag means.

/// Flags and fields; `*` stands for the section of the mode.
const FIELDS: &[(&str, &str)] = &[
    ("--bind-address", "bindAddress"),
    ("--bind-address-hard-fail", "bindAddressHardFail"),
    ("--cluster-cidr", "clusterCIDR"),
    ("--config-sync-period", "configSyncPeriod"),
    ("--conntrack-max-per-core", "conntrack.maxPerCore"),
    ("--conntrack-min", "conntrack.min"),
    ("--detect-local-mode", "detectLocalMode"),
    ("--feature-gates", "featureGates"),
    ("--healthz-bind-address", "healthzBindAddress"),
    ("--iface-regex", "overlay.interfaceExpressions"),
    ("--iptables-masquerade-bit", "*.masqueradeBit"),
    ("--iptables-min-sync-period", "*.minSyncPeriod"),
    ("--iptables-sync-period", "*.syncPeriod"),
    ("--iptables-variant", "iptablesVariant"),
    ("--ipvs-exclude-cidrs", "ipvs.excludeCIDRs"),
    ("--ipvs-scheduler", "ipvs.scheduler"),
    ("--ipvs-sync-period", "ipvs.syncPeriod"),
    ("--ipvs-tcp-timeout", "ipvs.tcpTimeout"),
    ("--ipvs-tcpfin-timeout", "ipvs.tcpFinTimeout"),
    ("--ipvs-udp-timeout", "ipvs.udpTimeout"),
    ("--kube-api-burst", "clientConnection.burst"),
    ("--kube-api-qps", "clientConnection.qps"),
    ("--logging-format", "logging.format"),
    ("--metrics-bind-address", "metricsBindAddress"),
    ("--mode", "mode"),
    ("--net-config-path", "overlay.netConfigPath"),
    ("--nodeport-addresses", "nodePortAddresses"),
    ("--oom-score-adj", "oomScoreAdj"),
    ("--overlay-backend", "overlay.backend"),
    ("--overlay-external-vtep", "overlay.externalVteps"),
    ("--pod-bridge-interface", "detectLocal.bridgeInterface"),
    ("--pod-interface-name-prefix", "detectLocal.interfaceNamePrefix"),
    ("--public-ip", "overlay.publicIP"),
    ("--public-ipv6", "overlay.publicIPv6"),
];

/// The section whose `masqueradeBit` counts in this mode of the file, and whose `minSyncPeriod` and `syncPeriod` do.
pub(super) fn sections(mode: &str) -> (&'static str, &'static str) {
    match mode {
        "nftables" => ("nftables", "nftables"),
        "ipvs" => ("iptables", "ipvs"),
        _ => ("iptables", "iptables"),
    }
}

/// A sentence about flags as one about fields.
pub(super) fn of_fields(text: &str, mode: &str) -> String {
    let (mark, period) = sections(mode);
    let mut out = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("--") {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || c == '-')).unwrap_or(rest.len());
        match FIELDS.iter().find(|(flag, _)| *flag == &rest[..end]) {
            Some((_, field)) => {
                let section = if field.ends_with("Bit") { mark } else { period };
                out.push_str(&field.replace('*', section));
            }
            None => out.push_str(&rest[..end]),
        }
        rest = &rest[end..];
    }
    out + rest
}
