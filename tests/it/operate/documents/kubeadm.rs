//! The commands of the page for clusters made by kubeadm.

use serde_json::{Value, json};

use super::scene::Scene;
use super::step::{Step, ends, play};
use crate::operate::deploy::kubeadm::DAEMON_SET;
use crate::operate::drop_in::{CONFIG, KUBECONFIG};
use crate::overlay::stage::{PROTOCOL, run};
use crate::program::{eventually, tables};

/// The image of kubeadm's DaemonSet.
const IMAGE: &str = "registry.k8s.io/kube-proxy:v1.34.0";
const ALL: [&str; 3] = ["a", "b", "c"];
const CONFLIST: &str = "/etc/cni/net.d/10-fairlead.conflist";

/// kube-proxy as kubeadm has put it there.
pub fn with_kube_proxy(scene: &mut Scene) {
    let mut set: Value = serde_saphyr::from_str(&DAEMON_SET.replace("fairlead:0.1.0", IMAGE)).unwrap();
    set["metadata"]["namespace"] = json!("kube-system");
    let config = CONFIG.replace("10.244.0.0/16,fd00:10:244::/56", "10.244.0.0/16,fd00:244::/32");
    let data =
        json!({"config.conf": config, "kubeconfig.conf": KUBECONFIG.replace("SERVER", "https://192.0.2.10:6443")});
    let metadata = json!({"name": "kube-proxy", "namespace": "kube-system"});
    scene.stage.apply([set, json!({"kind": "ConfigMap", "metadata": metadata, "data": data})]);
}

/// flanneld as its manifest puts it there.
fn with_flannel(scene: &mut Scene) {
    let linux = json!({"key": "kubernetes.io/os", "operator": "In", "values": ["linux"]});
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution":
        {"nodeSelectorTerms": [{"matchExpressions": [linux]}]}}});
    let labels = json!({"app": "flannel", "tier": "node"});
    let containers = json!([{"name": "kube-flannel", "image": "ghcr.io/flannel-io/flannel:v0.28.0"}]);
    scene.stage.apply([json!({
        "kind": "DaemonSet",
        "metadata": {"name": "kube-flannel-ds", "namespace": "kube-flannel", "labels": labels},
        "spec": {
            "selector": {"matchLabels": {"app": "flannel"}},
            "template": {"metadata": {"labels": labels}, "spec": {"affinity": affinity, "containers": containers}},
        },
    })]);
    assert_eq!(scene.nodes_of("kube-flannel-ds"), ALL);
}

/// What flanneld leaves on a node: chains by iptables, and tables where it writes nftables.
fn with_rules_of_flannel(scene: &mut Scene) {
    for line in [
        "iptables -t nat -N FLANNEL-POSTRTG",
        "iptables -t nat -A POSTROUTING -m comment --comment 'flanneld masq' -j FLANNEL-POSTRTG",
        "iptables -t nat -A FLANNEL-POSTRTG -m comment --comment 'flanneld masq' -j RETURN",
    ] {
        scene.run(line);
        scene.run(&line.replacen("iptables", "ip6tables", 1));
    }
    scene.run("nft add table ip flannel-ipv4 && nft add table ip6 flannel-ipv6");
}

fn has_no_rule_of_flannel(scene: &mut Scene, _: &str) {
    let rules = scene.run("iptables-save -t nat; ip6tables-save -t nat");
    assert!(!rules.contains("FLANNEL"), "{rules}");
}

fn has_no_table(scene: &Scene, name: &str) {
    let there = scene.run("nft list tables");
    assert!(!there.lines().any(|line| line.ends_with(&format!(" {name}"))), "{there}");
}

/// fairlead has run on the node in mode nft, with its overlay, and is gone.
pub fn after_the_overlay(scene: &mut Scene) {
    scene.assume_running(&format!("--overlay-backend=vxlan --cni-conf-dir={}", CONFLIST.rsplit_once('/').unwrap().0));
    scene.stage.until_connected(&["a", "b"]);
    eventually("it has written what the plugins read", || !scene.read(CONFLIST).is_empty());
    scene.end();
    assert_eq!(tables(scene.node()), [true; 2]);
    assert_ne!(routes(scene), "");
    assert!(scene.run("nft list tables").contains("fairlead-overlay"));
}

fn routes(scene: &Scene) -> String {
    ["-4", "-6"].map(|family| run(scene.node(), &format!("ip {family} route show proto {PROTOCOL}"))).concat()
}

fn image_of(scene: &Scene) -> Value {
    scene.system("DaemonSet", "kube-proxy")["spec"]["template"]["spec"]["containers"][0]["image"].clone()
}

