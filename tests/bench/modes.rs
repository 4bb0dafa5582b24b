//! The modes beside each other, without an API server: `cargo bench -- modes`, and in a virtual machine `cargo vm bench`.
//!
//! A start from nothing and single changes, as [`Backend::sync`] does them, in a network namespace of their own. *Own* is the
//! time outside of the kernel, as the backend counts it; in mode iptables it is not told apart. Of mode ipvs also what the
//! start sends, recorded and sent once more by a loop that does nothing else.

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_ipvs::{IpvsBackend, Settings};
use fairlead_kernel::netns::Netns;
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Plan, Report};

use crate::cluster::{Change, ENDPOINTS};
use crate::plan;
use crate::tape::Tape;

/// The word by which this program is told to make one start where it is, to be recorded.
pub const START: &str = "start";
/// With this before it, the host's own time for one change in mode nft, in microseconds.
const HOST: &str = "--host=";

/// A mode that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// nf_tables over netlink.
    Nft,
    /// iptables, of the variant that is nf_tables.
    IptablesNft,
    /// iptables, of the old variant.
    IptablesLegacy,
    /// IPVS.
    Ipvs,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Nft, Self::IptablesNft, Self::IptablesLegacy, Self::Ipvs];

    const fn name(self) -> &'static str {
        match self {
            Self::Nft => "nft",
            Self::IptablesNft => "iptables-nft",
            Self::IptablesLegacy => "iptables-legacy",
            Self::Ipvs => "ipvs",
        }
    }

    fn backend(self) -> Box<dyn Backend> {
        match self {
            Self::Nft => Box::new(NftBackend::new()),
            Self::IptablesNft => Box::new(IptablesBackend::new(Some(Variant::Nft))),
            Self::IptablesLegacy => Box::new(IptablesBackend::new(Some(Variant::Legacy))),
            Self::Ipvs => Box::new(IpvsBackend::new(Settings::default())),
        }
    }

    /// Whether the backend says how long it waited for the kernel alone.
    const fn tells_own(self) -> bool {
        matches!(self, Self::Nft | Self::Ipvs)
    }

    /// A change of iptables takes as long as a start of others.
    const fn changes(self, wanted: usize) -> usize {
        if self.tells_own() || wanted < MOST_IPTABLES { wanted } else { MOST_IPTABLES }
    }
}

const MOST_IPTABLES: usize = 3;
/// Starts of which the median is shown.
const STARTS: usize = 3;

/// What is to be measured.
#[derive(Debug)]
pub struct Wish {
    modes: Vec<Mode>,
    sizes: Vec<usize>,
    changes: usize,
    /// Own time of the host for a change in mode nft.
    host: Option<Duration>,
}

/// How long something took, and how much of that outside of the kernel.
#[derive(Debug, Clone, Copy, Default)]
struct Times {
    all: Duration,
    own: Duration,
}

/// Of one mode and size.
struct Row {
    mode: Mode,
    size: usize,
    /// Own time for one change of any sort.
    own: Duration,
}

impl Wish {
    /// Reads the words of the command line: modes, sizes, and what the host needs.
    pub fn of(words: &[String], sizes: &[usize], changes: usize) -> anyhow::Result<Self> {
        let named = |mode: &Mode| words.iter().any(|word| word == mode.name());
        let mut modes: Vec<Mode> = Mode::ALL.into_iter().filter(named).collect();
        if modes.is_empty() {
            modes = Mode::ALL.to_vec();
        }
        ensure!(sizes.iter().all(|size| *size > 2), "with less than three services there is nothing to measure");
        let host = words.iter().find_map(|word| word.strip_prefix(HOST));
        let host = host.map(str::parse).transpose().with_context(|| format!("{HOST} needs microseconds"))?;
        let host = host.map(|us: f64| Duration::from_secs_f64(us / 1e6));
        Ok(Self { modes, sizes: sizes.to_vec(), changes, host })
    }

