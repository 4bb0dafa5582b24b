//! Whether the manifests are what Kubernetes takes, and what they say is what fairlead takes.
#![expect(clippy::disallowed_methods, reason = "a program with the schemas of Kubernetes reads the manifests")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use fairlead::config::{self, ApiSource, Command as Parsed, Host};
use fairlead::overlay::Backend;
use fairlead_lab::{Feature, needs};
use fairlead_plan::Family;
use serde_json::Value;

use super::rendered::{OVERLAYS, Rendered, arguments, built, built_by, built_in, objects, root, tool};
use crate::program::Directory;

/// The releases of Kubernetes, 1.27 being the first for which fairlead is meant and 1.37 the newest with schemas.
const RELEASES: std::ops::RangeInclusive<u32> = 27..=37;
/// A variable of kubelet's, and what tests put in.
const ENVIRONMENT: [(&str, &str); 2] = [("NODE_NAME", "node-1"), ("API_SERVER", "https://192.0.2.10:6443")];

/// The OOM score that kubelet gives to pods of `system-node-critical`.
const OF_NODE_CRITICAL: i32 = -997;

fn validate(minor: u32, files: &[PathBuf]) -> Output {
    let program = tool("kubernetes-validate-1.37.0/bin/kubernetes-validate");
    Command::new(program).args(["--strict", "--no-warn", "-k", &format!("1.{minor}")]).args(files).output().unwrap()
}

#[test]
fn every_folder_is_built_by_kubectl_and_valid_for_every_release_of_kubernetes() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let directory = Directory::new();
    let files: Vec<_> =
        OVERLAYS.iter().map(|(name, ..)| directory.write(&format!("{name}.yaml"), &built(name))).collect();
    for minor in RELEASES {
        let output = validate(minor, &files);
        let said = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "1.{minor}: {said}");
        let checked = said.matches("passed for resource daemonset/fairlead").count();
        assert_eq!(checked, OVERLAYS.len(), "1.{minor}: {said}");
    }
    // What does not fit is seen.
    let wrong = built("nft").replace("hostNetwork: true", "hostNetwrok: true");
    assert!(!validate(34, &[directory.write("wrong.yaml", &wrong)]).status.success());
}

#[test]
fn an_old_and_a_new_kubectl_build_the_same() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let newest = std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join("kubectl"))
        .find(|file| file.is_file());
    // Where Debian's is the only one, there is nothing to compare with but its own determinism.
    let other = newest.unwrap_or_else(|| tool("kubernetes-client/usr/bin/kubectl"));
    for (name, ..) in OVERLAYS {
        assert_eq!(objects(&built(name)), objects(&built_by(&other, name)), "{name} by {}", other.display());
    }
}

#[test]
fn the_folders_are_those_of_the_list() {
    let there = std::fs::read_dir(root().join("deploy/overlays")).unwrap();
    let there: BTreeSet<_> = there.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    assert_eq!(there, OVERLAYS.map(|(name, ..)| name.to_owned()).into());
}

/// What our own parser makes of a container's arguments, its file of settings among them.
fn parsed(container: &Value, settings: &Path) -> Parsed {
    let words = arguments(container, &ENVIRONMENT);
    let words = words.iter().map(|word| word.replace("/etc/fairlead", &settings.display().to_string()));
    // Without a name, as that must come from the flag.
    let host = Host { name: Ok(String::new()), families: Family::BOTH.to_vec() };
    config::parse(["fairlead".to_owned()].into_iter().chain(words), host).unwrap()
}

#[test]
fn what_the_manifests_say_is_taken_without_a_remark() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    for (name, mode, overlay) in OVERLAYS {
        let rendered = Rendered::new(name);
        let directory = Directory::new();
        for (file, text) in rendered.files("settings") {
            directory.write(&file, &text);
        }
        let Parsed::Init(init) = parsed(rendered.init_container(), directory.path()) else {
            panic!("{name}: the first container sets limits")
        };
        let Parsed::Run(run) = parsed(rendered.container(), directory.path()) else { panic!("{name} runs") };
        assert_eq!((init.mode.name(), run.mode.name()), (mode, mode), "{name}");
        let backend = if overlay { Backend::Vxlan } else { Backend::None };
        assert_eq!(run.overlay.backend, backend, "{name}");
        assert_eq!(run.traffic.node_name, "node-1");
        assert_eq!(run.oom_score_adj, OF_NODE_CRITICAL);
        assert_eq!(rendered.pod()["priorityClassName"], "system-node-critical");
        assert_eq!(run.notes(), Vec::<String>::new(), "{name}");
        let ApiSource::Api(api) = &run.source else { panic!("{name} asks an API server") };
        assert_eq!(api.master.as_deref(), Some("https://192.0.2.10:6443"));
        let kubeconfig = api.kubeconfig.as_ref().unwrap();
        assert_eq!(kubeconfig.file_name().unwrap(), "kubeconfig.conf");
        // Probes ask where it answers.
        let port_of = |name: &str| {
            let ports = rendered.container()["ports"].as_array().unwrap();
            ports.iter().find(|port| port["name"] == name).unwrap()["containerPort"].as_u64().unwrap()
        };
        assert_eq!(port_of("health"), u64::from(run.healthz.unwrap().port()));
        assert_eq!(port_of("metrics"), u64::from(run.metrics.unwrap().port()));
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            assert_eq!(rendered.container()[probe]["httpGet"]["port"], "health", "{probe}");
        }
    }
}

#[test]
fn modes_share_everything_but_their_file_of_settings() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let [nft, iptables, ipvs] = ["nft-overlay", "iptables-overlay", "ipvs-overlay"].map(Rendered::new);
    for other in [&iptables, &ipvs] {
        for kind in ["DaemonSet", "ClusterRole", "ClusterRoleBinding", "ServiceAccount"] {
            assert!(nft.of_kind(kind).eq(other.of_kind(kind)), "{kind}");
        }
    }
}

#[test]
fn the_kustomization_of_the_page_builds_with_a_file_of_settings_of_ones_own() {
    if !needs(&[Feature::Deployment]) {
        return;
    }
    let page = std::fs::read_to_string(root().join("deploy/README.md")).unwrap();
    let block = page.split("```yaml\n").find(|block| block.starts_with("# kustomization.yaml")).unwrap();
    let text = block.split("```").next().unwrap();
    let directory = Directory::new();
    // Not through a symbolic link, which kustomize takes for a way out.
    let here = way_to_root(directory.path());
    directory.write("kustomization.yaml", &text.replace("fairlead/deploy/", &format!("{here}/deploy/")));
    let own = std::fs::read_to_string(root().join("deploy/modes/nft/config.conf")).unwrap();
    directory.write("config.conf", &own.replace("10.244.0.0/16", "10.42.0.0/16"));
    let built = objects(&built_in(&tool("kubernetes-client/usr/bin/kubectl"), directory.path()));
    let of = |kind: &str| &built[&(kind.to_owned(), "fairlead".to_owned())];
    let settings = of("ConfigMap")["data"]["config.conf"].as_str().unwrap();
    assert!(settings.contains("clusterCIDR: 10.42.0.0/16,"), "{settings}");
    let image = &of("DaemonSet")["spec"]["template"]["spec"]["containers"][0]["image"];
    assert_eq!(image, "registry.example/fairlead:0.1.0");
}

/// `../../..`: from a folder below the top of the repository to the top.
fn way_to_root(folder: &Path) -> String {
    let below = folder.strip_prefix(root()).expect("tests write below the target folder");
    below.components().map(|_| "..").collect::<Vec<_>>().join("/")
}
