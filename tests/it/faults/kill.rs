//! SIGKILL at random moments.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fairlead_lab::objects::{Endpoint, Slice};
use fairlead_lab::{Conversation, Options, Outcome};
use fairlead_plan::Family;

use super::{TARGET, can_run, elements, frontends, until_answered_by, without_failure};
use crate::program::{Cluster, eventually};

/// How often the program is killed.
const KILLS: usize = 100;
/// A process lives at most so long: through its start, its first sync, and some changes.
const LIFETIME: u64 = 450;
/// Services that come and go meanwhile, from this ClusterIP on.
const CHURN: std::ops::Range<u8> = 20..50;

/// `web` on pods that all answer all the time; one of them at a time is on its way out.
fn web(round: usize) -> Slice {
    let pods = ["a1", "a3", "b1"];
    let leaving = pods[round % pods.len()];
    let endpoint = |pod: &&str| if *pod == leaving { Endpoint::at(pod).terminating(true) } else { Endpoint::at(pod) };
    pods.iter().map(endpoint).fold(Slice::of("web").tcp("t", TARGET).udp("u", TARGET), Slice::endpoint)
}

/// Changes objects until told to stop, so that a kill finds the program at work.
fn churn(cluster: &Cluster, stop: &AtomicBool) {
    /// Between two changes.
    const PAUSE: Duration = Duration::from_millis(3);
    let mut round = 0;
    while !stop.load(Ordering::Relaxed) {
        cluster.put_slice(&web(round));
        let host = CHURN.start + u8::try_from(round % CHURN.len()).unwrap();
        let name = format!("churn{host}");
        if (round / CHURN.len()).is_multiple_of(2) {
            cluster.serve(&name, host, &["a2", "a3"]);
        } else {
            cluster.forget(&name);
        }
        round += 1;
        thread::sleep(PAUSE);
    }
}

/// TCP connections that stay open, and UDP sockets that keep their port.
fn conversations(cluster: &Cluster) -> Vec<Conversation> {
    /// Where neither probes nor the kernel begin.
    const SOURCE_PORTS: std::ops::Range<u16> = 10_000..10_100;
    let open = |from: &str| {
        let place = cluster.lab.place(from).clone();
        let one = |((protocol, to), source_port)| {
            let options = Options { patience: Duration::from_secs(5), source_port, ..Options::default() };
            Conversation::open(&place, protocol, to, &options).unwrap()
        };
        frontends(1).into_iter().zip(SOURCE_PORTS).map(one).collect::<Vec<_>>()
    };
    ["a2", "outside", "a"].into_iter().flat_map(open).collect()
}

fn go_on(talk: &mut Conversation) {
    let outcome = talk.ask();
    assert!(matches!(outcome, Outcome::Reached { .. }), "a connection that was open: {outcome:?}");
}

#[test]
fn killed_a_hundred_times_at_random_it_fails_no_connection() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "a3", "b1"]);
    let first = cluster.start();
    let hammers = [cluster.hammer("a2", 1), cluster.hammer("outside", 1), cluster.hammer("a", 1)];
    let mut talks = conversations(&cluster);
    let stop = AtomicBool::new(false);
    let program = thread::scope(|scope| {
        scope.spawn(|| churn(&cluster, &stop));
        let mut program = first;
        for _ in 0..KILLS {
            let lifetime = RandomState::new().hash_one(()) % LIFETIME;
            thread::sleep(Duration::from_millis(lifetime));
            program.kill();
            program = cluster.launch(&[]);
            talks.iter_mut().for_each(go_on);
        }
        stop.store(true, Ordering::Relaxed);
        program
    });
    program.wait_until_ready();
    for hammer in hammers {
        hammer.wait_for(50);
        without_failure(hammer);
    }
    CHURN.for_each(|host| cluster.forget(&format!("churn{host}")));
    for family in Family::BOTH {
        eventually("only web is left", || {
            elements(cluster.node(), family, "cluster-ips").as_array().unwrap().len() == 1
        });
    }
    cluster.put_slice(&super::slice("web", &["a3"]));
    until_answered_by(cluster.lab.place("a2"), 1, &["a3"]);
}
