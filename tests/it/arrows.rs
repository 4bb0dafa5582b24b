//! Which crate may use which: the arrows of the architecture, read from the manifests.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// What each crate that ships may use of this workspace and of the world, in `[dependencies]`. A new line here is a
/// decision about the architecture; `src/lib.rs` says why each arrow is there.
const SHIPPED: [(&str, &[&str]); 7] = [
    ("backends/plan", &["ipnet", "serde", "thiserror"]),
    ("backends/kernel", &["ipnet", "libc", "thiserror"]),
    ("backends/nft", &["fairlead-kernel", "fairlead-plan", "ipnet", "nftables", "serde_json", "thiserror"]),
    ("backends/ipvs-rs", &["netlink-packet-core", "netlink-packet-generic", "thiserror"]),
    ("backends/ipvs", &["fairlead-kernel", "fairlead-plan", "ipnet", "ipvs-rs", "thiserror"]),
    ("backends/iptables", &["fairlead-kernel", "fairlead-plan", "ipnet", "sha2", "thiserror"]),
    (
        ".",
        &[
            "anyhow",
            "clap",
            "clap_complete",
            "clap_mangen",
            "fairlead-iptables",
            "fairlead-ipvs",
            "fairlead-kernel",
            "fairlead-nft",
            "fairlead-plan",
            "futures",
            "hashbrown",
            "http-body-util",
            "hyper",
            "hyper-util",
            "ipnet",
            "k8s-openapi",
            "kube",
            "prometheus",
            "regex",
            "serde",
            "serde-saphyr",
            "serde_json",
            "socket2",
            "thiserror",
            "tokio",
            "tower",
            "tracing",
            "tracing-subscriber",
        ],
    ),
];
/// Only the program itself knows Kubernetes.
const KUBERNETES: [&str; 2] = ["kube", "k8s-openapi"];
/// The crates that exist for tests.
const TESTS: [&str; 4] = ["tests/image", "tests/lab", "tests/verify", "tests/vm"];

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The keys of each `[section]` of a manifest. Enough TOML for manifests as they are written here; what it does not
/// understand it refuses.
fn sections(manifest: &Path) -> BTreeMap<String, BTreeSet<String>> {
    let mut all: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut section = String::new();
    for line in read(manifest).lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_matches(['[', ']']).to_owned();
            // `[dependencies.name]` would hide a dependency in the name of a section.
            let hidden = section.split('.').any(|part| part.ends_with("dependencies")) && section.contains('.');
            assert!(
                !hidden || section == "workspace.dependencies",
                "{}: write [{section}] in one line",
                manifest.display()
            );
            all.entry(section.clone()).or_default();
        } else if let Some((key, _)) = line.split_once('=') {
            let key = key.trim().split('.').next().unwrap_or_default().trim_matches('"');
            all.entry(section.clone()).or_default().insert(key.to_owned());
        }
    }
    all
}

fn dependencies(crate_dir: &str, section: &str) -> BTreeSet<String> {
    sections(&root().join(crate_dir).join("Cargo.toml")).remove(section).unwrap_or_default()
}

/// Every folder of the workspace with a manifest.
fn members() -> BTreeSet<String> {
    let text = read(&root().join("Cargo.toml"));
    let (_, list) = text.split_once("members = [").expect("the workspace has members");
    let (list, _) = list.split_once(']').expect("the list of members ends");
    let names = list.split('"').skip(1).step_by(2).map(str::to_owned);
    names.chain([".".to_owned()]).collect()
}

#[test]
fn every_crate_uses_what_the_architecture_allows_and_nothing_else() {
    for (crate_dir, allowed) in SHIPPED {
        let allowed: BTreeSet<String> = allowed.iter().map(|name| (*name).to_owned()).collect();
        let used = dependencies(crate_dir, "dependencies");
        let unknown: Vec<_> = used.difference(&allowed).collect();
        assert!(unknown.is_empty(), "{crate_dir} may not use {unknown:?}; if it must, say why and extend this table");
        let unused: Vec<_> = allowed.difference(&used).collect();
        assert!(unused.is_empty(), "{crate_dir} no longer uses {unused:?}; take them out of this table");
        assert_eq!(dependencies(crate_dir, "build-dependencies"), BTreeSet::new(), "{crate_dir} has a build script");
    }
}

#[test]
fn every_crate_of_the_workspace_has_its_place() {
    let known = SHIPPED.iter().map(|(crate_dir, _)| *crate_dir).chain(TESTS).map(str::to_owned).collect();
    assert_eq!(members(), known, "a new crate belongs into one of the tables of this test");
}

#[test]
fn only_the_program_itself_knows_kubernetes() {
    for member in members().iter().filter(|member| *member != ".") {
        for section in ["dependencies", "dev-dependencies"] {
            let used = dependencies(member, section);
            let wrong: Vec<_> = KUBERNETES.iter().filter(|name| used.contains(**name)).collect();
            assert!(
                wrong.is_empty(),
                "{member} gets {wrong:?} in [{section}]; only the crate fairlead knows Kubernetes"
            );
        }
    }
}

#[test]
fn nothing_that_ships_depends_on_tests() {
    for (crate_dir, _) in SHIPPED {
        let used = dependencies(crate_dir, "dependencies");
        assert!(!used.contains("fairlead-lab") && !used.contains("fairlead-verify"), "{crate_dir}");
    }
}

#[test]
fn versions_are_pinned_exactly_and_in_one_place() {
    let text = read(&root().join("Cargo.toml"));
    let table = text.split("[workspace.dependencies]").nth(1).and_then(|rest| rest.split("\n[").next());
    for line in table.expect("the table is there").lines().filter(|line| line.contains('=') && !line.starts_with('#')) {
        assert!(line.contains("\"=") || line.contains("path = "), "{line}: pin the version with =");
    }
    for member in members() {
        let manifest = read(&root().join(&member).join("Cargo.toml"));
        let after = manifest.split("dependencies]").skip(1).filter(|section| !section.contains("\"="));
        for line in after.flat_map(|section| section.lines().take_while(|line| !line.starts_with('['))) {
            let plain = line.is_empty() || line.starts_with('#') || line.contains("workspace = true");
            assert!(plain, "{member}: {line}: take it from the workspace table");
        }
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere_but_in_the_kernel_crate() {
    for member in members().iter().filter(|member| *member != "backends/kernel") {
        let source = ["lib.rs", "main.rs"].map(|file| root().join(member).join("src").join(file));
        let crate_root = source.iter().find(|path| path.exists()).expect("a crate has a root");
        assert!(read(crate_root).contains("#![forbid(unsafe_code)]"), "{} must forbid it", crate_root.display());
    }
}
