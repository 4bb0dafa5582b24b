//! The commands of the pages about dashboards, metrics and the iptables mode, which stand in sentences.

use fairlead_plan::Family;

use super::step::{Step, ends, flags, play};
use crate::faults::service;
use crate::operate::deploy::rendered::root;
use crate::program::{METRICS_PORT, eventually, http_get};

const DASHBOARDS: &[Step] = &[
    flags("fairlead --metrics-bind-address=0.0.0.0:10249", |scene, _| {
        let to = (scene.node().addr(Family::V4), METRICS_PORT).into();
        let (status, body) = scene.stage.lab.place("outside").run(|| http_get(to, "/metrics")).unwrap();
        assert!(status == 200 && body.contains("fairlead_build_info"), "{status}");
    }),
    ends(
        "kubectl -n kube-system logs ds/fairlead",
        |scene| {
            scene.deploy("nft");
            for node in ["a", "b", "c"] {
                scene.stage.server.set_log(&format!("fairlead-{node}"), scene.program().log());
            }
        },
        |_, said| assert!(said.contains("/metrics answers on 0.0.0.0:10249"), "{said}"),
    ),
    ends(
        "kubectl -n kube-system get pods -o wide -l app.kubernetes.io/name=fairlead",
        |_| (),
        |_, said| {
            for node in ["a", "b", "c"] {
                let of_pod = said.lines().find(|line| line.starts_with(&format!("fairlead-{node} ")));
                assert_eq!(of_pod.and_then(|line| line.split_whitespace().last()), Some(node), "where it runs: {said}");
            }
        },
    ),
    ends(
        "kubectl -n kube-system describe pod",
        |_| (),
        |_, said| assert!(said.contains("Node:") && said.contains("Image:") && said.contains("Status:"), "{said}"),
    ),
    flags("fairlead --iptables-min-sync-period=0s", |scene, _| scene.serves()),
    ends(
        "kubectl get events --field-selector reason=FrontendConflict -A",
        |scene| {
            for (name, host) in [("older", 2), ("younger", 3)] {
                let claim = service(name, host).external_ip(1);
                scene.stage.apply([claim.manifest(&scene.stage.lab, &Family::BOTH)]);
            }
            let said = || scene.stage.server.events().iter().any(|event| event["reason"] == "FrontendConflict");
            eventually("an Event says it", said);
        },
        |_, said| assert!(said.contains("younger") && !said.contains("older."), "{said}"),
    ),
    flags("fairlead --iface=eth0", |scene, _| scene.serves()),
];

const METRICS: &[Step] = &[ends(
    "fairlead metrics",
    |_| (),
    |_, said| {
        let page = std::fs::read_to_string(root().join("dashboards/metrics.md")).unwrap();
        assert_eq!(said.trim(), page.trim());
    },
)];

const IPTABLES: &[Step] = &[ends(
    "fairlead render --mode=iptables -f services.yaml",
    |scene| {
        let all = scene.services().into_iter().map(|object| object.to_string());
        scene.write("services.yaml", &all.collect::<Vec<_>>().join("\n---\n"));
    },
    |_, said| {
        assert!(said.contains("KUBE-SVC-") && said.contains("10.96.0.1") && said.contains("fd00:96::1"), "{said}")
    },
)];

#[test]
fn the_commands_of_the_page_about_dashboards_do_what_it_says() {
    play("dashboards/README.md", &[DASHBOARDS]);
}

#[test]
fn the_command_of_the_page_of_metrics_prints_it() {
    play("dashboards/metrics.md", &[METRICS]);
}

#[test]
fn the_command_of_the_page_of_mode_iptables_does_what_it_says() {
    play("backends/iptables/README.md", &[IPTABLES]);
}
