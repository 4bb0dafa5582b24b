//! The files by which pods get addresses: a configuration for the stock plugins `bridge`, `host-local` and `portmap`, and
//! flannel's `subnet.env` for whoever reads that.
//!
//! Both are written only if asked for, follow the prefixes and the MTU, and carry a mark: a file without it is somebody else's
//! and stays as it is.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{fs, io, thread};

use fairlead_kernel::file;
use fairlead_plan::Family;
use ipnet::IpNet;
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::outside::Installed;
use super::settings::Settings;

/// The name of the configuration in its directory; before flannel's own in the order in which runtimes look.
pub const CONFLIST: &str = "10-fairlead.conflist";
/// The first line of `subnet.env`. Its readers take what they know and leave out the rest.
const MARK_LINE: &str = "# Written by fairlead, which replaces it when prefixes or the MTU change.";
/// The key that marks the configuration; plugins and runtimes leave out what they do not know.
const MARK_KEY: &str = "fairlead";
/// flannel's name of the network, under which `host-local` remembers who has which address: a node that is converted goes on
/// with the same memory and bridge, and gives no address twice.
const NETWORK: &str = "cbr0";
const BRIDGE: &str = "cni0";
/// The version of the CNI specification that flannel's configuration names too.
const CNI_VERSION: &str = "0.3.1";
/// How often it is looked whether the files are still there.
const LOOK: Duration = Duration::from_secs(10);

/// Which files are wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Files {
    /// The directory of CNI configurations (`--cni-conf-dir`), mostly `/etc/cni/net.d`.
    pub conf_dir: Option<PathBuf>,
    /// `subnet.env` (`--subnet-file`), mostly `/run/flannel/subnet.env`.
    pub subnet_file: Option<PathBuf>,
}

