//! `fairlead status`: how the running program on this node does, in a few lines and an exit code.
//!
//! What only the program knows is asked of its HTTP servers; the ways to other nodes are read from the kernel and probed.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;

use crate::config;
use crate::overlay::probe;

/// How long the running program may take to answer; it answers at once if it lives.
const PATIENCE: Duration = Duration::from_secs(5);

/// How this node does.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Status {
    /// How Services are programmed, by kube-proxy's name.
    pub mode: String,
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
    let ill = status.controllers.iter().filter(|(_, well)| !well).map(|(name, _)| *name);
    let mut wrong: Vec<String> = ill.map(|name| format!("{name} is not well")).collect();
    if status.peers.0 < status.peers.1 {
        let silent = status.peers.1 - status.peers.0;
        wrong.push(format!("{silent} ways to peers do not carry packets; see `fairlead overlay probe`"));
    }
    if wrong.is_empty() { Ok(()) } else { bail!("{}", wrong.join("; ")) }
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
    let overlay: Vec<Part> = metrics.lines().filter_map(part).collect();
    let mut peers = (0, 0);
    if let Some(up) = value(&metrics, "fairlead_overlay_up") {
        let refused = ["fairlead_overlay_peers_refused", "fairlead_overlay_peers_failing"];
        let refused: f64 = refused.iter().filter_map(|name| value(&metrics, name)).sum();
        controllers.push(("overlay devices", up > 0.0));
        controllers.push(("overlay peers", refused == 0.0));
        let findings = probe::findings(&[], settings.timeout)?;
        peers = (findings.iter().filter(|finding| finding.is_well()).count(), findings.len());
    }
    Ok(Status { mode: mode.trim().to_owned(), controllers, overlay, peers })
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
    let well = status.controllers.iter().filter(|(_, well)| *well).count();
    let ill: Vec<&str> = status.controllers.iter().filter(|(_, well)| !well).map(|(name, _)| *name).collect();
    let ill = if ill.is_empty() { String::new() } else { format!(" (not: {})", ill.join(", ")) };
    let mut lines = vec![("mode", status.mode.clone())];
    for Part { family, backend, interface, address, pods, masquerade } in &status.overlay {
        let masquerade = if *masquerade { "masqueraded outside of the cluster" } else { "never masqueraded" };
        lines.push(("overlay", format!("{family}: {backend} over {interface} {address}, pods {pods}, {masquerade}")));
    }
    lines.push(("controllers", format!("{well}/{} healthy{ill}", status.controllers.len())));
    if !status.overlay.is_empty() {
        lines.push(("peers", format!("{}/{} reachable", status.peers.0, status.peers.1)));
    }
    lines.iter().map(|(name, text)| format!("{name:<12} {text}\n")).collect()
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
            controllers: vec![("process", true), ("services", false)],
            overlay: parts,
            peers: (3, 4),
        };
        let wanted = "\
mode         nftables
overlay      IPv4: vxlan over eth0 192.168.50.1, pods 10.244.1.0/24, masqueraded outside of the cluster
controllers  1/2 healthy (not: services)
peers        3/4 reachable
";
        assert_eq!(text(&status), wanted);
    }
}
