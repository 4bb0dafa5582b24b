//! A Prometheus of the test's own, in a network namespace of the lab.
#![expect(clippy::disallowed_methods, reason = "Prometheus is started")]

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Stdio};

use fairlead_lab::Place;
use serde_json::Value;

use super::documents;
use crate::program::{Directory, eventually, http_get};

const PORT: u16 = 9090;
/// How often it asks and computes.
const INTERVAL: &str = "200ms";
/// What every span of time in the rules becomes: long enough for a few samples, short enough to wait for.
const SPAN: &str = "10s";

/// A running server. Dropping it ends it.
pub struct Prometheus {
    child: Child,
    place: Place,
    log: PathBuf,
}

impl Prometheus {
    /// Asks these nodes for metrics at their addresses, as the job `fairlead`, and computes the rules of `dashboards/`.
    pub fn start(place: &Place, directory: &Directory, targets: &[(&str, &str)]) -> Self {
        let own = directory.path().join("prometheus");
        fs::create_dir_all(&own).unwrap();
        for file in documents::RULES {
            fs::write(own.join(file), faster(&documents::text(file))).unwrap();
        }
        let target =
            |(node, address): &(&str, &str)| format!("{{targets: [{address:?}], labels: {{instance: {node}}}}}");
        let targets = targets.iter().map(target).collect::<Vec<_>>().join(", ");
        let config = format!(
            "global: {{scrape_interval: {INTERVAL}, evaluation_interval: {INTERVAL}}}\n\
             rule_files: [{}]\n\
             scrape_configs: [{{job_name: fairlead, static_configs: [{targets}]}}]\n",
            documents::RULES.join(", "),
        );
        fs::write(own.join("prometheus.yml"), config).unwrap();
        let log = own.join("log");
        let mut command = place.command("prometheus");
        command.arg(format!("--config.file={}", own.join("prometheus.yml").display()));
        command.arg(format!("--storage.tsdb.path={}", own.join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{PORT}"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let prometheus = Self { child: command.spawn().unwrap(), place: place.clone(), log };
        eventually("Prometheus is ready", || prometheus.get("/-/ready").is_some());
        prometheus
    }

    fn get(&self, path: &str) -> Option<String> {
        let to = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), PORT);
        let (status, body) = self.place.run(|| http_get(to, path)).ok()?;
        (status == 200).then_some(body)
    }

    /// What an expression gives now.
    ///
    /// # Panics
    /// If it is no expression.
    pub fn query(&self, expression: &str) -> Vec<Value> {
        self.ask("query", expression, "")
    }

    /// What it gave at a time, in seconds since 1970.
    ///
    /// # Panics
    /// If it is no expression.
    pub fn query_at(&self, expression: &str, time: f64) -> Vec<Value> {
        self.ask("query", expression, &format!("&time={time:.3}"))
    }

    /// What it gave between two times, every `step` seconds.
    ///
    /// # Panics
    /// If it is no expression.
    pub fn query_range(&self, expression: &str, (start, end): (f64, f64), step: f64) -> Vec<Value> {
        self.ask("query_range", expression, &format!("&start={start:.3}&end={end:.3}&step={step:.3}"))
    }

    fn ask(&self, what: &str, expression: &str, more: &str) -> Vec<Value> {
        let mut encoded = String::new();
        for byte in expression.bytes() {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
        let body = self.get(&format!("/api/v1/{what}?query={encoded}{more}"));
        let body = body.unwrap_or_else(|| panic!("Prometheus refuses: {expression}"));
        let answer: Value = serde_json::from_str(&body).unwrap();
        answer["data"]["result"].as_array().unwrap().clone()
    }

    /// Whether an expression gives a number now; one that divides by nothing gives none.
    pub fn has_data(&self, expression: &str) -> bool {
        self.query(expression).iter().any(|sample| sample["value"][1] != "NaN")
    }

    /// The names of the alerts that fire.
    pub fn firing(&self) -> BTreeSet<String> {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/alerts").unwrap()).unwrap();
        let alerts = answer["data"]["alerts"].as_array().unwrap().iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        firing.map(|alert| alert["labels"]["alertname"].as_str().unwrap().to_owned()).collect()
    }

    /// Whether every rule has been computed at least once.
    pub fn has_computed(&self) -> bool {
        let answer: Value = serde_json::from_str(&self.get("/api/v1/rules").unwrap()).unwrap();
        let groups = answer["data"]["groups"].as_array().unwrap().iter();
        let mut rules = groups.flat_map(|group| group["rules"].as_array().unwrap());
        rules.all(|rule| rule["health"] == "ok")
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of Prometheus\n{}", fs::read_to_string(&self.log).unwrap_or_default());
        }
    }
}

/// The rules with short spans and without patience: they watch for a quarter of an hour what a test breaks in a second. The
/// expressions stay what they are.
fn faster(rules: &str) -> String {
    let lines = rules.lines().map(|line| match line.trim_start().strip_prefix("for: ") {
        Some(_) => String::new(),
        None => with_short_spans(line),
    });
    lines.map(|line| line + "\n").collect()
}

/// `[5m]` and its like.
fn with_short_spans(line: &str) -> String {
    let mut parts = line.split('[');
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let span = part.split_once(']').filter(|(span, _)| {
            span.ends_with(['s', 'm', 'h']) && span[..span.len() - 1].bytes().all(|byte| byte.is_ascii_digit())
        });
        match span {
            Some((_, rest)) => out += &format!("[{SPAN}]{rest}"),
            None => out += &format!("[{part}"),
        }
    }
    out
}

#[test]
fn spans_become_short_and_nothing_else_changes() {
    let rules = "    expr: rate(x[5m]) > 5 and y[1h]\n    for: 5m\n    labels: [a]";
    assert_eq!(faster(rules), "    expr: rate(x[10s]) > 5 and y[10s]\n\n    labels: [a]\n");
}
