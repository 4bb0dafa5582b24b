//! `FairleadConfiguration` of `fairlead.io/v1alpha1`: the settings that kube-proxy does not have, in a document of their own
//! behind the KubeProxyConfiguration. kube-proxy reads the first document alone, so the same file serves both.

use serde::{Deserialize, Serialize};

use crate::config::flags::RunFlags;

/// The group and version.
pub const API_VERSION: &str = "fairlead.io/v1alpha1";
/// The kind.
pub const KIND: &str = "FairleadConfiguration";

/// The whole document. What is absent has the default of the flag that is named.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct FairleadConfiguration {
    /// [`API_VERSION`]
    pub api_version: String,
    /// [`KIND`]
    pub kind: String,
    /// `--mode`; stronger than `mode` of the KubeProxyConfiguration, so that a file for both programs can differ in it.
    pub mode: Option<String>,
    /// `--iptables-variant`
    pub iptables_variant: Option<String>,
    /// `--service-counters`
    pub service_counters: Option<bool>,
    /// How packets reach pods of other nodes.
    pub overlay: OverlayConfiguration,
}

/// `overlay`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct OverlayConfiguration {
    /// `--overlay-backend`
    pub backend: Option<String>,
    /// `--net-config-path`
    pub net_config_path: Option<String>,
    /// `--iface`
    pub interfaces: Option<Vec<String>>,
    /// `--iface-regex`
    pub interface_expressions: Option<Vec<String>>,
    /// `--iface-can-reach`
    pub interface_can_reach: Option<std::net::IpAddr>,
    /// `--public-ip`
    #[serde(rename = "publicIP")]
    pub public_ip: Option<std::net::IpAddr>,
    /// `--public-ipv6`
    #[serde(rename = "publicIPv6")]
    pub public_ipv6: Option<std::net::IpAddr>,
    /// `--kube-annotation-prefix`
    pub annotation_prefix: Option<String>,
    /// `--set-node-network-unavailable`
    pub set_node_network_unavailable: Option<bool>,
    /// `--ip-masq`
    pub masquerade: Option<bool>,
    /// `--overlay-peer-filter`
    pub peer_filter: Option<bool>,
    /// `--cni-conf-dir`
    pub cni_conf_dir: Option<String>,
    /// `--subnet-file`
    pub subnet_file: Option<String>,
    /// `--overlay-external-vtep`
    pub external_vteps: Option<Vec<String>>,
}

impl FairleadConfiguration {
    /// Puts what it says where the command line, asked by the name of the flag's field, says nothing.
    pub(in crate::config) fn apply(&self, flags: &mut RunFlags, given: &dyn Fn(&str) -> bool) {
        let set = |name: &str| !given(name);
        if let Some(mode) = &self.mode {
            flags.mode.mode.clone_from(mode);
        }
        fill(&mut flags.mode.iptables_variant, &self.iptables_variant, set("iptables_variant"));
        fill(&mut flags.http.service_counters, &self.service_counters, set("service_counters"));
        let (own, overlay) = (&self.overlay, &mut flags.overlay);
        fill_optional(&mut overlay.overlay_backend, &own.backend, set("overlay_backend"));
        fill_optional(&mut overlay.net_config_path, &own.net_config_path, set("net_config_path"));
        fill(&mut overlay.iface, &own.interfaces, set("iface"));
        fill(&mut overlay.iface_regex, &own.interface_expressions, set("iface_regex"));
        fill_optional(&mut overlay.iface_can_reach, &own.interface_can_reach, set("iface_can_reach"));
        fill_optional(&mut overlay.public_ip, &own.public_ip, set("public_ip"));
        fill_optional(&mut overlay.public_ipv6, &own.public_ipv6, set("public_ipv6"));
        fill(&mut overlay.kube_annotation_prefix, &own.annotation_prefix, set("kube_annotation_prefix"));
        let unavailable = set("set_node_network_unavailable");
        fill(&mut overlay.set_node_network_unavailable, &own.set_node_network_unavailable, unavailable);
        fill(&mut overlay.ip_masq, &own.masquerade, set("ip_masq"));
        fill(&mut overlay.overlay_peer_filter, &own.peer_filter, set("overlay_peer_filter"));
        fill_optional(&mut overlay.cni_conf_dir, &own.cni_conf_dir, set("cni_conf_dir"));
        fill_optional(&mut overlay.subnet_file, &own.subnet_file, set("subnet_file"));
        fill(&mut overlay.overlay_external_vtep, &own.external_vteps, set("overlay_external_vtep"));
    }

    /// The settings that these flags come to.
    pub(in crate::config) fn of(flags: &RunFlags) -> Self {
        let overlay = &flags.overlay;
        let path = |path: &Option<std::path::PathBuf>| path.as_ref().map(|path| path.display().to_string());
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            mode: Some(flags.mode.mode.clone()),
            iptables_variant: Some(flags.mode.iptables_variant.clone()),
            service_counters: Some(flags.http.service_counters),
            overlay: OverlayConfiguration {
                backend: overlay.overlay_backend.clone(),
                net_config_path: path(&overlay.net_config_path),
                interfaces: Some(overlay.iface.clone()),
                interface_expressions: Some(overlay.iface_regex.clone()),
                interface_can_reach: overlay.iface_can_reach,
                public_ip: overlay.public_ip,
                public_ipv6: overlay.public_ipv6,
                annotation_prefix: Some(overlay.kube_annotation_prefix.clone()),
                set_node_network_unavailable: Some(overlay.set_node_network_unavailable),
                masquerade: Some(overlay.ip_masq),
                peer_filter: Some(overlay.overlay_peer_filter),
                cni_conf_dir: path(&overlay.cni_conf_dir),
                subnet_file: path(&overlay.subnet_file),
                external_vteps: Some(overlay.overlay_external_vtep.clone()),
            },
        }
    }
}

fn fill<T: Clone>(flag: &mut T, own: &Option<T>, set: bool) {
    if let Some(own) = own.as_ref().filter(|_| set) {
        flag.clone_from(own);
    }
}

fn fill_optional<T: From<S>, S: Clone>(flag: &mut Option<T>, own: &Option<S>, set: bool) {
    if let Some(own) = own.as_ref().filter(|_| set) {
        *flag = Some(own.clone().into());
    }
}

/// Whether the flag with this name of a field is fairlead's own, so that it counts beside `--config`.
pub(super) fn is_own(field: &str) -> bool {
    const OVERLAY: [&str; 14] = [
        "overlay_backend",
        "net_config_path",
        "iface",
        "iface_regex",
        "iface_can_reach",
        "public_ip",
        "public_ipv6",
        "kube_annotation_prefix",
        "set_node_network_unavailable",
        "ip_masq",
        "overlay_peer_filter",
        "cni_conf_dir",
        "subnet_file",
        "overlay_external_vtep",
    ];
    OVERLAY.contains(&field)
}
