//! Families of addresses, service networks, and protocols that cannot be tried with packets.

use std::net::{Ipv4Addr, Ipv6Addr};

use fairlead_lab::Addresses;
use fairlead_lab::objects::{Port, Service, Slice, service_cidr};
use fairlead_plan::{Family, Protocol};

use super::scenario::{Objects, Scenario, To, Untouched, from};
use super::web::{NODE_PORT, PORT, slice, web, web_behind_balancer, with_ready};

/// A second network for ClusterIPs, and an address in it.
const MORE_SERVICES: [&str; 2] = ["10.97.0.0/24", "fd00:97::/112"];
const IN_MORE: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 97, 0, 1), v6: Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 1) };
const NOBODY_IN_MORE: Addresses =
    Addresses { v4: Ipv4Addr::new(10, 97, 0, 2), v6: Ipv6Addr::new(0xfd00, 0x97, 0, 0, 0, 0, 0, 2) };

pub fn scenarios() -> Vec<Scenario> {
    let mut all = families();
    all.extend(networks());
    all.push(sctp());
    all
}

fn families() -> Vec<Scenario> {
    let cluster_ip = To::Cluster(1, PORT);
    let ends = &["a1", "b1"];
    vec![
        Scenario::new("a dual-stack Service works in its second family in every way")
            .secondary_family()
            .given(with_ready(web_behind_balancer().external_ip(2), ends))
            .then(from("a2").to(cluster_ip).reaches(ends))
            .then(from("a1").to(cluster_ip).reaches_also_itself(ends))
            .then(from("a").to(cluster_ip).reaches_masqueraded(ends))
            .then(from("outside").to(cluster_ip).reaches_masqueraded(ends))
            .then(from("outside").to(To::Place("a", NODE_PORT)).reaches_masqueraded(ends))
            .then(from("outside").to(To::External(1, PORT)).reaches_masqueraded(ends))
            .then(from("outside").to(To::External(2, PORT)).reaches_masqueraded(ends)),
        Scenario::new("a family that the node does not carry is left alone and the other one works")
            .settings(|settings| settings.families = vec![Family::V4])
            .secondary_family()
            .given(with_ready(web(), ends)),
    ]
}

fn networks() -> Vec<Scenario> {
    let service = || web().cluster_addresses(IN_MORE);
    let objects = || Objects::new().service(service()).slice(slice().ready(&["a1", "b1"]));
    let (there, nobody) = (To::Other(IN_MORE, PORT), To::Other(NOBODY_IN_MORE, PORT));
    vec![
        Scenario::new("a new service network is used and guarded as soon as it is there, and let go")
            .given(objects())
            .then(from("a2").to(there).reaches(&["a1", "b1"]))
            .then(from("a2").to(nobody).finds_nobody(Untouched::Silence))
            .given(objects().more(service_cidr("more", &MORE_SERVICES)))
            .then(from("a2").to(there).reaches(&["a1", "b1"]))
            .then(from("a2").to(nobody).finds_silence())
            .given(objects())
            .then(from("a2").to(nobody).finds_nobody(Untouched::Silence)),
    ]
}

/// Decided and programmed; packets are sent where the kernel has SCTP sockets to send them from.
fn sctp() -> Scenario {
    let by_sctp = |place: &'static str| from(place).by(&[Protocol::Sctp]);
    let service = Service::new("web")
        .cluster_ip(1)
        .port(Port::new(Protocol::Sctp, PORT).named("sctp").node_port(NODE_PORT))
        .load_balancer(1);
    Scenario::new("SCTP is programmed like the others, whether or not the kernel has SCTP sockets")
        .given(
            Objects::new()
                .service(service)
                .slice(Slice::of("web").port("sctp", Protocol::Sctp, 8080).ready(&["a1", "b1"])),
        )
        .then(by_sctp("a2").to(To::Cluster(1, PORT)).reaches(&["a1", "b1"]))
        .then(by_sctp("outside").to(To::Place("a", NODE_PORT)).reaches_masqueraded(&["a1", "b1"]))
        .then(by_sctp("outside").to(To::External(1, PORT)).reaches_masqueraded(&["a1", "b1"]))
        .then(by_sctp("a2").to(To::Cluster(1, 81)).finds_refusal())
}
