//! The thread that owns the overlay: it hears, decides when, writes.

mod around;
mod hear;
mod write;

use std::collections::BTreeSet;
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use fairlead_kernel::memory;
use fairlead_kernel::route::{Change, Mac, Rtnl, RtnlError};
use ipnet::IpNet;
use tracing::{debug, error, info};

use super::desired::{Device, Key, Local, Object};
use super::diff::Indices;
use super::facts::{Facts, Own};
use super::outside::Outside;
use super::peers::{Difference, Peers};
use super::retry::Retries;
use super::settings::Settings;
use super::{devices, observe};
use crate::resolve::PerFamily;

/// How often everything is compared although nothing was heard.
const TIMER: Duration = Duration::from_secs(10);
/// After news of others' changes, time for those that belong together.
const GATHER: Duration = Duration::from_millis(5);
/// Longest pause between full comparisons that fail.
const LONGEST: Duration = Duration::from_secs(5);
/// How often a comparison that wrote something is repeated to see that it came true.
const PASSES: usize = 3;

/// What the thread hears.
#[derive(Debug)]
pub enum Message {
    /// A complete list of Nodes begins.
    ListBegin,
    /// It is complete.
    ListEnd,
    /// A Node is there or has changed; with what only this node's own Node says, and when it was heard.
    Apply(Box<Facts>, Option<Box<Own>>, Instant),
    /// A Node is gone.
    Delete(Box<str>),
    /// Others have changed something.
    Changed(Vec<Change>),
    /// Others may have changed anything.
    Missed,
    /// Nothing has happened; whoever sends it wants to know whether anybody is still there.
    Nothing,
    /// The end.
    Stop,
}

/// The state of the thread.
pub struct Worker {
    settings: Settings,
    kernel: Rtnl,
    messages: mpsc::Receiver<Message>,
    outside: Outside,
    peers: Peers,
    own: Option<(Facts, Own)>,
    local: Local,
    macs: PerFamily<Option<Mac>>,
    devices: Vec<Device>,
    indices: Indices,
    /// Whether the interfaces to other nodes are on and have a carrier.
    carried: bool,
    complete: bool,
    /// Written one by one, without reading.
    set: BTreeSet<Key>,
    remove: Vec<Object>,
    /// Prefixes of peers for which others have made routes, which may stand before ours.
    contested: BTreeSet<IpNet>,
    /// Whether others may have made routes before we listened.
    suspicious: bool,
    /// When the change arrived that is to be written without a comparison.
    heard: Option<Instant>,
    /// When everything is compared next.
    compare_at: Instant,
    /// When only this node is looked at: others' interfaces come and go with every pod.
    look_at: Option<Instant>,
    /// Not before this, whatever happens.
    not_before: Instant,
    failures: u32,
    /// Nothing has been compared yet.
    starts: bool,
    retries: Retries,
    /// The last of [`Peers::decisions`] that others were told.
    told: u64,
}

impl Worker {
    /// A thread's state that has heard nothing yet.
    pub fn new(settings: Settings, kernel: Rtnl, messages: mpsc::Receiver<Message>, outside: Outside) -> Self {
        let now = Instant::now();
        Self {
            settings,
            kernel,
            messages,
            outside,
            peers: Peers::default(),
            own: None,
            local: Local::default(),
            macs: PerFamily::default(),
            devices: Vec::new(),
            indices: Indices::new(),
            carried: false,
            complete: false,
            set: BTreeSet::new(),
            remove: Vec::new(),
            contested: BTreeSet::new(),
            suspicious: true,
            heard: None,
            compare_at: now,
            look_at: None,
            not_before: now,
            failures: 0,
            starts: true,
            retries: Retries::default(),
            told: 0,
        }
    }

    /// Works until told to stop.
    pub fn run(mut self) {
        loop {
            let first = match self.wait() {
                Some(wait) => match self.messages.recv_timeout(wait) {
                    Ok(message) => Some(message),
                    Err(mpsc::RecvTimeoutError::Timeout) => None,
                    Err(mpsc::RecvTimeoutError::Disconnected) => return,
                },
                None => match self.messages.recv() {
                    Ok(message) => Some(message),
                    Err(mpsc::RecvError) => return,
                },
            };
            let mut next = first;
            while let Some(message) = next {
                if matches!(message, Message::Stop) {
                    return;
                }
                self.take(message);
                next = self.messages.try_recv().ok();
            }
            self.act();
        }
    }

    /// How long there is nothing to do; `None`: until something is heard.
    fn wait(&self) -> Option<Duration> {
        if !self.complete {
            return None;
        }
        let pass = self.look_at.map_or(self.compare_at, |look| look.min(self.compare_at)).max(self.not_before);
        let at = self.retries.next().map_or(pass, |retry| retry.min(pass));
        Some(at.saturating_duration_since(Instant::now()))
    }

