//! Wrong flags, and a directory of manifests that breaks.

use std::fs;

use fairlead_plan::Family;

use super::{can_run, service, slice, until_answered_by, without_failure};
use crate::program::{Cluster, Directory, Program, eventually, nft, run_here, tables};

/// A wrong command line, and words that its sentence must have.
const WRONG: [(&[&str], &[&str]); 11] = [
    (&["--no-such-flag"], &["--no-such-flag"]),
    (&["--cluster-cidr=10.244.0.0/99"], &["--cluster-cidr", "10.244.0.0/99"]),
    (&["--cluster-cidr=pods"], &["--cluster-cidr", "pods"]),
    (&["--nodeport-addresses=everywhere"], &["--nodeport-addresses", "everywhere"]),
    (&["--iptables-sync-period=soon"], &["--iptables-sync-period", "soon"]),
    (&["--iptables-sync-period=0s"], &["--iptables-sync-period"]),
    (&["--metrics-bind-address=here"], &["--metrics-bind-address", "here"]),
    (&["--manifests=/tmp", "--kubeconfig=/tmp/k"], &["--manifests", "--kubeconfig"]),
    (&["--ipvs-scheduler=round robin"], &["--ipvs-scheduler", "round robin"]),
    (&["--proxy-mode=userspace"], &["--mode", "userspace"]),
    (&["clean"], &["clean", "cleanup"]),
];

#[test]
fn a_wrong_command_line_gets_one_sentence_and_exit_code_2() {
    for (args, words) in WRONG {
        let output = run_here(args);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {said}");
        assert!(output.stdout.is_empty(), "{args:?}");
        assert_eq!(said.trim_end().lines().count(), 1, "{args:?}: {said}");
        assert!(said.starts_with("fairlead: ") && said.trim_end().ends_with(['.', '?']), "{args:?}: {said}");
        for word in words {
            assert!(said.contains(word), "{args:?}: {said}");
        }
    }
}

#[test]
fn a_kubeconfig_that_cannot_be_used_is_named_and_no_kernel_is_touched() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    let broken = cluster.directory.write("broken", "clusters: [");
    for file in ["/nowhere/kubeconfig".to_owned(), broken.display().to_string()] {
        let output = crate::program::run(cluster.node(), &["--hostname-override=a", &format!("--kubeconfig={file}")]);
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        assert!(said.lines().last().unwrap().contains(&file), "{said}");
        assert_eq!(tables(cluster.node()), [false, false]);
    }
}

/// The objects of a Service as a file of YAML documents.
fn documents(cluster: &Cluster, name: &str, host: u8, pods: &[&str]) -> String {
    let mut all = vec![service(name, host).manifest(&cluster.lab, &Family::BOTH)];
    all.extend(slice(name, pods).manifests(&cluster.lab, &Family::BOTH));
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n---\n")
}

#[test]
fn a_directory_of_manifests_is_followed_and_a_broken_file_keeps_its_last_good_content() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    let manifests = Directory::new();
    let all: Vec<String> = cluster.lab.cluster_manifests().iter().map(ToString::to_string).collect();
    manifests.write("cluster.yaml", &all.join("\n---\n"));
    manifests.write("web.yaml", &documents(&cluster, "web", 1, &["a1"]));
    let flag = format!("--manifests={}", manifests.path().display());
    let program = Program::launch(cluster.node(), &cluster.directory, &[&flag]);
    program.wait_until_ready();
    let client = cluster.lab.place("a2");
    until_answered_by(client, 1, &["a1"]);
    manifests.write("web.yaml", &documents(&cluster, "web", 1, &["a1", "b1"]));
    until_answered_by(client, 1, &["a1", "b1"]);

    let hammer = cluster.hammer("a2", 1);
    let broken = documents(&cluster, "web", 1, &["a3"]) + "\n---\nkind: Service\nmetadata: [name\n";
    let line = broken.lines().count();
    manifests.write("web.yaml", &broken);
    program.wait_for_line(&["web.yaml:"]);
    let log = program.log();
    let said = log.lines().rfind(|line| line.contains("web.yaml:")).unwrap();
    let at = said.split("web.yaml:").nth(1).unwrap().split(|c: char| !c.is_ascii_digit()).next().unwrap();
    let at: usize = at.parse().unwrap_or_else(|_| panic!("no line number in: {said}"));
    assert!((line - 2..=line + 1).contains(&at), "line {at} instead of about {line}: {said}");
    eventually("it is counted", || program.metric("fairlead_failures_total", "cause=\"input\"") > 0.0);
    // Other files go on being followed.
    manifests.write("later.yaml", &documents(&cluster, "later", 2, &["a3"]));
    until_answered_by(client, 2, &["a3"]);
    until_answered_by(client, 1, &["a1", "b1"]);
    without_failure(hammer);

    manifests.write("web.yaml", &documents(&cluster, "web", 1, &["a3"]));
    until_answered_by(client, 1, &["a3"]);
    fs::remove_file(manifests.path().join("later.yaml")).unwrap();
    eventually("the service of a removed file is gone", || {
        !nft(cluster.node(), "list table ip fairlead").contains("10.96.0.2")
    });
    until_answered_by(client, 1, &["a3"]);
}

#[test]
fn the_version_and_the_help_go_to_standard_output() {
    for args in ["--version", "--help"] {
        let output = run_here(&[args]);
        assert!(output.status.success() && output.stderr.is_empty());
        assert!(String::from_utf8(output.stdout).unwrap().contains("fairlead"));
    }
}
