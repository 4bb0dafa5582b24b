//! What every backend must obey, whatever the plan: with real packets on a real kernel.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::thread;
use std::time::Duration;

use fairlead::config::{self, Command, Host};
use fairlead::object::Event;
use fairlead::watch::{NodeScope, read_files};
use fairlead::world::World;
use fairlead_lab::objects::{Endpoint, Port, Range, Service, Slice};
use fairlead_lab::{
    Feature, Hammer, Kind, Lab, Options, PORTS, Place, Seen, Size, cluster_ip, external_ip, needs, probe_set,
};
use fairlead_plan::{Backend, Family, FrontendAddr, Packet, Plan, Protocol, Verdict};
use serde_json::Value;

use crate::packets::programs::Mode;
use crate::program::{Directory, run};
use holdings::{foreign, held, load_foreign, ruleset};

pub(crate) mod holdings;

const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];
const NODE_PORT: u16 = 30_080;
/// Where packets come from: a pod, an endpoint, the node, a pod of another node, a client outside.
const SOURCES: [&str; 5] = ["a2", "a1", "a", "b1", "outside"];
const SYNCS: usize = 100;
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(5);

fn lab(mode: Mode) -> Option<Lab> {
    let size = Size { nodes: &[("a", 3), ("b", 1)], clients: &["outside"] };
    needs(mode.needed()).then(|| Lab::of_size(&size).unwrap())
}

/// What the program would plan on node `a` for these objects.
fn plan(lab: &Lab, objects: &[Value]) -> Plan {
    let directory = Directory::new();
    let all = lab.cluster_manifests().into_iter().chain(objects.iter().cloned());
    let text: Vec<String> = all.map(|object| object.to_string()).collect();
    let file = directory.write("objects.yaml", &text.join("\n---\n"));
    let cidrs = format!("--cluster-cidr={}", fairlead_lab::POD_NETS.join(","));
    let words = ["fairlead", "render", "--hostname-override=a", &cidrs, "-f", file.to_str().unwrap()];
    let Ok(Command::Render(settings)) = config::parse(words, Host::read()) else { panic!("render is a command") };
    let mut world = World::new(settings.traffic.clone());
    for object in read_files(&settings.files, &NodeScope::Own(settings.traffic.node_name.clone())).unwrap() {
        world.apply(Event::Apply(Box::new(object)));
    }
    world.plan(&Plan::default()).plan
}

fn both(name: &str, host: u8) -> Service {
    Service::new(name).cluster_ip(host).port(Port::tcp(80).named("t")).port(Port::udp(80).named("u"))
}

fn slice(name: &str, pods: &[&str]) -> Slice {
    Slice::of(name).tcp("t", PORTS[0]).udp("u", PORTS[0]).ready(pods)
}

/// Plan `a`, and plan `b` in which every service is another one.
fn two_plans(lab: &Lab) -> (Plan, Plan) {
    let tcp_and_udp = |first: Port, second: Port| {
        Service::new("web")
            .cluster_ip(1)
            .external_ip(1)
            .port(first.named("t").node_port(NODE_PORT))
            .port(second.named("u").node_port(NODE_PORT))
            .port(Port::new(Protocol::Sctp, 80).named("s").node_port(NODE_PORT))
    };
    let web = tcp_and_udp(Port::tcp(80), Port::udp(80));
    let local = |pods: &[&str]| {
        [both("local", 2).load_balancer(2).external_local()]
            .into_iter()
            .map(|s| (s, slice("local", pods)))
            .next()
            .unwrap()
    };
    let with = |services: Vec<(Service, Slice)>| {
        let objects: Vec<Value> = services
            .iter()
            .flat_map(|(service, slice)| {
                let mut all = vec![service.manifest(lab, &Family::BOTH)];
                all.extend(slice.manifests(lab, &Family::BOTH));
                all
            })
            .collect();
        plan(lab, &objects)
    };
    let guarded = || both("guarded", 5).load_balancer(5).allow(Range::of("outside"));
    let a = with(vec![
        (web.clone(), slice("web", &["a1", "b1"]).port("s", Protocol::Sctp, PORTS[0])),
        local(&["b1"]),
        (both("inner", 3).internal_local(), slice("inner", &["a1", "b1"])),
        (both("empty", 4), slice("empty", &[])),
        (guarded(), slice("guarded", &["a1"])),
        (both("sticky", 6).sticky(600), slice("sticky", &["a1", "a3"])),
        (both("only-a", 7), slice("only-a", &["b1"])),
    ]);
    let leaving = slice("local", &["b1"]).endpoint(Endpoint::at("a3").terminating(true));
    let b = with(vec![
        (web, slice("web", &["b1", "a3", "a1"]).port("s", Protocol::Sctp, PORTS[0])),
        (local(&[]).0, leaving),
        (both("inner", 3).internal_local(), slice("inner", &["b1"])),
        (both("empty", 4), slice("empty", &["a1"])),
        (guarded().allow(Range::of("b1")), slice("guarded", &["b1"])),
        (both("sticky", 6), slice("sticky", &["a1", "a3"])),
        (both("only-b", 8), slice("only-b", &["a1"])),
    ]);
    (a, b)
}

