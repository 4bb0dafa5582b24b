//! Connections, one after another and as fast as it goes, timed. The lab's probes are for verdicts, these for figures.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use fairlead_lab::Place;
use socket2::SockRef;

/// A connection that is not answered for so long has met silence; local ones take a fraction of a millisecond.
const PATIENCE: Duration = Duration::from_millis(25);

/// How many connections a [`Watch`] has under way: when all meet silence, one gives up every few milliseconds.
const WATCHERS: u32 = 5;

/// Opens a TCP connection from the namespace of this thread and returns the name of who answers.
pub(crate) fn ask(to: SocketAddr, patience: Duration) -> io::Result<String> {
    let mut stream = TcpStream::connect_timeout(&to, patience)?;
    // Ends by a reset, so that thousands of connections leave nothing behind.
    SockRef::from(&stream).set_linger(Some(Duration::ZERO))?;
    stream.set_read_timeout(Some(patience))?;
    stream.write_all(b"\n")?;
    let mut answer = Vec::new();
    let mut chunk = [0; 256];
    while answer.last() != Some(&b'\n') {
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => answer.extend_from_slice(&chunk[..read]),
        }
    }
    let answer = String::from_utf8_lossy(&answer);
    Ok(answer.split(' ').next().unwrap_or_default().to_owned())
}

/// Who answered how many of `count` connections, opened one after another. Those without an answer stand under what
/// went wrong.
pub(crate) fn count(from: &Place, to: SocketAddr, count: usize) -> BTreeMap<String, usize> {
    /// As long as a SYN that was lost and sent again takes (RFC 6298).
    const PATIENCE: Duration = Duration::from_millis(1500);
    from.run(|| {
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            let who = ask(to, PATIENCE).unwrap_or_else(|error| error.to_string());
            *counts.entry(who).or_default() += 1;
        }
        counts
    })
}

/// Makes a change and opens connections until one is answered as wanted; how long that took.
pub(crate) fn until(
    from: &Place,
    to: SocketAddr,
    change: impl FnOnce() -> Result<()> + Send,
    wanted: impl Fn(io::Result<String>) -> bool + Sync,
) -> Result<Duration> {
    /// Long enough to be sure that it will not happen.
    const LIMIT: Duration = Duration::from_secs(5);
    from.run(|| {
        let started = Instant::now();
        change()?;
        while started.elapsed() < LIMIT {
            if wanted(ask(to, PATIENCE)) {
                return Ok(started.elapsed());
            }
        }
        bail!("not within {} s", LIMIT.as_secs())
    })
}

/// Opens connections without a pause and notes for how long nobody answered.
#[derive(Debug)]
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Noted>>,
}

/// What one watcher noted: when its connections were answered, and how many were not.
#[derive(Debug, Default)]
struct Noted {
    answered: Vec<Instant>,
    lost: usize,
}

/// What a [`Watch`] saw.
#[derive(Debug)]
pub(crate) struct Watched {
    /// Connections answered.
    pub(crate) answered: usize,
    /// Connections that were refused or met silence.
    pub(crate) lost: usize,
    /// The longest time without an answer.
    pub(crate) gap: Duration,
}

impl Watch {
    pub(crate) fn start(from: &Place, to: SocketAddr) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let watch = |_| {
            let (from, stop) = (from.clone(), stop.clone());
            std::thread::spawn(move || {
                from.enter().expect("the cluster outlives its watchers");
                let mut noted = Noted::default();
                while !stop.load(Ordering::Relaxed) {
                    match ask(to, PATIENCE) {
                        Ok(_) => noted.answered.push(Instant::now()),
                        Err(_) => noted.lost += 1,
                    }
                    // Leaves the processor to the program that is being watched.
                    std::thread::sleep(Duration::from_micros(500));
                }
                noted
            })
        };
        let threads = (0..WATCHERS).map(watch).collect();
        Self { stop, threads }
    }

    pub(crate) fn stop(mut self) -> Watched {
        self.stop.store(true, Ordering::Relaxed);
        let threads = std::mem::take(&mut self.threads);
        let noted: Vec<_> =
            threads.into_iter().map(|thread| thread.join().expect("a watcher does not panic")).collect();
        let mut times: Vec<_> = noted.iter().flat_map(|noted| noted.answered.iter().copied()).collect();
        times.sort_unstable();
        let gap = times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
        Watched { answered: times.len(), lost: noted.iter().map(|noted| noted.lost).sum(), gap }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            // Its panic was printed.
            let _ = thread.join();
        }
    }
}
