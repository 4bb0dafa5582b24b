//! Somebody else changes what is ours.

use std::time::{Duration, Instant};

use fairlead_lab::{Conversation, Options, Outcome};
use fairlead_plan::Family;

use super::{can_run, service, slice, until_answered_by};
use crate::listing::{Listing, ip, listing};
use crate::program::{Cluster, Program, eventually, nft};

/// A repair that takes longer counts as none: the next change or the hourly comparison would have done it.
const REPAIRED_WITHIN: Duration = Duration::from_secs(10);

/// What somebody does with `nft`, what of ours is hurt (the label of the metric), and what a line of the log must name.
/// `IP`, `ADDR` and `POD` stand for the family, for ClusterIP 1 and for a pod.
const DAMAGE: [(&str, &str, &str); 16] = [
    ("delete table IP fairlead", "table", "was gone"),
    ("flush ruleset", "table", "was gone"),
    ("flush chain IP fairlead nat-prerouting", "rule", "nat-prerouting"),
    ("flush chain IP fairlead cluster", "rule", "cluster"),
    ("flush chain IP fairlead nat-output; delete chain IP fairlead nat-output", "chain", "nat-output"),
    ("flush set IP fairlead cluster-ips", "element", "cluster-ips"),
    ("flush map IP fairlead endpoints", "element", "endpoints"),
    ("flush map IP fairlead actions", "element", "actions"),
    ("flush chain IP fairlead; flush map IP fairlead actions; delete chain IP fairlead np-local", "chain", "np-local"),
    ("delete element IP fairlead cluster-ips { ADDR }", "element", "cluster-ips"),
    ("delete element IP fairlead endpoints { tcp . ADDR . 80 . 0 }", "element", "endpoints"),
    ("add element IP fairlead from-pod { tcp . ADDR . 81 : 0x0ffffff2 }", "element", "from-pod"),
    ("insert rule IP fairlead services IP daddr ADDR drop", "rule", "services"),
    ("add chain IP fairlead strange; add rule IP fairlead strange drop", "chain", "strange"),
    ("flush set IP fairlead service-cidrs", "element", "service-cidrs"),
    ("add element IP fairlead hairpin { POD . POD }", "element", "hairpin"),
];

fn command(cluster: &Cluster, damage: &str, family: Family) -> String {
    let addr = fairlead_lab::cluster_ip(1).of(family);
    let pod = cluster.lab.place("a3").addr(family);
    // `nft` reads a whole chain's rules away with `flush chain TABLE` alone.
    let damage = damage.replace("flush chain IP fairlead;", "flush table IP fairlead;");
    damage.replace("IP", ip(family)).replace("ADDR", &addr.to_string()).replace("POD", &pod.to_string())
}

/// Does the damage and waits until both tables are as before. Gives back how long that took.
fn hurt_and_heal(cluster: &Cluster, whole: &[Listing; 2], damage: &str) -> Duration {
    nft(cluster.node(), damage);
    let start = Instant::now();
    let healed = || Family::BOTH.map(|family| listing(cluster.node(), family)) == *whole;
    while !healed() {
        if start.elapsed() > REPAIRED_WITHIN {
            let now = Family::BOTH.map(|family| listing(cluster.node(), family));
            assert_eq!(now, *whole, "{damage}: not repaired within {REPAIRED_WITHIN:?}");
        }
    }
    start.elapsed()
}

fn repairs(program: &Program, what: &str) -> f64 {
    program.metric("fairlead_repairs_total", &format!("what=\"{what}\""))
}

#[test]
fn whatever_somebody_takes_away_or_puts_in_is_repaired_counted_and_named() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    cluster.put(&service("sticky", 2).sticky(600));
    cluster.put_slice(&slice("sticky", &["a1", "b1"]));
    let program = cluster.start();
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    let whole = Family::BOTH.map(|family| listing(cluster.node(), family));
    assert_eq!(program.metric("fairlead_repairs_total", ""), 0.0, "repairs before any damage");
    let mut slowest = Duration::ZERO;
    for (damage, what, named) in DAMAGE {
        for family in Family::BOTH {
            let damage = command(&cluster, damage, family);
            let (counted, logged) = (repairs(&program, what), program.log().len());
            let took = hurt_and_heal(&cluster, &whole, &damage);
            println!("repaired after {took:?}: {damage}");
            slowest = slowest.max(took);
            eventually(&format!("the repair of a {what} is counted"), || repairs(&program, what) > counted);
            let log = program.log()[logged..].to_owned();
            let said = log.lines().any(|line| line.contains("repaired: ") && line.contains(named));
            assert!(said, "no line about a repair names {named} after: {damage}\n{log}");
        }
    }
    println!("slowest repair: {slowest:?}");
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "b1"]);
    assert_eq!(program.metric("fairlead_failures_total", "cause=\"sync\""), 0.0);
}

#[test]
fn a_table_deleted_again_and_again_while_services_change_ends_up_right() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    let mut program = cluster.start();
    for round in 0..30 {
        let pods: &[&str] = if round % 2 == 0 { &["a1", "b1"] } else { &["a3"] };
        cluster.serve("web", 1, pods);
        // The first fails if the program has not yet repaired what the round before has destroyed.
        let family = ip(Family::BOTH[round % 2]);
        super::super::program::nft_output(cluster.node(), &format!("delete table {family} fairlead"));
        cluster.serve("other", 2, pods);
        nft(cluster.node(), "flush ruleset");
    }
    cluster.serve("web", 1, &["a1", "a3"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["a1", "a3"]);
    until_answered_by(cluster.lab.place("a2"), 2, &["a3"]);
    assert!(program.is_running());
    let healed = Family::BOTH.map(|family| listing(cluster.node(), family));
    nft(cluster.node(), "flush ruleset");
    eventually("the tables are back", || Family::BOTH.map(|family| listing(cluster.node(), family)) == healed);
}

#[test]
fn connections_that_are_open_outlive_the_loss_of_all_rules_and_a_cleanup_by_mistake() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let program = cluster.start();
    let whole = Family::BOTH.map(|family| listing(cluster.node(), family));
    let open = |(protocol, to)| Conversation::open(cluster.lab.place("a2"), protocol, to, &Options::default()).unwrap();
    let mut talks: Vec<_> = super::frontends(1).into_iter().map(open).collect();
    let mut all_answer = || talks.iter_mut().all(|talk| matches!(talk.ask(), Outcome::Reached { .. }));
    assert!(all_answer());
    nft(cluster.node(), "flush ruleset");
    eventually("the tables are back", || Family::BOTH.map(|family| listing(cluster.node(), family)) == whole);
    assert!(all_answer());
    let output = crate::program::run(cluster.node(), &["cleanup"]);
    assert!(output.status.success());
    eventually("the tables are back", || Family::BOTH.map(|family| listing(cluster.node(), family)) == whole);
    assert!(all_answer());
    assert!(repairs(&program, "table") >= 2.0);
}

#[test]
fn a_table_of_the_same_name_in_another_family_is_nobody_s_business() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    let program = cluster.start();
    let full = || program.metric("kubeproxy_sync_full_proxy_rules_duration_seconds_count", "IPv4");
    let before = full();
    nft(cluster.node(), "add table inet fairlead; add chain inet fairlead mine; add rule inet fairlead mine drop");
    nft(cluster.node(), "delete table inet fairlead");
    // A change of ours, made after those were heard.
    cluster.serve("web", 1, &["a3"]);
    until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
    assert_eq!(full(), before, "the kernel was read again");
    nft(cluster.node(), "add rule ip fairlead services drop");
    eventually("a change of ours is heard", || full() > before);
}
