//! Carries out scenarios: what the plan says and what packets meet must both be what the table says.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::LazyLock;
use std::thread;
use std::time::Duration;

use fairlead_lab::{CONNECTIONS, Feature, Kind, Lab, Options, Place, SILENCE, Seen, external_ip, probe_set};
use fairlead_plan::{Family, Packet, Plan, Protocol, Verdict};

use super::explain::{self, Explainer};
use super::scenario::{Check, Expect, Scenario, Source, Untouched, endpoint_address, place_of};
use super::stage::Stage;

/// How long an answer that is due may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Refusal and silence need no choice of endpoints to be seen.
const FEW_CONNECTIONS: usize = 4;

/// What needs no fragments.
const ONE_FRAME: usize = 1_200;

/// Runs a scenario and returns what was wrong, one line each.
pub fn run(scenario: &Scenario, stage: &mut Stage) -> Vec<String> {
    let vip = scenario.vip_on_node.map(|host| external_ip(host).of(stage.family));
    let lifetime = if stage.family == Family::V6 { "nodad preferred_lft 0" } else { "" };
    if let Some(vip) = vip {
        stage.lab.node("a").ip(&format!("address add {vip} dev lo {lifetime}")).expect("the node takes an address");
    }
    stage.begin(scenario.settings);
    let mut wrong = Vec::new();
    for (number, step) in (1..).zip(&scenario.steps) {
        let planned = stage.apply(&step.objects, scenario.stack);
        if let Some(local) = step.health {
            let told: Vec<_> = planned.health_checks.values().map(|check| check.local_ready).collect();
            if told != [local] {
                wrong.push(format!("step {number}: health checks tell {told:?}, not [{local}]"));
            }
        }
        let found = check_all(stage, &planned.plan, &step.checks, vip);
        wrong.extend(found.into_iter().map(|line| format!("step {number}: {line}")));
    }
    if let Some(vip) = vip {
        stage.lab.node("a").ip(&format!("address del {vip} dev lo")).expect("the node has the address");
    }
    wrong
}

/// All checks at once, so that silence is waited for once.
fn check_all(stage: &Stage, plan: &Plan, checks: &[Check], vip: Option<IpAddr>) -> Vec<String> {
    let (lab, family) = (&stage.lab, stage.family);
    let tunnelled = stage.has_tunnels();
    // As packets find it: they would leave traces behind.
    let explainer = &Explainer::new(stage, plan);
    thread::scope(|scope| {
        let each = checks.iter().flat_map(|check| check.protocols.iter().map(move |protocol| (check, *protocol)));
        let threads: Vec<_> = each
            .map(|(check, protocol)| {
                scope.spawn(move || {
                    let packet = packet(lab, family, check, protocol, vip);
                    let explainer = explainer.as_ref().map_err(|error| format!("{error:#}"));
                    let explained = explainer.and_then(|explainer| explainer.explain(&packet));
                    let decided = decided(lab, family, plan, check, &packet);
                    let can_send = protocol != Protocol::Sctp || sctp_is_here();
                    let seen = can_send.then(|| sent(lab, check, &packet));
                    let observed = seen.as_ref().and_then(|seen| observed(lab, tunnelled, check, &packet, seen));
                    let explained = match explained {
                        Ok(explained) => explain::disagrees(lab, tunnelled, check, &explained, seen.as_ref()),
                        Err(error) => Some(format!("it cannot be explained: {error}")),
                    };
                    let wrong = [decided, observed, explained].into_iter().flatten();
                    wrong.map(|said| format!("{protocol} {check}: {said}")).collect()
                })
            })
            .collect();
        threads.into_iter().flat_map(|thread| -> Vec<String> { thread.join().expect("a probe ends") }).collect()
    })
}

fn sctp_is_here() -> bool {
    static HERE: LazyLock<bool> = LazyLock::new(|| Feature::Sctp.is_here());
    *HERE
}

fn packet(lab: &Lab, family: Family, check: &Check, protocol: Protocol, vip: Option<IpAddr>) -> Packet {
    let (source, destination) = (check.source(lab, family), check.to.address(lab, family));
    let interface = match lab.place(check.from).kind() {
        Kind::Node { number: 1, .. } => None,
        Kind::Pod { node } if node == "a" => Some("cni0".to_owned()),
        Kind::Node { .. } | Kind::Pod { .. } | Kind::Client => Some("eth0".to_owned()),
    };
    let is_local = |addr: IpAddr| addr.is_loopback() || Some(addr) == vip || is_address_of(lab.node("a"), addr);
    Packet {
        protocol,
        source,
        destination,
        interface,
        source_is_local: is_local(source),
        destination_is_local: is_local(destination.ip()),
    }
}

pub(super) fn is_address_of(place: &Place, addr: IpAddr) -> bool {
    place.all_addresses().iter().any(|addresses| addresses.contains(addr))
}

