use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::Result;
use fairlead_plan::Protocol;

use crate::probe::{attempt, block_on};
use crate::{Options, Place};

/// Connections under way at a time, for each target.
const WORKERS: usize = 2;

/// Between two connections of a worker, so that the programmer under test gets some processor time as well.
const PAUSE: Duration = Duration::from_millis(1);

/// How long a connection may take: a packet that was lost and sent again (RFC 6298: after 1 second) still counts as
/// answered, and shows in [`Tally::slowest`].
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens connections from a place to frontends without a pause, until stopped.
///
/// Each connection is one request and its answer from a new socket. A UDP request is sent once: if it or its answer is
/// lost, that is a failure.
#[derive(Debug)]
pub struct Hammer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

/// What the connections of a [`Hammer`] met.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    /// Answered connections.
    pub successes: u64,
    /// Answered connections by endpoint.
    pub endpoints: BTreeMap<String, u64>,
    /// Connections without an answer.
    pub failures: Vec<Failure>,
    /// The longest time that an answered connection took.
    pub slowest: Duration,
}

/// A connection without an answer.
#[derive(Debug, Clone)]
pub struct Failure {
    /// When it began, counted from the start of the hammer.
    pub began: Duration,
    /// How long it took to fail.
    pub took: Duration,
    /// Its protocol.
    pub protocol: Protocol,
    /// Its source port, by which it is found among what the kernel traced.
    pub source_port: u16,
    /// Where to.
    pub to: SocketAddr,
    /// What the kernel said; `None` if nothing came back in time.
    pub errno: Option<i32>,
    /// The same for a person.
    pub error: String,
}

#[derive(Debug)]
struct Shared {
    began: Instant,
    stop: AtomicBool,
    successes: AtomicU64,
    tally: Mutex<Tally>,
}

impl Hammer {
    /// Starts on a thread of its own.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn start(from: &Place, targets: &[(Protocol, SocketAddr)]) -> Result<Self> {
        let shared = Arc::new(Shared {
            began: Instant::now(),
            stop: AtomicBool::new(false),
            successes: AtomicU64::new(0),
            tally: Mutex::default(),
        });
        let (place, targets, ours) = (from.clone(), targets.to_vec(), shared.clone());
        let thread = std::thread::Builder::new().name("hammer".to_owned()).spawn(move || {
            place.enter().expect("the lab outlives its hammers");
            let workers = targets.iter().flat_map(|target| (0..WORKERS).map(|_| ours.work(&place, *target)));
            block_on(futures::future::join_all(workers));
        })?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How many connections have been answered so far.
    #[must_use]
    pub fn successes(&self) -> u64 {
        self.shared.successes.load(Ordering::Relaxed)
    }

    /// Waits until so many more connections have been answered or a connection fails; whichever comes first.
    pub fn wait_for(&self, more: u64) {
        /// How often to look.
        const GLANCE: Duration = Duration::from_millis(2);
        let goal = self.successes() + more;
        let failures = self.failures();
        while self.successes() < goal && self.failures() == failures {
            std::thread::sleep(GLANCE);
        }
    }

    /// Stops after the connections under way and says what happened.
    ///
    /// # Panics
    /// If the hammer itself has panicked.
    #[must_use]
    pub fn stop(mut self) -> Tally {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            thread.join().expect("a hammer does not panic");
        }
        let mut tally = std::mem::take(&mut *self.shared.tally());
        tally.successes = self.successes();
        tally
    }

    fn failures(&self) -> usize {
        self.shared.tally().failures.len()
    }
}

impl Drop for Hammer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // Its panic was printed; a second one while unwinding would abort the process.
            let _ = thread.join();
        }
    }
}

impl Shared {
    async fn work(&self, from: &Place, (protocol, to): (Protocol, SocketAddr)) {
        while !self.stop.load(Ordering::Relaxed) {
            let source_port = from.next_source_port();
            let options = Options { patience: PATIENCE, resend: false, abort: true, source_port, ..Options::default() };
            let began = self.began.elapsed();
            let result = attempt(from, protocol, to, &options).await;
            let took = self.began.elapsed().saturating_sub(began);
            match result {
                Ok(answer) => self.count(answer.endpoint, took),
                Err(error) => {
                    let (errno, error) = (error.raw_os_error(), error.to_string());
                    self.tally().failures.push(Failure { began, took, protocol, source_port, to, errno, error });
                }
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    fn count(&self, endpoint: String, took: Duration) {
        self.successes.fetch_add(1, Ordering::Relaxed);
        let mut tally = self.tally();
        *tally.endpoints.entry(endpoint).or_default() += 1;
        tally.slowest = tally.slowest.max(took);
    }

    fn tally(&self) -> std::sync::MutexGuard<'_, Tally> {
        self.tally.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}
