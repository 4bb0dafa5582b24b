//! The running program, asked over its socket: `fairlead explain`, `services` and `status`.
#![expect(clippy::disallowed_methods, reason = "a test puts files where a socket should be")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::{Output, Stdio};

use fairlead_lab::cluster_ip;
use fairlead_plan::Family;
use serde_json::Value;

use crate::faults::{PORT, can_run, until_answered_by};
use crate::program::{self, Cluster, Program};

/// A cluster with the Service `web`, and the program on node `a` with a socket.
struct Running {
    // Goes first: its log is in the cluster's directory.
    program: Program,
    cluster: Cluster,
    socket: String,
}

impl Running {
    fn start() -> Self {
        let cluster = Cluster::new();
        cluster.serve("web", 1, &["a1", "b1"]);
        let socket = format!("--socket={}", cluster.directory.path().join("run").join("socket").display());
        let program = cluster.launch(&[&socket]);
        program.wait_until_ready();
        // A bridge that has just been made leads nowhere in IPv6 for a moment.
        until_answered_by(cluster.lab.place("a3"), 1, &["a1", "b1"]);
        Self { program, cluster, socket }
    }

    fn run(&self, args: &[&str]) -> Output {
        let args: Vec<&str> = args.iter().copied().chain([self.socket.as_str()]).collect();
        program::run(self.cluster.node(), &args)
    }

    fn json(&self, args: &[&str]) -> Value {
        let output = self.run(&[args, &["--json"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn text(&self, args: &[&str]) -> String {
        let output = self.run(args);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }
}

#[test]
fn explain_tells_rules_endpoints_ways_and_the_plan() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    for family in Family::BOTH {
        let from = running.cluster.lab.place("a1").addr(family);
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        let (from_text, to_text) = (from.to_string(), format!("{to}/udp"));
        let all = running.json(&["explain", &from_text, &to_text]);
        let one = &all[0];
        assert_eq!(one["plan"]["service"], "default/web:u", "{all:#}");
        assert_eq!((&one["plan"]["origin"], &one["packet"]["interface"]), (&"Pod".into(), &"cni0".into()));
        assert_eq!(one["rules"]["verdict"], one["plan"]["verdict"]);
        assert!(one["difference"].is_null(), "{all:#}");
        let shares: Vec<f64> = one["rules"]["branches"]
            .as_array()
            .unwrap()
            .iter()
            .map(|branch| branch["share"].as_f64().unwrap())
            .collect();
        assert_eq!(shares, [0.5, 0.5]);
        // One endpoint is the sender itself, which must not see its own address.
        let masqueraded = one["rules"]["verdict"]["Forward"]["masqueraded"].as_array().unwrap();
        assert_eq!(masqueraded, &[Value::from(SocketAddr::new(from, 8080).to_string())], "{all:#}");
        assert!(one["masquerade"].as_str().unwrap().contains("goes back to"), "{all:#}");
        assert_eq!(one["ways"].as_array().unwrap().len(), 2);
        let text = running.text(&["explain", &from_text, &to_text]);
        for line in ["service      default/web:u, by its ClusterIP", "mode         nft", "plan         says the same"] {
            assert!(text.lines().any(|said| said == line), "{line}:\n{text}");
        }
        for words in ["a pod, by the way", "@endpoints", "50.00 %", "dev cni0", "dev eth0", "MTU: packets up to 1"] {
            assert!(text.contains(words), "{words}:\n{text}");
        }
        assert!(!text.contains('\x1b'), "colours are for terminals: {text}");
        // A connection that is open is told, with the endpoint that it has.
        let asked = fairlead_lab::probe(running.cluster.lab.place("a3"), fairlead_plan::Protocol::Udp, to);
        assert!(matches!(asked, fairlead_lab::Outcome::Reached { .. }), "{asked:?}");
        let client = running.cluster.lab.place("a3").addr(family).to_string();
        let tracked = running.json(&["explain", &client, &to_text])[0]["tracked"].clone();
        assert!(tracked.as_array().is_some_and(|all| !all.is_empty()), "{tracked:#}");
    }
}

#[test]
fn without_a_port_every_port_is_explained_and_reasons_are_sentences() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    for family in Family::BOTH {
        let addr = cluster_ip(1).of(family).to_string();
        let all = running.json(&["explain", "node", &addr]);
        let services: Vec<_> = all.as_array().unwrap().iter().map(|one| one["plan"]["service"].clone()).collect();
        assert_eq!(services, ["default/web:t", "default/web:u"]);
        let end = |to: SocketAddr| {
            let all = running.json(&["explain", "node", &to.to_string()]);
            assert!(all[0]["difference"].is_null(), "{all:#}");
            all[0]["end"].as_str().unwrap().to_owned()
        };
        let wrong = end(SocketAddr::new(cluster_ip(1).of(family), 81));
        assert!(wrong.contains("no Service has TCP port 81") && wrong.contains("80/tcp of default/web:t"), "{wrong}");
        let nobody = end(SocketAddr::new(running.cluster.lab.place("b1").addr(family), 80));
        assert!(
            nobody.starts_with("The packet goes on as it came") && nobody.contains("no address of a Service"),
            "{nobody}"
        );
    }
}

#[test]
fn what_is_watched_is_printed_again_when_it_changes() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    let family = Family::V6;
    let (from, to) =
        (running.cluster.lab.place("a2").addr(family), SocketAddr::new(cluster_ip(1).of(family), PORT).to_string());
    let mut command = running.cluster.node().command(program::BINARY);
    command.args(["explain", &from.to_string(), &to, "--json", "--watch", &running.socket]);
    let mut watching = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watching.stdout.take().unwrap()).lines();
    let mut next = || serde_json::from_str::<Value>(&lines.next().unwrap().unwrap()).unwrap();
    let ends = |json: &Value| json[0]["end"].as_str().unwrap().to_owned();
    assert!(ends(&next()).contains("one of 2 endpoints"));
    running.cluster.serve("web", 1, &["a1"]);
    // Between the plan and the kernel it may be seen that the two differ.
    let only = SocketAddr::new(running.cluster.lab.place("a1").addr(family), 8080);
    while !ends(&next()).starts_with(&format!("The packet goes to {only}")) {}
    watching.kill().unwrap();
    watching.wait().unwrap();
}

