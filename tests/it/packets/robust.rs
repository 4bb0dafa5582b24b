//! Nobody notices that the program changes things, starts again, or was away.

use std::net::SocketAddr;

use fairlead_kernel::sysctl;
use fairlead_lab::{Hammer, Tally};
use fairlead_plan::{Family, Protocol};

use super::programs::{self, Mode, in_every_mode};
use super::scenario::{Objects, Stack, TCP_AND_UDP, To, from};
use super::stage::Stage;
use super::web::{NODE_PORT, PORT, web, web_behind_balancer, with_ready};
use super::{observe, scenario::Scenario};

const WEB: To = To::Cluster(1, PORT);

/// Connections that must be answered between one change and the next.
const BETWEEN: u64 = 10;

/// A stage whose node `a` forgets UDP flows early.
///
/// Three hammers whose source is translated open 2,000 flows a second between one address of the node and one endpoint.
/// When each kept its port for 30 seconds (`nf_conntrack_udp_timeout`), more than four fifths of the 64,512 ports were taken
/// towards the end, lying in runs of up to 1,100. The kernel looks at 128, 64, 32, 16 and 8 ports behind random ones
/// (`nf_nat_l4proto_unique_tuple`), takes the last of them if none is free, and drops the packet (`insert_failed`).
fn forgetful_stage(mode: Mode, family: Family) -> Option<Stage> {
    let stage = super::stage(mode, family)?;
    for timeout in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        let path = format!("net/netfilter/{timeout}");
        stage.lab.node("a").run(|| sysctl::set(&path, "5")).expect("conntrack is there and has its timeouts");
    }
    Some(stage)
}

fn hammer(stage: &Stage, client: &str, frontends: &[To]) -> Hammer {
    let address = |to: &To| to.address(&stage.lab, stage.family);
    let targets: Vec<(Protocol, SocketAddr)> =
        frontends.iter().flat_map(|to| TCP_AND_UDP.iter().map(|protocol| (*protocol, address(to)))).collect();
    Hammer::start(stage.lab.place(client), &targets).expect("a thread starts")
}

fn unharmed(stage: &Stage, who: &str, tally: &Tally) {
    let count = tally.failures.len();
    let first = tally.failures.first();
    assert!(
        count == 0,
        "{count} of {} connections from {who} failed: {first:?}\n{}",
        tally.successes,
        counted(stage, who)
    );
    assert!(tally.successes > 0, "{who} made no connection");
}

/// What the kernel has counted where a connection may be lost: at the client, at the node, and at an endpoint.
fn counted(stage: &Stage, who: &str) -> String {
    const COUNTERS: &str = "grep Udp /proc/net/snmp /proc/net/snmp6; conntrack -S; ip -s neigh | grep -v REACHABLE";
    let at = |name: &str| {
        let output = stage.lab.place(name).command("sh").args(["-c", COUNTERS]).output().expect("a shell runs");
        format!("{name}:\n{}", String::from_utf8_lossy(&output.stdout))
    };
    [who, "a", "a1"].map(at).concat()
}

/// Does something again and again while connections are opened without a pause.
fn under_fire(stage: &mut Stage, rounds: usize, mut change: impl FnMut(&mut Stage, usize)) {
    let hammers = [
        ("a2", hammer(stage, "a2", &[WEB])),
        ("a", hammer(stage, "a", &[WEB])),
        ("outside", hammer(stage, "outside", &[To::Place("a", NODE_PORT), To::External(1, PORT)])),
    ];
    for round in 0..rounds {
        change(stage, round);
        hammers.iter().for_each(|(_, hammer)| hammer.wait_for(BETWEEN));
    }
    for (who, hammer) in hammers {
        unharmed(stage, who, &hammer.stop());
    }
}

fn a_rolling_update_fails_no_connection(mode: Mode) {
    /// Each has an endpoint in common with the next, as a Deployment rolls.
    const ROLL: [&[&str]; 6] =
        [&["a1", "b1"], &["b1", "a3"], &["a3", "b2"], &["b2", "a1", "a3"], &["a1"], &["a1", "b2"]];
    const ROUNDS: usize = 60;
    for family in Family::BOTH {
        for service in [web_behind_balancer(), web_behind_balancer().external_local()] {
            let Some(mut stage) = forgetful_stage(mode, family) else { return };
            stage.apply(&with_ready(service.clone(), ROLL[0]), Stack::Single);
            under_fire(&mut stage, ROUNDS, |stage, round| {
                stage.apply(&with_ready(service.clone(), ROLL[round % ROLL.len()]), Stack::Single);
            });
        }
    }
}

fn a_pool_that_shrinks_to_one_fails_no_connection_on_its_way_through_the_rules(mode: Mode) {
    /// The moment is microseconds wide: without care about one of 10,000 connections meets it. No client is an endpoint
    /// here: one that is on its way to itself while it ceases to be one may still be cut off.
    const ROUNDS: usize = 1_500;
    /// IPVS chooses in one step, so there is no such moment to be met, and its kernel is often emulated.
    const ROUNDS_OF_IPVS: usize = 150;
    let rounds = if mode == Mode::Ipvs { ROUNDS_OF_IPVS } else { ROUNDS };
    for family in Family::BOTH {
        for service in [web_behind_balancer(), web_behind_balancer().sticky(60)] {
            let Some(mut stage) = forgetful_stage(mode, family) else { return };
            stage.apply(&with_ready(service.clone(), &["a1"]), Stack::Single);
            let hammers = ["a", "a3", "outside", "stranger"].map(|who| (who, hammer(&stage, who, &[WEB])));
            for round in 0..rounds {
                let endpoints: &[&str] = if round % 2 == 0 { &["a1", "a2", "b1", "b2"] } else { &["a1"] };
                stage.apply(&with_ready(service.clone(), endpoints), Stack::Single);
            }
            for (who, hammer) in hammers {
                unharmed(&stage, who, &hammer.stop());
            }
        }
    }
}

