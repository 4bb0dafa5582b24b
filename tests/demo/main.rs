//! `cargo demo`: a small cluster on this machine, the real program on it, and what becomes of real connections.
//!
//! ```text
//!   machine     root, Debian packages, the program built
//!   cluster     namespaces, the API server, one fairlead on each node (agent)
//!   manifests   the Services that are applied, and where they lead
//!   reach       what a standing cluster does with connections, as a list of checks
//!   change      what happens when something changes, breaks or dies, as a list of events
//!   leftovers   what an earlier run that was killed has left behind
//!   holdings    what the kernel holds at the end
//!   ledger      what was seen, as lines while it goes on and as a table at the end
//! ```
//!
//! Every number is measured in this run. The exit code is 1 if anything was not as expected, and nothing is left behind:
//! namespaces, processes and files go away at the end, after an error and after Ctrl-C.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "it runs programs and writes files of its own, as tests/lab does")]

mod agent;
mod ask;
mod change;
mod cluster;
mod holdings;
mod interrupt;
mod ledger;
mod leftovers;
mod machine;
mod manifests;
mod reach;
mod screen;

use std::process::ExitCode;
use std::time::Instant;

use clap::Parser;
use cluster::Cluster;
use ledger::Ledger;
use screen::Screen;

const INTRODUCTION: &str = "\
A small cluster is built out of network namespaces on this machine. On each of its two nodes runs the real program: it
reads Services and EndpointSlices from an API server and tells the kernel (nf_tables) what to do with connections. Then
real connections are opened, over IPv4 and over IPv6, and things are changed and broken while they go on.
";

/// Builds a small Kubernetes cluster network out of namespaces on this machine, runs fairlead on it, sends real
/// connections and shows what happens. Needs root; removes everything at the end.
#[derive(Debug, Parser)]
#[command(name = "cargo demo", bin_name = "cargo demo")]
struct Arguments {
    /// Leave the cluster standing at the end, until Ctrl-C, and say how to enter it
    #[arg(long)]
    keep: bool,
    /// Take the program that lies beside the demo as it is, and do not build it
    #[arg(long)]
    built: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let screen = Screen::new();
    if !machine::is_root() {
        eprintln!("cargo demo makes network namespaces, which only root may do: run it as root.");
        return ExitCode::FAILURE;
    }
    if let Err(error) = machine::with_system_path().and_then(|()| interrupt::listen()) {
        eprintln!("cargo demo cannot start: {error:#}");
        return ExitCode::FAILURE;
    }
    match demonstrate(&arguments, &screen) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            screen.clear();
            eprintln!("{} {error:#}", screen.bad("cargo demo stopped:"));
            ExitCode::FAILURE
        }
    }
}

/// Everything, in order. Whether all was as expected.
fn demonstrate(arguments: &Arguments, screen: &Screen) -> anyhow::Result<bool> {
    screen.title("fairlead: the traffic of Kubernetes Services, carried by one small program on each node");
    screen.line(INTRODUCTION);
    leftovers::remove()?;
    let binary = machine::prepare(screen, arguments.built)?;
    let started = Instant::now();
    let mut cluster = Cluster::build(binary, screen)?;
    let mut ledger = Ledger::new(screen);
    let shown = cluster.start(screen).and_then(|()| show(&mut cluster, &mut ledger, screen));
    if let Err(error) = shown {
        screen.clear();
        if !interrupt::requested() {
            eprint!("{}", cluster.last_words());
        }
        return Err(error);
    }
    let good = ledger.summary();
    if !good {
        eprint!("{}", cluster.last_words());
    }
    if arguments.keep {
        cluster.keep(screen);
    }
    drop(cluster);
    screen.line(&format!("Everything is cleaned up. The cluster lived for {:.1} s.", started.elapsed().as_secs_f64()));
    Ok(good)
}

fn show(cluster: &mut Cluster, ledger: &mut Ledger<'_>, screen: &Screen) -> anyhow::Result<()> {
    screen.chapter("A standing cluster");
    for check in reach::CHECKS {
        interrupt::check()?;
        ledger.add(check.what, || Ok(check.run(cluster)))?;
    }
    screen.chapter("Something changes, breaks or dies");
    for event in change::EVENTS {
        interrupt::check()?;
        ledger.add(event.what, || (event.run)(cluster, event))?;
    }
    holdings::show(cluster, screen)
}
