//! What the table should hold for an overlay, as values.

use std::collections::BTreeSet;
use std::net::IpAddr;

use fairlead_plan::Family;
use ipnet::IpNet;

use super::around::around;
use super::wanted::{self, CLUSTER, PEERS, PODS, Table};
use crate::overlay::outside::Installed;
use crate::overlay::settings::{Backend, ExternalVtep, Settings};
use crate::resolve::PerFamily;

const MARK: u32 = 1 << 14;

fn net(text: &str) -> IpNet {
    text.parse().unwrap()
}

fn settings() -> Settings {
    let networks = PerFamily { v4: Some(net("10.244.0.0/16")), v6: Some(net("fd00:244::/32")) };
    Settings { backend: Backend::Vxlan, networks, ..Settings::default() }
}

fn installed(backend: Backend) -> Installed {
    let ends: Vec<IpAddr> = ["192.168.50.2", "192.168.50.3", "fd00:50::2"].map(|end| end.parse().unwrap()).into();
    Installed {
        backend,
        pods: PerFamily { v4: Some(net("10.244.1.0/24")), v6: Some(net("fd00:244:0:1::/64")) },
        port: 8472,
        ends: ends.into(),
        ..Installed::default()
    }
}

fn table(family: Family, settings: &Settings, mark: u32, installed: &Installed) -> Option<Table> {
    around(family, settings, mark, installed).as_ref().map(wanted::table)
}

/// The members of a set as words: addresses, those behind a range with `<` before.
fn members(table: &Table, set: &str) -> BTreeSet<String> {
    let set = table.sets.iter().find(|other| other.name == set).expect("there is such a set");
    let addr = |bytes: &[u8]| match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).unwrap()),
        _ => IpAddr::from(<[u8; 16]>::try_from(bytes).unwrap()),
    };
    set.members.iter().map(|(key, end)| format!("{}{}", if *end { "<" } else { "" }, addr(key))).collect()
}

fn words(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(ToString::to_string).collect()
}

fn chains(table: &Table) -> Vec<&str> {
    table.chains.iter().map(|chain| chain.name).collect()
}

#[test]
fn each_family_has_its_own_prefixes_and_peers() {
    let (settings, installed) = (settings(), installed(Backend::Vxlan));
    let v4 = table(Family::V4, &settings, MARK, &installed).expect("a table");
    assert_eq!(chains(&v4), ["forward", "postrouting", "input"]);
    assert_eq!(members(&v4, PODS), words(&["10.244.1.0", "<10.244.2.0"]));
    assert_eq!(members(&v4, CLUSTER), words(&["10.244.0.0", "<10.245.0.0"]));
    assert_eq!(members(&v4, PEERS), words(&["192.168.50.2", "192.168.50.3"]));
    let v6 = table(Family::V6, &settings, MARK, &installed).expect("a table");
    assert_eq!(members(&v6, PODS), words(&["fd00:244:0:1::", "<fd00:244:0:2::"]));
    assert_eq!(members(&v6, CLUSTER), words(&["fd00:244::", "<fd00:245::"]));
    assert_eq!(members(&v6, PEERS), words(&["fd00:50::2"]));
}

#[test]
fn external_tunnel_ends_are_peers_and_what_is_behind_them_is_reached_as_it_is() {
    let vtep = ExternalVtep {
        cidr: net("10.1.1.0/24"),
        endpoint: "192.168.50.9".parse().unwrap(),
        mac: "82:36:4c:98:2e:56".parse().unwrap(),
        vni: 2,
    };
    let settings = Settings { external: vec![vtep], ..settings() };
    let v4 = table(Family::V4, &settings, MARK, &installed(Backend::Vxlan)).expect("a table");
    assert!(members(&v4, PEERS).contains("192.168.50.9"));
    assert!(members(&v4, CLUSTER).is_superset(&words(&["10.1.1.0", "<10.1.2.0"])));
}

#[test]
fn without_a_prefix_of_the_cluster_those_of_the_peers_count() {
    let settings = Settings { networks: PerFamily::default(), ..settings() };
    let prefixes = [net("10.244.2.0/24"), net("10.244.7.0/24"), net("fd00:244:0:2::/64")];
    let installed = Installed { prefixes: prefixes.into(), ..installed(Backend::Vxlan) };
    let v4 = table(Family::V4, &settings, MARK, &installed).expect("a table");
    // Two neighbours are one range.
    assert_eq!(members(&v4, CLUSTER), words(&["10.244.1.0", "<10.244.3.0", "10.244.7.0", "<10.244.8.0"]));
}

#[test]
fn where_packets_of_pods_travel_as_they_are_nodes_are_reached_so_too_and_no_port_is_filtered() {
    let v4 = table(Family::V4, &settings(), MARK, &installed(Backend::HostGw)).expect("a table");
    assert_eq!(chains(&v4), ["forward", "postrouting"]);
    assert!(members(&v4, CLUSTER).is_superset(&words(&["192.168.50.2", "<192.168.50.4"])));
}

#[test]
fn a_family_without_pods_is_left_alone_unless_the_tunnels_socket_listens_there() {
    let mut installed = installed(Backend::Vxlan);
    installed.pods.v6 = None;
    assert_eq!(table(Family::V6, &settings(), MARK, &installed), None);
    installed.backend = Backend::VxlanLwt;
    let v6 = table(Family::V6, &settings(), MARK, &installed).expect("a table");
    assert_eq!(chains(&v6), ["input"]);
    assert_eq!(table(Family::V4, &settings(), MARK, &Installed::default()), None, "nothing is known yet");
}

#[test]
fn masquerade_and_filter_can_be_switched_off() {
    let settings = Settings { masquerade: false, peer_filter: false, ..settings() };
    let v4 = table(Family::V4, &settings, MARK, &installed(Backend::Vxlan)).expect("a table");
    assert_eq!(chains(&v4), ["forward"]);
}

#[test]
fn one_peer_more_is_one_element_more() {
    let settings = settings();
    let was = table(Family::V4, &settings, MARK, &installed(Backend::Vxlan)).expect("a table");
    let more: Vec<IpAddr> = ["192.168.50.2", "192.168.50.3", "192.168.50.4"].map(|end| end.parse().unwrap()).into();
    let installed = Installed { ends: more.into(), ..installed(Backend::Vxlan) };
    let now = table(Family::V4, &settings, MARK, &installed).expect("a table");
    let batch = super::table::change(Family::V4, &was, &now).expect("the structure is the same");
    assert_eq!(batch.objects(), 1);
    let other = table(Family::V4, &settings, 1, &installed).expect("a table");
    assert!(super::table::change(Family::V4, &was, &other).is_none(), "another mark is another rule");
}

#[test]
fn a_prefix_up_to_the_last_address_has_no_end() {
    let settings = Settings { networks: PerFamily { v4: Some(net("0.0.0.0/0")), v6: None }, ..settings() };
    let v4 = table(Family::V4, &settings, MARK, &installed(Backend::Vxlan)).expect("a table");
    assert_eq!(members(&v4, CLUSTER), words(&["0.0.0.0"]));
}