fn a_program_that_starts_again_over_a_full_kernel_fails_no_connection(mode: Mode) {
    const ROUNDS: usize = 40;
    for family in Family::BOTH {
        let Some(mut stage) = forgetful_stage(mode, family) else { return };
        stage.apply(&with_ready(web_behind_balancer(), &["a1", "b1"]), Stack::Single);
        under_fire(&mut stage, ROUNDS, |stage, _| stage.restart(programs::of(stage.mode)));
    }
}

fn other_services_come_and_go_without_failing_a_connection(mode: Mode) {
    const ROUNDS: usize = 60;
    for family in Family::BOTH {
        let Some(mut stage) = forgetful_stage(mode, family) else { return };
        let ours = || with_ready(web_behind_balancer(), &["a1", "b1"]);
        stage.apply(&ours(), Stack::Single);
        under_fire(&mut stage, ROUNDS, |stage, round| {
            let objects = (0..round % 5).fold(ours(), |objects, number| {
                let (name, host) = (format!("other-{number}"), 10 + u8::try_from(number).unwrap_or_default());
                let port = fairlead_lab::objects::Port::tcp(PORT);
                let service = fairlead_lab::objects::Service::new(&name).cluster_ip(host).port(port);
                let slice = fairlead_lab::objects::Slice::of(&name).ready(&["a1", "b1"]);
                objects.service(if number % 2 == 0 { service.sticky(60) } else { service }).slice(slice)
            });
            stage.apply(&objects, Stack::Single);
        });
    }
}

fn what_was_deleted_while_the_program_was_away_is_gone_when_it_is_back(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = super::stage(mode, family) else { return };
        stage.apply(&with_ready(web_behind_balancer(), &["a1", "b1"]), Stack::Single);
        stage.restart(programs::of(stage.mode));
        let moved = with_ready(web().cluster_ip(2), &["b1"]);
        stage.restart(programs::nothing());
        stage.apply(&moved, Stack::Single);
        stage.restart(programs::of(stage.mode));
        let scenario = Scenario::new("after the absence")
            .given(moved)
            .then(from("a2").to(To::Cluster(2, PORT)).reaches(&["b1"]))
            .then(from("a2").to(WEB).finds_silence())
            .then(from("outside").to(To::External(1, PORT)).finds_nobody(super::scenario::Untouched::Silence))
            .then(from("outside").to(To::Place("a", NODE_PORT)).finds_nobody(super::scenario::Untouched::Refused));
        let wrong = observe::run(&scenario, &mut stage);
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

fn rules_that_somebody_flushed_or_deleted_are_made_again(mode: Mode) {
    let checks = || {
        Scenario::new("repaired")
            .given(with_ready(web_behind_balancer(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .then(from("outside").to(To::Place("a", NODE_PORT)).reaches_masqueraded(&["a1", "b1"]))
            .then(from("a2").to(To::Cluster(1, 81)).finds_refusal())
            .then(from("a2").to(To::Cluster(77, PORT)).finds_silence())
    };
    for family in Family::BOTH {
        let Some(mut stage) = super::stage(mode, family) else { return };
        for harm in mode.harms(family) {
            stage.apply(&with_ready(web_behind_balancer(), &["a1", "b1"]), Stack::Single);
            let status = stage.lab.node("a").command("sh").args(["-c", &harm]).status().expect("a shell runs");
            assert!(status.success(), "{harm}");
            stage.restart(programs::of(stage.mode));
            let wrong = observe::run(&checks(), &mut stage);
            assert!(wrong.is_empty(), "after {harm}: {}", wrong.join("\n"));
        }
    }
}

fn an_empty_cluster_leaves_other_traffic_alone(mode: Mode) {
    for family in Family::BOTH {
        let Some(mut stage) = super::stage(mode, family) else { return };
        stage.apply(&Objects::new(), Stack::Single);
        for (client, to) in [("a2", "b1"), ("outside", "a"), ("b2", "a1"), ("a", "b1")] {
            let target = To::Place(to, 8080).address(&stage.lab, family);
            for protocol in TCP_AND_UDP {
                let outcome = fairlead_lab::probe(stage.lab.place(client), *protocol, target);
                let kept = matches!(&outcome, fairlead_lab::Outcome::Reached { endpoint, source }
                    if endpoint == to && source.ip() == stage.lab.place(client).addr(family));
                assert!(kept, "{protocol} from {client} to {to}: {outcome:?}");
            }
        }
    }
}

in_every_mode! {
    a_rolling_update_fails_no_connection
    a_pool_that_shrinks_to_one_fails_no_connection_on_its_way_through_the_rules
    a_program_that_starts_again_over_a_full_kernel_fails_no_connection
    other_services_come_and_go_without_failing_a_connection
    what_was_deleted_while_the_program_was_away_is_gone_when_it_is_back
    rules_that_somebody_flushed_or_deleted_are_made_again
    an_empty_cluster_leaves_other_traffic_alone
}
