//! What the overlay tells others: logs, metrics, Events, this node's annotations, and what the rules around it need.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use fairlead_kernel::route::{HopObject, Route, Write};
use fairlead_plan::Family;
use ipnet::IpNet;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::annotation::{self, Said, Vtep};
use super::desired::{Device, Key, Local};
use super::facts::Own;
use super::peers::Peers;
use super::publish::Patch;
use super::settings::{Backend, Settings};
use crate::health::Health;
use crate::metrics::{Cause, Metrics};
use crate::outward;
use crate::resolve::{Note, PerFamily};
use crate::watch::Publisher;

/// The overlay as it is installed, for the rules, the CNI configuration and the commands around it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Installed {
    /// How packets travel.
    pub backend: Backend,
    /// The prefixes of this node's pods.
    pub pods: PerFamily<Option<IpNet>>,
    /// The interface to other nodes, by name.
    pub underlay: PerFamily<Option<String>>,
    /// The address on it by which this node sends.
    pub address: PerFamily<Option<IpAddr>>,
    /// The MTU of pods, bytes; `None` before the underlay is known.
    pub mtu: Option<u32>,
    /// UDP port of the tunnels.
    pub port: u16,
    /// The names of our VXLAN devices.
    pub devices: Vec<String>,
    /// Where the tunnels of all peers end, sorted.
    pub ends: Arc<[IpAddr]>,
    /// Prefixes of peers that are not inside the cluster's own ([`Settings::networks`]), sorted.
    pub prefixes: Arc<[IpNet]>,
}

/// The ways out.
pub struct Outside {
    metrics: Arc<Metrics>,
    health: Arc<Health>,
    events: Publisher,
    patches: watch::Sender<Option<Patch>>,
    installed: watch::Sender<Installed>,
    /// What is wrong with devices and interfaces, so that it is said once.
    complaints: BTreeMap<String, String>,
    up: bool,
}

impl Outside {
    /// Nothing has been said yet.
    #[must_use]
    pub const fn new(
        metrics: Arc<Metrics>,
        health: Arc<Health>,
        events: Publisher,
        patches: watch::Sender<Option<Patch>>,
        installed: watch::Sender<Installed>,
    ) -> Self {
        Self { metrics, health, events, patches, installed, complaints: BTreeMap::new(), up: false }
    }

    /// Something is wrong with a Node.
    pub fn notes(&self, notes: Vec<Note>) {
        notes.into_iter().for_each(|note| outward::complain(&self.metrics, &self.events, note));
    }

    /// The kernel refused something that will be tried again.
    pub fn failed(&self) {
        self.metrics.failed(Cause::Overlay);
    }

    /// The kernel refused something that no peer depends on.
    pub fn refused(&self, what: &str, why: &str) {
        self.failed();
        warn!("overlay: the kernel refuses {what}: {why}");
    }

    /// What is wrong with the way to other nodes; `None`: nothing.
    pub fn underlay(&mut self, family: Family, wrong: Option<String>) {
        self.complain(format!("overlay, {}", family.label()), wrong);
    }

    /// Why there is no overlay at all; `None`: there is one.
    pub fn idle(&mut self, wrong: Option<String>) {
        self.complain("overlay".to_owned(), wrong);
    }

    /// What is wrong with a device; `None`: nothing.
    pub fn device(&mut self, name: &str, wrong: Option<String>) {
        self.complain(format!("overlay, device {name}"), wrong);
    }

    fn complain(&mut self, about: String, wrong: Option<String>) {
        let Some(wrong) = wrong else {
            if self.complaints.remove(&about).is_some() {
                info!("{about}: all is well again");
            }
            return;
        };
        if self.complaints.get(&about) != Some(&wrong) {
            warn!("{about}: {wrong}");
            self.failed();
            self.complaints.insert(about, wrong);
        }
    }

    /// A device was made, changed or deleted.
    pub fn device_written(&self, name: &str, writes: &[Write]) {
        info!("overlay: device {name}: {}", writes.iter().map(describe).collect::<Vec<_>>().join(", "));
        self.metrics.overlay_repaired("device", u64::from(self.up));
        self.metrics.overlay_wrote(writes.len());
    }

    /// A comparison has found that the kernel holds something else. At the first one everything is missing.
    pub fn drift(&self, missing: &[Key], extra: &[Write]) {
        if missing.is_empty() && extra.is_empty() {
            return;
        }
        let count = |is: fn(&Key) -> bool| missing.iter().filter(|key| is(key)).count() as u64;
        let counts = [
            ("neighbour", count(|key| matches!(key, Key::Neighbour(..)))),
            ("forwarding entry", count(|key| matches!(key, Key::Forwarding(..)))),
            ("nexthop", count(|key| matches!(key, Key::Hop(_)))),
            ("route", count(|key| matches!(key, Key::Route(_)))),
        ];
        if !self.up {
            debug!(missing = missing.len(), extra = extra.len(), "overlay: the first comparison");
            return;
        }
        for (what, count) in counts {
            self.metrics.overlay_repaired(what, count);
        }
        self.metrics.overlay_repaired("extra", extra.len() as u64);
        let [neighbours, forwarding, nexthops, routes] = counts.map(|(_, count)| count);
        warn!(neighbours, forwarding, nexthops, routes, extra = extra.len(), "overlay: repaired");
    }

    /// Another's route for the prefix of a peer stood before ours.
    pub fn uncovered(&self, net: IpNet, met: Option<Route>) {
        warn!("overlay: another route to {net} was taken before ours and is removed: {met:?}");
        self.metrics.overlay_repaired("route", 1);
    }

