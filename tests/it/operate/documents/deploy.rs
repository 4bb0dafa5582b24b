//! The commands of the pages of `deploy/` but for that of kubeadm.

use std::net::SocketAddr;

use fairlead_lab::Feature;
use serde_json::{Value, json};

use super::kubeadm::{after_the_overlay, has_the_address, is_rolled_out, with_kube_proxy};
use super::readme::last_asked;
use super::scene::Scene;
use super::step::{Step, asks, checked, ends, play, stays};
use crate::operate::deploy::rendered::{objects, root};
use crate::program::{BINARY, eventually, http_get, tables};

/// Where k3s looks for what plugins read.
const OF_K3S: &str = "/var/lib/rancher/k3s/agent/etc/cni/net.d";

/// A registry on the node, that lets everybody in.
const REGISTRY: &str = "\
version: 0.1
storage: {filesystem: {rootdirectory: REGISTRY}}
http: {addr: 127.0.0.1:5000}
";
const WITHOUT_TLS: &str = "[[registry]]\nlocation = '127.0.0.1:5000'\ninsecure = true\n";
const FROM_ANYBODY: &str = r#"{"default": [{"type": "insecureAcceptAnything"}]}"#;

const README: &[Step] = &[
    checked("cargo image", |scene, _| {
        // What `cargo image` calls, with the program that is there in the place of one that is built for minutes.
        let image = fairlead_image::write(BINARY.as_ref(), "0.1.0", &scene.path("target/image")).unwrap();
        assert!(scene.read("target/image/index.json").contains(&image.digest));
    }),
    ends(
        "skopeo copy oci:target/image docker://REGISTRY/fairlead:0.1.0",
        |scene| {
            scene.write("registry.yaml", &REGISTRY.replace("REGISTRY", &scene.path("registry").display().to_string()));
            scene.write("/etc/containers/registries.conf", WITHOUT_TLS);
            scene.write("/etc/containers/policy.json", FROM_ANYBODY);
            scene.keep("docker-registry serve registry.yaml");
            let to = SocketAddr::from(([127, 0, 0, 1], 5000));
            eventually("the registry answers", || scene.node().run(|| http_get(to, "/v2/")).is_ok());
        },
        |scene, _| {
            // Layers are compressed on their way; what is in them is in the configuration, which stays.
            let there = scene.run("skopeo inspect --raw docker://127.0.0.1:5000/fairlead:0.1.0");
            let there: Value = serde_json::from_str(&there).unwrap();
            let digest = there["config"]["digest"].as_str().unwrap().replace(':', "/");
            assert!(scene.read(&format!("target/image/blobs/{digest}")).contains("/usr/bin/fairlead"), "{there}");
        },
    ),
    asks(
        "kubectl -n kube-system exec ds/fairlead -- /usr/bin/fairlead status",
        |scene| {
            scene.deploy("nft");
            scene.assume_running("");
        },
        |scene, _| {
            let asked = last_asked(scene, "exec");
            assert!(asked.contains("/pods/fairlead-"), "{asked}");
            assert!(asked.contains("command=%2Fusr%2Fbin%2Ffairlead&command=status&container=fairlead"), "{asked}");
            assert!(scene.run("fairlead status").contains("nothing waits"));
        },
    ),
    ends(
        "fairlead --config=deploy/modes/nft/config.conf --hostname-override=n --write-config-to=all.yaml",
        |_| (),
        |scene, _| assert!(scene.read("all.yaml").contains("configSyncPeriod: 15m0s")),
    ),
    ends(
        "kubectl -n kube-system create configmap fairlead-api --from-literal=server=https://192.0.2.10:6443",
        |_| (),
        has_the_address,
    ),
];

