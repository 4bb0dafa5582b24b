use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Range;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use anyhow::Context;
use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::Monitor;
use fairlead_lab::api::ApiServer;

use crate::cluster::{self, Change};
use crate::log::{self, Log};

const HEALTH: &str = "127.0.0.1:10256";
const METRICS: &str = "127.0.0.1:10249";
/// Seconds from the event to the kernel, of all changes.
const EVENT_TO_KERNEL: &str = "fairlead_event_to_kernel_seconds_sum";
/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Pause between two changes.
const SETTLED: Duration = Duration::from_millis(20);
/// Pause between a start and the first change.
const AFTER_START: Duration = Duration::from_secs(3);
/// Without announcements for this long the subject is at rest.
const REST: Duration = Duration::from_millis(8);

/// A namespace with a filled API server.
pub struct Bench {
    size: usize,
    api: ApiServer,
    namespace: Netns,
    kubeconfig: PathBuf,
    flags: Vec<&'static str>,
}

/// A socket on which the kernel announces commits. While one is open each commit costs the kernel more, so what is timed in
/// the program is timed without.
pub struct Announcements(Receiver<Instant>);

/// A running program.
pub struct Run {
    child: Child,
    log: Log,
    namespace: Netns,
    /// From the start of the process to `/readyz`.
    pub ready_after: Duration,
    /// Seconds of the first sync.
    pub first_sync: f64,
    /// Objects that the first sync wrote.
    pub first_writes: u64,
    /// Resident set when ready, and at most until then.
    pub ready_mb: f64,
    /// See [`Run::ready_mb`].
    pub ready_peak_mb: f64,
}

impl Bench {
    pub fn new(size: usize) -> anyhow::Result<Self> {
        let bench =
            Self::empty(size, &["ip link set lo up"], &["--hostname-override=a", "--cluster-cidr=10.128.0.0/9"])?;
        cluster::fill(&bench.api, size)?;
        Ok(bench)
    }

    /// A namespace prepared by these lines, with an API server that holds nothing, and the program's flags.
    pub fn empty(size: usize, lines: &[&str], flags: &[&'static str]) -> anyhow::Result<Self> {
        let namespace = Netns::create()?;
        let listener = namespace.run(|| -> anyhow::Result<TcpListener> {
            for line in lines {
                let mut words = line.split(' ');
                let status = Command::new(words.next().unwrap_or_default()).args(words).status()?;
                anyhow::ensure!(status.success(), "{line} failed");
            }
            Ok(TcpListener::bind("127.0.0.1:0")?)
        })??;
        let api = ApiServer::start(listener)?;
        let kubeconfig = std::env::temp_dir().join(format!("fairlead-bench-{}-{size}", std::process::id()));
        api.kubeconfig(&kubeconfig)?;
        Ok(Self { size, api, namespace, kubeconfig, flags: flags.to_vec() })
    }

    /// Where the program finds its objects.
    pub const fn api(&self) -> &ApiServer {
        &self.api
    }

    /// Runs a command line where the program runs.
    pub fn run(&self, line: &str) -> anyhow::Result<()> {
        self.namespace.run(|| {
            let mut words = line.split(' ');
            let status = Command::new(words.next().unwrap_or_default()).args(words).status()?;
            anyhow::ensure!(status.success(), "{line} failed");
            Ok(())
        })?
    }

    pub fn start(&self) -> anyhow::Result<Run> {
        let begin = Instant::now();
        let child = self.namespace.run(|| {
            Command::new(env!("CARGO_BIN_EXE_fairlead"))
                .arg("--kubeconfig")
                .arg(&self.kubeconfig)
                .args(&self.flags)
                .arg("--logging-format=json")
                .env("RUST_LOG", log::FILTER)
                .stderr(Stdio::piped())
                .spawn()
        })?;
        let mut child = child.context("starting fairlead")?;
        let stderr = child.stderr.take().context("its log")?;
        let mut run = Run {
            namespace: self.namespace.try_clone()?,
            child,
            log: Log::follow(stderr),
            ready_after: Duration::ZERO,
            first_sync: 0.0,
            first_writes: 0,
            ready_mb: 0.0,
            ready_peak_mb: 0.0,
        };
        while !run.ask(HEALTH, "/readyz").is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
            anyhow::ensure!(begin.elapsed() < PATIENCE, "fairlead did not become ready");
            anyhow::ensure!(run.child.try_wait()?.is_none(), "fairlead ended");
            std::thread::sleep(Duration::from_millis(2));
        }
        run.ready_after = begin.elapsed();
        (run.ready_mb, run.ready_peak_mb) = (run.resident_mb()?, run.peak_mb()?);
        let metrics = run.metrics()?;
        run.first_sync = value(&metrics, "fairlead_sync_duration_seconds_sum");
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a count")]
        let writes = value(&metrics, "fairlead_writes_total") as u64;
        run.first_writes = writes;
        // The kernel still grows its hash tables in the background.
        std::thread::sleep(AFTER_START);
        Ok(run)
    }

