//! F1 to F9: what others do to a node's kernel, and how long it takes until it is as it was. The times are printed.

use std::thread;
use std::time::{Duration, Instant};

use super::stage::{DEVICES, Stage, can_run, listing, output, run, say, until_listed};
use crate::program::{Program, eventually};

pub const NODES: [&str; 3] = ["a", "b", "c"];

/// A stage on which everything works, and what node `a` holds then.
pub fn working(backend: &str) -> (Stage, Vec<Program>, Vec<String>) {
    let stage = Stage::new();
    let programs = stage.start(&NODES, backend);
    let before = listing(stage.node("a"));
    (stage, programs, before)
}

/// Does something to node `a`; all of it must be as before, in the kernel and for packets.
fn repaired(check: &str, lines: &[&str]) {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    for line in lines {
        fault(&stage, &before, check, line);
    }
    stage.until_connected(&NODES);
}

/// Runs lines, with `;` between, and waits for the repair.
pub fn fault(stage: &Stage, before: &[String], check: &str, line: &str) {
    let node = stage.node("a");
    for command in line.split(';') {
        run(node, command.trim());
    }
    say(check, line, until_listed(node, before, Instant::now()));
}

/// The Ethernet address of a node's device.
fn mac(stage: &Stage, node: &str, device: &str) -> String {
    run(stage.node(node), &format!("cat /sys/class/net/{device}/address")).trim().to_owned()
}

#[test]
fn f1_a_deleted_route_neighbour_or_forwarding_entry_comes_back_one_by_one_and_together() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let (v4, v6) = (mac(&stage, "b", DEVICES[0]), mac(&stage, "b", DEVICES[1]));
    let single = [
        "ip route del 10.244.2.0/24".to_owned(),
        "ip -6 route del fd00:244:0:2::/64".to_owned(),
        "ip neigh del 10.244.2.0 dev flannel.1".to_owned(),
        "ip -6 neigh del fd00:244:0:2:: dev flannel-v6.1".to_owned(),
        format!("bridge fdb del {v4} dev flannel.1 dst 192.168.50.2"),
        format!("bridge fdb del {v6} dev flannel-v6.1 dst fd00:50::2"),
    ];
    for line in &single {
        fault(&stage, &before, "F1", line);
    }
    fault(&stage, &before, "F1", &single.join("; "));
    stage.until_connected(&NODES);
}

#[test]
fn f2_an_overwritten_route_neighbour_or_forwarding_entry_is_put_right() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let (v4, v6) = (mac(&stage, "b", DEVICES[0]), mac(&stage, "b", DEVICES[1]));
    let lines = [
        "ip route replace 10.244.2.0/24 via 192.168.50.9 dev eth0".to_owned(),
        "ip route replace blackhole 10.244.2.0/24".to_owned(),
        "ip -6 route replace fd00:244:0:2::/64 via fd00:50::9 dev eth0".to_owned(),
        "ip -6 route append fd00:244:0:2::/64 via fd00:50::9 dev eth0".to_owned(),
        "ip neigh replace 10.244.2.0 lladdr 0a:00:00:00:00:99 dev flannel.1 nud permanent".to_owned(),
        "ip neigh replace 10.244.2.0 lladdr 0a:00:00:00:00:99 dev flannel.1 nud reachable".to_owned(),
        "ip -6 neigh replace fd00:244:0:2:: lladdr 0a:00:00:00:00:99 dev flannel-v6.1 nud permanent".to_owned(),
        format!("bridge fdb replace {v4} dev flannel.1 dst 192.168.50.99"),
        format!("bridge fdb replace {v4} dev flannel.1 dst 192.168.50.2 port 9999"),
        format!("bridge fdb replace {v6} dev flannel-v6.1 dst fd00:50::99"),
        "bridge fdb append 0a:00:00:00:00:98 dev flannel.1 dst 192.168.50.98".to_owned(),
        "ip neigh add 10.244.98.0 lladdr 0a:00:00:00:00:98 dev flannel.1".to_owned(),
        "ip addr add 10.244.98.1/24 dev flannel.1".to_owned(),
        "ip addr del 10.244.1.0/32 dev flannel.1".to_owned(),
        "ip -6 addr del fd00:244:0:1::/128 dev flannel-v6.1".to_owned(),
    ];
    for line in &lines {
        fault(&stage, &before, "F2", line);
    }
    stage.until_connected(&NODES);
}

#[test]
fn f3_a_device_that_was_switched_off_and_on_carries_packets_again() {
    repaired(
        "F3",
        &[
            "ip link set flannel.1 down; ip link set flannel.1 up",
            "ip link set flannel-v6.1 down; ip link set flannel-v6.1 up",
            "ip link set flannel.1 down",
            "ip link set flannel-v6.1 down",
        ],
    );
}

#[test]
fn f4_a_deleted_device_comes_back_with_all_peers() {
    repaired(
        "F4",
        &["ip link del flannel.1", "ip link del flannel-v6.1", "ip link del flannel.1; ip link del flannel-v6.1"],
    );
}

#[test]
fn f4_a_device_made_again_by_others_with_other_properties_is_put_right() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan");
    for other in ["vxlan id 1 dev eth0 dstport 4789", "vxlan id 1 dev eth0 dstport 8472 group 239.1.1.1", "bridge"] {
        // Else it would be there again before the others come to it.
        programs[0].signal("STOP");
        run(stage.node("a"), "ip link del flannel.1");
        run(stage.node("a"), &format!("ip link add flannel.1 type {other}"));
        programs[0].signal("CONT");
        say("F4", &format!("flannel.1 is {other}"), until_listed(stage.node("a"), &before, Instant::now()));
    }
    stage.until_connected(&NODES);
}