    /// Measures all of it.
    pub fn bench(&self) -> anyhow::Result<()> {
        let (mut rows, mut failed) = (Vec::new(), false);
        for size in &self.sizes {
            println!("\n{size} services x {ENDPOINTS} endpoints, every second one IPv6; ms, of it our own time");
            print!("  {:<16} {:>18}", "mode", "start from nothing");
            Change::ALL.iter().for_each(|change| print!(" | {:>19}", change.name()));
            println!();
            for mode in &self.modes {
                let measured = measure(*mode, *size, mode.changes(self.changes));
                match measured.with_context(|| format!("mode {} was not measured", mode.name())) {
                    Ok(row) => rows.push(row),
                    Err(error) => {
                        println!("  {error:#}");
                        failed = true;
                    }
                }
            }
            if rows.iter().any(|row| row.mode == Mode::Ipvs) {
                said_again(*size)?;
            }
        }
        self.ratios(&rows);
        ensure!(!failed, "not every mode was measured; name those that this kernel has");
        Ok(())
    }

    /// Whether what a change costs us depends on the number of services, and what that would be on the host.
    fn ratios(&self, rows: &[Row]) {
        println!("\nour own time for one change (median of all sorts)");
        let scale = self.host.and_then(|host| {
            let here = rows.iter().find(|row| row.mode == Mode::Nft)?.own;
            (!host.is_zero()).then(|| here.as_secs_f64() / host.as_secs_f64())
        });
        for mode in self.modes.iter().filter(|mode| mode.tells_own()) {
            let of = rows.iter().filter(|row| row.mode == *mode).collect::<Vec<_>>();
            for row in &of {
                print!("  {:<16} at {:>6} services {:>8.3} ms", mode.name(), row.size, ms(row.own));
                if let Some(scale) = scale {
                    print!(", about {:.3} ms on the host", ms(row.own) / scale);
                }
                if row.size != of[0].size {
                    print!(", {:.2} times that at {}", row.own.as_secs_f64() / of[0].own.as_secs_f64(), of[0].size);
                }
                println!();
            }
        }
        if let Some(scale) = scale {
            println!("  (the host is {scale:.1} times as fast, by mode nft there and here)");
        }
    }
}

fn measure(mode: Mode, size: usize, changes: usize) -> anyhow::Result<Row> {
    let mut starts = Vec::new();
    for _ in 0..STARTS {
        starts.push(fresh(|| start(mode.backend().as_mut(), &plan::both_families(size)).map(|(times, _)| times))?);
    }
    print!("  {:<16} {:>18}", mode.name(), shown(mode, median(&starts)));
    let sorts = fresh(|| {
        let (mut plan, mut backend) = (plan::both_families(size), mode.backend());
        start(backend.as_mut(), &plan)?;
        let mut sorts = Vec::new();
        for change in Change::ALL {
            let mut samples = Vec::new();
            for number in 0..changes {
                let was = plan.clone();
                plan::change(&mut plan, change, size, number);
                samples.push(timed(|| backend.sync(Some(&was), &plan))?.0);
            }
            print!(" | {:>19}", shown(mode, median(&samples)));
            sorts.extend(samples);
        }
        Ok(sorts)
    })?;
    println!();
    Ok(Row { mode, size, own: median(&sorts).own })
}

