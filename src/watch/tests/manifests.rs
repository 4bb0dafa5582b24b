#![expect(clippy::disallowed_methods, reason = "manifests of a test are files")]

use std::time::Duration;

use serde_json::json;

use super::{Cause, Reader, Source, TempDir, service};
use crate::{
    object::Kind,
    watch::{ManifestSettings, NodeScope, parse_manifest},
};

const INTERVAL: Duration = Duration::from_millis(20);

fn reader(directory: &TempDir) -> Reader {
    let settings = ManifestSettings::new(directory.path(), NodeScope::Own("n1".to_owned()));
    Reader::new(Source::manifests(&ManifestSettings { interval: INTERVAL, ..settings }).expect("a directory"))
}

fn yaml(name: &str, cluster_ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata:\n  name: {name}\nspec:\n  clusterIP: '{cluster_ip}'\n  \
         ports:\n  - port: 80\n---\n"
    )
}

#[tokio::test]
async fn a_directory_is_one_complete_list_of_each_kind_and_then_follows_changes() {
    let directory = TempDir::new();
    directory.write("a.yaml", &(yaml("web", "10.96.0.10") + &yaml("six", "fd00:96::10")));
    directory.write("b.json", &service("db", "10.96.0.11").to_string());
    directory.write(".hidden.yaml", &yaml("hidden", "10.96.0.12"));
    directory.write("readme.txt", "no manifest");
    let mut reader = reader(&directory);
    reader.synced().await;
    assert_eq!(reader.names(), ["Service default/db", "Service default/six", "Service default/web"]);
    assert_eq!(reader.cluster_ip("six"), Some("fd00:96::10"));

    directory.write("a.yaml", &(yaml("web", "10.96.0.20") + &yaml("six", "fd00:96::10")));
    let events = reader.events;
    reader.until("the change is seen", |reader| reader.cluster_ip("web") == Some("10.96.0.20")).await;
    reader.quiet(INTERVAL * 10).await;
    assert_eq!(reader.events, events + 1, "an object that is the same is not said again");

    directory.remove("b.json");
    reader.until("the removal is seen", |reader| reader.service("db").is_none()).await;
    assert_eq!(reader.deletions, 1);
    assert_eq!(reader.problems, []);
}

#[tokio::test]
async fn a_bad_file_is_reported_and_its_last_good_content_stays_in_force() {
    let directory = TempDir::new();
    directory.write("a.yaml", &(yaml("web", "10.96.0.10") + &yaml("api", "10.96.0.11")));
    let mut reader = reader(&directory);
    reader.synced().await;

    directory.write("a.yaml", &(yaml("web", "10.96.0.20") + &yaml("api", "10.96.0.11").replace("80", "[eighty]")));
    reader.until("the file is reported", |reader| reader.count(Cause::File) == 1).await;
    let what = &reader.problems[0].what;
    assert!(what.contains("a.yaml:17: ") && what.contains("stays in force"), "{what}");
    reader.quiet(INTERVAL * 10).await;
    assert_eq!(reader.cluster_ip("web"), Some("10.96.0.10"), "a file is taken as a whole or not at all");
    assert_eq!(reader.count(Cause::File), 1, "it is reported once");

    directory.write("a.yaml", &yaml("web", "10.96.0.30"));
    reader.until("the repaired file counts", |reader| reader.cluster_ip("web") == Some("10.96.0.30")).await;
    reader.until("what it dropped is gone", |reader| reader.service("api").is_none()).await;
}

#[tokio::test]
async fn of_two_files_that_define_an_object_the_first_by_name_counts() {
    let directory = TempDir::new();
    directory.write("b.yaml", &yaml("web", "10.96.0.2"));
    directory.write("a.yaml", &yaml("web", "10.96.0.1"));
    let mut reader = reader(&directory);
    reader.synced().await;
    assert_eq!(reader.cluster_ip("web"), Some("10.96.0.1"));
    assert_eq!(reader.count(Cause::Duplicate), 1);

    directory.remove("a.yaml");
    reader.until("the second takes over", |reader| reader.cluster_ip("web") == Some("10.96.0.2")).await;
    assert_eq!(reader.deletions, 0, "the object was never gone");
}