/// fairlead by kubeadm's file, in the place of kube-proxy.
fn in_its_place(scene: &mut Scene) {
    scene.write(
        "/var/lib/kube-proxy/config.conf",
        scene.system("ConfigMap", "kube-proxy")["data"]["config.conf"].as_str().unwrap(),
    );
    scene.write("/var/lib/kube-proxy/kubeconfig.conf", &KUBECONFIG.replace("SERVER", &scene.stage.server.url()));
    scene.start("fairlead --config=/var/lib/kube-proxy/config.conf --hostname-override=a");
}

pub fn has_the_address(scene: &mut Scene, _: &str) {
    assert_eq!(scene.system("ConfigMap", "fairlead-api")["data"], json!({"server": "https://192.0.2.10:6443"}));
}

pub fn is_rolled_out(_: &mut Scene, said: &str) {
    assert!(said.contains("successfully rolled out"), "{said}");
}

const BY_THE_IMAGE: &[Step] = &[
    ends(
        "kubectl -n kube-system set image daemonset/kube-proxy kube-proxy=REGISTRY/fairlead:0.1.0",
        with_kube_proxy,
        |scene, _| assert_eq!(image_of(scene), "127.0.0.1:5000/fairlead:0.1.0"),
    ),
    ends("kubectl -n kube-system rollout status daemonset/kube-proxy", |_| (), is_rolled_out),
    ends(
        "kubectl -n kube-system logs daemonset/kube-proxy",
        |scene| {
            in_its_place(scene);
            scene.serves();
            for node in ALL {
                scene.stage.server.set_log(&format!("kube-proxy-{node}"), scene.program().log());
            }
        },
        |_, said| assert!(said.contains("the first sync is in the kernel"), "{said}"),
    ),
];

const BY_THE_MANIFESTS: &[Step] = &[
    ends(
        "kubectl -n kube-system get configmap kube-proxy -o yaml",
        |_| (),
        |_, said| {
            assert!(
                said.contains("clusterCIDR: 10.244.0.0/16") && said.contains("server: https://192.0.2.10"),
                "{said}"
            )
        },
    ),
    ends(
        "kubectl -n kube-system create configmap fairlead-api --from-literal=server=https://192.0.2.10:6443",
        |_| (),
        has_the_address,
    ),
    ends(
        "kubectl label nodes --all fairlead=off",
        |_| (),
        |scene, _| assert_eq!(scene.labelled("fairlead", "off"), ALL),
    ),
    ends(
        "kubectl -n kube-system patch daemonset kube-proxy --patch-file deploy/where-fairlead-is-off.yaml",
        |_| (),
        |scene, _| assert_eq!(scene.nodes_of("kube-proxy"), ALL),
    ),
    ends("kubectl -n kube-system rollout status daemonset/kube-proxy", |_| (), is_rolled_out),
    ends(
        "kubectl apply -k deploy/overlays/nft",
        |_| (),
        |scene, _| {
            assert!(
                scene.system("ConfigMap", "fairlead")["data"]["config.conf"].as_str().unwrap().contains("nftables")
            );
            assert_eq!(scene.nodes_of("fairlead"), Vec::<String>::new(), "every node has the label");
        },
    ),
    ends(
        "kubectl label node NODE fairlead-",
        |_| (),
        |scene, _| {
            assert_eq!(scene.nodes_of("fairlead"), ["a"]);
            assert_eq!(scene.nodes_of("kube-proxy"), ["b", "c"]);
        },
    ),
    ends("kubectl -n kube-system rollout status daemonset/fairlead", |_| (), is_rolled_out),
    ends(
        "kubectl -n kube-system delete daemonset kube-proxy",
        |scene| {
            scene.run("kubectl label nodes --all fairlead-");
            assert_eq!(scene.nodes_of("fairlead"), ALL);
        },
        |scene, _| {
            assert!(scene.system("DaemonSet", "kube-proxy").is_null());
            assert_eq!(scene.nodes_of("kube-proxy"), Vec::<String>::new());
        },
    ),
];