/// The start of mode ipvs beside the sum of its netlink messages.
fn said_again(size: usize) -> anyhow::Result<()> {
    let word = size.to_string();
    let tape = fresh(|| Tape::record(&[START, &word]))?;
    let (mut whole, mut alone, mut empty) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..STARTS {
        whole.push(fresh(|| start(Mode::Ipvs.backend().as_mut(), &plan::both_families(size)).map(|(times, _)| times))?);
        let nothing = fresh(|| start(Mode::Ipvs.backend().as_mut(), &plan::both_families(0)))?;
        let writes = nothing.1.writes;
        empty.push(nothing.0);
        alone.push(fresh(|| {
            let took = tape.replay()?;
            let plan = plan::both_families(size);
            let (_, left) = start(Mode::Ipvs.backend().as_mut(), &plan)?;
            ensure!(left.writes <= writes, "{} writes were missing after all was said again", left.writes);
            Ok(Times { all: took, own: Duration::ZERO })
        })?);
    }
    let [whole, alone, empty] = [whole, alone, empty].map(|times| median(&times));
    let (datagrams, bytes) = tape.size();
    println!("  mode ipvs, start from nothing {:.0} ms, of it our own time {:.0} ms", ms(whole.all), ms(whole.own));
    println!("    the same {datagrams} datagrams ({bytes} bytes) sent by a loop {:.0} ms", ms(alone.all));
    println!("    a start without services, mostly iptables-restore {:.0} ms", ms(empty.all));
    let times = |start: Duration| start.as_secs_f64() / alone.all.as_secs_f64();
    let rest = whole.all.saturating_sub(empty.all);
    println!(
        "    so the start takes {:.2} times its messages, without the constant part {:.2}",
        times(whole.all),
        times(rest)
    );
    Ok(())
}

/// One start in mode ipvs, in the network namespace of this process.
pub fn start_here(size: usize) -> anyhow::Result<()> {
    start(Mode::Ipvs.backend().as_mut(), &plan::both_families(size)).map(drop)
}

fn start(backend: &mut dyn Backend, plan: &Plan) -> anyhow::Result<(Times, Report)> {
    timed(|| backend.sync(None, plan))
}

fn timed<E>(sync: impl FnOnce() -> Result<Report, E>) -> anyhow::Result<(Times, Report)>
where
    E: std::error::Error + Send + Sync + 'static,
{
    let began = Instant::now();
    let report = sync()?;
    let all = began.elapsed();
    Ok((Times { all, own: all.saturating_sub(report.kernel) }, report))
}

/// Works in a namespace in which there is nothing, when the machine has forgotten the one before.
fn fresh<T: Send>(work: impl FnOnce() -> anyhow::Result<T> + Send) -> anyhow::Result<T> {
    let namespace = Netns::create()?;
    let done = namespace.run(|| {
        // Without any address the kernel takes every endpoint for a broadcast address.
        let up = Command::new("ip").args(["link", "set", "lo", "up"]).status().context("cannot run ip")?;
        ensure!(up.success(), "the link lo does not come up");
        work()
    })?;
    drop(namespace);
    rest()?;
    done
}

/// Waits until the kernel has taken away what was left, as far as others let it rest.
fn rest() -> anyhow::Result<()> {
    const GLANCE: Duration = Duration::from_millis(200);
    const MOST_GLANCES: u32 = 20;
    const NEARLY_ALL: f64 = 0.95;
    for _ in 0..MOST_GLANCES {
        let before = idle()?;
        let began = Instant::now();
        std::thread::sleep(GLANCE);
        if idle()?.saturating_sub(before).as_secs_f64() > began.elapsed().as_secs_f64() * NEARLY_ALL {
            break;
        }
    }
    Ok(())
}

/// How long this machine, or all of its processors together, has had nothing to do.
fn idle() -> anyhow::Result<Duration> {
    let uptime = std::fs::read_to_string("/proc/uptime")?;
    let seconds: f64 = uptime.split_whitespace().nth(1).context("/proc/uptime has no second number")?.parse()?;
    Ok(Duration::from_secs_f64(seconds))
}

fn median(times: &[Times]) -> Times {
    let middle = |of: fn(&Times) -> Duration| {
        let mut sorted: Vec<Duration> = times.iter().map(of).collect();
        sorted.sort_unstable();
        sorted.get(sorted.len() / 2).copied().unwrap_or_default()
    };
    Times { all: middle(|times| times.all), own: middle(|times| times.own) }
}

fn shown(mode: Mode, times: Times) -> String {
    let own = if mode.tells_own() { format!("{:.3}", ms(times.own)) } else { "-".to_owned() };
    format!("{:.2}, {own}", ms(times.all))
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
