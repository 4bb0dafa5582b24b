//! `fairlead status`: how the running program on this node does, in a few lines and an exit code.
//!
//! What only the program knows is asked of its HTTP servers and its socket; the ways to other nodes are read from the kernel and
//! probed, connection tracking is counted there.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, SystemTime};

use anyhow::{Context, bail};
use fairlead_kernel::sysctl;
use serde::Serialize;

use crate::config;
use crate::local::{self, State};
use crate::overlay::probe;

/// How long the running program may take to answer; it answers at once if it lives.
const PATIENCE: Duration = Duration::from_secs(5);

/// How this node does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// How Services are programmed, by kube-proxy's name.
    pub mode: String,
    /// What the program itself tells; `None` if nothing answers at its socket.
    pub state: Option<State>,
    /// Connections that the kernel tracks on this node, and how many it has room for; `None` if it tracks none.
    pub conntrack: Option<(u64, u64)>,
    /// Each part of the program, and whether it is well.
    pub controllers: Vec<(&'static str, bool)>,
    /// How this node takes part in the overlay, by family; empty without an overlay.
    pub overlay: Vec<Part>,
    /// The ways to other nodes that carry packets as they should, and all.
    pub peers: (usize, usize),
}

/// One family of the overlay.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Part {
    /// `IPv4` or `IPv6`.
    pub family: String,
    /// How packets travel, as after `--overlay-backend`.
    pub backend: String,
    /// The interface to other nodes.
    pub interface: String,
    /// This node's address on it.
    pub address: String,
    /// The prefix of this node's pods.
    pub pods: String,
    /// Whether pods that leave the cluster get an address of this node.
    pub masquerade: bool,
}

/// More of the room for connections than this in use is a reason to look: the kernel drops what does not fit.
const FULL: f64 = 0.9;
const PERCENT: f64 = 100.0;

/// Prints it.
///
/// # Errors
/// If the program does not answer; and, after printing, if a part of it is not well or a peer does not answer.
pub fn status(settings: &config::Status) -> anyhow::Result<()> {
    let status = read(settings)?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&status)?);
    } else {
        print!("{}", text(&status));
    }
    let wrong = wrong(&status);
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
}

/// What is not as it should be, a sentence each.
pub(crate) fn wrong(status: &Status) -> Vec<String> {
    let ill = status.controllers.iter().filter(|(_, well)| !well).map(|(name, _)| *name);
    let mut wrong: Vec<String> = ill.map(|name| format!("{name} is not well")).collect();
    if let Some(State { failing, .. }) = status.state.as_ref().filter(|state| state.failing > 0) {
        wrong.push(format!("the kernel has refused the plan {failing} times in a row; see the last trouble"));
    }
    if status.conntrack.is_some_and(|conntrack| use_of(conntrack) > FULL) {
        wrong.push("connection tracking is nearly full; raise --conntrack-max-per-core".to_owned());
    }
    if status.peers.0 < status.peers.1 {
        let silent = status.peers.1 - status.peers.0;
        wrong.push(format!("{silent} ways to peers do not carry packets; see `fairlead overlay probe`"));
    }
    wrong
}

fn read(settings: &config::Status) -> anyhow::Result<Status> {
    let ask = |at: SocketAddr, path: &str| {
        get(at, path).with_context(|| format!("fairlead does not answer on {at}; is it running, with this address?"))
    };
    let (_, mode) = ask(settings.metrics, "/proxyMode")?;
    let (_, metrics) = ask(settings.metrics, "/metrics")?;
    let mut controllers = Vec::new();
    for (name, path) in [("process", "/livez"), ("services", "/healthz"), ("first sync", "/readyz")] {
        controllers.push((name, ask(settings.health, path)?.0 == 200));
    }
    let mut peers = (0, 0);
    let of_overlay = overlay_controllers(&metrics);
    if !of_overlay.is_empty() {
        controllers.extend(of_overlay);
        let findings = probe::findings(&[], settings.timeout)?;
        peers = (findings.iter().filter(|finding| finding.is_well()).count(), findings.len());
    }
    let state = local::state(settings.socket.as_deref())?;
    let (overlay, conntrack) = (overlay(&metrics), conntrack());
    Ok(Status { mode: mode.trim().to_owned(), state, conntrack, controllers, overlay, peers })
}