#[test]
fn services_are_listed_with_frontends_policy_and_endpoints() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    let all = running.json(&["services"]);
    assert_eq!(all.as_array().unwrap().len(), 4, "{all:#}");
    let first = &all[0];
    assert_eq!((&first["name"], &first["protocol"]), (&"default/web:t".into(), &"tcp".into()), "{all:#}");
    assert_eq!(first["frontends"][0]["kind"], "ClusterIP");
    assert_eq!(first["endpoints"].as_array().unwrap().len(), 2, "{all:#}");
    let text = running.text(&["services", "web:u"]);
    assert_eq!(text.lines().count(), 3, "{text}");
    for words in ["SERVICE", "default/web:u  udp", "ClusterIP", "Cluster", "2 (1 here)"] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let output = running.run(&["services", "nobody"]);
    assert_eq!(output.status.code(), Some(1), "{}", String::from_utf8_lossy(&output.stdout));
}

#[test]
fn status_tells_what_is_in_the_kernel() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    let text = running.text(&["status"]);
    for words in ["nothing waits", "4 service ports, 4 frontends, 8 endpoints", " rules, ", "conntrack    "] {
        assert!(text.contains(words), "{words}:\n{text}");
    }
    let json = running.json(&["status"]);
    assert_eq!((&json["state"]["services"], &json["state"]["failing"]), (&4.into(), &0.into()), "{json:#}");
    let elements = json["state"]["elements"].as_array().unwrap();
    assert!(elements.iter().all(|count| count.as_u64() > Some(4)), "{json:#}");
}

#[test]
fn the_socket_is_the_owners_alone_and_what_cannot_be_made_stops_nothing() {
    if !can_run() {
        return;
    }
    let running = Running::start();
    let path = running.socket.strip_prefix("--socket=").unwrap();
    assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    let Running { cluster, program, .. } = running;
    assert!(program.terminate().success());
    assert!(fs::symlink_metadata(path_of(&cluster)).is_err(), "the path is gone with the program");
    fs::write(path_of(&cluster), "no socket").unwrap();
    let program = cluster.launch(&[&format!("--socket={}", path_of(&cluster))]);
    program.wait_until_ready();
    program.wait_for_line(&["WARN", "commands on this node cannot ask this program", "--socket"]);
    assert_eq!(fs::read_to_string(path_of(&cluster)).unwrap(), "no socket");
}

fn path_of(cluster: &Cluster) -> String {
    cluster.directory.path().join("run").join("socket").display().to_string()
}