const IPVS: &[Step] = &[
    checked("fairlead --config=deploy/modes/ipvs/config.conf --hostname-override=n --init-only", |scene, _| {
        let output = scene.output("fairlead --config=deploy/modes/ipvs/config.conf --hostname-override=n --init-only");
        let said = String::from_utf8_lossy(&output.stderr);
        if Feature::IpVs.is_here() {
            assert!(output.status.success(), "{said}");
            assert_eq!(scene.run("cat /proc/sys/net/ipv4/vs/conntrack"), "1\n");
        } else {
            // As the page says of such a node.
            assert_eq!(output.status.code(), Some(1), "{said}");
            assert_eq!(said.lines().filter(|line| line.contains("needs the module ip_vs")).count(), 1, "{said}");
        }
    }),
    ends(
        "kubectl drain NODE --ignore-daemonsets --delete-emptydir-data",
        |scene| {
            with_kube_proxy(scene);
            scene.run("kubectl label nodes --all fairlead=off");
            scene.run(
                "kubectl -n kube-system patch daemonset kube-proxy --patch-file deploy/where-fairlead-is-off.yaml",
            );
            scene.deploy("ipvs");
            let owner =
                json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "x", "uid": "x", "controller": true}]);
            scene.stage.apply([json!({"kind": "Pod", "metadata": {"name": "x", "ownerReferences": owner},
                "spec": {"nodeName": "a", "volumes": [{"name": "scratch", "emptyDir": {}}], "containers": [{"name": "x"}]},
                "status": {"phase": "Running"}})]);
        },
        |scene, _| {
            assert!(scene.stage.server.get("Pod", "default", "x").is_none());
            assert_eq!(scene.stage.node_object("a")["spec"]["unschedulable"], true);
            assert_eq!(scene.nodes_of("kube-proxy"), ["a", "b", "c"]);
        },
    ),
    ends(
        "kubectl label node NODE fairlead-",
        |_| (),
        |scene, _| {
            assert_eq!(
                (scene.nodes_of("fairlead"), scene.nodes_of("kube-proxy")),
                (vec!["a".into()], vec!["b".into(), "c".into()])
            );
        },
    ),
    ends(
        "kubectl uncordon NODE",
        |_| (),
        |scene, _| {
            assert_ne!(scene.stage.node_object("a")["spec"]["unschedulable"], true);
        },
    ),
    ends(
        "kubectl apply -k deploy/overlays/nft",
        |_| (),
        |scene, _| {
            let settings = scene.system("ConfigMap", "fairlead")["data"]["config.conf"].clone();
            assert!(settings.as_str().unwrap().contains("mode: nftables"), "{settings}");
        },
    ),
    ends("kubectl -n kube-system rollout status daemonset/fairlead", |_| (), is_rolled_out),
    ends(
        "kubectl label node NODE fairlead=off",
        |_| (),
        |scene, _| assert_eq!((scene.nodes_of("fairlead").len(), scene.nodes_of("kube-proxy").len()), (0, 3)),
    ),
    ends(
        "fairlead cleanup --only=nft",
        |scene| {
            scene.assume_running("");
            assert_eq!(tables(scene.node()), [true; 2]);
            scene.end();
        },
        |scene, _| assert_eq!(tables(scene.node()), [false; 2]),
    ),
];

const K3S: &[Step] = &[
    ends(
        "kubectl -n kube-system create configmap fairlead-api --from-literal=server=https://192.0.2.10:6443",
        |_| (),
        has_the_address,
    ),
    ends("kubectl apply -k .", own_kustomization, |scene, _| {
        let settings = scene.system("ConfigMap", "fairlead")["data"]["config.conf"].clone();
        assert!(settings.as_str().unwrap().contains("clusterCIDR: 10.42.0.0/16\n"), "{settings}");
        let image = &scene.system("DaemonSet", "fairlead")["spec"]["template"]["spec"]["containers"][0]["image"];
        assert_eq!(*image, "registry.example/fairlead:0.1.0");
        the_patch_is_taken(scene);
    }),
    ends("kubectl -n kube-system rollout status daemonset/fairlead", |_| (), is_rolled_out),
    ends(
        "kubectl -n kube-system delete daemonset fairlead",
        |_| (),
        |scene, _| {
            assert!(scene.system("DaemonSet", "fairlead").is_null());
            assert_eq!(scene.nodes_of("fairlead"), Vec::<String>::new());
        },
    ),
    ends(
        "nft delete table ip fairlead",
        |scene| {
            scene.assume_others("--overlay-backend=vxlan");
            after_the_overlay(scene);
            scene.write(&format!("{OF_K3S}/10-fairlead.conflist"), "{}");
        },
        |scene, _| assert_eq!(tables(scene.node()), [false, true]),
    ),
    ends("nft delete table ip6 fairlead", |_| (), |scene, _| assert_eq!(tables(scene.node()), [false; 2])),
    ends(
        "rm /var/lib/rancher/k3s/agent/etc/cni/net.d/10-fairlead.conflist",
        |_| (),
        |scene, _| assert_eq!(scene.read(&format!("{OF_K3S}/10-fairlead.conflist")), ""),
    ),
    ends("nft delete table ip fairlead-overlay", |_| (), |_, _| ()),
    ends("nft delete table ip6 fairlead-overlay", |_| (), |scene, _| assert_eq!(scene.run("nft list tables"), "")),
];

