//! The files of the folder, as values; and what can be said of them without a Prometheus.
#![expect(clippy::disallowed_methods, reason = "promtool reads the rules")]

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use fairlead_lab::{Feature, needs};
use serde_json::Value;

use crate::operate::deploy::rendered::root;

/// The dashboards.
pub const BOARDS: [&str; 5] = ["fleet.json", "node.json", "services.json", "service.json", "overlay.json"];
/// The files of rules.
pub const RULES: [&str; 2] = ["recording-rules.yaml", "alert-rules.yaml"];

pub fn path(file: &str) -> PathBuf {
    root().join("dashboards").join(file)
}

pub fn text(file: &str) -> String {
    fs::read_to_string(path(file)).unwrap()
}

pub fn board(file: &str) -> Value {
    serde_json::from_str(&text(file)).unwrap()
}

/// The panels of a dashboard that show data.
pub fn panels(board: &Value) -> impl Iterator<Item = &Value> {
    board["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row")
}

/// All rules of a file.
pub fn rules(file: &str) -> Vec<Value> {
    let groups: Value = serde_saphyr::from_str(&text(file)).unwrap();
    let groups = groups["groups"].as_array().unwrap().iter();
    groups.flat_map(|group| group["rules"].as_array().unwrap().clone()).collect()
}

/// The names of all alerts.
pub fn alerts() -> BTreeSet<String> {
    RULES.into_iter().flat_map(rules).filter_map(|rule| Some(rule.get("alert")?.as_str()?.to_owned())).collect()
}

#[test]
fn rules_are_what_promtool_takes() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    for file in RULES {
        let output =
            Command::new("promtool").args(["check", "rules", "--lint=all", "--lint-fatal"]).arg(path(file)).output();
        let output = output.unwrap();
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        );
    }
}

#[test]
fn every_panel_says_what_it_shows_and_in_which_unit() {
    let (mut folders, mut uids) = (BTreeSet::new(), BTreeSet::new());
    for entry in fs::read_dir(path("")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if name.ends_with(".json") {
            folders.insert(name);
        }
    }
    assert_eq!(folders, BOARDS.map(str::to_owned).into(), "each dashboard is in the list of the tests");
    for file in BOARDS {
        let board = board(file);
        assert!(uids.insert(board["uid"].as_str().unwrap().to_owned()), "{file} has a name of its own");
        let mut ids = BTreeSet::new();
        for panel in panels(&board) {
            let title = panel["title"].as_str().unwrap();
            assert!(ids.insert(panel["id"].as_u64().unwrap()), "{file}: {title}: its number is there twice");
            let unit = panel["fieldConfig"]["defaults"]["unit"].as_str();
            assert!(["short", "s", "ops", "bytes"].contains(&unit.unwrap_or_default()), "{file}: {title}: {unit:?}");
            assert!(panel["description"].as_str().is_some_and(|text| text.ends_with('.')), "{file}: {title}");
            assert_eq!(panel["datasource"]["uid"], "${datasource}", "{file}: {title}");
        }
    }
}

#[test]
fn every_dashboard_is_shown_with_all_its_panels() {
    let readme = text("README.md");
    for file in BOARDS {
        let picture = file.replace(".json", ".svg");
        assert!(readme.contains(&format!("]({picture})")), "README.md does not show {picture}");
        let drawn = text(&picture);
        for panel in board(file)["panels"].as_array().unwrap() {
            let title = panel["title"].as_str().unwrap();
            assert!(
                drawn.contains(&format!("{title}</text>")),
                "{picture} has no panel {title}; draw it anew (README.md)"
            );
        }
    }
}

#[test]
fn every_alert_leads_to_its_page() {
    let readme = text("README.md");
    for rule in RULES.into_iter().flat_map(rules) {
        let Some(name) = rule.get("alert").and_then(Value::as_str) else { continue };
        assert!(readme.contains(&format!("\n### {name}\n")), "{name} has no page in dashboards/README.md");
        let anchor = format!("#{}", name.to_lowercase());
        let url = rule["annotations"]["runbook_url"].as_str().unwrap();
        assert!(url.ends_with(&format!("dashboards/README.md{anchor}")), "{name}: {url}");
        assert!(["critical", "warning"].contains(&rule["labels"]["severity"].as_str().unwrap()), "{name}");
    }
    let pages: BTreeSet<_> = readme.lines().filter_map(|line| line.strip_prefix("### Fairlead")).collect();
    let pages: BTreeSet<_> = pages.into_iter().map(|name| format!("Fairlead{name}")).collect();
    assert_eq!(pages, alerts(), "each page has its alert");
}