    fn take(&mut self, message: Message) {
        let difference = match message {
            Message::ListBegin => {
                self.peers.begin_list();
                Difference::default()
            }
            Message::ListEnd => {
                if !self.complete {
                    info!("overlay: the first list of Nodes is complete");
                    self.complete = true;
                    self.compare_at = Instant::now();
                }
                self.peers.end_list(&self.settings, &self.local)
            }
            Message::Apply(facts, Some(own), _) => {
                self.take_own(*facts, *own);
                Difference::default()
            }
            Message::Apply(facts, None, at) => {
                self.heard.get_or_insert(at);
                self.peers.apply(&self.settings, &self.local, Arc::new(*facts))
            }
            // What is known about this node stays: its pods go on.
            Message::Delete(name) => self.peers.delete(&self.settings, &self.local, &name),
            Message::Changed(changes) => {
                changes.iter().for_each(|change| self.hear(change));
                Difference::default()
            }
            Message::Missed => {
                debug!("overlay: announcements of the kernel were lost; comparing");
                self.suspicious = true;
                self.doubt();
                Difference::default()
            }
            Message::Nothing | Message::Stop => Difference::default(),
        };
        self.adopt(difference);
    }

    fn take_own(&mut self, facts: Facts, own: Own) {
        let same = self
            .own
            .as_ref()
            .is_some_and(|(old, was)| (old.pods, was.wanted, was.overwrite) == (facts.pods, own.wanted, own.overwrite));
        self.own = Some((facts, own));
        if !same {
            self.compare_at = Instant::now();
        }
        self.publish();
    }

    fn doubt(&mut self) {
        self.compare_at = self.compare_at.min(Instant::now() + GATHER);
    }

    /// Takes over what a change of peers asks for.
    fn adopt(&mut self, difference: Difference) {
        self.outside.notes(difference.notes);
        if self.complete {
            self.set.extend(difference.set);
            self.remove.extend(difference.remove);
        }
    }

    fn act(&mut self) {
        if !self.complete {
            return;
        }
        let now = Instant::now();
        if now >= self.not_before && (now >= self.compare_at || self.look_at.is_some_and(|at| now >= at)) {
            let everything = now >= self.compare_at;
            self.compare(now, everything);
        }
        for peer in self.retries.due(now, |peer| self.peers.keys(peer).next().is_some()) {
            self.set.extend(self.peers.keys(&peer));
        }
        if !self.set.is_empty() || !self.remove.is_empty() {
            match self.write_changes() {
                Ok(()) => _ = self.heard.map(|at| self.outside.changed(at.elapsed())),
                Err(error) => self.failed(&error),
            }
            self.tell();
        } else if self.peers.decisions() != self.told {
            // Somebody may be no peer any more for whom there was nothing in the kernel.
            self.tell();
        }
        self.heard = None;
    }

    /// Looks at this node, and, if asked or if it has changed, compares everything; writes what differs.
    fn compare(&mut self, started: Instant, everything: bool) {
        self.look_at = None;
        if everything {
            self.compare_at = started + TIMER;
        }
        match self.pass(everything) {
            Ok(()) => {
                self.failures = 0;
                let took = started.elapsed();
                self.outside.compared(took);
                if std::mem::take(&mut self.starts) {
                    self.peers.fit();
                    // What the first comparison needed for a moment. Not later: the other threads' heap waits meanwhile.
                    memory::give_back();
                }
                // Somebody who fights us gets at most half of our time.
                self.not_before = Instant::now() + took.max(GATHER);
            }
            Err(error) => self.failed(&error),
        }
        self.publish();
        self.tell();
    }

    fn failed(&mut self, error: &RtnlError) {
        self.failures += 1;
        let pause = GATHER.saturating_mul(1 << self.failures.min(12)).min(LONGEST);
        self.not_before = Instant::now() + pause;
        self.compare_at = self.not_before;
        self.outside.failed();
        error!("overlay: {error}; trying again in {pause:?}");
    }

    fn pass(&mut self, everything: bool) -> Result<(), RtnlError> {
        let machine = observe::machine(&mut self.kernel, self.settings.underlay.can_reach)?;
        let bridged = devices::bridged(&machine);
        if self.starts {
            self.remember_numbers(&machine)?;
        }
        let is_new = self.look_around(&machine)?;
        let (links, changed) = devices::settle(&mut self.kernel, &self.devices, machine.links, &mut self.outside)?;
        let names = self.devices.iter().map(|device| (device.tunnel, device.spec.name.as_str()));
        self.indices = observe::indices(names, &links);
        let (done, failed) = devices::allow(&self.settings, &self.local, &self.devices, &bridged);
        self.outside.settings(&done, &failed.iter().map(ToString::to_string).collect::<Vec<_>>());
        if !everything && !is_new && !changed {
            return Ok(());
        }
        // All that waits to be written is found missing now.
        self.set.clear();
        self.remove.clear();
        for _ in 0..PASSES {
            if self.settle_objects()? == 0 {
                break;
            }
        }
        self.settle_contested()?;
        devices::remove_obsolete(&mut self.kernel, &self.local, &self.devices, &links, &mut self.outside)
    }

    fn publish(&mut self) {
        if let Some((_, own)) = &self.own {
            let up = self.is_up();
            self.outside.publish(&self.settings, &self.local, &self.devices, own, up);
        }
    }

    /// Whether the devices are there, and the interfaces below them carry packets.
    fn is_up(&self) -> bool {
        self.carried
            && self.local.families().next().is_some()
            && self.devices.iter().all(|device| self.indices.contains_key(&device.tunnel))
    }

    fn tell(&mut self) {
        let up = self.is_up();
        self.told = self.peers.decisions();
        self.outside.tell(&self.settings, &self.local, &self.devices, &self.peers, self.retries.len(), up);
    }
}