/// Starts the thread that keeps the files, unless none is wanted. It ends when the overlay does; the files stay.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(settings: Settings, mut installed: watch::Receiver<Installed>) -> io::Result<()> {
    if settings.files == Files::default() {
        return Ok(());
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let keep = async move {
        let mut said = BTreeMap::new();
        loop {
            let now = installed.borrow_and_update().clone();
            keep(&settings, &now, &mut said);
            tokio::select! {
                changed = installed.changed() => if changed.is_err() { return },
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    };
    thread::Builder::new().name("overlay-files".into()).spawn(move || runtime.block_on(keep))?;
    Ok(())
}

/// Writes what differs. What is wrong is said once for each file.
fn keep(settings: &Settings, installed: &Installed, said: &mut BTreeMap<PathBuf, String>) {
    let conflist = settings.files.conf_dir.as_ref().map(|directory| directory.join(CONFLIST));
    let wanted = [
        conflist.map(|path| (path, conflist_text(settings, installed), is_our_conflist as fn(&str) -> bool)),
        settings.files.subnet_file.clone().map(|path| (path, subnet_env(settings, installed), is_our_subnet_env as _)),
    ];
    for (path, text, is_ours) in wanted.into_iter().flatten() {
        let Some(text) = text else { continue };
        match settle(&path, &text, is_ours) {
            Ok(true) => info!("overlay: {} is written", path.display()),
            Ok(false) => {}
            Err(why) => {
                if said.get(&path) != Some(&why) {
                    warn!("overlay: {} {why}", path.display());
                }
                said.insert(path, why);
                continue;
            }
        }
        said.remove(&path);
    }
}

/// Makes a file be so, and says whether it had to be written; or half a sentence that says why it stays.
fn settle(path: &Path, text: &str, is_ours: fn(&str) -> bool) -> Result<bool, String> {
    match fs::read(path) {
        Ok(held) if held == text.as_bytes() => return Ok(false),
        Ok(held) if !is_ours(&String::from_utf8_lossy(&held)) => {
            return Err("was not written by fairlead and stays as it is; remove it, or leave out the flag".to_owned());
        }
        Ok(_) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(format!("cannot be read: {error}")),
    }
    file::replace(path, text.as_bytes()).map(|()| true).map_err(|error| format!("cannot be written: {error}"))
}

fn is_our_conflist(text: &str) -> bool {
    serde_json::from_str::<Value>(text).is_ok_and(|value| value.get(MARK_KEY).is_some())
}

fn is_our_subnet_env(text: &str) -> bool {
    text.starts_with(MARK_LINE)
}

/// The families in which pods have addresses.
fn prefixes(installed: &Installed) -> impl Iterator<Item = (Family, IpNet)> {
    Family::BOTH.into_iter().filter_map(|family| Some((family, installed.pods[family]?)))
}

/// The configuration; `None` before the prefixes and the MTU are known.
fn conflist_text(settings: &Settings, installed: &Installed) -> Option<String> {
    let mtu = installed.mtu?;
    let ranges: Vec<_> = prefixes(installed).map(|(_, pods)| json!([{ "subnet": pods.trunc() }])).collect();
    if ranges.is_empty() {
        return None;
    }
    let families = prefixes(installed).map(|(family, _)| family);
    let routes: Vec<_> = families.filter_map(|family| Some(json!({ "dst": settings.networks[family]? }))).collect();
    let bridge = json!({
        "type": "bridge",
        "bridge": BRIDGE,
        "mtu": mtu,
        "isGateway": true,
        "isDefaultGateway": true,
        "hairpinMode": true,
        // Pods that leave the cluster are translated by our own rules, if at all.
        "ipMasq": false,
        "ipam": { "type": "host-local", "ranges": ranges, "routes": routes },
    });
    let list = json!({
        MARK_KEY: "Written by fairlead, which replaces it when prefixes or the MTU change.",
        "cniVersion": CNI_VERSION,
        "name": NETWORK,
        "plugins": [bridge, { "type": "portmap", "capabilities": { "portMappings": true } }],
    });
    let mut text = serde_json::to_string_pretty(&list).ok()?;
    text.push('\n');
    Some(text)
}

/// flannel's file; `None` before the prefixes and the MTU are known.
fn subnet_env(settings: &Settings, installed: &Installed) -> Option<String> {
    let mtu = installed.mtu?;
    let mut text = format!("{MARK_LINE}\n");
    let mut any = false;
    for (family, pods) in prefixes(installed) {
        let infix = if family == Family::V4 { "" } else { "IPV6_" };
        // Where nobody has said what the cluster has, only this node's own prefix is known for certain.
        let network = settings.networks[family].unwrap_or(pods).trunc();
        let gateway = IpNet::new(second(pods), pods.prefix_len()).ok()?;
        // Writing to a string does not fail.
        let _ = writeln!(text, "FLANNEL_{infix}NETWORK={network}\nFLANNEL_{infix}SUBNET={gateway}");
        any = true;
    }
    let _ = writeln!(text, "FLANNEL_MTU={mtu}\nFLANNEL_IPMASQ={}", settings.masquerade);
    any.then_some(text)
}

/// The address after a prefix's first, which the bridge has.
fn second(pods: IpNet) -> IpAddr {
    match pods.network() {
        IpAddr::V4(addr) => IpAddr::V4(addr.to_bits().saturating_add(1).into()),
        IpAddr::V6(addr) => IpAddr::V6(addr.to_bits().saturating_add(1).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::overlay::settings::Backend;
    use crate::resolve::PerFamily;

    fn net(text: &str) -> Option<IpNet> {
        Some(text.parse().unwrap())
    }

    fn installed() -> Installed {
        Installed {
            backend: Backend::Vxlan,
            pods: PerFamily { v4: net("10.244.1.0/24"), v6: net("fd00:244:0:1::/64") },
            mtu: Some(1430),
            ..Installed::default()
        }
    }

    fn settings() -> Settings {
        let networks = PerFamily { v4: net("10.244.0.0/16"), v6: net("fd00:244::/32") };
        Settings { networks, ..Settings::default() }
    }

    #[test]
    fn subnet_env_has_flannels_lines() {
        let text = subnet_env(&settings(), &installed()).expect("a file");
        let lines: Vec<_> = text.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "FLANNEL_NETWORK=10.244.0.0/16",
                "FLANNEL_SUBNET=10.244.1.1/24",
                "FLANNEL_IPV6_NETWORK=fd00:244::/32",
                "FLANNEL_IPV6_SUBNET=fd00:244:0:1::1/64",
                "FLANNEL_MTU=1430",
                "FLANNEL_IPMASQ=true",
            ]
        );
        assert!(is_our_subnet_env(&text));
        assert!(!is_our_subnet_env(&lines.join("\n")), "flannel's own file has no mark");
    }

    #[test]
    fn the_configuration_has_a_range_and_a_route_for_each_family() {
        let text = conflist_text(&settings(), &installed()).expect("a file");
        let value: Value = serde_json::from_str(&text).unwrap();
        let bridge = &value["plugins"][0];
        assert_eq!(
            (&bridge["type"], &bridge["mtu"], &bridge["ipMasq"]),
            (&json!("bridge"), &json!(1430), &json!(false))
        );
        assert_eq!(bridge["ipam"]["ranges"], json!([[{"subnet": "10.244.1.0/24"}], [{"subnet": "fd00:244:0:1::/64"}]]));
        assert_eq!(bridge["ipam"]["routes"], json!([{"dst": "10.244.0.0/16"}, {"dst": "fd00:244::/32"}]));
        assert_eq!(value["plugins"][1]["type"], "portmap");
        assert!(is_our_conflist(&text));
        assert!(!is_our_conflist(r#"{"name": "cbr0", "plugins": []}"#));
        let v6 = Installed { pods: PerFamily { v4: None, v6: net("fd00:244:0:1::/64") }, ..installed() };
        let value: Value = serde_json::from_str(&conflist_text(&settings(), &v6).expect("a file")).unwrap();
        assert_eq!(value["plugins"][0]["ipam"]["ranges"].as_array().map(Vec::len), Some(1));
    }

    #[test]
    fn nothing_is_written_before_prefixes_and_mtu_are_known() {
        for early in [
            Installed::default(),
            Installed { mtu: None, ..installed() },
            Installed { pods: PerFamily::default(), ..installed() },
        ] {
            assert_eq!(conflist_text(&settings(), &early), None);
            assert_eq!(subnet_env(&settings(), &early), None);
        }
    }
}