    /// Somebody else has the nexthop object of a number that a peer should have.
    pub fn taken(&self, wanted: &HopObject, met: &HopObject) {
        warn!("overlay: the nexthop object {} is somebody else's, so another is made: {met:?}", wanted.id);
        self.metrics.overlay_repaired("nexthop", 1);
    }

    /// So many objects were written.
    pub fn wrote(&self, count: usize) {
        self.metrics.overlay_wrote(count);
    }

    /// A whole comparison took so long.
    pub fn compared(&self, took: Duration) {
        self.metrics.overlay_compared(took);
    }

    /// A change of one Node went into the kernel so long after it was heard.
    pub fn changed(&self, took: Duration) {
        self.metrics.overlay_changed(took);
    }

    /// Settings of the kernel were written or could not be.
    pub fn settings(&mut self, done: &[String], failed: &[String]) {
        for setting in done {
            info!("overlay: {setting} is set now");
        }
        let wrong = (!failed.is_empty()).then(|| failed.join("; "));
        self.complain("overlay, settings of the kernel".to_owned(), wrong);
    }

    /// Tells peers how to reach this node, if what its Node says differs.
    pub fn publish(&self, settings: &Settings, local: &Local, devices: &[Device], own: &Own, up: bool) {
        let said = said(settings, local, devices, own);
        if said.v4.is_none() && said.v6.is_none() {
            return;
        }
        let wanted = annotation::write(&settings.prefix, settings.backend.annotation(), said.v4, said.v6);
        let differs = |(key, value): &(String, String)| own.annotations.get(key) != Some(value);
        let patch = Patch {
            annotations: wanted.into_iter().filter(differs).collect(),
            clear_unavailable: settings.clear_network_unavailable && up && own.network_unavailable,
        };
        self.patches.send_replace(Some(patch).filter(|patch| !patch.is_empty()));
    }

    /// Everything that can be counted, and what the rules around the overlay need.
    pub fn tell(
        &mut self,
        settings: &Settings,
        local: &Local,
        devices: &[Device],
        peers: &Peers,
        failing: usize,
        up: bool,
    ) {
        if up && !self.up {
            info!("overlay: up");
            self.health.overlay_up();
        }
        self.up |= up;
        self.metrics.overlay_peers(peers.counts(), peers.troubles().count(), failing, up);
        let ends: Vec<IpAddr> = peers.ends().collect();
        // Everybody who waits for this shares one list; most changes leave it as it is.
        let known = Arc::clone(&self.installed.borrow().ends);
        let ends = if *known == *ends { known } else { ends.into() };
        let half = |family: Family| local.halves[family].as_ref();
        let now = Installed {
            backend: settings.backend,
            pods: PerFamily { v4: half(Family::V4).map(|half| half.pods), v6: half(Family::V6).map(|half| half.pods) },
            underlay: PerFamily {
                v4: half(Family::V4).map(|half| half.underlay.name.clone()),
                v6: half(Family::V6).map(|half| half.underlay.name.clone()),
            },
            address: PerFamily {
                v4: half(Family::V4).map(|half| half.underlay.local),
                v6: half(Family::V6).map(|half| half.underlay.local),
            },
            mtu: local.pod_mtu(settings),
            port: settings.port,
            devices: devices.iter().map(|device| device.spec.name.clone()).collect(),
            ends,
            prefixes: peers.prefixes_outside(settings.networks).into(),
        };
        if *self.installed.borrow() != now {
            self.inform(settings, local);
        }
        self.installed.send_if_modified(|was| {
            let changed = *was != now;
            *was = now;
            changed
        });
    }
}

impl Outside {
    /// For `fairlead status` and dashboards.
    fn inform(&self, settings: &Settings, local: &Local) {
        let texts: Vec<_> = local
            .families()
            .map(|(family, half)| (family, &half.underlay.name, half.underlay.local.to_string(), half.pods.to_string()))
            .collect();
        let masquerade = if settings.masquerade { "true" } else { "false" };
        self.metrics.overlay_info(texts.iter().map(|(family, name, local, pods)| {
            (*family, [settings.backend.name(), name.as_str(), local.as_str(), pods.as_str(), masquerade])
        }));
    }
}

fn said(settings: &Settings, local: &Local, devices: &[Device], own: &Own) -> PerFamily<Option<Said>> {
    // One device may serve both families.
    let shared = devices.first().filter(|_| settings.backend == Backend::VxlanLwt).map(|device| device.spec.mac);
    let mut said = PerFamily::default();
    for (family, half) in local.families() {
        let vtep = Vtep { vni: Some(settings.vni), mac: shared.unwrap_or(half.mac) };
        said[family] = Some(Said {
            public_ip: own.overwrite[family].unwrap_or(half.underlay.public),
            vtep: settings.backend.tunnels().then_some(vtep),
        });
    }
    said
}

fn describe(write: &Write) -> String {
    match write {
        Write::CreateVxlan(spec) => format!("created, mtu {}, address {}", spec.mtu, spec.mac),
        Write::AlterVxlan(_, vxlan) => match vxlan.local {
            Some(local) => format!("local address {local}"),
            None => "altered".to_owned(),
        },
        Write::DeleteLink(_) => "deleted".to_owned(),
        Write::Up(_) => "switched on".to_owned(),
        Write::SetMtu(_, mtu) => format!("mtu {mtu}"),
        Write::SetMac(_, mac) => format!("address {mac}"),
        other => format!("{other:?}"),
    }
}