/// The name of the place and port that an endpoint's address leads to.
fn name_of(lab: &Lab, endpoint: SocketAddr) -> String {
    let place = lab.places().iter().find(|place| place.addr(Family::of(endpoint.ip())) == endpoint.ip());
    place.unwrap_or_else(|| panic!("nobody has the address {endpoint}")).name().to_owned()
}

/// The packet as node `a` sees it first.
fn packet(lab: &Lab, from: &Place, protocol: Protocol, to: SocketAddr) -> Packet {
    let node = lab.node("a");
    let is_ours = |addr: IpAddr| node.all_addresses().iter().any(|addresses| addresses.contains(addr));
    let from_here = from.name() == node.name();
    let interface = match from.kind() {
        Kind::Pod { node } if node == "a" => "cni0",
        _ => "eth0",
    };
    Packet {
        protocol,
        source: from.addr(Family::of(to.ip())),
        destination: to,
        interface: (!from_here).then(|| interface.to_owned()),
        source_is_local: from_here,
        destination_is_local: is_ours(to.ip()),
    }
}

/// Everything that one of the plans has a frontend for, and an address and a port that nobody has. SCTP is programmed everywhere,
/// and spoken where the kernel has it.
fn destinations(lab: &Lab, plans: [&Plan; 2]) -> BTreeSet<(Protocol, SocketAddr)> {
    let mut all = BTreeSet::new();
    for service in plans.iter().flat_map(|plan| plan.services.iter()) {
        for frontend in &service.frontends {
            let to = match frontend.addr() {
                FrontendAddr::Addr(addr) => addr,
                FrontendAddr::NodePort(port) => SocketAddr::new(lab.node("a").addr(service.key.family), port),
            };
            all.insert((service.key.protocol, to));
        }
    }
    for family in Family::BOTH {
        for protocol in PROTOCOLS {
            all.insert((protocol, (cluster_ip(1).of(family), 81).into()));
            all.insert((protocol, (cluster_ip(99).of(family), 80).into()));
        }
    }
    if !Feature::Sctp.is_here() {
        all.retain(|(protocol, _)| *protocol != Protocol::Sctp);
    }
    all
}

/// Whether packets from a place to node `a`'s services pass node `a`, and not node `b`, which runs nothing.
fn passes_node(from: &str, to: SocketAddr) -> bool {
    let at_node_b = from == "b1";
    let is_external = Family::BOTH.iter().any(|family| (0..=255).any(|host| external_ip(host).of(*family) == to.ip()));
    let is_cluster = Family::BOTH.iter().any(|family| (0..=255).any(|host| cluster_ip(host).of(*family) == to.ip()));
    !(at_node_b && (is_external || is_cluster))
}

/// The kernel answers as [`Plan::decide`] says: for every frontend, from everywhere.
fn is_faithful(lab: &Lab, plan: &Plan, destinations: &BTreeSet<(Protocol, SocketAddr)>) {
    /// Probes that are answered, under way at a time; each is many connections.
    const ANSWERED: usize = 8;
    /// Probes that mostly wait: for silence, or for a refusal that shows when the client tries again.
    const UNANSWERED: usize = 96;
    let all = SOURCES.iter().flat_map(|from| destinations.iter().map(move |(protocol, to)| (*from, *protocol, *to)));
    let (answered, unanswered): (Vec<_>, Vec<_>) =
        all.filter(|(from, _, to)| passes_node(from, *to)).partition(|(from, protocol, to)| {
            matches!(plan.decide(&packet(lab, lab.place(from), *protocol, *to)), Verdict::Forward { .. })
        });
    thread::scope(|scope| {
        for (probes, at_once) in [(&answered, ANSWERED), (&unanswered, UNANSWERED)] {
            for first in 0..at_once {
                let mine = probes.iter().skip(first).step_by(at_once);
                let check =
                    move || mine.for_each(|(from, protocol, to)| agrees(lab, plan, lab.place(from), *protocol, *to));
                scope.spawn(check);
            }
        }
    });
}

