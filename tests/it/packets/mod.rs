//! Services as real packets: each table of scenarios on a real kernel, and by `Plan::decide`, in both families.
//!
//! The scenarios follow what users of kube-proxy rely on, one sentence each. Node `a` runs fairlead, node `b` is another
//! node; pods `a1`, `a2`, `a3` are local, `b1` and `b2` remote; `outside` and `stranger` are clients that are not of the
//! cluster. Where nothing else is said, a check is made with TCP and with UDP.
//!
//! SCTP is always decided and programmed; its packets need a kernel that has it, as the one of `cargo vm`.
//!
//! Whatever is sent is explained as well, from what the kernel holds ([`explain`]): the answer of `fairlead explain` must agree with
//! what the packets met.
//!
//! What is not here: what the health and metrics servers answer over HTTP, which has tests of its own.

mod affinity;
mod cluster_ip;
mod endpoints;
mod explain;
mod external;
mod flows;
mod node_port;
mod observe;
pub(crate) mod programs;
mod robust;
mod scenario;
mod stack;
mod stage;
mod topology;
mod tunnels;
mod web;

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use fairlead_lab::{Feature, needs};
use fairlead_plan::Family;

use programs::{Mode, in_every_mode};
use scenario::Scenario;
use stage::Stage;

/// Labs that work off one table side by side: most of the time is spent waiting for silence.
const LABS: usize = 3;

/// A stage; `None` if the machine cannot hold one, which was said.
fn stage(mode: Mode, family: Family) -> Option<Stage> {
    needs(mode.needed()).then(|| Stage::new(mode, family))
}

/// Runs a table, all of it even if something is wrong.
fn table(mode: Mode, family: Family, scenarios: &[Scenario]) {
    if needs(mode.needed()) {
        work_off(scenarios, &|| Stage::new(mode, family));
    }
}

fn work_off(scenarios: &[Scenario], new_stage: &(impl Fn() -> Stage + Sync)) {
    let next = AtomicUsize::new(0);
    let failures = Mutex::new(Vec::new());
    let work = || {
        let mut stage = new_stage();
        while let Some(scenario) = scenarios.get(next.fetch_add(1, Ordering::Relaxed)) {
            let wrong = observe::run(scenario, &mut stage);
            if !wrong.is_empty() {
                let mut failures = failures.lock().expect("nobody panics while holding it");
                if failures.is_empty() {
                    eprintln!(
                        "{}\nThe first scenario that failed left this behind:\n{}",
                        scenario.sentence,
                        stage.lab.state()
                    );
                }
                failures.push(format!("{}:\n  {}", scenario.sentence, wrong.join("\n  ")));
            }
        }
    };
    thread::scope(|scope| (0..LABS).for_each(|_| drop(scope.spawn(work))));
    let failures = failures.into_inner().expect("nobody panics while holding it");
    let count = scenarios.len();
    assert!(failures.is_empty(), "{} of {count} scenarios failed:\n{}", failures.len(), failures.join("\n"));
}

/// All scenarios in which somebody speaks SCTP.
fn with_sctp() -> Vec<Scenario> {
    let all = [cluster_ip::scenarios(), node_port::scenarios(), external::scenarios(), stack::scenarios()];
    all.into_iter().flatten().filter(Scenario::speaks_sctp).collect()
}

/// The other tables pass over the packets of SCTP where the kernel has none; these say that they cannot run.
fn services_carry_sctp_associations(mode: Mode) {
    if needs(&[Feature::Sctp]) {
        Family::BOTH.into_iter().for_each(|family| table(mode, family, &with_sctp()));
    }
}

#[test]
fn sctp_is_spoken_in_the_scenarios_that_are_chosen_for_it() {
    let sentences: Vec<_> = with_sctp().iter().map(|scenario| scenario.sentence).collect();
    assert_eq!(
        sentences,
        [
            "TCP, UDP and SCTP of one port number have endpoints of their own",
            "SCTP is programmed like the others, whether or not the kernel has SCTP sockets"
        ]
    );
}

in_every_mode! {
    services_carry_sctp_associations
}

/// The tables again, with endpoints of node `b` behind a tunnel.
fn over_tunnels(family: Family) {
    if needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan]) {
        work_off(&tunnels::scenarios(), &|| Stage::over_tunnels(family));
    }
}

#[test]
fn every_scenario_has_the_same_outcome_over_tunnels_in_ipv4() {
    over_tunnels(Family::V4);
}

#[test]
fn every_scenario_has_the_same_outcome_over_tunnels_in_ipv6() {
    over_tunnels(Family::V6);
}

#[test]
fn what_is_not_repeated_over_tunnels_is_in_the_tables() {
    let without = tunnels::scenarios().len();
    let all = [cluster_ip::scenarios(), node_port::scenarios(), external::scenarios(), stack::scenarios()];
    let all: Vec<_> = all.into_iter().flatten().collect();
    let others = cluster_ip::unanswered().len() + endpoints::scenarios().len() + topology::scenarios().len();
    assert_eq!(without + tunnels::NOT_REMOTE.len(), all.len() + others);
}

macro_rules! one_of_both {
    ($module:ident, $mode:ident, $family:ident, $($name:ident: $scenarios:expr;)*) => {
        mod $module {
            use super::programs::Mode;
            use fairlead_plan::Family;
            $(#[test] fn $name() { super::table(Mode::$mode, Family::$family, &$scenarios); })*
        }
    };
}

macro_rules! both_families {
    ($($name:ident: $scenarios:expr;)*) => {
        one_of_both! { ipv4, Nft, V4, $($name: $scenarios;)* }
        one_of_both! { ipv6, Nft, V6, $($name: $scenarios;)* }
        one_of_both! { iptables_legacy_ipv4, IptablesLegacy, V4, $($name: $scenarios;)* }
        one_of_both! { iptables_legacy_ipv6, IptablesLegacy, V6, $($name: $scenarios;)* }
        one_of_both! { iptables_nft_ipv4, IptablesNft, V4, $($name: $scenarios;)* }
        one_of_both! { iptables_nft_ipv6, IptablesNft, V6, $($name: $scenarios;)* }
        one_of_both! { ipvs_ipv4, Ipvs, V4, $($name: $scenarios;)* }
        one_of_both! { ipvs_ipv6, Ipvs, V6, $($name: $scenarios;)* }
    };
}

both_families! {
    cluster_ips_lead_where_policy_and_origin_say: super::cluster_ip::scenarios();
    cluster_ips_without_an_answer_refuse_or_stay_silent: super::cluster_ip::unanswered();
    node_ports_answer_on_the_addresses_they_should: super::node_port::scenarios();
    external_addresses_follow_policy_and_ranges: super::external::scenarios();
    endpoints_are_used_as_their_conditions_say: super::endpoints::scenarios();
    hints_keep_traffic_near: super::topology::scenarios();
    families_and_service_networks_come_and_go: super::stack::scenarios();
}
