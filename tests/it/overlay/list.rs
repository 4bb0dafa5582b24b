//! `fairlead overlay list`, compared with what `ip` and `bridge` say, and with what others have spoilt.

use fairlead_plan::Family;
use serde_json::{Value, json};

use super::stage::{DEVICES, Stage, can_run, run};
use crate::program;

/// What the command prints as JSON on node `a`, and whether it says that all is well.
fn ways(stage: &Stage, with_nodes: bool) -> (Vec<Value>, bool) {
    let items = ["a", "b", "c"].map(|name| stage.node_object(name));
    let nodes = json!({ "apiVersion": "v1", "kind": "List", "items": items });
    let file = stage.directory.write("nodes.json", &nodes.to_string());
    let file = file.display().to_string();
    let mut args = vec!["overlay", "list", "--json"];
    if with_nodes {
        args.extend(["-f", &file]);
    }
    let output = program::run(stage.node("a"), &args);
    let text = String::from_utf8(output.stdout).unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    (serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}{said}")), output.status.success())
}

/// What is wrong, by prefix or device.
fn drift(ways: &[Value]) -> Vec<String> {
    let wrong = ways.iter().filter(|way| way["drift"] != json!([]));
    wrong
        .map(|way| format!("{} {}", way["prefix"].as_str().unwrap_or("-"), way["drift"][0].as_str().unwrap()))
        .collect()
}

#[test]
fn ac0_5_the_list_has_prefix_node_underlay_address_mac_vni_mode_and_drift_of_every_peer() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b", "c"], "vxlan");
    let (ways, well) = ways(&stage, true);
    let mut wanted = Vec::new();
    for family in Family::BOTH {
        for name in ["b", "c"] {
            let (node, device) = (stage.node(name), DEVICES[family as usize]);
            wanted.push(json!({
                "prefix": node.pod_cidrs()[family as usize],
                "node": name,
                "underlay": node.addr(family),
                "mac": run(node, &format!("cat /sys/class/net/{device}/address")).trim(),
                "vni": 1,
                "mode": "vxlan",
                "device": device,
                "drift": [],
            }));
        }
    }
    assert_eq!(ways, wanted);
    assert!(well);
    let output = program::run(stage.node("a"), &["overlay", "list"]);
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with("PREFIX  ") && text.lines().count() == 5 && !text.contains('\x1b'), "{text}");
    eprintln!("{text}");
}

#[test]
fn the_list_says_what_is_wrong_with_each_way() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let mut programs = stage.start(&["a", "b", "c"], "vxlan");
    // Else it would be right again before anybody looks.
    programs.remove(0).kill();
    let node = stage.node("a");
    let mac = |name: &str, device: &str| {
        run(stage.node(name), &format!("cat /sys/class/net/{device}/address")).trim().to_owned()
    };
    let (b, c) = (mac("b", DEVICES[0]), mac("c", DEVICES[1]));
    run(node, &format!("bridge fdb del {b} dev flannel.1 dst 192.168.50.2"));
    run(node, "ip neigh del 10.244.3.0 dev flannel.1");
    run(node, "ip -6 route del fd00:244:0:2::/64");
    run(node, &format!("bridge fdb replace {c} dev flannel-v6.1 dst fd00:50::99"));
    let (found, well) = ways(&stage, true);
    assert!(!well);
    let b6 = mac("b", DEVICES[1]);
    let wanted = [
        format!("10.244.2.0/24 flannel.1 has no forwarding entry for {b}"),
        "10.244.3.0/24 flannel.1 has no permanent neighbour 10.244.3.0".to_owned(),
        "fd00:244:0:2::/64 there is no route".to_owned(),
        "fd00:244:0:3::/64 its Node says fd00:50::3".to_owned(),
        "- no route leads to the neighbour fd00:244:0:2::".to_owned(),
        "- no neighbour has the address of this forwarding entry".to_owned(),
        "- no neighbour has the address of this forwarding entry".to_owned(),
    ];
    assert_eq!(drift(&found), wanted, "{found:#?}");
    assert!(found.iter().any(|way| way["mac"] == json!(b6)), "one of the last two is of the deleted route");
    // Without Nodes nothing is known about what should be there.
    let (found, well) = ways(&stage, false);
    assert!(!well && found.iter().all(|way| way["node"].is_null()));
    assert!(drift(&found).iter().all(|line| !line.contains("Node") && !line.contains("there is no route")));
}

#[test]
fn in_mode_host_gw_the_next_router_is_listed_and_without_peers_there_is_nothing() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let output = program::run(stage.node("a"), &["overlay", "list"]);
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "There is no way to pods of other nodes.\n");
    let _programs = stage.start(&["a", "b"], "host-gw");
    let (found, well) = ways(&stage, true);
    let of_b: Vec<_> = found.iter().filter(|way| way["node"] == json!("b")).collect();
    assert!(
        of_b.len() == 2 && of_b.iter().all(|way| way["mode"] == json!("host-gw") && way["mac"].is_null()),
        "{found:#?}"
    );
    assert_eq!(of_b[0]["underlay"], json!(stage.node("b").addr(Family::V4)));
    assert!(well, "node c has no overlay agent and is not missed: {found:#?}");
}