fn agrees(lab: &Lab, plan: &Plan, from: &Place, protocol: Protocol, to: SocketAddr) {
    let packet = packet(lab, from, protocol, to);
    let options = Options { abort: true, ..Options::default() };
    // Where an answer is due, a packet that was lost on a busy machine may be sent again.
    let patient = || probe_set(from, protocol, to, &Options { patience: PATIENCE, ..options.clone() });
    let see = |connections| probe_set(from, protocol, to, &Options { connections, ..options.clone() });
    let what = format!("{protocol} from {} to {to}", from.name());
    match plan.decide(&packet) {
        Verdict::Forward { endpoints, masqueraded } => {
            let seen = patient();
            let wanted: BTreeSet<String> = endpoints.iter().map(|addr| name_of(lab, *addr)).collect();
            let sticky = plan.services.iter().any(|service| {
                service.affinity.is_some() && service.frontends.iter().any(|one| one.addr() == FrontendAddr::Addr(to))
            });
            let reached: BTreeSet<String> = seen.reached.keys().cloned().collect();
            let right = if sticky { reached.len() == 1 && reached.is_subset(&wanted) } else { reached == wanted };
            assert!(right && answered(&seen), "{what}: {seen:?} instead of {wanted:?}");
            for endpoint in endpoints {
                let Some(sources) = seen.reached.get(&name_of(lab, endpoint)) else { continue };
                let own = sources.iter().all(|source| *source == packet.source);
                let node =
                    sources.iter().all(|source| lab.node("a").all_addresses().iter().any(|a| a.contains(*source)));
                let right = if masqueraded.contains(&endpoint) { node } else { own };
                assert!(right, "{what}: {endpoint} saw {sources:?}");
            }
        }
        Verdict::Reject => {
            let seen = see(2);
            assert!(seen.refused == 2, "{what}: {seen:?} instead of refusals");
        }
        Verdict::Drop => {
            let seen = see(2);
            assert!(seen.silence == 2, "{what}: {seen:?} instead of silence");
        }
        Verdict::Pass => {}
    }
}

fn answered(seen: &Seen) -> bool {
    seen.refused == 0 && seen.silence == 0 && seen.failed.is_empty()
}

/// Runs a sync in node `a`.
fn sync(lab: &Lab, backend: &mut Box<dyn Backend>, was: Option<&Plan>, now: &Plan) -> fairlead_plan::Report {
    lab.node("a").run(|| backend.sync(was, now)).unwrap()
}

fn the_kernel_answers_as_the_plan_decides_and_forgets_the_plan_before(mode: Mode) {
    let Some(lab) = lab(mode) else { return };
    let (a, b) = two_plans(&lab);
    let everything = destinations(&lab, [&a, &b]);
    let mut backend = mode.backend();
    sync(&lab, &mut backend, None, &a);
    is_faithful(&lab, &a, &everything);
    sync(&lab, &mut backend, Some(&a), &b);
    is_faithful(&lab, &b, &everything);
}

fn the_same_plan_again_writes_nothing_and_every_way_to_a_plan_ends_the_same(mode: Mode) {
    let Some(lab) = lab(mode) else { return };
    let (a, b) = two_plans(&lab);
    let mut backend = mode.backend();
    sync(&lab, &mut backend, None, &b);
    let at_b = held(lab.node("a"), mode);
    sync(&lab, &mut backend, Some(&b), &a);
    let at_a = held(lab.node("a"), mode);
    assert_ne!(at_a, at_b);
    for was in [Some(&a), None] {
        assert_eq!(sync(&lab, &mut backend, was, &a).writes, 0);
        assert_eq!(sync(&lab, &mut mode.backend(), None, &a).writes, 0);
    }
    for was in [Some(&a), None] {
        sync(&lab, &mut backend, was, &b);
        assert_eq!(held(lab.node("a"), mode), at_b);
        sync(&lab, &mut backend, Some(&b), &a);
        assert_eq!(held(lab.node("a"), mode), at_a);
    }
    // Another process that knows nothing of this one.
    sync(&lab, &mut mode.backend(), None, &b);
    assert_eq!(held(lab.node("a"), mode), at_b);
}

/// Services whose connections are answered in both plans, from everywhere.
fn always_answered(lab: &Lab) -> Vec<(Protocol, SocketAddr)> {
    let mut all = Vec::new();
    for family in Family::BOTH {
        let node = lab.node("a").addr(family);
        let frontends = [
            (cluster_ip(1).of(family), 80),
            (external_ip(1).of(family), 80),
            (node, NODE_PORT),
            (cluster_ip(6).of(family), 80),
        ];
        all.extend(frontends.into_iter().flat_map(|to| PROTOCOLS.map(|protocol| (protocol, to.into()))));
    }
    all
}

