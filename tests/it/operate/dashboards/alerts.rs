//! Each alert fires when what it watches is broken, and none does before.
#![expect(clippy::disallowed_methods, reason = "the program is started with a lock file of its own")]

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fs::File;
use std::process::Stdio;

use fairlead_lab::objects::Service;
use fairlead_lab::{Feature, POD_NETS, needs};
use fairlead_plan::Family;
use serde_json::json;

use super::documents;
use super::prometheus::Prometheus;
use crate::faults::{service, slice};
use crate::overlay::stage::{Stage, run};
use crate::program::{BINARY, Cluster, METRICS_PORT, Program, eventually, nft_output};

/// Those that are about the overlay; the first test is for all others.
fn of_overlay(name: &str) -> bool {
    name.starts_with("FairleadOverlay")
}

/// A Prometheus, and the alerts that have fired.
struct Watch {
    prometheus: Prometheus,
    seen: RefCell<BTreeSet<String>>,
}

impl Watch {
    /// Starts it on a program that has nothing to complain of.
    fn start(prometheus: Prometheus) -> Self {
        eventually("the program is seen", || prometheus.has_data("fairlead_ready == 1"));
        eventually("every rule is computed", || prometheus.has_computed());
        assert_eq!(prometheus.firing(), BTreeSet::new());
        Self { prometheus, seen: RefCell::default() }
    }

    /// Does this until the alert fires.
    fn until(&self, alert: &str, mut harm: impl FnMut()) {
        eventually(&format!("{alert} fires"), || {
            harm();
            self.prometheus.firing().contains(alert)
        });
        self.seen.borrow_mut().insert(alert.to_owned());
    }

    /// Waits until the alert is over.
    fn over(&self, alert: &str) {
        eventually(&format!("{alert} is over"), || !self.prometheus.firing().contains(alert));
    }
}

/// The program in mode iptables, legacy variant, with a lock that no other test takes.
fn with_lock(cluster: &Cluster) -> (Program, File) {
    let directory = cluster.directory.path();
    let (kubeconfig, log, lock) = (directory.join("kubeconfig"), directory.join("log"), directory.join("lock"));
    cluster.server.kubeconfig(&kubeconfig).unwrap();
    let file = File::create(&lock).unwrap();
    let mut command = cluster.node().command(BINARY);
    command.args(["--hostname-override=a", "--conntrack-max-per-core=0", "--oom-score-adj=0", "-v=2"]);
    command.args(["--mode=iptables", "--iptables-variant=legacy"]);
    command.arg(format!("--cluster-cidr={}", POD_NETS.join(","))).arg(format!("--kubeconfig={}", kubeconfig.display()));
    command.env("XTABLES_LOCKFILE", lock).env("NO_COLOR", "1").env_remove("RUST_LOG");
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
    let program = Program::of(command, cluster.node(), log);
    program.wait_until_ready();
    (program, file)
}

fn input_is_wrong(watch: &Watch, cluster: &Cluster) {
    let claim = |name: &str, host| -> Service { service(name, host).external_ip(1) };
    cluster.apply(
        ["older", "younger"]
            .iter()
            .zip(2..)
            .map(|(name, host)| claim(name, host).manifest(&cluster.lab, &Family::BOTH)),
    );
    watch.until("FairleadFrontendConflict", || ());

    let mut wrong = slice("web", &["a1"]).manifests(&cluster.lab, &Family::BOTH);
    let round = RefCell::new(0);
    watch.until("FairleadObjectsRejected", || {
        *round.borrow_mut() += 1;
        wrong[0]["metadata"]["name"] = json!("wrong");
        wrong[0]["endpoints"] = json!([{"addresses": [format!("no address {}", round.borrow())]}]);
        cluster.apply([wrong[0].clone()]);
    });
}

fn nothing_can_be_written(watch: &Watch, cluster: &Cluster, lock: &File) {
    // Somebody holds the lock of iptables: nothing can be written.
    lock.lock().unwrap();
    cluster.serve("waits", 4, &["a1"]);
    watch.until("FairleadSyncFails", || ());
    watch.until("FairleadChangesWait", || ());
    lock.unlock().unwrap();
    watch.over("FairleadChangesWait");
    // What has waited has waited long.
    watch.until("FairleadSlow", || ());
}

