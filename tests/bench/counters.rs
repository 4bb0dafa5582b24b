//! What `--service-counters` costs: `cargo bench -- counters`.
//!
//! The same connections from a pod through a ClusterIP to a pod, with and without the flag, in turn so that both see the same machine:
//! how long `connect` takes, and how much processor time the program spends on each.

use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Lab, PORTS, Size, cluster_ip};
use fairlead_plan::Family;

use crate::measure::Quantiles;

/// Runs with and without, each so often.
const ROUNDS: usize = 3;
const CONNECTIONS: u32 = 5_000;
const PORT: u16 = 80;
/// How long the program has to start, and to count what is left.
const PATIENCE: Duration = Duration::from_secs(3);

/// Prints both.
pub fn bench() -> anyhow::Result<()> {
    let lab = Lab::of_size(&Size { nodes: &[("a", 2)], clients: &[] })?;
    // Connections that have ended keep their ports for a minute.
    lab.place("a2").run(|| std::fs::write("/proc/sys/net/ipv4/ip_local_port_range", "1024 65000"))?;
    let folder = std::env::temp_dir().join(format!("fairlead-bench-counters-{}", std::process::id()));
    std::fs::create_dir_all(&folder)?;
    let service = Service::new("web").cluster_ip(1).port(Port::tcp(PORT).named("t"));
    let slices = Slice::of("web").tcp("t", PORTS[0]).ready(&["a1"]).manifests(&lab, &Family::BOTH);
    let objects = lab.cluster_manifests().into_iter().chain([service.manifest(&lab, &Family::BOTH)]).chain(slices);
    for (number, object) in objects.enumerate() {
        std::fs::write(folder.join(format!("{number}.json")), object.to_string())?;
    }
    println!("\n--service-counters, {CONNECTIONS} TCP connections a round");
    println!("  {:<10} | {:^33} | {:>28}", "", "connect, us", "the program, us a connection");
    println!("  {:<10} | {:>10} {:>10} {:>11} |", "", "p50", "p99", "max");
    for flags in [&["--service-counters=false"], &["--service-counters=true"]].into_iter().cycle().take(2 * ROUNDS) {
        let mut child = start(&lab, &folder, flags)?;
        let measured = round(&lab, &child);
        child.kill()?;
        child.wait()?;
        let (samples, spent) = measured?;
        let name = if flags[0].ends_with("true") { "with" } else { "without" };
        let each = spent.as_secs_f64() * 1e6 / f64::from(CONNECTIONS);
        println!("  {name:<10} | {} | {each:>28.2}", Quantiles::of(samples));
    }
    std::fs::remove_dir_all(&folder)?;
    Ok(())
}

fn start(lab: &Lab, folder: &std::path::Path, flags: &[&str]) -> anyhow::Result<Child> {
    let mut command = lab.node("a").command(env!("CARGO_BIN_EXE_fairlead"));
    command.arg(format!("--manifests={}", folder.display()));
    command.args(["--hostname-override=a", "--socket=", "--conntrack-max-per-core=0", "--oom-score-adj=0"]);
    command.arg(format!("--cluster-cidr={}", fairlead_lab::POD_NETS.join(","))).args(flags);
    let child = command.stdin(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(PATIENCE);
    Ok(child)
}

/// How long each connection took, and what the program spent meanwhile.
fn round(lab: &Lab, program: &Child) -> anyhow::Result<(Vec<Duration>, Duration)> {
    let to = SocketAddr::new(cluster_ip(1).of(Family::V4), PORT);
    let before = spent(program.id())?;
    let samples = lab.place("a2").run(|| -> anyhow::Result<Vec<Duration>> {
        let mut samples = Vec::new();
        for _ in 0..CONNECTIONS {
            let begin = Instant::now();
            let stream = TcpStream::connect_timeout(&to, PATIENCE)?;
            samples.push(begin.elapsed());
            drop(stream);
        }
        Ok(samples)
    })?;
    // What is counted last is counted by then.
    std::thread::sleep(PATIENCE);
    Ok((samples, spent(program.id())?.saturating_sub(before)))
}

/// Time on a processor of all threads of a process, from `/proc/PID/task/TID/schedstat`, nanoseconds.
fn spent(process: u32) -> anyhow::Result<Duration> {
    let mut all = 0;
    for thread in std::fs::read_dir(format!("/proc/{process}/task"))? {
        let text = std::fs::read_to_string(thread?.path().join("schedstat"))?;
        all += text.split(' ').next().unwrap_or_default().parse::<u64>()?;
    }
    Ok(Duration::from_nanos(all))
}
