//! UDP clients that keep their source port: what connection tracking remembers must follow the plan.
#![expect(clippy::disallowed_methods, reason = "one test is an endpoint itself")]

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Conversation, Feature, Options, Outcome, cluster_ip, external_ip, needs};
use fairlead_plan::{Family, Protocol};

use super::can_run;
use crate::program::{Cluster, eventually};

const NODE_PORT: u16 = 30_053;
const CLIENTS: [&str; 3] = ["a2", "a", "outside"];

/// UDP only: on ClusterIP 5, external IP 5 and a node port.
fn service() -> Service {
    Service::new("dns").cluster_ip(5).external_ip(5).port(Port::udp(53).named("u").node_port(NODE_PORT))
}

fn slice(port: u16, pods: &[&str]) -> Slice {
    Slice::of("dns").udp("u", port).ready(pods)
}

fn frontends(cluster: &Cluster, family: Family) -> [SocketAddr; 3] {
    let node = cluster.node().addr(family);
    [(cluster_ip(5).of(family), 53).into(), (external_ip(5).of(family), 53).into(), (node, NODE_PORT).into()]
}

/// A socket for each client, family and frontend, with a name.
struct Clients(BTreeMap<String, Conversation>);

impl Clients {
    fn new(cluster: &Cluster) -> Self {
        let options = Options { patience: Duration::from_millis(250), ..Options::default() };
        let mut all = BTreeMap::new();
        for from in CLIENTS {
            for to in Family::BOTH.into_iter().flat_map(|family| frontends(cluster, family)) {
                let socket = Conversation::open(cluster.lab.place(from), Protocol::Udp, to, &options).unwrap();
                all.insert(format!("{from} to {to}"), socket);
            }
        }
        Self(all)
    }

    /// Every client goes on sending until each is answered by this endpoint alone.
    fn until_answered_by(&mut self, endpoint: &str, why: &str) {
        for (name, socket) in &mut self.0 {
            let what = format!("{name} is answered by {endpoint} after {why}");
            eventually(&what, || answer(socket) == endpoint);
            for _ in 0..3 {
                assert_eq!(answer(socket), endpoint, "{what} and stays there");
            }
        }
    }

    /// Every client goes on sending until none is answered.
    fn until_unanswered(&mut self, why: &str) {
        for (name, socket) in &mut self.0 {
            eventually(&format!("{name} is not answered after {why}"), || {
                ["refused", "silence"].contains(&answer(socket).as_str())
            });
        }
    }
}

fn answer(socket: &mut Conversation) -> String {
    match socket.ask() {
        Outcome::Reached { endpoint, .. } => endpoint,
        Outcome::Refused => "refused".to_owned(),
        Outcome::Silence => "silence".to_owned(),
        Outcome::Failed(what) => what,
    }
}

/// The ids of all UDP flows to the service, by their addresses.
fn flow_ids(cluster: &Cluster) -> BTreeMap<String, String> {
    let mut ids = BTreeMap::new();
    for family in ["ipv4", "ipv6"] {
        let output =
            cluster.node().command("conntrack").args(["-L", "-p", "udp", "-o", "id", "-f", family]).output().unwrap();
        for line in String::from_utf8(output.stdout).unwrap().lines() {
            let words = || line.split_whitespace();
            let part = |name: &str| words().find_map(|word| word.strip_prefix(name)).unwrap_or_default().to_owned();
            if ["53", &NODE_PORT.to_string()].contains(&part("dport=").as_str()) {
                ids.insert(format!("{} {} {}", part("src="), part("dst="), part("sport=")), part("id="));
            }
        }
    }
    ids
}

#[test]
fn a_udp_client_that_keeps_its_port_follows_every_change_of_the_service() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.apply([service().manifest(&cluster.lab, &Family::BOTH)]);
    cluster.put_slice(&slice(8080, &["a1"]));
    let program = cluster.start();
    let mut clients = Clients::new(&cluster);
    clients.until_answered_by("a1", "the start");

    cluster.put_slice(&slice(8080, &["b1"]));
    clients.until_answered_by("b1", "the endpoint was replaced");

    cluster.put_slice(&slice(8081, &["b1"]));
    clients.until_answered_by("b1:8081", "the target port has changed");

    cluster.put_slice(&slice(8080, &[]));
    clients.until_unanswered("the service has lost its last endpoint");
    cluster.put_slice(&slice(8080, &["a3"]));
    clients.until_answered_by("a3", "the service has an endpoint again");

    cluster.forget_slices("dns");
    clients.until_unanswered("the slices were deleted");
    cluster.put_slice(&slice(8080, &["a1"]));
    clients.until_answered_by("a1", "the slices were made again");

    cluster.forget("dns");
    clients.until_unanswered("the service was deleted");
    let heir = Service::new("heir").cluster_ip(5).external_ip(5).port(Port::udp(53).named("u").node_port(NODE_PORT));
    cluster.apply([heir.manifest(&cluster.lab, &Family::BOTH)]);
    cluster.put_slice(&Slice::of("heir").udp("u", 8080).ready(&["b1"]));
    clients.until_answered_by("b1", "another service has the addresses");

    // Deleted and replaced while nobody was there to see it.
    drop(program);
    cluster.server.delete("Service", "default", "heir").unwrap();
    cluster.apply([service().manifest(&cluster.lab, &Family::BOTH)]);
    cluster.put_slice(&slice(8082, &["a3"]));
    let _again = cluster.start();
    clients.until_answered_by("a3:8082", "a change while the program was down");
}

