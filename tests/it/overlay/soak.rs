//! F17: thousands of faults at random, alone and several at once; after each burst all is as it was.
//!
//! `FAIRLEAD_SOAK=10000` says how many; without it a few hundred. The seed is printed; `FAIRLEAD_SOAK_SEED` repeats it.

use std::env;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::{Duration, Instant};

use fairlead_plan::Family;

use super::stage::{DEVICES, PROTOCOL, Stage, can_run, listing, output, say, until_listed};

const NODES: [&str; 3] = ["a", "b", "c"];
/// Faults in the test that everybody runs.
const SHARE: u64 = 200;
/// Most faults at once.
const BURST: u64 = 4;
/// Bursts between two looks at packets.
const LOOK: u64 = 20;

/// SplitMix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn of<'a, T>(&mut self, list: &'a [T]) -> &'a T {
        &list[usize::try_from(self.below(list.len() as u64)).unwrap()]
    }
}

/// What may happen to node `a`. What fails, because an earlier fault of the burst has left nothing to spoil, did no harm.
fn faults(stage: &Stage, backend: &str) -> Vec<String> {
    let mut all = Vec::new();
    let packs = backend == "vxlan-lwt";
    let devices = if packs { [DEVICES[0]; 2] } else { DEVICES };
    for (number, peer) in [(2, "b"), (3, "c")] {
        for (family, device) in Family::BOTH.into_iter().zip(devices) {
            let mac = output(stage.node(peer), &format!("cat /sys/class/net/{device}/address"));
            let mac = String::from_utf8(mac.stdout).unwrap().trim().to_owned();
            let (ip, net, base, end, wrong) = match family {
                Family::V4 => {
                    let base = format!("10.244.{number}.0");
                    ("ip", format!("{base}/24"), base, format!("192.168.50.{number}"), "192.168.50.9")
                }
                Family::V6 => {
                    let base = format!("fd00:244:0:{number}::");
                    ("ip -6", format!("{base}/64"), base, format!("fd00:50::{number}"), "fd00:50::9")
                }
            };
            all.extend([
                format!("{ip} route del {net}"),
                format!("{ip} route replace {net} via {wrong} dev eth0"),
                format!("{ip} route append {net} via {wrong} dev eth0"),
                format!("{ip} route replace blackhole {net}"),
                format!("{ip} neigh del {base} dev {device}"),
                format!("{ip} neigh replace {base} lladdr 0a:00:00:00:00:99 dev {device} nud permanent"),
                format!("{ip} neigh replace {base} lladdr 0a:00:00:00:00:99 dev {device} nud stale"),
            ]);
            if packs {
                all.extend(faults_of_objects(stage, family, [&net, &base, wrong]));
                continue;
            }
            all.extend([
                format!("bridge fdb del {mac} dev {device}"),
                format!("bridge fdb replace {mac} dev {device} dst {wrong}"),
                format!("bridge fdb replace {mac} dev {device} dst {end} port 4789"),
                format!("bridge fdb add 0a:00:00:00:00:98 dev {device} dst {wrong}"),
            ]);
        }
    }
    for device in devices {
        all.extend([
            format!("ip link del {device}"),
            format!("ip link set {device} down"),
            format!("ip link set {device} up"),
            format!("ip link set {device} mtu 1200"),
            format!("ip link set {device} address 0a:00:00:00:00:97"),
            format!("ip addr flush dev {device}"),
            format!("ip neigh flush dev {device} nud permanent"),
        ]);
    }
    all.extend(["ip link set eth0 mtu 1400".to_owned(), "ip link set eth0 mtu 1500".to_owned()]);
    all
}

/// What may happen to the nexthop object of a prefix: it is deleted, changed, or taken by somebody else.
fn faults_of_objects(stage: &Stage, family: Family, [net, base, wrong]: [&str; 3]) -> Vec<String> {
    let ip = if family == Family::V4 { "ip" } else { "ip -6" };
    let route = output(stage.node("a"), &format!("{ip} route show {net}"));
    let route = String::from_utf8(route.stdout).unwrap();
    let id = route.split_once(" nhid ").unwrap().1.split(' ').next().unwrap();
    let encap = if family == Family::V4 { "ip id 1" } else { "ip6 id 1" };
    vec![
        format!("ip nexthop del id {id}"),
        format!("ip nexthop flush proto {PROTOCOL}"),
        format!(
            "ip nexthop replace id {id} via {base} dev flannel.1 onlink encap {encap} dst {wrong} proto {PROTOCOL}"
        ),
        format!("ip nexthop replace id {id} via {base} dev flannel.1 onlink encap {encap} dst {wrong}"),
        format!("{ip} nexthop replace id {id} blackhole"),
        format!("ip nexthop add id 7 via {base} dev flannel.1 onlink proto {PROTOCOL}"),
        format!("{ip} route replace {net} via {base} dev flannel.1 onlink encap {encap} dst {wrong}"),
    ]
}

#[test]
fn f17_after_thousands_of_random_faults_all_is_as_it_was() {
    soak("vxlan");
}

#[test]
fn f17_after_thousands_of_random_faults_all_is_as_it_was_with_nexthop_objects() {
    soak("vxlan-lwt");
}

fn soak(backend: &str) {
    if !can_run() {
        return;
    }
    let number = |name: &str| env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let count = number("FAIRLEAD_SOAK").unwrap_or(SHARE);
    let seed = number("FAIRLEAD_SOAK_SEED").unwrap_or_else(|| u64::from(std::process::id()));
    let stage = Stage::new();
    let programs = stage.start(&NODES, backend);
    let before = listing(stage.node("a"));
    let faults = faults(&stage, backend);
    let mut random = Random(seed);
    let (mut done, mut bursts, mut slowest, mut total) = (0, 0, Duration::ZERO, Duration::ZERO);
    while done < count {
        let burst: Vec<_> = (0..=random.below(BURST)).map(|_| random.of(&faults).clone()).collect();
        let harmed = burst.iter().filter(|line| output(stage.node("a"), line).status.success()).count();
        // What is not the overlay's must be put back by hand.
        assert!(output(stage.node("a"), "ip link set eth0 mtu 1500").status.success());
        let since = Instant::now();
        let result = catch_unwind(AssertUnwindSafe(|| until_listed(stage.node("a"), &before, since)));
        let took = result.unwrap_or_else(|panic| {
            eprintln!("seed {seed}, after {done} faults: {burst:#?}");
            resume_unwind(panic)
        });
        done += harmed as u64;
        (bursts, slowest, total) = (bursts + 1, slowest.max(took), total + took);
        if bursts % LOOK == 0 {
            eprintln!("seed {seed}, {done} faults, the last: {burst:#?}");
            stage.until_connected(&["a", "b"]);
        }
    }
    stage.until_connected(&NODES);
    assert!(programs[0].metric("fairlead_overlay_repairs_total", "") > 0.0);
    let mean = total / u32::try_from(bursts).unwrap();
    say("F17", &format!("{done} faults in {bursts} bursts, seed {seed}, {mean:.1?} on average, at most"), slowest);
}