#[tokio::test]
async fn a_config_map_volume_that_swaps_its_data_link_is_followed() {
    let directory = TempDir::new();
    for (version, address) in [("v1", "10.96.0.1"), ("v2", "10.96.0.2")] {
        let data = directory.path().join(format!("..{version}"));
        std::fs::create_dir(&data).expect("a directory");
        std::fs::write(data.join("a.yaml"), yaml("web", address)).expect("a file");
    }
    let link = |to: &str, name: &str| {
        std::os::unix::fs::symlink(to, directory.path().join(name)).expect("a link");
    };
    link("..v1", "..data");
    link("..data/a.yaml", "a.yaml");
    let mut reader = reader(&directory);
    reader.synced().await;
    assert_eq!(reader.cluster_ip("web"), Some("10.96.0.1"));

    link("..v2", "..data_tmp");
    std::fs::rename(directory.path().join("..data_tmp"), directory.path().join("..data")).expect("a rename");
    reader.until("the new data counts", |reader| reader.cluster_ip("web") == Some("10.96.0.2")).await;
    assert_eq!(reader.deletions, 0);
}

#[tokio::test]
async fn an_editor_that_removes_a_file_for_a_moment_deletes_nothing() {
    let directory = TempDir::new();
    directory.write("a.yaml", &yaml("web", "10.96.0.1"));
    let settings = ManifestSettings::new(directory.path(), NodeScope::All);
    let source = Source::manifests(&ManifestSettings { interval: Duration::from_millis(200), ..settings });
    let mut reader = Reader::new(source.expect("a directory"));
    reader.synced().await;
    directory.remove("a.yaml");
    directory.write("a.yaml", &yaml("web", "10.96.0.2"));
    reader.until("the new content counts", |reader| reader.cluster_ip("web") == Some("10.96.0.2")).await;
    assert_eq!(reader.deletions, 0);
}

#[tokio::test]
async fn manifests_are_selected_as_the_api_server_would() {
    let directory = TempDir::new();
    let mut proxied = service("proxied", "10.96.0.1");
    proxied["metadata"]["labels"] = json!({"service.kubernetes.io/service-proxy-name": ""});
    let items = json!([
        service("web", "10.96.0.2"),
        service("headless", "None"),
        proxied,
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}},
        {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n2"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}},
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "db"}},
    ]);
    directory.write("all.json", &json!({"apiVersion": "v1", "kind": "List", "items": items}).to_string());
    let mut reader = reader(&directory);
    reader.synced().await;
    assert_eq!(reader.names(), ["Service default/web", "Node n1"]);
    assert_eq!(reader.count(Cause::IgnoredKind), 1, "a kind that is ignored is named once");
    assert_eq!(reader.lists[&Kind::ServiceCidr], 1);
}

#[tokio::test]
async fn a_directory_that_is_not_there_is_refused_and_one_that_vanishes_changes_nothing() {
    let directory = TempDir::new();
    let missing = ManifestSettings::new(directory.path().join("missing"), NodeScope::All);
    let error = Source::manifests(&missing).expect_err("it is missing").to_string();
    assert!(error.contains("missing") && error.contains("name an existing directory"), "{error}");

    directory.write("a.yaml", &yaml("web", "10.96.0.1"));
    let mut reader = reader(&directory);
    reader.synced().await;
    let aside = directory.path().with_extension("aside");
    std::fs::rename(directory.path(), &aside).expect("a rename");
    reader.until("it is reported", |reader| reader.count(Cause::File) == 1).await;
    reader.quiet(INTERVAL * 10).await;
    assert!(reader.service("web").is_some() && reader.count(Cause::File) == 1);
    std::fs::rename(&aside, directory.path()).expect("a rename");
    directory.write("b.yaml", &yaml("db", "10.96.0.2"));
    reader.until("it is read again", |reader| reader.service("db").is_some()).await;
    assert_eq!(reader.deletions, 0);
}

#[test]
fn one_file_can_be_read_without_a_directory() {
    let path = std::path::Path::new("a.yaml");
    let text = yaml("web", "10.96.0.1") + &yaml("headless", "None");
    assert_eq!(parse_manifest(path, &text, &NodeScope::All).expect("valid").len(), 1);
    let error = parse_manifest(path, &text.replace("port: 80", "port: x"), &NodeScope::All).expect_err("bad");
    assert!(error.to_string().starts_with("a.yaml:8: "), "{error}");
}