#[test]
fn flows_that_are_still_right_keep_their_entries() {
    if !can_run() || !needs(&[Feature::Conntrack]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.apply([service().manifest(&cluster.lab, &Family::BOTH)]);
    cluster.put_slice(&slice(8080, &["a1"]));
    let program = cluster.start();
    let mut clients = Clients::new(&cluster);
    clients.until_answered_by("a1", "the start");
    let before = flow_ids(&cluster);
    assert_eq!(before.len(), CLIENTS.len() * 3 * 2, "{before:?}");

    let deleted = || program.metric("kubeproxy_conntrack_reconciler_deleted_entries_total", "");
    let at_start = deleted();
    // One more endpoint, one that is leaving, and another service that comes and goes.
    cluster.put_slice(&slice(8080, &["a1", "b1"]));
    let leaving = fairlead_lab::objects::Endpoint::at("a1").terminating(true);
    cluster.put_slice(&slice(8080, &["b1"]).endpoint(leaving));
    cluster.serve("web", 1, &["a3"]);
    super::until_answered_by(cluster.lab.place("a3"), 1, &["a3"]);
    cluster.forget("web");
    cluster.serve("late", 2, &["a3"]);
    super::until_answered_by(cluster.lab.place("a3"), 2, &["a3"]);
    clients.until_answered_by("a1", "changes elsewhere");
    program.kill();
    let again = cluster.start();
    eventually("the start has looked at all flows", || {
        again.metric("kubeproxy_conntrack_reconciler_sync_duration_seconds_count", "IPv6") > 0.0
    });
    clients.until_answered_by("a1", "a restart");
    let after = flow_ids(&cluster);
    for (flow, id) in &before {
        assert_eq!(after.get(flow), Some(id), "the entry of {flow} was replaced");
    }
    assert_eq!(at_start, 0.0);
}

#[test]
fn a_udp_client_follows_policy_local_through_an_endpoint_that_is_replaced() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.apply([service().internal_local().external_local().manifest(&cluster.lab, &Family::BOTH)]);
    cluster.put_slice(&slice(8080, &["a1", "b1"]));
    let _program = cluster.start();
    let options = Options { patience: Duration::from_millis(250), ..Options::default() };
    for family in Family::BOTH {
        for (from, to) in [("a2", 0), ("a", 0), ("outside", 1), ("outside", 2)] {
            cluster.put_slice(&slice(8080, &["a1", "b1"]));
            let to = frontends(&cluster, family)[to];
            let mut socket = Conversation::open(cluster.lab.place(from), Protocol::Udp, to, &options).unwrap();
            eventually("the local endpoint answers", || answer(&mut socket) == "a1");
            cluster.put_slice(&slice(8080, &["a3", "b1"]));
            eventually(&format!("{from} to {to} follows"), || answer(&mut socket) == "a3");
        }
    }
}

#[test]
fn an_answer_that_is_on_its_way_when_its_endpoint_leaves_arrives() {
    if !can_run() || !needs(&[Feature::Conntrack]) {
        return;
    }
    /// An endpoint of this test's own, which answers when it is told.
    const SLOW: u16 = 8099;
    /// So long after the change the program has looked at all flows, unless the machine is very busy.
    const LOOKED: Duration = Duration::from_millis(60);
    /// The program waits a tenth of a second for answers. On a busy machine this test may be late, but not every time.
    const TRIES: usize = 8;
    let cluster = Cluster::new();
    cluster.apply([service().manifest(&cluster.lab, &Family::BOTH)]);
    let _program = cluster.start();
    for family in Family::BOTH {
        let serve = SocketAddr::new(cluster.lab.place("a1").addr(family), SLOW);
        let server = cluster.lab.place("a1").run(|| UdpSocket::bind(serve)).unwrap();
        server.set_read_timeout(Some(PATIENCE)).unwrap();
        let client = |patience: Duration| {
            let client = cluster.lab.place("a2").run(|| UdpSocket::bind(any(family))).unwrap();
            client.set_read_timeout(Some(patience)).unwrap();
            client.connect(frontends(&cluster, family)[0]).unwrap();
            client
        };
        let arrives = || {
            let mut first = client(PATIENCE);
            cluster.put_slice(&slice(SLOW, &["a1"]));
            eventually("a question reaches the endpoint", || {
                first = client(PATIENCE);
                let _refused = first.send(QUESTION);
                let who = first.local_addr().unwrap();
                std::iter::from_fn(|| receive(&server)).any(|(_, from)| from == who)
            });
            cluster.put_slice(&slice(8080, &["b1"]));
            eventually("the rules lead to the new endpoint", || is_answered(&client(GLANCE)));
            std::thread::sleep(LOOKED);
            server.send_to(ANSWER, first.local_addr().unwrap()).unwrap();
            let answered = receive(&first).is_some_and(|(text, _)| text == ANSWER);
            eventually("the next question goes to the new endpoint", || is_answered(&first));
            answered
        };
        assert!((0..TRIES).any(|_| arrives()), "{family:?}: none of {TRIES} answers under way arrived");
    }
}

const QUESTION: &[u8] = b"question";
const ANSWER: &[u8] = b"the answer of the endpoint that has left";
const PATIENCE: Duration = Duration::from_millis(200);
const GLANCE: Duration = Duration::from_millis(10);

fn receive(socket: &UdpSocket) -> Option<(Vec<u8>, SocketAddr)> {
    let mut buffer = [0; 512];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((buffer[..length].to_vec(), from))
}

/// Asks once more; whether an endpoint of the lab answers.
fn is_answered(client: &UdpSocket) -> bool {
    client.send(QUESTION).is_ok() && receive(client).is_some_and(|(text, _)| text != ANSWER)
}

fn any(family: Family) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::UNSPECIFIED, 0).into(),
        Family::V6 => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}
