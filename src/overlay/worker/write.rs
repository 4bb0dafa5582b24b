//! Writes what differs, and remembers whom the kernel refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use fairlead_kernel::route::{HopObject, Link, NextHop, Refusal, Route, RtnlError, Write};

use super::Worker;
use crate::overlay::desired::{self, Key};
use crate::overlay::diff::{Comparison, PROTOCOL};
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
        let begin = || Comparison::new(&self.peers, &fallbacks, &self.indices, self.settings.learning);
        let drift = observe::compare(&mut self.kernel, &self.indices, begin)?;
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
        let mut failing = BTreeMap::new();
        // All routes in the end: one through a nexthop object that is not there is refused.
        let routes = set.partition_point(|key| !matches!(key, Key::Route(_)));
        // In portions: the changes of thousands of peers take more room than the peers.
        for keys in set[..routes].chunks(AT_ONCE).chain(set[routes..].chunks(AT_ONCE)) {
            self.write_portion(keys, &mut failing)?;
        }
        let refused = self.write_past_others(&remove)?;
        self.outside.wrote(remove.len() - refused.len());
        for refusal in refused {
            self.refused(&remove[refusal.at], &refusal);
        }
        self.settle_retries(set, failing);
        Ok(())
    }

    /// A peer for which something was refused gets nothing more: its route may lead to it in another way as yet.
    fn write_portion(&mut self, set: &[Key], failing: &mut BTreeMap<PeerId, String>) -> Result<(), RtnlError> {
        let mut keys = Vec::with_capacity(set.len());
        let mut writes = Vec::with_capacity(set.len());
        for key in set {
            let Some((value, peer)) = self.peers.get(key) else { continue };
            if !failing.contains_key(peer)
                && let Some(write) = diff::rendered(*key, value, &self.indices)
            {
                keys.push(*key);
                writes.push(write);
            }
        }
        if writes.is_empty() {
            return Ok(());
        }
        let refused = self.write_past_others(&writes)?;
        self.outside.wrote(writes.len() - refused.len());
        for refusal in refused {
            let write = &writes[refusal.at];
            match self.peers.get(&keys[refusal.at]) {
                Some((_, peer)) if !refusal.is_about_device() => {
                    failing.entry(peer.clone()).or_insert_with(|| format!("{refusal} ({write:?})"));
                }
                _ => self.refused(write, &refusal),
            }
        }
        Ok(())
    }

    /// Something was refused that says nothing about a peer.
    fn refused(&mut self, write: &Write, refusal: &Refusal) {
        if refusal.is_about_device() {
            // It is gone or down; the next comparison sees to it.
            self.doubt();
        } else {
            self.outside.refused(&format!("{write:?}"), &refusal.to_string());
        }
    }

    /// Writes, and once more, in another way, what may be refused because of what others have made.
    fn write_past_others(&mut self, writes: &[Write]) -> Result<Vec<Refusal>, RtnlError> {
        let (mut refused, mut places, mut again) = (Vec::new(), Vec::new(), Vec::new());
        let first = self.kernel.write(writes)?;
        let about_gateway =
            |refusal: &Refusal| refusal.is_in_the_way() && matches!(writes[refusal.at], Write::AddHop(_));
        let links = if first.iter().any(about_gateway) { self.kernel.links()? } else { Vec::new() };
        for refusal in first {
            let Some(way) = self.way_past(&writes[refusal.at], &refusal, &links)? else {
                refused.push(refusal);
                continue;
            };
            places.resize(places.len() + way.len(), refusal.at);
            again.extend(way);
        }
        for refusal in self.kernel.write(&again)? {
            let at = places[refusal.at];
            if refused.last().is_none_or(|last: &Refusal| last.at != at) {
                refused.push(Refusal { at, ..refusal });
            }
        }
        Ok(refused)
    }

    /// What to write instead of something that was refused; `None` if the refusal stands.
    fn way_past(&mut self, write: &Write, refusal: &Refusal, links: &[Link]) -> Result<Option<Vec<Write>>, RtnlError> {
        Ok(match write {
            Write::SetRoute(Route { hop: NextHop::Object(id), .. }) => match self.kernel.hop(*id)? {
                Some(_) => None,
                // With it the kernel takes the route away. The next comparison sees to both.
                None => self.look_again(),
            },
            Write::SetRoute(route) if refusal.is_in_the_way() => {
                Some(vec![Write::ClearWay(*route), Write::SetRoute(*route)])
            }
            Write::AddHop(hop) if refusal.is_taken() => match self.settle_number(hop)? {
                None => self.look_again(),
                Some(set) => Some(vec![set]),
            },
            // In IPv6, because a route through another device covers the gateway; or because there is no such device.
            Write::AddHop(hop) if refusal.is_in_the_way() => {
                match (self.settle_number(hop)?, self.route_through(hop.id)) {
                    (Some(set), Some(route)) if is_there(hop, links) => {
                        Some(vec![Write::ClearWay(route), set, Write::SetRoute(route)])
                    }
                    _ => self.look_again(),
                }
            }
            _ => None,
        })
    }

    /// How to write a nexthop object, now that there may be one of its number; `None` if that is somebody else's, and the peer
    /// gets another number.
    fn settle_number(&mut self, wanted: &HopObject) -> Result<Option<Write>, RtnlError> {
        Ok(match self.kernel.hop(wanted.id)? {
            None => Some(Write::AddHop(*wanted)),
            Some(present) if present.protocol == PROTOCOL => Some(Write::ReplaceHop(*wanted)),
            Some(present) => {
                self.outside.taken(wanted, &present);
                self.peers.avoid(wanted.id);
                None
            }
        })
    }

    /// The next comparison sees to it, and nothing is to be written until then.
    fn look_again(&mut self) -> Option<Vec<Write>> {
        self.doubt();
        Some(Vec::new())
    }

    /// The route that should lead through a nexthop object.
    fn route_through(&self, id: u32) -> Option<Route> {
        let (_, peer) = self.peers.get(&Key::Hop(id))?;
        self.peers.keys(peer).find_map(|key| {
            let (value, _) = self.peers.get(&key)?;
            match diff::rendered(key, value, &self.indices) {
                Some(Write::SetRoute(route)) => Some(route),
                _ => None,
            }
        })
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

/// Whether there is the device of a nexthop object.
fn is_there(object: &HopObject, links: &[Link]) -> bool {
    matches!(object.hop, NextHop::Unicast { index, .. } if links.iter().any(|link| link.index == index))
}
