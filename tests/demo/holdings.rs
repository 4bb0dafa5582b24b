//! What the kernel holds and what the program needs for it, from its own metrics.

use anyhow::Result;

use crate::agent::Metrics;
use crate::cluster::{Cluster, title};
use crate::screen::Screen;

/// A column: its head, and what stands in it.
type Column = (&'static str, fn(&Metrics) -> String);

const COLUMNS: [Column; 6] = [
    ("rules", |metrics| families(metrics, "fairlead_rules")),
    ("elements", |metrics| families(metrics, "fairlead_elements")),
    ("service ports", |metrics| families(metrics, "fairlead_service_ports")),
    ("endpoints", |metrics| families(metrics, "fairlead_endpoints")),
    ("memory", |metrics| megabytes(metrics, "process_resident_memory_bytes")),
    ("at most", |metrics| megabytes(metrics, "process_resident_memory_peak_bytes")),
];

/// IPv4 and IPv6.
fn families(metrics: &Metrics, name: &str) -> String {
    format!("{} + {}", metrics.sum(name, "IPv4"), metrics.sum(name, "IPv6"))
}

fn megabytes(metrics: &Metrics, name: &str) -> String {
    format!("{:.1} MB", metrics.sum(name, "") / 1e6)
}

/// A line for each node.
pub(crate) fn show(cluster: &Cluster, screen: &Screen) -> Result<()> {
    screen.chapter("What the kernel holds (IPv4 + IPv6), from /metrics");
    let heads = COLUMNS.map(|(head, _)| head.to_owned());
    let mut rows = vec![(String::new(), heads)];
    for agent in cluster.agents() {
        let metrics = agent.metrics()?;
        rows.push((title(agent.node()), COLUMNS.map(|(_, value)| value(&metrics))));
    }
    let width = |column: usize| rows.iter().map(|(_, cells)| cells[column].chars().count()).max().unwrap_or_default();
    let widths: Vec<_> = (0..COLUMNS.len()).map(width).collect();
    for (index, (name, cells)) in rows.iter().enumerate() {
        let padded: Vec<_> = cells.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        let text = padded.join("   ");
        let text = if index == 0 { screen.dim(text.trim_end()) } else { text.trim_end().to_owned() };
        screen.line(&format!("  {name:<8} {text}"));
    }
    Ok(())
}
