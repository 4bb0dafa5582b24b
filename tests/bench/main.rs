//! `cargo bench`: how long a change takes from the watch event to the kernel, how long a start takes, how much memory.
//!
//! The real program runs against the API server of the lab, in a network namespace of its own. Two clocks:
//!
//! - *in the program*: from the arrival of the watch event to the end of the netlink call, one sample for each change, from the
//!   program's log; their sum must be that of `fairlead_event_to_kernel_seconds`;
//! - *from outside*: from the write to the API server to the kernel's own announcement of the commit, on a socket of the
//!   bench, HTTP and decoding included.
//!
//! The overlay is measured after that: peers from nothing, one peer changed, repair, memory.
//!
//! `cargo bench -- 1000 10000` chooses the numbers of services; `services`, `overlay`, `iptables`, `counters` or `modes` (the
//! backends alone, beside each other) measures that alone; `--quick` does less.
#![expect(clippy::disallowed_methods, reason = "the bench starts the real program")]

mod cluster;
mod counters;
mod iptables;
mod log;
mod measure;
mod modes;
mod overlay;
mod plan;
mod subject;
mod tape;

use std::time::Duration;

use cluster::Change;
use measure::{Quantiles, machine};
use subject::{Bench, Run};

/// Numbers of services unless the command line says otherwise; ten endpoints each.
const SIZES: [usize; 3] = [1_000, 10_000, 30_000];
/// Changes of each sort for each size.
const CHANGES: usize = 200;
const QUICK: usize = 30;
/// The same for the iptables mode, in which a change may take a second, and where modes are compared.
const FEW_SIZES: [usize; 2] = [1_000, 10_000];
const QUICK_IPTABLES: usize = 5;

fn main() -> anyhow::Result<()> {
    // Cargo passes `--bench`.
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let sizes: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    if let (Some(modes::START), [size]) = (arguments.first().map(String::as_str), sizes.as_slice()) {
        return modes::start_here(*size);
    }
    let chosen = !sizes.is_empty();
    let sizes = if chosen { sizes } else { SIZES.to_vec() };
    println!("fairlead on {}", machine());
    let wants = |part: &str| arguments.iter().any(|argument| argument == part);
    if wants("counters") {
        return counters::bench();
    }
    if wants("modes") {
        let sizes = if chosen { sizes } else { FEW_SIZES.to_vec() };
        return modes::Wish::of(&arguments, &sizes, if quick { QUICK } else { CHANGES })?.bench();
    }
    if wants("iptables") {
        let sizes = if chosen { sizes } else { FEW_SIZES.to_vec() };
        let changes = if quick { QUICK_IPTABLES } else { QUICK };
        return sizes.into_iter().try_for_each(|size| iptables::bench(size, changes));
    }
    let changes = if quick { QUICK } else { CHANGES };
    if !wants("overlay") {
        sizes.into_iter().try_for_each(|size| bench(size, changes))?;
    }
    if wants("services") { Ok(()) } else { overlay::bench(changes) }
}

fn bench(size: usize, changes: usize) -> anyhow::Result<()> {
    let bench = Bench::new(size)?;
    println!("\n{size} services x {} endpoints", cluster::ENDPOINTS);
    let run = bench.start()?;
    start_row("cold start", &run);
    println!("  {:<24} {:>10} | {:^33} | {:^33}", "", "", "in the program, us", "from API write to commit, us");
    println!(
        "  {:<24} {:>10} | {:>10} {:>10} {:>11} | {:>10} {:>10} {:>11}",
        "change", "n", "p50", "p99", "max", "p50", "p99", "max"
    );
    for change in Change::ALL {
        let (inside, outside) = changes_of(&bench, &run, change, changes)?;
        println!("  {:<24} {changes:>10} | {inside} | {outside}", change.name());
    }
    println!("  resident after changes   {:>7.1} MB, at most {:.1} MB", run.resident_mb()?, run.peak_mb()?);
    let before = run.gauge("fairlead_elements")?;
    run.kill()?;
    let again = bench.start()?;
    start_row("restart, rules present", &again);
    println!("  elements before and after the restart: {before} and {}", again.gauge("fairlead_elements")?);
    Ok(())
}

fn start_row(what: &str, run: &Run) {
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    println!(
        "  {what:<24} {:>7.0} ms from exec to ready, of which the sync {:.0} ms; {} writes; {:.1} MB resident, {:.1} MB at most",
        ms(run.ready_after),
        run.first_sync * 1e3,
        run.first_writes,
        run.ready_mb,
        run.ready_peak_mb,
    );
}

/// The same changes twice: in the program, then from outside. Sorts come in an order in which each finds what it changes.
fn changes_of(bench: &Bench, run: &Run, change: Change, count: usize) -> anyhow::Result<(Quantiles, Quantiles)> {
    let inside = run.time_inside(bench, change, 0..count)?;
    let announcements = bench.announcements()?;
    let outside = (count..2 * count).map(|number| run.time_outside(bench, &announcements, change, number));
    Ok((Quantiles::of(inside), Quantiles::of(outside.collect::<anyhow::Result<_>>()?)))
}
