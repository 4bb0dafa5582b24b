//! Session affinity: a client meets the endpoint that it met last.

use std::collections::BTreeSet;
use std::thread;
use std::time::Duration;

use fairlead_lab::{Options, probe_set};
use fairlead_plan::{Family, Protocol};

use super::programs::{self, Mode, in_every_mode};
use super::scenario::{Objects, Stack, TCP_AND_UDP, To};
use super::stage::Stage;
use super::web::{NODE_PORT, PORT, web_behind_balancer, with_ready};

const ALL: &[&str] = &["a1", "a2", "a3", "b1", "b2"];
const LONG: u32 = 600;
const FRONTENDS: [To; 3] = [To::Cluster(1, PORT), To::Place("a", NODE_PORT), To::External(1, PORT)];

fn sticky(seconds: u32, endpoints: &[&str]) -> Objects {
    with_ready(web_behind_balancer().sticky(seconds), endpoints)
}

/// The endpoints that a client meets, at each of its frontends in turn.
fn met(stage: &Stage, client: &str, protocol: Protocol, frontends: &[To]) -> BTreeSet<String> {
    let mut met = BTreeSet::new();
    for to in frontends {
        let to = to.address(&stage.lab, stage.family);
        let seen = probe_set(stage.lab.place(client), protocol, to, &Options::default());
        assert_eq!(seen.refused + seen.silence + seen.failed.len(), 0, "{protocol} from {client} to {to}: {seen:?}");
        met.extend(seen.reached.into_keys());
    }
    met
}

/// The one endpoint that a client meets.
fn only(stage: &Stage, client: &str, protocol: Protocol) -> String {
    // The first connection alone: of two that begin at the same moment each may be the first.
    let to = FRONTENDS[0].address(&stage.lab, stage.family);
    let one = Options { connections: 1, ..Options::default() };
    assert_eq!(probe_set(stage.lab.place(client), protocol, to, &one).reached.len(), 1);
    let met = met(stage, client, protocol, &FRONTENDS[..1]);
    assert_eq!(met.len(), 1, "{protocol} from {client}: {met:?}");
    met.into_iter().next().unwrap_or_default()
}

fn each(mode: Mode, test: impl Fn(&mut Stage, Protocol)) {
    for family in Family::BOTH {
        let Some(mut stage) = super::stage(mode, family) else { return };
        for protocol in TCP_AND_UDP {
            stage.begin(|_| ());
            test(&mut stage, *protocol);
        }
    }
}

fn a_client_meets_one_endpoint_at_all_frontends_of_the_service(mode: Mode) {
    each(mode, |stage, protocol| {
        stage.apply(&sticky(LONG, ALL), Stack::Single);
        let clients = ["a2", "a", "outside", "stranger"];
        if !stage.mode.affinity_is_of_the_service() {
            let frontends = |client: &&str| FRONTENDS.map(|to| met(stage, client, protocol, &[to]));
            let all: Vec<_> = clients.iter().map(frontends).collect();
            assert!(all.iter().flatten().all(|met| met.len() == 1), "{protocol}: {all:?}");
            assert!(all.iter().any(|met| met[0] != met[1]), "{protocol}: no exception any more: {all:?}");
            return;
        }
        for client in clients {
            let one = only(stage, client, protocol);
            assert_eq!(met(stage, client, protocol, &FRONTENDS), BTreeSet::from([one]), "{protocol} from {client}");
        }
    });
}

fn without_affinity_a_client_meets_all_endpoints_and_affinity_comes_and_goes(mode: Mode) {
    each(mode, |stage, protocol| {
        let all: BTreeSet<String> = ALL.iter().map(|name| (*name).to_owned()).collect();
        for _ in 0..2 {
            stage.apply(&with_ready(web_behind_balancer(), ALL), Stack::Single);
            assert_eq!(met(stage, "outside", protocol, &FRONTENDS), all);
            stage.apply(&sticky(LONG, ALL), Stack::Single);
            only(stage, "outside", protocol);
        }
    });
}

fn a_client_keeps_its_endpoint_while_others_come_and_go_and_gets_another_when_it_goes(mode: Mode) {
    each(mode, |stage, protocol| {
        stage.apply(&sticky(LONG, ALL), Stack::Single);
        let first = only(stage, "a2", protocol);
        let rest: Vec<_> = ALL.iter().copied().filter(|name| *name != first).collect();
        for kept in [&rest[..1], &rest[1..3], &rest[..]] {
            let with_first: Vec<_> = kept.iter().copied().chain([first.as_str()]).collect();
            stage.apply(&sticky(LONG, &with_first), Stack::Single);
            assert_eq!(only(stage, "a2", protocol), first, "{protocol}, among {with_first:?}");
        }
        stage.apply(&sticky(LONG, &rest), Stack::Single);
        let second = only(stage, "a2", protocol);
        assert_ne!(second, first);
        stage.apply(&sticky(LONG, &rest), Stack::Single);
        assert_eq!(only(stage, "a2", protocol), second);
    });
}

fn a_client_is_forgotten_when_it_stays_away(mode: Mode) {
    /// One in five times a forgotten client meets the same endpoint again: so many times in a row never.
    const VISITS: usize = 30;
    each(mode, |stage, protocol| {
        stage.apply(&sticky(1, ALL), Stack::Single);
        let first = only(stage, "outside", protocol);
        let forgets = stage.mode.affinity_is_of_the_service();
        let visits = if forgets { VISITS } else { 3 };
        let forgotten = (0..visits).any(|_| {
            // The time out of the Service is what is waited for.
            thread::sleep(Duration::from_millis(1_300));
            only(stage, "outside", protocol) != first
        });
        assert_eq!(forgotten, forgets, "{protocol}: first {first}");
    });
}

fn clients_are_remembered_when_the_program_starts_again(mode: Mode) {
    each(mode, |stage, protocol| {
        stage.apply(&sticky(LONG, ALL), Stack::Single);
        let clients = ["a2", "a3", "a", "outside", "stranger"];
        let before = clients.map(|client| only(stage, client, protocol));
        stage.restart(programs::of(stage.mode));
        let after = clients.map(|client| only(stage, client, protocol));
        assert_eq!(before, after, "{protocol}");
    });
}

in_every_mode! {
    a_client_meets_one_endpoint_at_all_frontends_of_the_service
    without_affinity_a_client_meets_all_endpoints_and_affinity_comes_and_goes
    a_client_keeps_its_endpoint_while_others_come_and_go_and_gets_another_when_it_goes
    a_client_is_forgotten_when_it_stays_away
    clients_are_remembered_when_the_program_starts_again
}
