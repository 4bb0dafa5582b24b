//! The overlay with many peers.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::measure::Quantiles;
use crate::subject::{Bench, Run};

/// Nodes beside our own, as many as Kubernetes supports.
const PEERS: usize = 5_000;
/// How long anything may take before the bench gives up.
const PATIENCE: Duration = Duration::from_secs(120);
/// Between two looks at a metric.
const GLANCE: Duration = Duration::from_millis(20);
const CHANGED: &str = "fairlead_overlay_change_seconds";
const COMPARED: &str = "fairlead_overlay_compare_duration_seconds";

/// A network card with an address of each family.
const MACHINE: [&str; 7] = [
    "ip link set lo up",
    "ip link add eth0 type veth peer name far0",
    "ip link set far0 up",
    "ip link set eth0 up",
    "ip addr add 172.16.255.1/16 dev eth0",
    "ip addr add fd00:172::ffff/64 dev eth0 nodad",
    "ip route add default via 172.16.255.254",
];

/// What nodes have addresses and prefixes of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stack {
    Single,
    Dual,
}

/// Measures and prints.
pub fn bench(changes: usize) -> anyhow::Result<()> {
    for (what, flag) in [("vxlan", "--overlay-backend=vxlan"), ("vxlan-lwt", "--overlay-backend=vxlan-lwt")] {
        for stack in [Stack::Single, Stack::Dual] {
            backend(what, flag, stack, changes)?;
        }
    }
    Ok(())
}

fn backend(what: &str, flag: &'static str, stack: Stack, changes: usize) -> anyhow::Result<()> {
    let (cidrs, prefixes) = match stack {
        Stack::Single => ("--cluster-cidr=10.0.0.0/8", "an IPv4 prefix"),
        Stack::Dual => ("--cluster-cidr=10.0.0.0/8,fd00:244::/32", "an IPv4 and an IPv6 prefix"),
    };
    let bench = Bench::empty(PEERS, &MACHINE, &["--hostname-override=n0", cidrs, "--iface=eth0", flag])?;
    for number in 0..=PEERS {
        bench.api().apply(node(number, 0, stack))?;
    }
    println!("\noverlay, {what}: {PEERS} peers, each with {prefixes}");
    let run = bench.start()?;
    start_row("from nothing", &run)?;
    let samples =
        (0..changes).map(|number| one_change(&bench, &run, number, stack)).collect::<anyhow::Result<Vec<_>>>()?;
    println!("  {:<24} {:>10} {:>10} {:>11}   us from the watch event to the kernel", "change", "p50", "p99", "max");
    println!("  {:<24} {}", "one peer changed", Quantiles::of(samples));
    let repair = repair(&bench, &run)?;
    println!("  device deleted, everything back after {:.0} ms", repair.as_secs_f64() * 1e3);
    println!("  resident {:.1} MB, at most {:.1} MB", run.resident_mb()?, run.peak_mb()?);
    run.kill()?;
    let again = bench.start()?;
    start_row("restart, peers present", &again)
}

fn start_row(what: &str, run: &Run) -> anyhow::Result<()> {
    let peers = run.gauge("fairlead_overlay_peers")?;
    let first = run.gauge(&format!("{COMPARED}_sum"))? * 1e3;
    let looks = run.gauge(&format!("{COMPARED}_count"))?;
    let writes = run.gauge("fairlead_overlay_writes_total")?;
    println!(
        "  {what:<24} {:.0} ms from exec to ready, of which the kernel {first:.0} ms ({looks} comparisons, {writes} writes, \
         {peers} peers); {:.1} MB resident, {:.1} MB at most",
        run.ready_after.as_secs_f64() * 1e3,
        run.ready_mb,
        run.ready_peak_mb,
    );
    Ok(())
}

/// Another address for one peer; timed in the program.
fn one_change(bench: &Bench, run: &Run, number: usize, stack: Stack) -> anyhow::Result<Duration> {
    let before = (run.gauge(&format!("{CHANGED}_sum"))?, run.gauge(&format!("{CHANGED}_count"))?);
    bench.api().apply(node(1 + (number * 37) % PEERS, 1 + number % 2, stack))?;
    let begin = Instant::now();
    loop {
        std::thread::sleep(GLANCE);
        let count = run.gauge(&format!("{CHANGED}_count"))? - before.1;
        if count >= 1.0 {
            return Ok(Duration::from_secs_f64((run.gauge(&format!("{CHANGED}_sum"))? - before.0) / count));
        }
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the change did not reach the kernel");
    }
}

/// Deletes the device, with which all peers of IPv4 go, and waits until the program has written all of them again.
fn repair(bench: &Bench, run: &Run) -> anyhow::Result<Duration> {
    /// So long nothing more is written when everything is there: what a pass writes is counted at its end.
    const QUIET: Duration = Duration::from_secs(3);
    let writes = || run.gauge("fairlead_overlay_writes_total");
    let before = writes()?;
    let begin = Instant::now();
    bench.run("ip link del flannel.1")?;
    #[expect(clippy::cast_precision_loss, reason = "a count")]
    let peers = PEERS as f64;
    let (mut written, mut last) = (before, begin);
    while written - before < peers || last.elapsed() < QUIET {
        let now = writes()?;
        if now > written {
            (written, last) = (now, Instant::now());
        }
        std::thread::sleep(Duration::from_millis(2));
        anyhow::ensure!(begin.elapsed() < PATIENCE, "the device was not repaired");
    }
    Ok(last - begin)
}

/// A Node as the API server has it, of about the size of a real one. `variant` changes its address.
fn node(number: usize, variant: usize, stack: Stack) -> Value {
    let (high, low) = (number >> 8, number & 0xff);
    let images: Vec<Value> = (0..20)
        .map(|image| json!({"names": [format!("registry.example.org/team/image-{image}@sha256:{image:064x}")], "sizeBytes": 1}))
        .collect();
    let data = |kind: usize| format!(r#"{{"VNI":1,"VtepMAC":"0a:{kind:02x}:00:00:{high:02x}:{low:02x}"}}"#);
    let public = if number == 0 { "172.16.255.1".to_owned() } else { format!("172.{}.{high}.{low}", 16 + variant) };
    let public_v6 =
        if number == 0 { "fd00:172::ffff".to_owned() } else { format!("fd00:172:0:{variant}::{:x}", number + 1) };
    let prefix = "flannel.alpha.coreos.com";
    let mut node = json!({
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": { "name": format!("n{number}"), "annotations": {
            format!("{prefix}/kube-subnet-manager"): "true",
            format!("{prefix}/backend-type"): "vxlan",
            format!("{prefix}/public-ip"): public,
            format!("{prefix}/public-ipv6"): public_v6,
            format!("{prefix}/backend-data"): data(4),
            format!("{prefix}/backend-v6-data"): data(6),
        } },
        "spec": { "podCIDRs": [format!("10.{}.{low}.0/24", 1 + high), format!("fd00:244:0:{number:x}::/64")] },
        "status": {
            "addresses": [{"type": "InternalIP", "address": public}],
            "conditions": [{"type": "Ready", "status": "True"}],
            "images": images,
        },
    });
    if stack == Stack::Single {
        node["spec"]["podCIDRs"].as_array_mut().expect("it is a list").truncate(1);
        let annotations = node["metadata"]["annotations"].as_object_mut().expect("it is an object");
        annotations.retain(|key, _| !key.contains("v6"));
    }
    node
}
