//! Several machines that take tests from one queue.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use anyhow::{Result, bail};

use crate::binaries::Test;
use crate::boot::Accelerator;
use crate::command::Options;
use crate::kernel::Kernel;
use crate::session::{Outcome, Session, Verdict};

/// So many machines may be lost to their tests; then something is wrong with all of them.
const MOST_LOSSES: usize = 10;

/// What all machines have in common.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fleet<'a> {
    pub(crate) options: &'a Options,
    pub(crate) kernel: &'a Kernel,
    pub(crate) initramfs: &'a Path,
    /// Where the consoles are kept.
    pub(crate) logs: &'a Path,
    pub(crate) accelerator: Accelerator,
}

/// What came of all tests.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) ignored: usize,
    /// A line for each.
    pub(crate) skipped: Vec<String>,
    /// A line for each.
    pub(crate) failed: Vec<String>,
}

struct Shared {
    queue: VecDeque<Test>,
    tally: Tally,
    losses: usize,
}

impl Fleet<'_> {
    /// Runs all tests and shows each as it ends.
    pub(crate) fn run(&self, tests: Vec<Test>) -> Result<Tally> {
        let machines = self.options.machines.min(tests.len());
        let shared = Mutex::new(Shared { queue: tests.into(), tally: Tally::default(), losses: 0 });
        let results: Vec<Result<()>> = thread::scope(|scope| {
            let work = |number| {
                scope.spawn({
                    let shared = &shared;
                    move || self.work(number, shared)
                })
            };
            let threads: Vec<_> = (1..=machines).map(work).collect();
            threads.into_iter().map(|thread| thread.join().expect("a machine's thread does not panic")).collect()
        });
        results.into_iter().collect::<Result<()>>()?;
        Ok(shared.into_inner().expect("nobody panics while holding it").tally)
    }

    /// One machine after the other, as long as there are tests.
    fn work(&self, number: usize, shared: &Mutex<Shared>) -> Result<()> {
        let log = self.logs.join(format!("console-{number}.log"));
        let lock = || shared.lock().expect("nobody panics while holding it");
        while !lock().queue.is_empty() {
            let Some(mut session) = Session::boot(self.kernel, self.initramfs, &log, self.accelerator)? else {
                // The others need not go on either.
                lock().queue.clear();
                bail!("the virtual machine does not boot; its console is in {}", log.display());
            };
            let (took, cost) = (session.boot.as_secs_f64(), session.processor_time().as_secs_f64());
            println!("machine {number} has booted after {took:.1} s, processor {cost:.1} s");
            while !session.lost {
                let Some(test) = lock().queue.pop_front() else { return Ok(()) };
                let outcome = session.run(&test, &self.options.more, self.options.patience);
                lock().note(outcome, self.options.more.iter().any(|word| word == "--nocapture"));
            }
            let mut shared = lock();
            shared.losses += 1;
            if shared.losses > MOST_LOSSES {
                let left = shared.queue.len();
                shared.queue.clear();
                bail!("{MOST_LOSSES} machines were lost to their tests, and {left} tests have not run");
            }
        }
        Ok(())
    }
}

impl Shared {
    /// Counts a test and shows it; what it printed too, if somebody must or wants to read it.
    fn note(&mut self, outcome: Outcome, talkative: bool) {
        let Outcome { test, verdict, took, cost, output } = outcome;
        let bad = matches!(verdict, Verdict::Failed | Verdict::Broken(_));
        if bad || talkative {
            output.iter().for_each(|line| println!("{line}"));
        }
        let word = match verdict {
            Verdict::Passed => {
                self.tally.passed += 1;
                "ok".to_owned()
            }
            Verdict::Ignored => {
                self.tally.ignored += 1;
                "ignored".to_owned()
            }
            Verdict::Skipped(line) => {
                self.tally.skipped.push(line);
                "skipped".to_owned()
            }
            Verdict::Failed => {
                self.tally.failed.push(test.clone());
                "FAILED".to_owned()
            }
            Verdict::Broken(why) => {
                self.tally.failed.push(format!("{test}: {why}"));
                format!("FAILED: {why}")
            }
        };
        println!("test {test} ... {word} ({:.1} s, processor {:.1} s)", took.as_secs_f64(), cost.as_secs_f64());
    }
}
