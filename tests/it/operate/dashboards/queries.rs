//! Every query of every panel and every recorded series gives data while the program works.
#![expect(clippy::disallowed_methods, reason = "pictures are written")]

use std::cell::Cell;
use std::fs;
use std::net::SocketAddr;
use std::time::UNIX_EPOCH;

use fairlead_lab::{Feature, Options, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol};
use serde_json::{Value, json};

use super::documents::{BOARDS, RULES, board, panels, path, rules};
use super::pictures::{self, Answers};
use super::prometheus::Prometheus;
use crate::faults::{PORT, service, slice};
use crate::overlay::stage::Stage;
use crate::program::{HEALTH_PORT, Program, eventually, nft_output};

/// What Grafana puts in for its variables.
const VARIABLES: [(&str, &str); 5] = [
    ("$job", "fairlead"),
    ("$node", ".*"),
    ("$namespace", "default"),
    ("$service", "web"),
    ("$__rate_interval", "10s"),
];

/// The seconds that a picture shows which nobody has asked for.
const SHORT: f64 = 15.0;

/// Two nodes with the program, under changes of every sort.
struct Busy {
    // Dropped first, while their logs are still there.
    programs: Vec<Program>,
    stage: Stage,
    round: Cell<u32>,
}

impl Busy {
    fn new() -> Self {
        let stage = Stage::new();
        let flags = ["--overlay-backend=vxlan", "--metrics-bind-address=0.0.0.0:10249", "--service-counters"];
        let programs: Vec<_> = ["a", "b"].iter().map(|node| stage.launch(node, &flags)).collect();
        programs.iter().for_each(|program| _ = program.wait_until_ready());
        stage.apply([service("web", 1).manifest(&stage.lab, &Family::BOTH)]);
        Self { programs, stage, round: Cell::new(0) }
    }

    /// Connections of pods of both nodes, now more and now less.
    fn connect(&self, seconds: f64) {
        let wave = |period: f64| 1.0 + (seconds / period * std::f64::consts::TAU).sin();
        let of = |from: &str, family, protocol, many: f64| {
            let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
            let options = Options { connections: 1 + many as usize, ..Options::default() };
            let _ = probe_set(self.stage.lab.place(from), protocol, to, &options);
        };
        of("a1", Family::V4, Protocol::Tcp, 6.0 * wave(40.0));
        of("b2", Family::V6, Protocol::Tcp, 4.0 * wave(25.0));
        of("a2", Family::V6, Protocol::Udp, 3.0 * wave(60.0));
    }

    /// One more change of everything that is counted.
    fn stir(&self) {
        let round = self.round.replace(self.round.get() + 1);
        let pods: &[&str] = if round.is_multiple_of(2) { &["a1", "b1"] } else { &["b1"] };
        let now = k8s_openapi::jiff::Timestamp::now().to_string();
        let mut slices = slice("web", pods).manifests(&self.stage.lab, &Family::BOTH);
        for slice in &mut slices {
            slice["metadata"]["annotations"] = json!({"endpoints.kubernetes.io/last-change-trigger-time": now});
        }
        self.stage.apply(slices);
        self.programs[0].get(HEALTH_PORT, "/healthz").unwrap();
        self.programs[0].get(HEALTH_PORT, "/livez").unwrap();
        let node = self.stage.node("a");
        if round.is_multiple_of(10) {
            let even = round.is_multiple_of(20);
            let nonsense = json!({"kind": "Service", "metadata": {"name": "wrong"}, "spec": {"clusterIP": "10.96.0.8",
                "clusterIPs": ["10.96.0.8"], "ports": [{"port": 70_000 + round, "protocol": "TCP"}]}});
            self.stage.apply([nonsense]);
            // Flows that end, a table that is gone, another Node, another Service.
            let to = SocketAddr::new(cluster_ip(1).of(Family::V4), PORT);
            let options = Options { connections: 4, ..Options::default() };
            let _ = probe_set(self.stage.lab.place("a2"), Protocol::Udp, to, &options);
            assert!(nft_output(node, "delete table ip fairlead").status.success());
            let mut other = self.stage.node_object("b");
            other["metadata"]["annotations"]["round"] = json!(round.to_string());
            let key = "flannel.alpha.coreos.com/public-ip-overwrite";
            other["metadata"]["annotations"][key] = json!(if even { "192.168.50.102" } else { "192.168.50.2" });
            self.stage.apply([other]);
            self.stage.apply([service("other", 2)
                .spec("sessionAffinity", if even { "None" } else { "ClientIP" })
                .manifest(&self.stage.lab, &Family::BOTH)]);
        }
    }
}

/// A query with the variables put in.
fn put_in(text: &str) -> String {
    VARIABLES.iter().fold(text.to_owned(), |text, (name, value)| text.replace(name, value))
}

/// The queries of all dashboards, and the series that fill their variables.
fn queries() -> Vec<(String, String)> {
    let mut all = Vec::new();
    for file in BOARDS {
        let board = board(file);
        for panel in panels(&board) {
            let targets = panel["targets"].as_array().unwrap();
            assert!(!targets.is_empty());
            let of = |target: &Value| put_in(target["expr"].as_str().unwrap());
            all.extend(targets.iter().map(|target| (format!("{file}: {}", panel["title"]), of(target))));
        }
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(definition) = variable["definition"].as_str() else { continue };
            let series = definition.strip_prefix("label_values(").and_then(|rest| rest.rsplit_once(','));
            let (series, label) = series.unwrap_or_else(|| panic!("{definition}"));
            let label = label.trim_end_matches(')').trim();
            all.push((format!("{file}: {}", variable["name"]), format!("count by ({label}) ({})", put_in(series))));
        }
    }
    let recorded = RULES.into_iter().flat_map(rules).filter_map(|rule| Some(rule.get("record")?.as_str()?.to_owned()));
    all.extend(recorded.map(|name| ("recorded".to_owned(), name)));
    all
}

#[test]
fn every_query_of_every_panel_gives_data_under_changes() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan, Feature::Deployment]) {
        return;
    }
    let busy = Busy::new();
    let targets = [("node-a", "127.0.0.1:10249"), ("node-b", "192.168.50.2:10249")];
    let prometheus = Prometheus::start(busy.stage.node("a"), &busy.stage.directory, &targets);
    let queries = queries();
    assert!(queries.len() > 60, "{} queries", queries.len());
    for (place, query) in queries {
        assert!(!query.contains('$'), "{place}: {query}");
        eventually(&format!("{place} gives data: {query}"), || {
            busy.stir();
            prometheus.has_data(&query)
        });
    }
    eventually("every rule is computed", || prometheus.has_computed());
    draw(&busy, &prometheus);
}

/// Draws every dashboard, into its folder if that is asked for, after a longer run with more to see.
fn draw(busy: &Busy, prometheus: &Prometheus) {
    let wanted: Option<f64> = std::env::var(pictures::WANTED).ok().map(|seconds| seconds.parse().unwrap());
    let began = now();
    while wanted.is_some_and(|seconds| now() - began < seconds + SHORT) {
        busy.stir();
        busy.connect(now() - began);
    }
    let until = now();
    let answers = Answers { prometheus, span: (until - wanted.unwrap_or(SHORT), until), put_in: &put_in };
    for file in BOARDS {
        let picture = pictures::picture(file, &answers);
        if wanted.is_some() {
            fs::write(path(&file.replace(".json", ".svg")), picture).unwrap();
        }
    }
}

fn now() -> f64 {
    UNIX_EPOCH.elapsed().unwrap().as_secs_f64()
}