fn no_connection_is_refused_or_unanswered_during_a_hundred_syncs_between_two_plans(mode: Mode) {
    let Some(lab) = lab(mode) else { return };
    let (a, b) = two_plans(&lab);
    let mut backend = mode.backend();
    sync(&lab, &mut backend, None, &a);
    let targets = always_answered(&lab);
    let hammers = ["a2", "a", "outside"].map(|from| Hammer::start(lab.place(from), &targets).unwrap());
    let (mut was, mut now) = (&a, &b);
    for round in 0..SYNCS {
        // Every now and then as after a doubt, and as after a restart.
        match round % 10 {
            8 => sync(&lab, &mut backend, None, now),
            9 => {
                backend = mode.backend();
                sync(&lab, &mut backend, None, now)
            }
            _ => sync(&lab, &mut backend, Some(was), now),
        };
        (was, now) = (now, was);
        for hammer in &hammers {
            hammer.wait_for(10);
        }
    }
    for hammer in hammers {
        let tally = hammer.stop();
        assert!(tally.failures.is_empty(), "{} of {}: {:#?}", tally.failures.len(), tally.successes, tally.failures);
        let known = BTreeSet::from(["a1", "a3", "b1"]);
        assert!(tally.endpoints.keys().all(|name| known.contains(name.as_str())), "{:?}", tally.endpoints);
    }
}

fn what_others_made_stays_byte_for_byte_and_after_cleanup_nothing_of_ours_is_left(mode: Mode) {
    let Some(lab) = lab(mode) else { return };
    let node = lab.node("a");
    load_foreign(node, mode);
    let (before, all) = (foreign(node, mode), ruleset(node, mode));
    let links = node.ip("-o -4 address").unwrap();
    let (a, b) = two_plans(&lab);
    let mut backend = mode.backend();
    sync(&lab, &mut backend, None, &a);
    assert_eq!(foreign(node, mode), before);
    for _ in 0..5 {
        sync(&lab, &mut backend, Some(&a), &b);
        sync(&lab, &mut backend, None, &a);
        assert_eq!(foreign(node, mode), before);
    }
    for _ in 0..2 {
        let output = run(node, &["cleanup"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(ruleset(node, mode), all);
        assert_eq!(node.ip("-o -4 address").unwrap(), links);
    }
}

/// A table that can only be replaced as a whole is read with every write, so damage is repaired and nothing fails.
fn after_a_failed_write_the_next_sync_from_nothing_is_faithful(mode: Mode) {
    let Some(lab) = lab(mode) else { return };
    let (a, b) = two_plans(&lab);
    let mut backend = mode.backend();
    for family in Family::BOTH {
        sync(&lab, &mut backend, None, &a);
        let harm = mode.removal(family);
        let status = lab.node("a").command("sh").args(["-c", &harm]).status().unwrap();
        assert!(status.success(), "{harm}");
        let mut result = lab.node("a").run(|| backend.sync(Some(&a), &b));
        if mode != Mode::IptablesLegacy {
            assert!(result.is_err(), "something went where nothing is: {result:?}");
            result = lab.node("a").run(|| backend.sync(None, &b));
        }
        let table = mode.table(family);
        assert!(
            result.as_ref().is_ok_and(|report| report.repaired.iter().any(|one| one.contains(table))),
            "{result:?}"
        );
    }
    is_faithful(&lab, &b, &destinations(&lab, [&a, &b]));
}

macro_rules! laws_of {
    ($module:ident, $mode:ident, $($law:ident)*) => {
        mod $module {
            use super::Mode;
            $(#[test] fn $law() { super::$law(Mode::$mode); })*
        }
    };
}

macro_rules! laws {
    ($($law:ident)*) => {
        laws_of! { nft, Nft, $($law)* }
        laws_of! { iptables_legacy, IptablesLegacy, $($law)* }
        laws_of! { iptables_nft, IptablesNft, $($law)* }
        laws_of! { ipvs, Ipvs, $($law)* }
    };
}

laws! {
    the_kernel_answers_as_the_plan_decides_and_forgets_the_plan_before
    the_same_plan_again_writes_nothing_and_every_way_to_a_plan_ends_the_same
    no_connection_is_refused_or_unanswered_during_a_hundred_syncs_between_two_plans
    what_others_made_stays_byte_for_byte_and_after_cleanup_nothing_of_ours_is_left
    after_a_failed_write_the_next_sync_from_nothing_is_faithful
}