/// Connections that the kernel tracks, and how many it has room for.
pub(crate) fn conntrack() -> Option<(u64, u64)> {
    match ["net/netfilter/nf_conntrack_count", "net/netfilter/nf_conntrack_max"].map(sysctl::read_number) {
        [Ok(count), Ok(most)] => Some((count, most)),
        _ => None,
    }
}

/// How this node takes part in the overlay, from the text of its metrics.
pub(crate) fn overlay(metrics: &str) -> Vec<Part> {
    metrics.lines().filter_map(part).collect()
}

/// The parts of the program that keep the overlay, and whether they are well; none without an overlay.
pub(crate) fn overlay_controllers(metrics: &str) -> Vec<(&'static str, bool)> {
    let Some(up) = value(metrics, "fairlead_overlay_up") else { return Vec::new() };
    let refused = ["fairlead_overlay_peers_refused", "fairlead_overlay_peers_failing"];
    let refused: f64 = refused.iter().filter_map(|name| value(metrics, name)).sum();
    vec![("overlay devices", up > 0.0), ("overlay peers", refused == 0.0)]
}

/// What the program knows of its peers without asking them, from the text of its metrics; `None` without an overlay.
pub(crate) fn peers_told(metrics: &str) -> Option<String> {
    let count = |name: &str| value(metrics, name);
    let refused = count("fairlead_overlay_peers_refused")?;
    let failing = count("fairlead_overlay_peers_failing")?;
    let silent = count("fairlead_overlay_peers_silent")?;
    let all = metrics.lines().filter_map(|line| line.strip_prefix("fairlead_overlay_peers{"));
    let all: f64 = all.filter_map(|rest| rest.rsplit_once(' ')?.1.parse::<f64>().ok()).sum();
    Some(format!(
        "{all} ways to other nodes; {refused} nodes refused, {failing} refused by the kernel, {silent} silent when last asked"
    ))
}

#[expect(clippy::cast_precision_loss, reason = "a share is for people")]
fn use_of((count, most): (u64, u64)) -> f64 {
    count as f64 / most.max(1) as f64
}

/// The first value of a metric.
fn value(metrics: &str, name: &str) -> Option<f64> {
    let mut lines = metrics.lines().filter_map(|line| line.strip_prefix(name));
    lines.find(|rest| rest.starts_with([' ', '{']))?.rsplit_once(' ')?.1.parse().ok()
}

/// What a line of the metric about the overlay says.
fn part(line: &str) -> Option<Part> {
    let labels = line.strip_prefix("fairlead_overlay_info{")?.split_once('}')?.0;
    let label = |name: &str| {
        let mut all = labels.split("\",").filter_map(|label| label.split_once("=\""));
        all.find(|(key, _)| *key == name).map(|(_, value)| value.trim_end_matches('"').to_owned())
    };
    Some(Part {
        family: label("ip_family")?,
        backend: label("backend")?,
        interface: label("interface")?,
        address: label("address")?,
        pods: label("pods")?,
        masquerade: label("masquerade")? == "true",
    })
}

fn text(status: &Status) -> String {
    let now = SystemTime::now();
    let mut all = lines(status, now);
    if !status.overlay.is_empty() {
        all.push(("peers", format!("{}/{} reachable", status.peers.0, status.peers.1)));
    }
    all.extend(troubles(status, now).into_iter().map(|text| ("trouble", text)));
    all.iter().map(|(name, text)| format!("{name:<12} {text}\n")).collect()
}

/// Each thing that is known for certain, by its name.
pub(crate) fn lines(status: &Status, now: SystemTime) -> Vec<(&'static str, String)> {
    let well = status.controllers.iter().filter(|(_, well)| *well).count();
    let ill: Vec<&str> = status.controllers.iter().filter(|(_, well)| !well).map(|(name, _)| *name).collect();
    let ill = if ill.is_empty() { String::new() } else { format!(" (not: {})", ill.join(", ")) };
    let mut lines = vec![("mode", status.mode.clone())];
    lines.extend(status.state.iter().flat_map(|state| told(state, now)));
    lines.extend(status.conntrack.map(|conntrack| {
        let (count, most) = conntrack;
        ("conntrack", format!("{count} of {most} connections ({:.1} %)", use_of(conntrack) * PERCENT))
    }));
    for Part { family, backend, interface, address, pods, masquerade } in &status.overlay {
        let masquerade = if *masquerade { "masqueraded outside of the cluster" } else { "never masqueraded" };
        lines.push(("overlay", format!("{family}: {backend} over {interface} {address}, pods {pods}, {masquerade}")));
    }
    lines.push(("controllers", format!("{well}/{} healthy{ill}", status.controllers.len())));
    lines
}