/// The block of a page that begins so.
fn block(page: &str, first: &str) -> String {
    let text = std::fs::read_to_string(root().join(page)).unwrap();
    let block = text.split("```yaml\n").find(|block| block.starts_with(first)).unwrap();
    block.split("```").next().unwrap().to_owned()
}

/// The files that the pages tell to write: the kustomization, and the settings with the prefix of k3s.
fn own_kustomization(scene: &mut Scene) {
    scene.write("kustomization.yaml", &block("deploy/README.md", "# kustomization.yaml"));
    let ours = std::fs::read_to_string(root().join("deploy/modes/nft/config.conf")).unwrap();
    let prefix = block("deploy/k3s.md", "clusterCIDR:");
    scene.write("config.conf", &ours.replace("clusterCIDR: 10.244.0.0/16,fd00:10:244::/56\n", &prefix));
}

/// With the patch of the page, the plugins' file is written where k3s looks.
fn the_patch_is_taken(scene: &Scene) {
    scene.write("patch.yaml", &block("deploy/k3s.md", "# patch.yaml"));
    let kustomization = scene.read("kustomization.yaml").replace("overlays/nft", "overlays/nft-overlay");
    scene.write("kustomization.yaml", &(kustomization + "patchesStrategicMerge:\n- patch.yaml\n"));
    let built = objects(&scene.run("kubectl kustomize ."));
    let volumes = &built[&("DaemonSet".to_owned(), "fairlead".to_owned())]["spec"]["template"]["spec"]["volumes"];
    let volume = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "cni").unwrap();
    assert_eq!(volume["hostPath"]["path"], OF_K3S);
}

const OTHER_CNI: &[Step] = &[
    stays(
        "fairlead --kubeconfig /var/lib/fairlead/kubeconfig --detect-local-mode=InterfaceNamePrefix --pod-interface-name-prefix=cali",
        |_| (),
        |scene, _| scene.serves(),
    ),
    ends(
        "kubectl -n kube-system rollout undo daemonset/kube-proxy",
        |scene| {
            with_kube_proxy(scene);
            scene.run(
                "kubectl -n kube-system set image daemonset/kube-proxy kube-proxy=registry.example/fairlead:0.1.0",
            );
        },
        |scene, _| {
            let set = scene.system("DaemonSet", "kube-proxy");
            let image = set["spec"]["template"]["spec"]["containers"][0]["image"].as_str().unwrap();
            assert!(image.starts_with("registry.k8s.io/kube-proxy:"), "{image}");
        },
    ),
];

#[test]
fn the_commands_of_the_page_about_image_and_manifests_do_what_it_says() {
    play("deploy/README.md", &[README]);
}

#[test]
fn the_commands_of_the_page_for_ipvs_do_what_it_says() {
    play("deploy/ipvs.md", &[IPVS]);
}

#[test]
fn the_commands_of_the_page_for_k3s_do_what_it_says() {
    play("deploy/k3s.md", &[K3S]);
}

#[test]
fn the_commands_of_the_page_for_other_cnis_do_what_it_says() {
    play("deploy/other-cni.md", &[OTHER_CNI]);
}
