//! Peers for which the kernel refused something, and when each is tried again.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::peers::PeerId;

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// The state of all of them.
#[derive(Debug, Default)]
pub struct Retries {
    waiting: BTreeMap<PeerId, Retry>,
}

#[derive(Debug)]
struct Retry {
    at: Instant,
    pause: Duration,
}

impl Retries {
    /// Something was refused. True for the first time.
    pub fn failed(&mut self, peer: &PeerId, now: Instant) -> bool {
        let pause = self.waiting.get(peer).map_or(FIRST, |retry| (retry.pause * 2).min(LONGEST));
        self.waiting.insert(peer.clone(), Retry { at: now + pause, pause }).is_none()
    }

    /// Everything was taken.
    pub fn succeeded(&mut self, peer: &PeerId) {
        self.waiting.remove(peer);
    }

    /// Whether it is not too early.
    #[must_use]
    pub fn may_try(&self, peer: &PeerId, now: Instant) -> bool {
        self.waiting.get(peer).is_none_or(|retry| retry.at <= now)
    }

    /// When the next is due.
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        self.waiting.values().map(|retry| retry.at).min()
    }

    /// Who is due; those that are no peers any more are forgotten.
    pub fn due(&mut self, now: Instant, is_peer: impl Fn(&PeerId) -> bool) -> Vec<PeerId> {
        self.waiting.retain(|peer, _| is_peer(peer));
        self.waiting.iter().filter(|(_, retry)| retry.at <= now).map(|(peer, _)| peer.clone()).collect()
    }

    /// How many wait.
    #[must_use]
    pub fn len(&self) -> usize {
        self.waiting.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fairlead_plan::Family;

    #[test]
    fn each_peer_waits_twice_as_long_as_before_and_only_for_itself() {
        let peer = |name: &str| PeerId { name: name.into(), family: Family::V4 };
        let (mut retries, start) = (Retries::default(), Instant::now());
        assert!(retries.failed(&peer("a"), start));
        assert!(!retries.may_try(&peer("a"), start) && retries.may_try(&peer("b"), start));
        let then = start + FIRST;
        assert_eq!(retries.next(), Some(then));
        assert_eq!(retries.due(then, |_| true), [peer("a")]);
        assert!(!retries.failed(&peer("a"), then));
        assert_eq!(retries.next(), Some(then + FIRST * 2));
        for _ in 0..20 {
            retries.failed(&peer("a"), then);
        }
        assert_eq!(retries.next(), Some(then + LONGEST));
        assert_eq!(retries.due(then + LONGEST, |_| false), []);
        assert_eq!(retries.len(), 0, "who is no peer any more is forgotten");
    }
}
