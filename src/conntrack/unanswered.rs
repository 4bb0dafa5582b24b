//! Stale flows whose first request may still be on its way.
//!
//! Its answer would find no translation any more if the flow went at once, and the client, who has done nothing wrong, would
//! get none. So a flow that nobody has answered yet is left alone for a moment. Longer would not do: whoever only ever sends,
//! as a client of syslog does, sends into the void meanwhile.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use fairlead_kernel::conntrack::{ANSWERED, Flow, TRANSLATED, Tuple};

/// So long an endpoint that was taken out may take for an answer: many times what most do.
const PATIENCE: Duration = Duration::from_millis(100);

/// Which flows were left alone, and since when.
#[derive(Debug, Default)]
pub struct Unanswered {
    since: HashMap<(u32, Tuple), Instant>,
}

impl Unanswered {
    /// Takes those out of a list of stale flows that may wait, by what the last pass (`before`) has left alone.
    pub fn leave_out(&mut self, stale: &mut Vec<Flow>, before: &Self, now: Instant) {
        stale.retain(|flow| {
            let name = (flow.id, flow.original);
            let since = before.since.get(&name).copied().unwrap_or(now);
            let waits = flow.status & (ANSWERED | TRANSLATED) == TRANSLATED && now < since + PATIENCE;
            if waits {
                self.since.insert(name, since);
            }
            !waits
        });
    }

    /// When to look again: the first moment at which one of them need not wait any longer.
    #[must_use]
    pub fn look_again(&self) -> Option<Instant> {
        self.since.values().min().map(|since| *since + PATIENCE)
    }
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use super::*;

    fn flow(id: u32, status: u32) -> Flow {
        let end = |text: &str| text.parse::<IpAddr>().unwrap();
        let original = Tuple { src: end("fd00::1"), dst: end("fd00:96::10"), sport: 40_000, dport: 53 };
        let reply = Tuple { src: end("fd00:244::1"), dst: end("fd00::1"), sport: 53, dport: 40_000 };
        Flow { protocol: 17, original, reply, zone: 0, status, id, mark: 0 }
    }

    #[test]
    fn a_flow_without_an_answer_waits_once_and_no_longer_than_answers_take() {
        let start = Instant::now();
        let mut first = Unanswered::default();
        let mut stale = vec![flow(1, TRANSLATED), flow(2, TRANSLATED | ANSWERED), flow(3, 0)];
        first.leave_out(&mut stale, &Unanswered::default(), start);
        assert_eq!(stale.iter().map(|flow| flow.id).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(first.look_again(), Some(start + PATIENCE));

        let mut second = Unanswered::default();
        let mut stale = vec![flow(1, TRANSLATED), flow(4, TRANSLATED)];
        second.leave_out(&mut stale, &first, start + PATIENCE / 2);
        assert!(stale.is_empty());
        assert_eq!(second.look_again(), Some(start + PATIENCE));

        let mut third = Unanswered::default();
        let mut stale = vec![flow(1, TRANSLATED), flow(4, TRANSLATED)];
        third.leave_out(&mut stale, &second, start + PATIENCE);
        assert_eq!(stale, [flow(1, TRANSLATED)]);
        assert_eq!(third.look_again(), Some(start + PATIENCE / 2 + PATIENCE));
    }

    #[test]
    fn a_flow_that_was_answered_meanwhile_waits_no_longer() {
        let start = Instant::now();
        let mut first = Unanswered::default();
        first.leave_out(&mut vec![flow(1, TRANSLATED)], &Unanswered::default(), start);
        let mut second = Unanswered::default();
        let mut stale = vec![flow(1, TRANSLATED | ANSWERED)];
        second.leave_out(&mut stale, &first, start);
        assert_eq!((stale.len(), second.look_again()), (1, None));
    }
}
