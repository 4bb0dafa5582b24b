//! The commands of the front page.

use serde_json::{Value, json};

use super::scene::{NODE_PORT, Scene};
use super::step::{Step, asks, ends, play, stays};
use crate::operate::drop_in::{CONFIG, KUBECONFIG, without_limit};
use crate::program::{METRICS_PORT, tables};

/// What lies where no program has to be.
const NET_CONF: &str =
    r#"{"Network": "10.244.0.0/16", "EnableIPv6": true, "IPv6Network": "fd00:244::/32", "Backend": {"Type": "vxlan"}}"#;

const STEPS: &[Step] = &[
    stays(
        r#"fairlead --kubeconfig /var/lib/fairlead/kubeconfig --hostname-override "$(hostname)" --cluster-cidr 10.244.0.0/16"#,
        |_| (),
        |scene, _| {
            scene.serves();
            assert_eq!(tables(scene.node()), [true; 2]);
        },
    ),
    ends("fairlead cleanup", Scene::end, |scene, _| assert_eq!(tables(scene.node()), [false; 2])),
    stays(
        "fairlead --manifests /etc/fairlead/services --hostname-override node-a --cluster-cidr 10.244.0.0/16",
        |scene| scene.write("/etc/fairlead/services/all.yaml", &manifests(scene)),
        |scene, _| scene.serves(),
    ),
    ends(
        "fairlead render -f services.yaml",
        |scene| scene.write("services.yaml", &manifests(scene)),
        |_, said| both_families(said),
    ),
    ends(
        "fairlead render -f services.yaml -o json",
        |_| (),
        |_, said| {
            both_families(said);
            serde_json::from_str::<Value>(said).unwrap();
        },
    ),
    stays(
        "fairlead --config=/var/lib/kube-proxy/config.conf --hostname-override=node-1",
        |scene| {
            scene.write("/var/lib/kube-proxy/config.conf", CONFIG);
            let server = scene.stage.server.url();
            scene.write("/var/lib/kube-proxy/kubeconfig.conf", &KUBECONFIG.replace("SERVER", &server));
            scene.stage.apply([named(scene, "node-1")]);
        },
        |scene, _| {
            scene.serves();
            assert_eq!(scene.program().get(METRICS_PORT, "/proxyMode").unwrap(), (200, "nftables".to_owned()));
        },
    ),
    ends(
        "fairlead --config=config.conf --write-config-to=all.yaml",
        |scene| scene.write("config.conf", CONFIG),
        |scene, _| {
            let all = scene.read("all.yaml");
            assert!(all.contains("configSyncPeriod: 15m0s") && all.contains("FairleadConfiguration"), "{all}");
            scene.run("fairlead --config=all.yaml --write-config-to=again.yaml");
            assert_eq!(scene.read("again.yaml"), all);
        },
    ),
    ends(
        "fairlead --config=config.conf --init-only",
        |scene| scene.write("config.conf", &without_limit(CONFIG)),
        |scene, _| {
            let kept = scene.run("cat /proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established");
            assert_eq!(kept.trim(), "86400", "the default of kube-proxy");
        },
    ),
    ends("fairlead --help", |_| (), |_, said| assert!(said.contains("--cluster-cidr"), "{said}")),
    ends(
        "fairlead explain 10.244.1.5 10.96.0.10:53/udp",
        |scene| {
            scene.stage.server.delete("Node", "", "node-1").unwrap();
            scene.assume_running("");
        },
        |_, said| explains(said, "default/kube-dns:dns", "The packet goes to"),
    ),
    ends(
        "fairlead explain node 10.96.0.10",
        |_| (),
        |_, said| {
            explains(said, "default/kube-dns:dns", "The packet goes to");
            explains(said, "default/kube-dns:dns-tcp", "The packet goes to");
        },
    ),
    ends(
        "fairlead explain 192.0.2.7 192.168.50.1:30080",
        |_| assert_eq!(NODE_PORT, 30_080),
        |_, said| explains(said, "default/web:n, by its node port", "The packet goes to"),
    ),
    ends(
        "fairlead services",
        |_| (),
        |_, said| {
            both_families(said);
            for name in ["default/web:t", "default/web:u", "default/web:n", "default/kube-dns:dns"] {
                assert_eq!(
                    said.lines().filter(|line| line.starts_with(&format!("{name} "))).count(),
                    2,
                    "{name}\n{said}"
                );
            }
        },
    ),
    ends(
        "fairlead services kube-dns",
        |_| (),
        |_, said| assert!(said.contains("default/kube-dns:dns") && !said.contains("default/web"), "{said}"),
    ),
    ends("fairlead status", |_| (), |_, said| assert!(said.contains("nothing waits"), "{said}")),
    asks(
        "kubectl -n kube-system port-forward ds/fairlead 10249",
        |scene| scene.deploy("nft"),
        |scene, _| {
            let asked = last_asked(scene, "portforward");
            assert!(asked.contains("/namespaces/kube-system/pods/fairlead-"), "{asked}");
            let (status, page) = scene.program().get(10_249, "/").unwrap();
            assert!(status == 200 && page.contains("<title>fairlead on a</title>"), "{page}");
        },
    ),
    asks(
        "kubectl -n kube-system exec ds/fairlead -- fairlead explain 10.244.1.5 10.96.0.10:53/udp",
        |_| (),
        |scene, _| {
            let asked = last_asked(scene, "exec");
            let words =
                "command=fairlead&command=explain&command=10.244.1.5&command=10.96.0.10%3A53%2Fudp&container=fairlead";
            assert!(asked.contains(words), "{asked}");
        },
    ),
    stays(
        "fairlead --kubeconfig /var/lib/fairlead/kubeconfig --cluster-cidr 10.244.0.0/16,fd00:244::/32 --overlay-backend vxlan",
        |scene| scene.assume_others("--overlay-backend=vxlan"),
        |scene, _| scene.stage.until_connected(&["a", "b", "c"]),
    ),
    stays(
        "fairlead --kubeconfig /var/lib/fairlead/kubeconfig --net-config-path /etc/kube-flannel/net-conf.json",
        |scene| scene.write("/etc/kube-flannel/net-conf.json", NET_CONF),
        |scene, _| scene.stage.until_connected(&["a", "b", "c"]),
    ),
    ends(
        "fairlead status",
        |_| (),
        |_, said| {
            for words in ["10.244.1.0/24", "fd00:244:0:1::/64", "192.168.50.1", "fd00:50::1"] {
                assert!(said.contains(words), "{words}\n{said}");
            }
        },
    ),
    ends("fairlead overlay list", |_| (), |_, said| peers(said)),
    ends("fairlead overlay probe", |_| (), |_, said| peers(said)),
    ends("fairlead overlay trace 10.244.2.11", |_| (), |_, said| assert!(said.contains("flannel"), "{said}")),
    ends("fairlead status --help", |_| (), |_, said| assert!(said.contains("--healthz-address"), "{said}")),
];