/// What is wrong with what the plan says.
fn decided(lab: &Lab, family: Family, plan: &Plan, check: &Check, packet: &Packet) -> Option<String> {
    let expected = match &check.expect {
        Expect::Reaches(names, source) => {
            let addresses = |wanted: &dyn Fn(&str) -> bool| {
                let chosen = names.iter().filter(|name| wanted(name));
                chosen.map(|name| endpoint_address(lab, family, name)).collect::<BTreeSet<_>>()
            };
            let masqueraded = addresses(&|name| is_masqueraded(check, *source, name));
            Verdict::Forward { endpoints: addresses(&|_| true), masqueraded }
        }
        Expect::Refused => Verdict::Reject,
        Expect::Silence => Verdict::Drop,
        Expect::Ignored(_) => Verdict::Pass,
    };
    let verdict = plan.decide(packet);
    (verdict != expected).then(|| format!("the plan says {verdict:?}"))
}

/// Whether an endpoint sees node `a` instead of the client.
fn is_masqueraded(check: &Check, source: Source, endpoint: &str) -> bool {
    match source {
        Source::Kept => false,
        Source::Masqueraded => true,
        Source::KeptExceptSelf => place_of(endpoint) == check.from,
    }
}

/// How packets are sent.
fn options(check: &Check, family: Family) -> Options {
    let reaches = matches!(check.expect, Expect::Reaches(..));
    // Where an answer is due, a slow machine is no reason to call it silence.
    let silent = matches!(check.expect, Expect::Silence | Expect::Ignored(Untouched::Silence));
    let patience = if silent { SILENCE } else { PATIENCE };
    Options {
        patience,
        bind: check.bind.map(|bind| bind.of(family)),
        payload: check.payload,
        connections: if reaches { CONNECTIONS } else { FEW_CONNECTIONS },
        at_once: if check.payload > ONE_FRAME { 2 } else { CONNECTIONS },
        ..Options::default()
    }
}

/// What packets meet.
fn sent(lab: &Lab, check: &Check, packet: &Packet) -> Seen {
    let options = options(check, Family::of(packet.source));
    probe_set(lab.place(check.from), packet.protocol, packet.destination, &options)
}

/// What is wrong with what packets meet.
fn observed(lab: &Lab, tunnelled: bool, check: &Check, packet: &Packet, seen: &Seen) -> Option<String> {
    let all = options(check, Family::of(packet.source)).connections;
    let right = match &check.expect {
        Expect::Reaches(names, source) => {
            let others = seen.refused + seen.silence + seen.failed.len();
            others == 0
                && seen.endpoints() == names.iter().copied().collect()
                && seen.reached.iter().all(|(endpoint, sources)| {
                    let leaves_pods = tunnelled && from_pod_to_other_node(lab, check, endpoint);
                    let masqueraded = leaves_pods || is_masqueraded(check, *source, endpoint);
                    sources.iter().all(|saw| {
                        if masqueraded {
                            is_masquerade(lab, tunnelled, packet.source, endpoint, *saw)
                        } else {
                            *saw == packet.source
                        }
                    })
                })
        }
        // An ICMP message is all that rejects SCTP, and its sockets go on regardless.
        Expect::Refused if packet.protocol == Protocol::Sctp => *seen == Seen { silence: all, ..Seen::default() },
        Expect::Refused | Expect::Ignored(Untouched::Refused) => *seen == Seen { refused: all, ..Seen::default() },
        Expect::Silence | Expect::Ignored(Untouched::Silence) => *seen == Seen { silence: all, ..Seen::default() },
    };
    (!right).then(|| format!("the packets met {seen:?}"))
}

/// Whether this is the source that masquerade gives: the address of node `a` on the link that leads to the endpoint.
pub(super) fn is_masquerade(lab: &Lab, tunnelled: bool, client: IpAddr, endpoint: &str, saw: IpAddr) -> bool {
    let (node, family) = (lab.node("a"), Family::of(saw));
    let Kind::Node { gateway, .. } = node.kind() else { return false };
    match lab.place(place_of(endpoint)).kind() {
        Kind::Pod { node } if node == "a" => saw == gateway.of(family),
        // What is delivered to the node itself passes no postrouting, so its source stays, and the answer comes from here
        // anyway. Towards itself a node may use any of its addresses.
        Kind::Node { number: 1, .. } => saw == client || saw.is_loopback() || is_address_of(node, saw),
        Kind::Pod { .. } if tunnelled => node.pod_bases().iter().any(|base| *base == saw.to_string()),
        Kind::Node { .. } | Kind::Pod { .. } | Kind::Client => saw == node.addr(family),
    }
}

/// Whether a pod of node `a` reaches another node itself, which is outside of the tunnels.
pub(super) fn from_pod_to_other_node(lab: &Lab, check: &Check, endpoint: &str) -> bool {
    let to = lab.place(place_of(endpoint)).kind();
    matches!(lab.place(check.from).kind(), Kind::Pod { .. }) && matches!(to, Kind::Node { number: 2.., .. })
}
