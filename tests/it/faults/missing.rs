//! A kernel that lacks what a mode needs.

use fairlead_lab::{Feature, Place, needs};
use fairlead_plan::Family;

use super::{service, slice};
use crate::program::{Cluster, Directory, run};

/// Everything that mode ipvs could have changed.
fn all(node: &Place) -> String {
    let commands = [
        "iptables-save",
        "ip6tables-save",
        "ipset save",
        "ip rule",
        "ip -6 rule",
        // The state of a bridge follows those of its ports after a while.
        "ip -o link | sed 's/ state [A-Z]*//'",
        "ip -o address",
        "cat /proc/sys/net/ipv4/conf/all/arp_ignore",
    ];
    let outputs = commands.map(|line| {
        let output = node.command("sh").args(["-c", line]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        // Times and counters change by themselves.
        text.lines().filter(|line| !line.starts_with(['#', ':'])).map(|line| format!("{line}\n")).collect::<String>()
    });
    outputs.concat()
}

#[test]
fn a_kernel_without_ipvs_is_named_in_one_sentence_and_nothing_is_changed() {
    if !needs(&[Feature::Namespaces, Feature::Iptables, Feature::Ipset]) {
        return;
    }
    let cluster = Cluster::new();
    let mut objects = cluster.lab.cluster_manifests();
    objects.push(service("web", 1).manifest(&cluster.lab, &Family::BOTH));
    objects.extend(slice("web", &["a1"]).manifests(&cluster.lab, &Family::BOTH));
    if Feature::IpVs.is_here() {
        cluster.apply(objects);
        cluster.launch(&["--mode=ipvs"]).wait_until_ready();
        return;
    }
    let manifests = Directory::new();
    let text: Vec<String> = objects.iter().map(ToString::to_string).collect();
    manifests.write("objects.yaml", &text.join("\n---\n"));
    let directory = format!("--manifests={}", manifests.path().display());
    let before = all(cluster.node());
    let flags = ["--mode=ipvs", "--ipvs-strict-arp", "--hostname-override=a", "--conntrack-max-per-core=0", &directory];
    let output = run(cluster.node(), &flags);
    let said = String::from_utf8(output.stderr).unwrap();
    let last = said.lines().last().unwrap_or_default();
    assert!(last.starts_with("fairlead: ") && last.contains("module ip_vs") && last.contains("modprobe"), "{said}");
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert_eq!(all(cluster.node()), before);
}