const FLANNEL: &[Step] = &[
    ends(
        "kubectl -n kube-flannel patch daemonset kube-flannel-ds --patch-file deploy/where-fairlead-is-off.yaml",
        with_flannel,
        |scene, _| {
            assert_eq!(scene.nodes_of("kube-flannel-ds"), Vec::<String>::new(), "no node has the label any more")
        },
    ),
    ends(
        "kubectl apply -k deploy/overlays/nft-overlay",
        |_| (),
        |scene, _| {
            let set = scene.system("DaemonSet", "fairlead");
            let words = set["spec"]["template"]["spec"]["containers"][0]["args"].as_array().unwrap();
            assert!(words.contains(&json!("--overlay-backend=vxlan")), "{words:?}");
            assert!(scene.stage.server.get("ClusterRole", "", "fairlead-overlay").is_some());
            assert_eq!(scene.nodes_of("fairlead"), ALL);
        },
    ),
    ends(
        r#"iptables -t nat -D POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG"#,
        with_rules_of_flannel,
        |scene, _| assert!(!scene.run("iptables -t nat -S POSTROUTING").contains("FLANNEL")),
    ),
    ends("iptables -t nat -F FLANNEL-POSTRTG", |_| (), |_, _| ()),
    ends("iptables -t nat -X FLANNEL-POSTRTG", |_| (), has_no_rule_of_flannel),
    ends("nft delete table ip flannel-ipv4", |_| (), |scene, _| has_no_table(scene, "flannel-ipv4")),
    ends("nft delete table ip6 flannel-ipv6", |_| (), |scene, _| has_no_table(scene, "flannel-ipv6")),
];

const BACK: &[Step] = &[
    ends(
        "kubectl -n kube-system edit configmap kube-proxy",
        |scene| {
            with_kube_proxy(scene);
            let set = "set image daemonset/kube-proxy kube-proxy=registry.example/fairlead:0.1.0";
            scene.run(&format!("kubectl -n kube-system {set}"));
            in_its_place(scene);
            assert_eq!(tables(scene.node()), [true; 2]);
        },
        |scene, _| {
            let data = scene.system("ConfigMap", "kube-proxy")["data"]["config.conf"].clone();
            scene.write("/var/lib/kube-proxy/config.conf", data.as_str().unwrap());
            eventually("the nft tables go", || tables(scene.node()) == [false; 2]);
            for tool in ["iptables-save", "ip6tables-save"] {
                assert!(
                    scene.run(&format!("{tool} -t nat")).contains("-j KUBE-SERVICES"),
                    "{tool}: the chains are there"
                );
            }
            scene.serves();
        },
    ),
    ends(
        "kubectl -n kube-system rollout undo daemonset/kube-proxy",
        |_| (),
        |scene, _| assert_eq!(image_of(scene), IMAGE),
    ),
    ends(
        "kubectl apply -k deploy/overlays/iptables",
        |_| (),
        |scene, _| {
            let settings = scene.system("ConfigMap", "fairlead")["data"]["config.conf"].clone();
            assert!(settings.as_str().unwrap().contains("mode: iptables"), "{settings}");
        },
    ),
    ends(
        "kubectl label node NODE fairlead=off",
        |scene| {
            scene
                .run("kubectl -n kube-system patch daemonset kube-proxy --patch-file deploy/where-fairlead-is-off.yaml")
                .clear()
        },
        |scene, _| {
            assert_eq!(scene.nodes_of("fairlead"), ["b", "c"]);
            assert_eq!(scene.nodes_of("kube-proxy"), ["a"]);
        },
    ),
    ends(
        "rm /etc/cni/net.d/10-fairlead.conflist",
        |scene| {
            scene.end();
            scene.run("fairlead cleanup");
            scene.assume_others("--overlay-backend=vxlan");
            after_the_overlay(scene);
        },
        |scene, _| assert_eq!(scene.read(CONFLIST), ""),
    ),
    ends(
        "fairlead cleanup --only=nft,overlay",
        |_| (),
        |scene, _| {
            let left = scene.run("nft list tables");
            assert!(!left.contains("fairlead"), "{left}");
            assert_eq!(routes(scene), "");
        },
    ),
    ends("nft delete table ip fairlead", after_the_overlay, |scene, _| assert_eq!(tables(scene.node()), [false, true])),
    ends("nft delete table ip6 fairlead", |_| (), |scene, _| assert_eq!(tables(scene.node()), [false; 2])),
    ends("nft delete table ip fairlead-overlay", |_| (), |_, _| ()),
    ends("nft delete table ip6 fairlead-overlay", |_| (), |scene, _| has_no_table(scene, "fairlead-overlay")),
    ends("ip route flush proto 76", |_| (), |_, _| ()),
    ends("ip -6 route flush proto 76", |_| (), |scene, _| assert_eq!(routes(scene), "")),
];

#[test]
fn the_commands_of_the_page_for_kubeadm_do_what_it_says() {
    play("deploy/kubeadm.md", &[BY_THE_IMAGE, BY_THE_MANIFESTS, FLANNEL, BACK]);
}