    /// Opens a socket for announcements; it stays open until the value is dropped and one more commit was heard.
    pub fn announcements(&self) -> anyhow::Result<Announcements> {
        let (sender, commits) = channel();
        let mut monitor = self.namespace.run(|| Monitor::open(Arc::new(AtomicU32::new(0))))??;
        std::thread::spawn(move || {
            while let Ok(notices) = monitor.next() {
                if !notices.is_empty() && sender.send(Instant::now()).is_err() {
                    return;
                }
            }
        });
        Ok(Announcements(commits))
    }
}

impl Announcements {
    /// Waits until the kernel announces nothing more.
    fn rest(&self) {
        while self.0.recv_timeout(REST).is_ok() {}
    }

    fn commit(&self) -> anyhow::Result<Instant> {
        self.0.recv_timeout(PATIENCE).context("the kernel announced no commit")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

impl Run {
    /// Makes changes and times each in the program, from the arrival of the watch event to the end of the netlink call.
    pub fn time_inside(&self, bench: &Bench, change: Change, numbers: Range<usize>) -> anyhow::Result<Vec<Duration>> {
        std::thread::sleep(SETTLED);
        self.log.skip();
        let (mut samples, mut prepared) = (Vec::with_capacity(numbers.len()), Duration::ZERO);
        let before = self.metrics()?;
        for number in numbers {
            if change.prepare(&bench.api, bench.size, number)? {
                prepared += self.log.next(PATIENCE)?;
            }
            std::thread::sleep(SETTLED);
            change.make(&bench.api, bench.size, number)?;
            samples.push(self.log.next(PATIENCE)?);
        }
        std::thread::sleep(SETTLED);
        let after = self.metrics()?;
        let measured = value(&after, EVENT_TO_KERNEL) - value(&before, EVENT_TO_KERNEL);
        let logged = (prepared + samples.iter().sum::<Duration>()).as_secs_f64();
        anyhow::ensure!((measured / logged - 1.0).abs() < 0.01, "the metric says {measured} s and the log {logged} s");
        Ok(samples)
    }

    /// Makes one change and times it from outside, from the write to the API server to the kernel's announcement.
    pub fn time_outside(
        &self,
        bench: &Bench,
        announcements: &Announcements,
        change: Change,
        number: usize,
    ) -> anyhow::Result<Duration> {
        if change.prepare(&bench.api, bench.size, number)? {
            announcements.commit()?;
        }
        announcements.rest();
        let begin = Instant::now();
        change.make(&bench.api, bench.size, number)?;
        Ok(announcements.commit()?.saturating_duration_since(begin))
    }

    /// The sum of a metric over its labels.
    pub fn gauge(&self, name: &str) -> anyhow::Result<f64> {
        Ok(value(&self.metrics()?, name))
    }

    /// Resident set now, MB of 10^6 bytes.
    pub fn resident_mb(&self) -> anyhow::Result<f64> {
        self.status("VmRSS:")
    }

    /// Largest resident set so far.
    pub fn peak_mb(&self) -> anyhow::Result<f64> {
        self.status("VmHWM:")
    }

    fn status(&self, field: &str) -> anyhow::Result<f64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)).context("no such field")?;
        let kib: f64 = line.trim().trim_end_matches(" kB").parse()?;
        Ok(kib * 1024.0 / 1e6)
    }

    fn metrics(&self) -> anyhow::Result<String> {
        self.ask(METRICS, "/metrics")
    }

    fn ask(&self, address: &str, path: &str) -> anyhow::Result<String> {
        let address: SocketAddr = address.parse()?;
        self.namespace.run(|| {
            let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(1))?;
            write!(stream, "GET {path} HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer)?;
            Ok(answer)
        })?
    }

    pub fn kill(mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn value(metrics: &str, name: &str) -> f64 {
    let series =
        metrics.lines().filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])));
    series.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
}