#[test]
fn alerts_about_services_fire_when_what_they_watch_is_broken() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Iptables, Feature::Deployment]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let (program, lock) = with_lock(&cluster);
    let target = format!("127.0.0.1:{METRICS_PORT}");
    let watch = Watch::start(Prometheus::start(cluster.node(), &cluster.directory, &[("a", &target)]));

    input_is_wrong(&watch, &cluster);
    nothing_can_be_written(&watch, &cluster, &lock);
    cluster.server.set_fault(|faults| faults.refuse = true);
    watch.until("FairleadApiUnreachable", || ());
    cluster.server.clear_faults();
    program.kill();
    watch.until("FairleadDown", || ());

    let program = cluster.start();
    watch.until("FairleadRulesChangedByOthers", || {
        // It may be gone already.
        nft_output(cluster.node(), "delete table ip fairlead");
    });
    program.kill();
    watch.until("FairleadRestarts", || {
        let program = cluster.start();
        let started = program.metric("process_start_time_seconds", "");
        eventually("the start is seen", || {
            watch.prometheus.has_data(&format!("process_start_time_seconds == {started}"))
        });
        program.kill();
    });
    cluster.server.set_fault(|faults| faults.refuse = true);
    let _program = cluster.launch(&[]);
    watch.until("FairleadNotReady", || ());
    let wanted = documents::alerts().into_iter().filter(|name| !of_overlay(name)).collect();
    assert_eq!(*watch.seen.borrow(), wanted, "each alert is broken here");
}

#[test]
fn alerts_about_the_overlay_fire_when_what_they_watch_is_broken() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Vxlan, Feature::Deployment]) {
        return;
    }
    let stage = Stage::new();
    let programs = stage.start(&["a", "b", "c"], "vxlan");
    let node = stage.node("a");
    let target = format!("127.0.0.1:{METRICS_PORT}");
    let watch = Watch::start(Prometheus::start(node, &stage.directory, &[("a", &target)]));

    let mut thief = stage.node_object("b");
    thief["metadata"]["name"] = json!("thief");
    for field in ["uid", "creationTimestamp"] {
        thief["metadata"].as_object_mut().unwrap().remove(field);
    }
    stage.apply([thief]);
    watch.until("FairleadOverlayPeersRefused", || ());
    stage.server.delete("Node", "", "thief").unwrap();

    // An IPv6 gateway must not lie behind another interface.
    run(node, "ip -6 route add fd00:244:0:3::/65 via fd00:50::9 dev eth0");
    run(node, "ip -6 route del fd00:244:0:3::/64 proto 76");
    watch.until("FairleadOverlayPeersFailing", || ());
    run(node, "ip -6 route del fd00:244:0:3::/65");

    watch.until("FairleadOverlayChangedByOthers", || {
        // It may be gone already.
        let _ = node.ip("route del 10.244.2.0/24");
    });
    watch.over("FairleadOverlayPeersFailing");

    run(stage.node("b"), "nft add table inet block");
    run(stage.node("b"), "nft add chain inet block input { type filter hook input priority -300 ; }");
    run(stage.node("b"), "nft add rule inet block input udp dport 8472 drop");
    drop(programs);
    let program = stage.launch("a", &["--overlay-backend=vxlan"]);
    watch.until("FairleadOverlayPeersSilent", || ());

    // Somebody else's tunnel has the identifier and the port.
    program.kill();
    run(node, "ip link del flannel.1");
    run(node, "ip link add taken type vxlan id 1 dstport 8472 local 192.168.50.1 dev eth0 nolearning");
    let _program = stage.launch("a", &["--overlay-backend=vxlan"]);
    watch.until("FairleadOverlayDown", || ());
    let wanted = documents::alerts().into_iter().filter(|name| of_overlay(name)).collect();
    assert_eq!(*watch.seen.borrow(), wanted, "each alert is broken here");
}
