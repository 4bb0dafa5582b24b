//! What a cold start, a restart and a change cost: `cost [SERVICES...]`, ten endpoints each, in the network namespace of the
//! caller. Needs a kernel with IPVS; leaves the kernel as it was.
//!
//! For each: the whole time, the part of it that the kernel and `iptables-restore` took, and the rest, which is ours.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "what cannot be measured is said by a panic")]

#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fairlead_ipvs::{IpvsBackend, Settings};
use fairlead_plan::{Backend, Endpoint, Family, Plan, Protocol, Service};

const ENDPOINTS: u16 = 10;
const CHANGES: u16 = 200;
/// The sample has addresses for so many endpoints, and a few more.
const ADDRESSES: u32 = 46_000;

fn main() {
    let sizes: Vec<u16> = std::env::args().skip(1).map(|size| size.parse().expect("a number of services")).collect();
    for size in if sizes.is_empty() { vec![1_000, 10_000] } else { sizes } {
        measure(size);
    }
}

fn measure(size: u16) {
    let services = (1..=size).map(|number| service(number, 0));
    let plan = Plan { node: Arc::new(sample::node()), services: services.collect() };
    let mut backend = IpvsBackend::new(Settings::default());
    println!("{size} services x {ENDPOINTS} endpoints");
    timed("cold start", &mut backend, None, &plan);
    timed("everything compared", &mut backend, None, &plan);
    timed("restart", &mut IpvsBackend::new(Settings::default()), None, &plan);
    // The backend that did the last sync is another one, and the kernel holds the same.
    let (mut was, mut own, mut all) = (plan, Vec::new(), Vec::new());
    for number in 0..CHANGES {
        let mut now = was.clone();
        let which = number % size + 1;
        now.services.insert(Arc::new(service(which, 1 + number)));
        let began = Instant::now();
        let report = backend.sync(Some(&was), &now).expect("the kernel takes it");
        let took = began.elapsed();
        own.push(took.saturating_sub(report.kernel));
        all.push(took);
        was = now;
    }
    for (what, mut times) in [("one endpoint replaced", all), ("  of it our own", own)] {
        times.sort();
        let at = |part: usize| micros(times[(times.len() - 1) * part / 100]);
        println!("  {what:<24} p50 {:>9} us, p99 {:>9} us", at(50), at(99));
    }
    backend.cleanup().expect("it goes");
}

fn timed(what: &str, backend: &mut IpvsBackend, was: Option<&Plan>, now: &Plan) {
    let began = Instant::now();
    let report = backend.sync(was, now).expect("the kernel takes it");
    let took = began.elapsed();
    let share = took.as_secs_f64() / report.kernel.as_secs_f64().max(1e-9) - 1.0;
    println!(
        "  {what:<24} {:>9.1} ms, kernel {:>9.1} ms, {:>5.1} % more; {} writes",
        took.as_secs_f64() * 1e3,
        report.kernel.as_secs_f64() * 1e3,
        share * 100.0,
        report.writes
    );
}

fn micros(time: Duration) -> u128 {
    time.as_micros()
}

/// With one endpoint that the version decides.
fn service(number: u16, version: u16) -> Service {
    let family = if number.is_multiple_of(2) { Family::V4 } else { Family::V6 };
    let of = |one: u16| u16::try_from((u32::from(number) * 7 + u32::from(one)) % ADDRESSES).expect("below the limit");
    let mut pool: Vec<Endpoint> = (0..ENDPOINTS - 1).map(|one| sample::endpoint(family, of(one), false)).collect();
    pool.push(sample::endpoint(family, 47_000 + version, false));
    sample::service(family, &format!("web-{number}"), number, Protocol::Tcp, pool)
}
