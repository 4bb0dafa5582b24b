//! Services that say how IPVS shall choose, and those that ask for what there is not.

use std::net::SocketAddr;

use fairlead_lab::{Feature, Options, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol};
use serde_json::{Value, json};

use super::{service, slice};
use crate::program::{Cluster, eventually};

const ANNOTATION: &str = "fairlead.io/ipvs-scheduler";

fn asking(cluster: &Cluster, scheduler: Option<&str>) -> Value {
    let mut manifest = service("web", 1).manifest(&cluster.lab, &Family::BOTH);
    if let Some(scheduler) = scheduler {
        manifest["metadata"]["annotations"] = json!({ ANNOTATION: scheduler });
    }
    manifest
}

/// The schedulers of the virtual services for TCP, sorted.
fn schedulers(cluster: &Cluster) -> Vec<String> {
    let table = cluster.node().command("cat").arg("/proc/net/ip_vs").output().unwrap();
    let table = String::from_utf8(table.stdout).unwrap();
    let lines = table.lines().filter(|line| line.starts_with("TCP"));
    let mut all: Vec<String> = lines.filter_map(|line| line.split_whitespace().nth(2)).map(str::to_owned).collect();
    all.sort();
    all
}

fn become_all(cluster: &Cluster, scheduler: &str) {
    let of_both_families = [scheduler; Family::BOTH.len()];
    eventually(&format!("{scheduler} chooses in both families"), || schedulers(cluster) == of_both_families);
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(1).of(family), 80);
        let seen = probe_set(cluster.lab.place("a2"), Protocol::Tcp, to, &Options::default());
        assert_eq!(seen.endpoints(), ["a1"].into(), "{scheduler}, {to}: {seen:?}");
    }
}

#[test]
fn a_service_chooses_as_it_asks_and_one_that_asks_for_what_is_not_there_as_the_rest() {
    if !needs(&[Feature::Namespaces, Feature::Iptables, Feature::Ipset, Feature::IpVs, Feature::Dummy]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.apply(cluster.lab.cluster_manifests());
    cluster.apply(slice("web", &["a1"]).manifests(&cluster.lab, &Family::BOTH));
    cluster.apply([asking(&cluster, Some("lc"))]);
    let program = cluster.launch(&["--mode=ipvs", "--ipvs-scheduler=wrr"]);
    program.wait_until_ready();
    become_all(&cluster, "lc");
    cluster.apply([asking(&cluster, Some("sh"))]);
    become_all(&cluster, "sh");
    cluster.apply([asking(&cluster, Some("nosuch"))]);
    become_all(&cluster, "wrr");
    program.wait_for_line(&["no scheduler nosuch", "ip_vs_nosuch", "web"]);
    cluster.apply([asking(&cluster, Some("lc"))]);
    become_all(&cluster, "lc");
    cluster.apply([asking(&cluster, Some("two words"))]);
    become_all(&cluster, "wrr");
    program.wait_for_line(&[ANNOTATION, "two words", "web"]);
    cluster.apply([asking(&cluster, Some("sh"))]);
    become_all(&cluster, "sh");
    cluster.apply([asking(&cluster, None)]);
    become_all(&cluster, "wrr");
}
