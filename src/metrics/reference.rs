//! The list of all metrics for people.

use std::fmt::Write;

use super::declared::{DECLARED, Declared};

/// What the page begins with.
const HEAD: &str = "\
# Metrics

`/metrics` on the metrics address has them in Prometheus' text format. This page is what `fairlead metrics` prints; `cargo verify`
compares the two.
";

/// The parts of the page: how their names begin, and what is said of them.
const PARTS: [(&str, &str); 3] = [
    (
        "kubeproxy_",
        "Names of kube-proxy, where the meaning is the same, so that its dashboards and rules go on working.",
    ),
    ("fairlead_", "Our own."),
    ("process_", "Of the process, by the names that every Prometheus client uses."),
];

/// Every metric in tables, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = HEAD.to_owned();
    for (prefix, about) in PARTS {
        let title = prefix.trim_end_matches('_');
        // Writing to a string cannot fail.
        let _ = write!(page, "\n## {title}\n\n{about}\n\n| name | kind | labels | meaning |\n|---|---|---|---|\n");
        for Declared { name, labels, help, kind } in DECLARED.iter().filter(|one| one.name.starts_with(prefix)) {
            let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
            let _ = writeln!(page, "| `{name}` | {} | {} | {help} |", sort(kind), labels.join(", "));
        }
    }
    page
}

/// What Prometheus calls a metric of this type.
fn sort(kind: &str) -> &'static str {
    match kind {
        "HistogramVec" => "histogram",
        "CounterVec" | "IntCounterVec" => "counter",
        _ => "gauge",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_metric_has_its_row() {
        let page = reference();
        for Declared { name, help, .. } in DECLARED {
            let rows = page.lines().filter(|line| line.starts_with(&format!("| `{name}` |")));
            assert_eq!(rows.filter(|row| row.ends_with(&format!("| {help} |"))).count(), 1, "{name}");
        }
        assert_eq!(page.lines().filter(|line| line.starts_with("| `")).count(), DECLARED.len());
        assert!(page.contains("| `fairlead_sync_duration_seconds` | histogram |  |"), "{page}");
        assert!(page.contains("| `fairlead_ready` | gauge |"), "{page}");
    }
}
