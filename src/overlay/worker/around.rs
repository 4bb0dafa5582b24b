//! Who this node is, and what the kernel still holds from the last time that the program ran.

use fairlead_kernel::route::RtnlError;
use fairlead_plan::Family;
use tracing::info;

use super::Worker;
use crate::overlay::desired::{self, Half, Local};
use crate::overlay::settings::Backend;
use crate::overlay::underlay::{self, Machine};
use crate::overlay::{diff, observe};
use crate::resolve::PerFamily;

impl Worker {
    /// Peers keep the numbers that their nexthop objects have from the last time that the program ran.
    pub(super) fn remember_numbers(&mut self, machine: &Machine) -> Result<(), RtnlError> {
        for link in machine.links.iter().filter(|link| diff::device_family(link).is_some()) {
            for (gateway, number) in observe::numbers(&mut self.kernel, link.index)? {
                self.peers.remember(gateway, number);
            }
        }
        Ok(())
    }

    /// Decides anew who this node is, and with it, if that has changed, everything else; says whether it has.
    pub(super) fn look_around(&mut self, machine: &Machine) -> Result<bool, RtnlError> {
        let taken: Vec<_> = machine.links.iter().filter(|link| diff::device_family(link).is_some()).collect();
        let taken: Vec<String> = taken.into_iter().map(|link| link.name.clone()).collect();
        let mut local = Local::default();
        for family in self.settings.families.clone() {
            local.halves[family] = self.half(family, machine, &taken)?;
        }
        let idle = local.families().next().is_none();
        self.outside.idle(idle.then(|| match &self.own {
            None => format!("there is no Node {:?}; correct --hostname-override", self.settings.node_name),
            Some((facts, _)) if facts.pods == PerFamily::default() => {
                "this node's Node has no spec.podCIDRs; let kube-controller-manager allocate them".to_owned()
            }
            Some(_) => "no family has both a prefix of pods and an interface".to_owned(),
        }));
        let is_new = local != self.local;
        if is_new {
            for (family, half) in local.families() {
                let (name, addr) = (&half.underlay.name, half.underlay.local);
                info!(interface = name, %addr, mtu = half.mtu(&self.settings, family), pods = %half.pods, "overlay: this node");
            }
            self.local = local;
            let notes = self.peers.redecide(&self.settings, &self.local);
            self.outside.notes(notes);
        }
        self.devices = desired::devices(&self.settings, &self.local);
        let carries = |half: &Half| {
            let link = machine.links.iter().find(|link| link.index == half.underlay.index);
            link.is_some_and(|link| link.carrier)
        };
        self.carried = self.local.families().all(|(_, half)| carries(half));
        Ok(is_new)
    }

    fn half(&mut self, family: Family, machine: &Machine, taken: &[String]) -> Result<Option<Half>, RtnlError> {
        let Some((facts, own)) = &self.own else { return Ok(None) };
        let Some(pods) = facts.pods[family] else { return Ok(None) };
        let wanted = own.wanted[family];
        let announced = facts.vtep[family]
            .or_else(|| facts.vtep[Family::V4].filter(|_| self.settings.backend == Backend::VxlanLwt));
        let chosen = underlay::choose(&self.settings.underlay, wanted, family, machine, taken);
        let underlay = match chosen {
            Ok(underlay) => {
                self.outside.underlay(family, None);
                underlay
            }
            Err(why) => {
                self.outside.underlay(family, Some(why));
                // What works is kept as long as its interface is there.
                let last = self.local.halves[family].take();
                let there = |half: &Half| machine.links.iter().any(|link| link.index == half.underlay.index);
                return Ok(last.filter(there).map(|half| Half { pods, ..half }));
            }
        };
        let name = desired::device_name(family, self.settings.vni);
        let present = machine.links.iter().find(|link| link.name == name && link.vxlan.is_some());
        let mac = *self.macs[family].get_or_insert_with(|| {
            let announced = announced.map(|vtep| vtep.mac);
            let present = present.and_then(|link| link.mac).filter(|mac| mac.is_unicast());
            announced.or(present).unwrap_or_else(|| desired::derived_mac(&self.settings.node_name, &name))
        });
        let on_link = observe::on_link(&mut self.kernel, family, underlay.index)?;
        Ok(Some(Half { pods, underlay, mac, on_link }))
    }
}