/// What went wrong or was repaired last, the newest at the end.
pub(crate) fn troubles(status: &Status, now: SystemTime) -> Vec<String> {
    let troubles = status.state.iter().flat_map(|state| &state.troubles);
    troubles.map(|trouble| format!("{}: {}", ago(trouble.at, now), trouble.what)).collect()
}

/// What the program tells, as lines.
fn told(state: &State, now: SystemTime) -> Vec<(&'static str, String)> {
    let waiting = match (state.failing, state.waiting) {
        (0, false) => "nothing waits".to_owned(),
        (0, true) => "a change waits".to_owned(),
        (failing, _) => format!("a change waits, refused {failing} times"),
    };
    let synced = match state.synced {
        Some(at) => format!("{}, took {:?}", ago(at, now), Duration::from_micros(state.took)),
        None => "never".to_owned(),
    };
    let State { services, frontends, endpoints, rules, elements, .. } = state;
    let sum = |both: &[u64; 2]| format!("{} ({} IPv4, {} IPv6)", both[0] + both[1], both[0], both[1]);
    vec![
        ("sync", format!("{synced}; {waiting}")),
        ("services", format!("{services} service ports, {frontends} frontends, {endpoints} endpoints")),
        ("kernel", format!("{} rules, {} elements", sum(rules), sum(elements))),
    ]
}

/// How long ago a moment was that is told in seconds since 1970.
fn ago(at: u64, now: SystemTime) -> String {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    format!("{:?} ago", Duration::from_secs(now.saturating_sub(at)))
}

/// Asks over HTTP/1.0: the answer ends with the connection.
fn get(at: SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&at, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {at}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, "what answers does not speak HTTP");
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(strange)?;
    Ok((status, body.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const METRICS: &str = "\
# HELP fairlead_overlay_info 1, with labels.
fairlead_overlay_info{address=\"192.168.50.1\",backend=\"vxlan\",interface=\"eth0\",ip_family=\"IPv4\",masquerade=\"true\",pods=\"10.244.1.0/24\"} 1
fairlead_overlay_peers_refused 2
fairlead_overlay_up 1
";

    #[test]
    fn the_metrics_tell_how_the_node_takes_part() {
        assert_eq!(value(METRICS, "fairlead_overlay_up"), Some(1.0));
        assert_eq!(value(METRICS, "fairlead_overlay_peers_refused"), Some(2.0));
        assert_eq!(value(METRICS, "fairlead_overlay"), None);
        let parts: Vec<Part> = METRICS.lines().filter_map(part).collect();
        assert_eq!(parts.len(), 1);
        let status = Status {
            mode: "nftables".to_owned(),
            state: None,
            conntrack: Some((25, 1000)),
            controllers: vec![("process", true), ("services", false)],
            overlay: parts,
            peers: (3, 4),
        };
        let wanted = "\
mode         nftables
conntrack    25 of 1000 connections (2.5 %)
overlay      IPv4: vxlan over eth0 192.168.50.1, pods 10.244.1.0/24, masqueraded outside of the cluster
controllers  1/2 healthy (not: services)
peers        3/4 reachable
";
        assert_eq!(text(&status), wanted);
    }

    #[test]
    fn what_the_program_tells_is_said_in_lines() {
        let state = State {
            mode: "nftables".to_owned(),
            synced: Some(1_000),
            took: 310,
            waiting: true,
            failing: 2,
            services: 4,
            frontends: 6,
            endpoints: 9,
            rules: [80, 81],
            elements: [100, 200],
            troubles: Vec::new(),
        };
        let lines = told(&state, SystemTime::UNIX_EPOCH + Duration::from_secs(1_065));
        let wanted = [
            ("sync", "65s ago, took 310µs; a change waits, refused 2 times"),
            ("services", "4 service ports, 6 frontends, 9 endpoints"),
            ("kernel", "161 (80 IPv4, 81 IPv6) rules, 300 (100 IPv4, 200 IPv6) elements"),
        ];
        assert_eq!(lines, wanted.map(|(name, text)| (name, text.to_owned())));
    }
}
