//! The iptables mode beside the rules that kube-proxy would have, loaded as kube-proxy loads them: `cargo bench -- iptables`.
//!
//! Both on one machine, one after the other, in both variants: a start from nothing, the change of one endpoint, and the time
//! of `connect` from a pod through the first and the last Service to a pod that answers.

use std::fmt::Write as _;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use fairlead_iptables::{IptablesBackend, Variant, chains_of};
use fairlead_lab::{Lab, PORTS, Size};
use fairlead_plan::{Backend, Endpoint, Family, Frontend, LocalTraffic, Node, Plan, Pools, Service};

use crate::cluster::ENDPOINTS;
use crate::measure::Quantiles;
use crate::plan::{self, CLIENTS, at};

/// A program that loads rules for so long is ended.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs everything for one number of services.
pub fn bench(size: usize, changes: usize) -> anyhow::Result<()> {
    println!("\n{size} services x {ENDPOINTS} endpoints, IPv4, mode iptables");
    println!("  {:<28} {:>10} | {:>9} | {:^33} | {:^33}", "", "cold, ms", "rules", "one endpoint, us", "connect, us");
    println!("  {:<28} {:>10} | {:>9} | {:>10} {:>10} {:>11} |", "", "", "", "p50", "p99", "max");
    for variant in [Variant::Legacy, Variant::Nft] {
        fairlead(size, changes, variant)?;
        kube_proxy(size, changes, variant)?;
    }
    Ok(())
}

fn fairlead(size: usize, changes: usize, variant: Variant) -> anyhow::Result<()> {
    let lab = lab()?;
    let node = lab.node("a");
    let mut plan = cluster(&lab, size);
    let mut backend = IptablesBackend::new(Some(variant));
    let begin = Instant::now();
    let report = node.run(|| backend.sync(None, &plan))?;
    let cold = begin.elapsed();
    let mut samples = Vec::new();
    for number in 0..changes {
        let was = plan.clone();
        plan.services.insert(Arc::new(service(at(number, size), 1 + number % 2)));
        let begin = Instant::now();
        node.run(|| backend.sync(Some(&was), &plan))?;
        samples.push(begin.elapsed());
    }
    row(&format!("fairlead, {variant:?}"), cold, report.held[0].rules, samples);
    connects(&lab, size)
}

fn kube_proxy(size: usize, changes: usize, variant: Variant) -> anyhow::Result<()> {
    let lab = lab()?;
    let plan = cluster(&lab, size);
    let services: Vec<&Service> = plan.services.sorted().into_iter().map(Arc::as_ref).collect();
    let what = format!("kube-proxy's rules, {variant:?}");
    let (text, rules) = kube_rules(&services, &services, true);
    let Some(cold) = restore(&lab, variant, &text)? else {
        println!("  {what:<28} not loaded after {PATIENCE:?}");
        return Ok(());
    };
    let mut samples = Vec::new();
    for number in 0..changes {
        let changed = service(at(number, size), 1 + number % 2);
        let (text, _) = kube_rules(&services, &[&changed], false);
        samples.push(restore(&lab, variant, &text)?.context("a change was not loaded")?);
    }
    row(&what, cold, rules, samples);
    connects(&lab, size)
}

fn row(what: &str, cold: Duration, rules: u64, samples: Vec<Duration>) {
    print!("  {what:<28} {:>10.0} | {rules:>9} | {} |", cold.as_secs_f64() * 1e3, Quantiles::of(samples));
}

/// Connections through the first and the last Service and to the pod itself, in turn, so that all see the same machine.
fn connects(lab: &Lab, size: usize) -> anyhow::Result<()> {
    const TIMES: usize = 1_000;
    let targets = [cluster_ip(0), cluster_ip(size - 1), answering(lab)];
    let samples = lab.place("a2").run(|| -> anyhow::Result<[Vec<Duration>; 3]> {
        let mut samples = [const { Vec::new() }; 3];
        for _ in 0..TIMES {
            for (samples, to) in samples.iter_mut().zip(targets) {
                let begin = Instant::now();
                let stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
                samples.push(begin.elapsed());
                drop(stream);
            }
        }
        Ok(samples)
    })?;
    let [first, last, direct] = samples.map(|mut samples| {
        samples.sort_unstable();
        samples[samples.len() / 2].as_secs_f64() * 1e6
    });
    println!(" p50: first {first:.0}, last {last:.0}, direct {direct:.0}");
    Ok(())
}

fn lab() -> anyhow::Result<Lab> {
    Lab::of_size(&Size { nodes: &[("a", 2)], clients: &[] })
}

