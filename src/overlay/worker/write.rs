//! Writes what differs, and remembers whom the kernel refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fairlead_kernel::route::{Refusal, RtnlError, Write};

use super::Worker;
use crate::overlay::desired::{self, Key};
use crate::overlay::diff::Comparison;
use crate::overlay::peers::PeerId;
use crate::overlay::{diff, observe};
use crate::resolve::Note;

/// Changes that are rendered at a time.
const AT_ONCE: usize = 2048;
/// Routes that are removed at once where others stand before ours; more of them take another round.
const STRANGERS: usize = 4;

impl Worker {
    /// Compares what is on the devices, writes what differs, and says how much that was.
    pub(super) fn settle_objects(&mut self) -> Result<usize, RtnlError> {
        let fallbacks = desired::fallbacks(&self.settings, &self.local);
        let comparison = Comparison::new(&self.peers, &fallbacks, &self.indices, self.settings.learning);
        let drift = observe::compare(&mut self.kernel, &self.indices, comparison)?;
        let now = Instant::now();
        let mut missing = drift.missing;
        missing.retain(|key| self.may_try(key, now));
        let others = drift.extra.len() + drift.fallbacks.len();
        self.outside.drift(&missing, &drift.extra);
        self.write(&missing, [drift.extra, drift.fallbacks].concat())?;
        Ok(missing.len() + others)
    }

    /// Sees to it that ours is the route that packets meet first, where others have made one for the same prefix: IPv4 has
    /// an order among equals, IPv6 keeps a blackhole beside a route with a gateway.
    pub(super) fn settle_contested(&mut self) -> Result<(), RtnlError> {
        if std::mem::take(&mut self.suspicious) {
            self.contested.extend(observe::strangers(&mut self.kernel, &self.peers)?);
        }
        for net in std::mem::take(&mut self.contested) {
            let key = Key::Route(net);
            let wanted = self.peers.get(&key).and_then(|(value, _)| diff::rendered(key, value, &self.indices));
            let Some(Write::SetRoute(route)) = wanted else { continue };
            let met = self.kernel.route_towards(net.network())?;
            // Of a blackhole the kernel says only that there is no way.
            if met.is_none_or(|met| met.destination == net && met != route) {
                let mut writes = vec![Write::ClearWay(route); STRANGERS];
                writes.push(Write::SetRoute(route));
                let refused = self.kernel.write(&writes)?;
                self.outside.uncovered(net, met);
                refused.iter().for_each(|why| self.outside.refused(&format!("{route:?}"), &why.to_string()));
            }
        }
        Ok(())
    }

    fn may_try(&self, key: &Key, now: Instant) -> bool {
        self.peers.get(key).is_some_and(|(_, peer)| self.retries.may_try(peer, now))
    }

    pub(super) fn write_changes(&mut self) -> Result<(), RtnlError> {
        let set: Vec<_> = std::mem::take(&mut self.set).into_iter().collect();
        let remove = std::mem::take(&mut self.remove);
        // What has come back meanwhile is wanted again.
        let gone = remove.into_iter().filter(|(key, _)| self.peers.get(key).is_none());
        let gone: Vec<_> = gone.filter_map(|(key, value)| diff::removal(key, value, &self.indices)).collect();
        self.write(&set, gone)
    }

    fn write(&mut self, set: &[Key], remove: Vec<Write>) -> Result<(), RtnlError> {
        // In portions: the changes of thousands of peers take more room than the peers.
        for keys in set.chunks(AT_ONCE) {
            self.write_portion(keys, Vec::new())?;
        }
        self.write_portion(&[], remove)
    }

    fn write_portion(&mut self, set: &[Key], remove: Vec<Write>) -> Result<(), RtnlError> {
        let mut keys = Vec::with_capacity(set.len());
        let mut writes = Vec::with_capacity(set.len() + remove.len());
        for key in set {
            let rendered = self.peers.get(key).and_then(|(value, _)| diff::rendered(*key, value, &self.indices));
            if let Some(write) = rendered {
                keys.push(*key);
                writes.push(write);
            }
        }
        writes.extend(remove);
        if writes.is_empty() {
            return Ok(());
        }
        let refused = self.write_past_others(&writes)?;
        self.outside.wrote(writes.len() - refused.len());
        let mut failing = BTreeMap::new();
        for refusal in refused {
            let write = &writes[refusal.at];
            let owner = keys.get(refusal.at).and_then(|key| self.peers.get(key)).map(|(_, peer)| peer.clone());
            match owner {
                // The device is gone or down; the next comparison sees to it.
                _ if refusal.is_about_device() => self.doubt(),
                Some(peer) => _ = failing.entry(peer).or_insert_with(|| format!("{refusal} ({write:?})")),
                None => self.outside.refused(&format!("{write:?}"), &refusal.to_string()),
            }
        }
        self.settle_retries(&keys, failing);
        Ok(())
    }

    /// Writes, and once more what may be refused because of a route of others in the way. That one goes.
    fn write_past_others(&mut self, writes: &[Write]) -> Result<Vec<Refusal>, RtnlError> {
        let (mut refused, mut again) = (Vec::new(), Vec::new());
        for refusal in self.kernel.write(writes)? {
            match &writes[refusal.at] {
                Write::SetRoute(route) if refusal.is_in_the_way() => {
                    again.push((refusal.at, [Write::ClearWay(*route), Write::SetRoute(*route)]));
                }
                _ => refused.push(refusal),
            }
        }
        let (places, again): (Vec<_>, Vec<_>) = again.into_iter().unzip();
        let still = self.kernel.write(again.as_flattened())?;
        refused.extend(still.into_iter().map(|refusal| Refusal { at: places[refusal.at / 2], ..refusal }));
        Ok(refused)
    }

    /// Who was tried and not refused waits no longer; who was refused is tried again later.
    fn settle_retries(&mut self, tried: &[Key], mut failing: BTreeMap<PeerId, String>) {
        let now = Instant::now();
        if failing.is_empty() && self.retries.len() == 0 {
            return;
        }
        let tried: BTreeSet<_> = tried.iter().filter_map(|key| Some(self.peers.get(key)?.1.clone())).collect();
        for peer in tried {
            let Some(why) = failing.remove(&peer) else {
                self.retries.succeeded(&peer);
                continue;
            };
            self.outside.failed();
            if self.retries.failed(&peer, now)
                && let Some(facts) = self.peers.facts(&peer.name)
            {
                let message = format!("the kernel refuses the way to its pods: {why}; it is tried again");
                self.outside.notes(vec![facts.note(Note::OVERLAY_REFUSED, message)]);
            }
        }
    }
}
