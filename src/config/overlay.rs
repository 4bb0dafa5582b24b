//! The overlay's flags, and what they come to together with `net-conf.json`. Names are flannel's where they mean the same.

use std::net::IpAddr;
use std::path::PathBuf;

use clap::{ArgAction, Args};
use fairlead_kernel::route::VXLAN_PORT;
use fairlead_plan::Family;
use ipnet::IpNet;
use regex::Regex;

use super::UsageError;
use super::flags::boolean;
use super::net_conf::{self, NetConf};
use crate::overlay::annotation::Prefix;
use crate::overlay::cni::Files;
use crate::overlay::{ExternalVtep, Settings, UnderlaySettings};
use crate::resolve::PerFamily;

/// IFNAMSIZ less the closing zero; `flannel.` and `flannel-v6.` stand before the VNI.
const INTERFACE_NAME_MAX: usize = 15;

#[derive(Debug, Args)]
pub(super) struct OverlayFlags {
    /// How packets travel to pods of other nodes: none (another CNI does it), vxlan (as flannel), host-gw, direct-routing
    /// (host-gw where the other node is on the link, else vxlan), or vxlan-lwt. Without it: as --net-config-path says
    #[arg(long, value_name = "BACKEND")]
    pub(super) overlay_backend: Option<String>,
    /// flannel's net-conf.json
    #[arg(long, value_name = "FILE")]
    pub(super) net_config_path: Option<PathBuf>,
    /// Interface to other nodes, by name or address; may be given several times, the first that is there counts. Without
    /// it: the interface of the default route
    #[arg(long, value_name = "NAME|IP")]
    pub(super) iface: Vec<String>,
    /// Expression for addresses or names of interfaces, tried after --iface; may be given several times
    #[arg(long, value_name = "REGEX")]
    pub(super) iface_regex: Vec<String>,
    /// Take the interface through which this address is reached, if --iface and --iface-regex find none
    #[arg(long, value_name = "IP")]
    pub(super) iface_can_reach: Option<IpAddr>,
    /// IPv4 address of this node for its peers
    #[arg(long, value_name = "IP")]
    pub(super) public_ip: Option<IpAddr>,
    /// IPv6 address of this node for its peers
    #[arg(long, value_name = "IP")]
    pub(super) public_ipv6: Option<IpAddr>,
    /// What the annotations' keys on Nodes begin with
    #[arg(long, value_name = "PREFIX", default_value = "flannel.alpha.coreos.com")]
    pub(super) kube_annotation_prefix: String,
    /// Clear the condition NetworkUnavailable of this node once the overlay is up
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) set_node_network_unavailable: bool,
    /// Give pods that leave the cluster an address of this node
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) ip_masq: bool,
    /// Take tunnelled packets from the addresses of known peers alone. Switch it off where peers are behind address translation
    /// and send from other addresses than their Nodes say
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "true", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) overlay_peer_filter: bool,
    /// Drop packets to addresses of pods that no node has, instead of sending them to the default gateway: a blackhole route
    /// for the prefix of all pods, behind all others
    #[arg(long, value_name = "BOOL", value_parser = boolean, num_args = 0..=1, require_equals = true)]
    #[arg(default_value = "false", default_missing_value = "true", action = ArgAction::Set)]
    pub(super) overlay_blackhole: bool,
    /// Write 10-fairlead.conflist into this directory (mostly /etc/cni/net.d): pods get addresses by the stock CNI plugins bridge,
    /// host-local and portmap. A file of that name that fairlead did not write stays
    #[arg(long, value_name = "DIR")]
    pub(super) cni_conf_dir: Option<PathBuf>,
    /// Write flannel's subnet.env to this file (mostly /run/flannel/subnet.env), for flannel's CNI plugin and others that read
    /// it. One that fairlead did not write stays
    #[arg(long, value_name = "FILE")]
    pub(super) subnet_file: Option<PathBuf>,
    /// A VXLAN tunnel end that is no node, like cidr=10.1.1.0/24,endpoint=192.0.2.9,mac=82:36:4c:98:2e:56,vni=2; may be
    /// given several times
    #[arg(long, value_name = "VTEP")]
    pub(super) overlay_external_vtep: Vec<String>,
}