fn answering(lab: &Lab) -> SocketAddr {
    SocketAddr::new(lab.place("a1").addr(Family::V4), PORTS[0])
}

fn cluster(lab: &Lab, size: usize) -> Plan {
    let answers = |number: usize| Service {
        pools: Pools { cluster: vec![Endpoint::new(answering(lab), true)], local: Vec::new() },
        ..service(number, 0)
    };
    let is_end = |number: usize| number == 0 || number == size - 1;
    let services = (0..size).map(|number| if is_end(number) { answers(number) } else { service(number, 0) });
    let local_traffic = LocalTraffic::Sources(vec![CLIENTS.parse().expect("a prefix")]);
    Plan { node: Arc::new(Node { local_traffic, ..Node::default() }), services: services.collect() }
}

/// A Service of IPv4 whose fifth endpoint depends on the variant.
fn service(number: usize, variant: usize) -> Service {
    plan::service(Family::V4, number, variant, ENDPOINTS)
}

fn cluster_ip(number: usize) -> SocketAddr {
    plan::cluster_ip(Family::V4, number)
}

/// What kube-proxy gives `iptables-restore` with more than 1,000 endpoints, hence without comments: `KUBE-SERVICES` as a whole
/// every time, and the chains of the services that changed. Also how many rules that is.
fn kube_rules(all: &[&Service], changed: &[&Service], first: bool) -> (String, u64) {
    let (mut chains, mut rules) = (":KUBE-SERVICES - [0:0]\n:KUBE-MARK-MASQ - [0:0]\n".to_owned(), String::new());
    // Writing to a String cannot fail.
    let _ = writeln!(rules, "-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000");
    let find = |service: &Service| {
        let Some(Frontend::ClusterIp(to)) = service.frontends.first() else { return String::new() };
        format!("-m tcp -p tcp -d {} --dport {}", to.ip(), to.port())
    };
    for service in all {
        let [chain, _] = chains_of(&service.key, service.pools.cluster[0].addr());
        let _ = writeln!(rules, "-A KUBE-SERVICES {} -j {chain}", find(service));
    }
    for service in changed {
        let count = service.pools.cluster.len();
        for (number, endpoint) in service.pools.cluster.iter().enumerate() {
            let [chain, own] = chains_of(&service.key, endpoint.addr());
            if number == 0 {
                let _ = writeln!(chains, ":{chain} - [0:0]");
                let _ = writeln!(rules, "-A {chain} {} ! -s {CLIENTS} -j KUBE-MARK-MASQ", find(service));
            }
            let left = count - number;
            let pick = format!("-m statistic --mode random --probability {:.10}", 1.0 / left as f64);
            let _ = writeln!(chains, ":{own} - [0:0]");
            let _ = writeln!(rules, "-A {chain} {} -j {own}", if left > 1 { &pick } else { "" });
            let _ = writeln!(rules, "-A {own} -s {} -j KUBE-MARK-MASQ", endpoint.addr().ip());
            let _ = writeln!(rules, "-A {own} -m tcp -p tcp -j DNAT --to-destination {}", endpoint.addr());
        }
    }
    if first {
        rules.push_str("-A PREROUTING -j KUBE-SERVICES\n-A OUTPUT -j KUBE-SERVICES\n");
    }
    let count = rules.lines().count() as u64;
    (format!("*nat\n{chains}{rules}COMMIT\n"), count)
}

/// Loads rules as kube-proxy does; `None` if that takes too long.
fn restore(lab: &Lab, variant: Variant, text: &str) -> anyhow::Result<Option<Duration>> {
    let program = match variant {
        Variant::Legacy => "iptables-legacy-restore",
        Variant::Nft => "iptables-nft-restore",
    };
    let path = std::env::temp_dir().join(format!("fairlead-bench-{}.rules", std::process::id()));
    std::fs::write(&path, text)?;
    let file = File::open(&path)?;
    std::fs::remove_file(&path)?;
    let begin = Instant::now();
    let mut command = lab.node("a").command(program);
    let mut child = command.args(["-w", "5", "--noflush", "--counters"]).stdin(Stdio::from(file)).spawn()?;
    let Some(status) = wait(&mut child, begin)? else { return Ok(None) };
    anyhow::ensure!(status, "{program} failed");
    Ok(Some(begin.elapsed()))
}

fn wait(child: &mut Child, begin: Instant) -> anyhow::Result<Option<bool>> {
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status.success()));
        }
        if begin.elapsed() > PATIENCE {
            child.kill()?;
            child.wait()?;
            return Ok(None);
        }
        std::thread::sleep(Duration::from_micros(200));
    }
}
