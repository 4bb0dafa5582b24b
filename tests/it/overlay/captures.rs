//! Packets on the wire as documents about flannel and VXLAN show them. Each test is named after its acceptance check.

use std::process::{Child, Stdio};

use super::stage::{Stage, can_run, output, run};
use crate::program::eventually;

/// A running `tcpdump`; what it says is read when it has seen enough.
fn capture(stage: &Stage, place: &str, count: u32, filter: &str) -> Child {
    let mut command = stage.lab.place(place).command("tcpdump");
    let count = count.to_string();
    command.args(["-n", "-v", "-e", "-l", "-i", "eth0", "-c", &count]).args(filter.split(' '));
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // It says so when it listens.
    let mut said = String::new();
    let mut error = std::io::BufReader::new(child.stderr.take().unwrap());
    while !said.contains("listening on") {
        assert!(std::io::BufRead::read_line(&mut error, &mut said).unwrap() > 0, "tcpdump: {said}");
    }
    child.stderr = Some(error.into_inner());
    child
}

fn captured(child: Child) -> String {
    String::from_utf8_lossy(&child.wait_with_output().unwrap().stdout).into_owned()
}

#[test]
fn ac0_4_2_6_and_4_7_a_pods_ping_travels_in_vxlan_with_flannels_addresses_and_lengths() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let dump = capture(&stage, "a", 2, "udp port 8472 and src host 192.168.50.1");
    run(stage.lab.place("a1"), "ping -c 2 -s 56 10.244.2.11");
    let text = captured(dump);
    let mac = |node: &str| run(stage.node(node), "cat /sys/class/net/flannel.1/address").trim().to_owned();
    for words in [
        "192.168.50.1.",
        "> 192.168.50.2.8472: ",
        "flags [I] (0x08), overlay 0, instance 1",
        "10.244.1.11 > 10.244.2.11: ICMP echo request",
        // 84 bytes of ICMP in a frame of 98, and 50 around it: 148 in all.
        "length 148: (tos",
        "proto UDP (17), length 134)",
        "ttl 63",
        "length 84)",
        &mac("a"),
        &mac("b"),
    ] {
        assert!(text.contains(words), "{words}: {text}");
    }
    let outer = text.lines().next().unwrap();
    assert!(outer.contains("ttl 64") && outer.contains("flags [none]"), "{outer}");
}

#[test]
fn ac2_7_and_3_12_two_routers_lie_between_pods_and_the_second_is_the_peers_device() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = stage.start(&["a", "b"], "vxlan");
    let pod = stage.lab.place("a1");
    for (ping, target, end) in [("ping -4", "10.244.2.11", "ttl=62"), ("ping -6", "fd00:244:0:2::b", "ttl=62")] {
        let said = run(pod, &format!("{ping} -c 1 {target}"));
        assert!(said.contains(end), "{said}");
    }
    let hops = run(pod, "traceroute -n -q 1 10.244.2.11");
    let hops: Vec<&str> = hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["10.244.1.1", "10.244.2.0", "10.244.2.11"]);
    let hops = run(pod, "traceroute -6 -n -q 1 fd00:244:0:2::b");
    let hops: Vec<&str> = hops.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, ["fd00:244:0:1::1", "fd00:244:0:2::", "fd00:244:0:2::b"]);
}

