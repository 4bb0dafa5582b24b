//! What the program logs of each sync.

use std::io::{BufRead, BufReader};
use std::process::ChildStderr;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::Context;
use serde_json::Value;

/// What makes the program log each sync, and nothing else at that level.
pub const FILTER: &str = "warn,fairlead::reconcile=debug";

/// The time from the event to the kernel of each sync, as it is logged. Nobody has to ask for it: an answer of `/metrics` between two
/// changes would be work of its own, which wakes the program and moves other things through the caches.
pub struct Log(Receiver<Duration>);

impl Log {
    /// Reads to the end of the program.
    pub fn follow(stderr: ChildStderr) -> Self {
        let (sender, syncs) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if since_event(&line).is_some_and(|since| sender.send(since).is_err()) {
                    return;
                }
            }
        });
        Self(syncs)
    }

    /// Waits for the next sync.
    pub fn next(&self, patience: Duration) -> anyhow::Result<Duration> {
        self.0.recv_timeout(patience).context("the program logged no sync")
    }

    /// Forgets the syncs until now.
    pub fn skip(&self) {
        self.0.try_iter().for_each(drop);
    }
}

fn since_event(line: &str) -> Option<Duration> {
    let line: Value = serde_json::from_str(line).ok()?;
    let fields = &line["fields"];
    duration(fields["since_event"].as_str().filter(|_| fields["message"] == "synced")?)
}

/// A duration as Rust writes it.
fn duration(text: &str) -> Option<Duration> {
    let units = [("ns", 1e-9), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, unit) = units.iter().find_map(|(name, unit)| Some((text.strip_suffix(name)?, unit)))?;
    Some(Duration::from_secs_f64(number.parse::<f64>().ok()? * unit))
}