/// What the flags come to. `cluster_cidr` serves where `net-conf.json` does not say which prefixes pods have.
pub(super) fn settings(
    flags: &OverlayFlags,
    node_name: &str,
    families: &[Family],
    cluster_cidr: &str,
) -> Result<Settings, UsageError> {
    let conf = match &flags.net_config_path {
        Some(path) => net_conf::read(path)
            .map_err(|why| UsageError::value("--net-config-path", &path.display().to_string(), why))?,
        None => NetConf { families: families.to_vec(), networks: networks(cluster_cidr), ..NetConf::default() },
    };
    let backend = match &flags.overlay_backend {
        Some(name) => net_conf::backend_of(name).map_err(|why| UsageError::value("--overlay-backend", name, why))?,
        None => conf.backend.unwrap_or_default(),
    };
    let vni = conf.vni.unwrap_or(1);
    let families: Vec<_> = families.iter().copied().filter(|family| conf.families.contains(family)).collect();
    for family in &families {
        let name = crate::overlay::desired::device_name(*family, vni);
        if backend.tunnels() && name.len() > INTERFACE_NAME_MAX {
            let why = format!(
                "gives a device the name {name}, longer than {INTERFACE_NAME_MAX} characters; use a smaller VNI"
            );
            return Err(UsageError::value("VNI", &vni.to_string(), why));
        }
    }
    let external = flags.overlay_external_vtep.iter().map(|text| external(text)).collect::<Result<_, _>>()?;
    Ok(Settings {
        backend,
        node_name: node_name.to_owned(),
        families,
        networks: conf.networks,
        vni,
        port: conf.port.filter(|port| *port != 0).unwrap_or(VXLAN_PORT),
        mtu: conf.mtu,
        learning: conf.learning,
        gbp: conf.gbp,
        prefix: Prefix::new(&flags.kube_annotation_prefix),
        underlay: underlay(flags)?,
        external,
        blackhole: flags.overlay_blackhole,
        masquerade: flags.ip_masq,
        peer_filter: flags.overlay_peer_filter,
        files: Files { conf_dir: flags.cni_conf_dir.clone(), subnet_file: flags.subnet_file.clone() },
        clear_network_unavailable: flags.set_node_network_unavailable,
    })
}

/// What cannot be read here is refused by the settings of service traffic.
fn networks(cluster_cidr: &str) -> PerFamily<Option<IpNet>> {
    let mut networks = PerFamily::default();
    for net in cluster_cidr.split(',').filter_map(|text| text.trim().parse::<IpNet>().ok()) {
        let first: &mut Option<IpNet> = &mut networks[Family::of(net.addr())];
        first.get_or_insert(net.trunc());
    }
    networks
}

fn underlay(flags: &OverlayFlags) -> Result<UnderlaySettings, UsageError> {
    let of_family = |flag, addr: Option<IpAddr>, family: Family| match addr {
        Some(addr) if Family::of(addr) != family => {
            let why = format!("is no {} address", family.label());
            Err(UsageError::value(flag, &addr.to_string(), why))
        }
        addr => Ok(addr),
    };
    let expression = |text: &String| {
        let why = |error: regex::Error| format!("is no regular expression: {}", last_line(&error.to_string()));
        Regex::new(text).map_err(|error| UsageError::value("--iface-regex", text, why(error)))
    };
    Ok(UnderlaySettings {
        interfaces: flags.iface.clone(),
        expressions: flags.iface_regex.iter().map(expression).collect::<Result<_, _>>()?,
        can_reach: flags.iface_can_reach,
        public: PerFamily {
            v4: of_family("--public-ip", flags.public_ip, Family::V4)?,
            v6: of_family("--public-ipv6", flags.public_ipv6, Family::V6)?,
        },
    })
}

/// The others draw where in the expression it is.
fn last_line(text: &str) -> &str {
    text.lines().last().unwrap_or_default().trim_start_matches("error: ")
}

fn external(text: &str) -> Result<ExternalVtep, UsageError> {
    const FLAG: &str = "--overlay-external-vtep";
    let wrong = |why: &str| UsageError::value(FLAG, text, why);
    let mut fields = std::collections::BTreeMap::new();
    for field in text.split(',') {
        let (key, value) =
            field.split_once('=').ok_or_else(|| wrong("write it like cidr=...,endpoint=...,mac=...,vni=..."))?;
        fields.insert(key.trim(), value.trim());
    }
    let mut take = |key: &str| fields.remove(key).ok_or_else(|| wrong(&format!("{key}= is missing")));
    let cidr = take("cidr")?.parse::<IpNet>().map_err(|_| wrong("cidr= is no prefix like 10.1.1.0/24"))?.trunc();
    let endpoint = take("endpoint")?.parse().map_err(|_| wrong("endpoint= is no IP address"))?;
    let mac = take("mac")?.parse().map_err(|_| wrong("mac= is no Ethernet address like 82:36:4c:98:2e:56"))?;
    let vni = take("vni")?.parse().ok().filter(|vni| (1..1 << 24).contains(vni));
    let vni = vni.ok_or_else(|| wrong("vni= is no number from 1 to 16777215"))?;
    match fields.keys().next() {
        Some(key) => Err(wrong(&format!("there is no field {key}="))),
        None => Ok(ExternalVtep { cidr, endpoint, mac, vni }),
    }
}