/// All Services and slices of the scene as one file, and the node under the name that the page has.
fn manifests(scene: &Scene) -> String {
    let all = scene.services().into_iter().chain([named(scene, "node-a")]).map(|object| object.to_string());
    all.collect::<Vec<_>>().join("\n---\n")
}

/// The Node of the scene under another name.
fn named(scene: &Scene, name: &str) -> Value {
    let mut node = scene.stage.node_object("a");
    node["metadata"] = json!({"name": name});
    node
}

fn both_families(said: &str) {
    assert!(said.contains("10.96.0.1") && said.contains("fd00:96::1"), "{said}");
}

fn explains(said: &str, service: &str, end: &str) {
    assert!(said.contains(&format!("service      {service}")) && said.contains(end), "{said}");
    assert!(said.contains("plan         says the same"), "{said}");
}

fn peers(said: &str) {
    for peer in ["10.244.2.0", "10.244.3.0", "fd00:244:0:2::", "fd00:244:0:3::"] {
        assert!(said.contains(peer), "{peer}\n{said}");
    }
}

/// The newest request for a subresource of a pod.
pub fn last_asked(scene: &Scene, subresource: &str) -> String {
    let requests = scene.stage.server.requests();
    let found = requests.iter().rev().find(|request| request.subresource == subresource);
    found.map(|request| request.uri.clone()).unwrap_or_default()
}

#[test]
fn the_commands_of_the_front_page_do_what_it_says() {
    play("README.md", &[STEPS]);
}