#[test]
fn f2_a_route_of_others_that_stands_before_ours_is_removed() {
    if !can_run() {
        return;
    }
    let (stage, programs, before) = working("vxlan");
    let node = stage.node("a");
    let lines = [
        "ip route prepend 10.244.2.0/24 via 192.168.50.9 dev eth0",
        "ip route prepend blackhole 10.244.2.0/24",
        "ip -6 route prepend blackhole fd00:244:0:2::/64",
        "ip -6 route append blackhole fd00:244:0:2::/64",
    ];
    for line in lines {
        // Together with others, so that more than one stranger is there when the program looks.
        programs[0].signal("STOP");
        let _ = output(node, line);
        let _ = output(node, "ip -6 route append fd00:244:0:2::/64 via fd00:50::9 dev eth0");
        programs[0].signal("CONT");
        let since = Instant::now();
        stage.until_connected(&["a", "b"]);
        say("F2", line, since.elapsed());
        until_listed(node, &before, since);
        for address in ["10.244.2.11", "fd00:244:0:2::b"] {
            let way = run(node, &format!("ip route get {address}"));
            assert!(way.contains("dev flannel"), "{line}: {way}");
        }
    }
}

/// Switches the network card on again; the machine's network service restores addresses and routes.
fn bring_up(stage: &Stage, node: &str) {
    let place = stage.node(node);
    run(place, "ip link set eth0 up");
    place.address_eth0(place.addresses()).or_else(|_| restore(place)).unwrap();
}

/// IPv4 addresses outlive the link.
fn restore(place: &fairlead_lab::Place) -> anyhow::Result<()> {
    place.ip("addr flush dev eth0 scope global")?;
    place.address_eth0(place.addresses())
}

#[test]
fn f5_the_network_card_goes_down_and_up() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "host-gw"] {
        let (stage, programs, before) = working(backend);
        let is = |up| programs[0].metric("fairlead_overlay_up", "") == f64::from(u8::from(up));
        assert!(is(true));
        run(stage.node("a"), "ip link set eth0 down");
        eventually("the metric tells that the card is off", || is(false));
        bring_up(&stage, "a");
        let took = until_listed(stage.node("a"), &before, Instant::now());
        say("F5", &format!("eth0 down and up, {backend}"), took);
        eventually("and that it is on again", || is(true));
        stage.until_connected(&NODES);
    }
}

#[test]
fn f6_the_network_card_is_replaced_by_another() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "host-gw"] {
        let (stage, _programs, before) = working(backend);
        stage.lab.unplug("a").unwrap();
        thread::sleep(Duration::from_millis(300));
        stage.lab.plug("a").unwrap();
        let took = until_listed(stage.node("a"), &before, Instant::now());
        say("F6", &format!("eth0 deleted and made again, {backend}"), took);
        stage.until_connected(&NODES);
    }
}

#[test]
fn f7_the_nodes_address_changes_and_the_peers_follow() {
    if !can_run() {
        return;
    }
    let (stage, _programs, _) = working("vxlan");
    let node = stage.node("a");
    let start = Instant::now();
    for line in [
        // With the first address of a network the others go.
        "ip addr del 192.168.50.1/24 dev eth0",
        "ip addr add 192.168.50.71/24 dev eth0",
        "ip -6 addr add fd00:50::71/64 dev eth0 nodad",
        "ip -6 addr del fd00:50::1/64 dev eth0",
        "ip route replace default via 192.168.50.254",
        "ip -6 route replace default via fd00:50::fe",
    ] {
        run(node, line);
    }
    eventually("the Node says the new addresses", || {
        stage.annotation("a", "public-ip") == "192.168.50.71" && stage.annotation("a", "public-ipv6") == "fd00:50::71"
    });
    stage.until_connected(&NODES);
    say("F7", "eth0 has other addresses", start.elapsed());
    assert!(run(node, "ip -d link show flannel.1").contains("local 192.168.50.71 dev eth0"));
    assert!(run(node, "ip -d link show flannel-v6.1").contains("local fd00:50::71 dev eth0"));
}

#[test]
fn f8_the_underlays_mtu_changes_and_the_tunnels_follow() {
    if !can_run() {
        return;
    }
    let (stage, _programs, before) = working("vxlan");
    let node = stage.node("a");
    let mtu = |device: &str| run(node, &format!("cat /sys/class/net/{device}/mtu")).trim().to_owned();
    run(node, "ip link set eth0 mtu 1400");
    let took =
        eventually("both devices leave room", || (mtu(DEVICES[0]), mtu(DEVICES[1])) == ("1350".into(), "1330".into()));
    say("F8", "eth0 has MTU 1400", took);
    run(node, "ip link set eth0 mtu 1500");
    say("F8", "eth0 has MTU 1500 again", until_listed(node, &before, Instant::now()));
    run(node, "ip link set flannel.1 mtu 1200");
    say("F8", "flannel.1 has MTU 1200", until_listed(node, &before, Instant::now()));
    stage.until_connected(&NODES);
}

#[test]
fn f9_the_devices_own_address_is_changed_and_changed_back() {
    repaired(
        "F9",
        &["ip link set flannel.1 address 0a:00:00:00:00:77", "ip link set flannel-v6.1 address 0a:00:00:00:00:77"],
    );
}