#[test]
fn ac1_3_a_foreign_network_number_is_not_taken() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt"] {
        let stage = Stage::new();
        let mut programs = stage.start(&["a", "b"], backend);
        programs.remove(1).kill();
        // Node `b` sends with number 5, as somebody who guesses would.
        let node = stage.node("b");
        let mac = run(stage.node("a"), "cat /sys/class/net/flannel.1/address");
        for line in [
            "ip link del flannel.1".to_owned(),
            "ip link add flannel.1 type vxlan id 5 dstport 8472 local 192.168.50.2 dev eth0 nolearning".to_owned(),
            "ip addr add 10.244.2.0/32 dev flannel.1".to_owned(),
            "ip link set flannel.1 up".to_owned(),
            format!("ip neigh add 10.244.1.0 lladdr {} dev flannel.1", mac.trim()),
            format!("bridge fdb add {} dev flannel.1 dst 192.168.50.1", mac.trim()),
            "ip route add 10.244.1.0/24 via 10.244.1.0 dev flannel.1 onlink".to_owned(),
        ] {
            run(node, &line);
        }
        let dump = capture(&stage, "a", 3, "udp port 8472 and src host 192.168.50.2");
        let ping = output(stage.lab.place("b1"), "ping -c 3 -i 0.2 -W 1 10.244.1.11");
        assert!(captured(dump).contains("instance 5"), "they arrive at the node");
        assert!(!ping.status.success(), "{backend}: {}", String::from_utf8_lossy(&ping.stdout));
    }
}

#[test]
fn ac1_3_packets_travel_with_one_network_number_there_and_another_back() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let machine = stage.lab.place("outside");
    let mac = "82:36:4c:98:2e:57";
    let end = |cidr, vni| format!("--overlay-external-vtep=cidr={cidr},endpoint=192.168.50.201,mac={mac},vni={vni}");
    // Packets to the machine have the first number; the second is taken because something is behind it too.
    let flags = ["--overlay-backend=vxlan-lwt", &end("10.1.1.0/24", 44_045), &end("10.1.2.0/24", 37_483)];
    let program = stage.launch("a", &flags);
    program.wait_until_ready();
    eventually("the device is there", || output(stage.node("a"), "ip link show flannel.1").status.success());
    let own = run(stage.node("a"), "cat /sys/class/net/flannel.1/address");
    for line in [
        format!("ip link add vxlan1 address {mac} type vxlan external dstport 8472"),
        "ip addr add 10.1.1.236/24 dev vxlan1".to_owned(),
        "ip link set vxlan1 up".to_owned(),
        format!("ip neigh add 10.244.1.0 lladdr {} dev vxlan1 nud permanent", own.trim()),
        "ip route add 10.244.1.0/24 encap ip id 37483 dst 192.168.50.1 via 10.244.1.0 dev vxlan1 onlink".to_owned(),
    ] {
        run(machine, &line);
    }
    let there = capture(&stage, "a", 3, "udp port 8472 and src host 192.168.50.201");
    let back = capture(&stage, "a", 3, "udp port 8472 and dst host 192.168.50.201");
    run(machine, "ping -c 4 -i 0.2 -W 5 10.244.1.11");
    assert!(captured(there).contains("instance 37483"));
    assert!(captured(back).contains("instance 44045"));
}

#[test]
fn ac1_4_a_machine_that_is_no_node_exchanges_packets_with_pods_through_a_network_of_its_own() {
    if !can_run() {
        return;
    }
    for backend in ["vxlan", "vxlan-lwt"] {
        let stage = Stage::new();
        // The document's virtual machine, with the addresses of the lab.
        let machine = stage.lab.place("outside");
        for line in [
            "ip link add vxlan2 type vxlan id 2 dstport 8472 local 192.168.50.201 dev eth0",
            "ip link set vxlan2 address 82:36:4c:98:2e:56 up",
            "ip addr add 10.1.1.236/24 dev vxlan2",
            "ip route add 10.244.0.0/16 dev vxlan2 proto kernel src 10.1.1.236",
            "bridge fdb append 00:00:00:00:00:00 dev vxlan2 dst 192.168.50.1",
        ] {
            run(machine, line);
        }
        let flags = [
            &format!("--overlay-backend={backend}"),
            "--overlay-external-vtep=cidr=10.1.1.0/24,endpoint=192.168.50.201,mac=82:36:4c:98:2e:56,vni=2",
        ];
        let program = stage.launch("a", &flags);
        program.wait_until_ready();
        eventually("the machine reaches a pod", || output(machine, "ping -c 1 -W 1 10.244.1.11").status.success());
        run(stage.lab.place("a1"), "ping -c 2 -W 2 10.1.1.236");
    }
}
