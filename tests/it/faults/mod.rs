//! Faults: of the program, of the API server, of the input, and of others on the same node. Real packets tell.

mod api;
mod churn;
mod counted;
mod flows;
mod gap;
mod input;
pub(crate) mod iptables;
mod kill;
mod kube_proxy;
mod missing;
mod neighbours;
mod repair;
mod restart;
mod schedulers;
mod takeover;

use std::net::SocketAddr;

use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Feature, Hammer, Place, cluster_ip, needs};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

use crate::program::Cluster;

/// The port of every Service here.
pub const PORT: u16 = 80;
/// The first port on which pods answer.
const TARGET: u16 = 8080;
pub const PROTOCOLS: [Protocol; 2] = [Protocol::Tcp, Protocol::Udp];

/// What every test here needs.
pub fn can_run() -> bool {
    needs(&[Feature::Namespaces, Feature::NfTables])
}

/// A dual-stack Service with port 80, TCP and UDP, on the `host`-th ClusterIP.
pub fn service(name: &str, host: u8) -> Service {
    Service::new(name).cluster_ip(host).port(Port::tcp(PORT).named("t")).port(Port::udp(PORT).named("u"))
}

/// Its endpoints in one slice for each family.
pub fn slice(name: &str, pods: &[&str]) -> Slice {
    Slice::of(name).tcp("t", TARGET).udp("u", TARGET).ready(pods)
}

impl Cluster {
    /// Creates or replaces a Service.
    fn put(&self, service: &Service) {
        self.apply([service.manifest(&self.lab, &Family::BOTH)]);
    }

    /// Creates or replaces the slices of a Service.
    fn put_slice(&self, slice: &Slice) {
        self.apply(slice.manifests(&self.lab, &Family::BOTH));
    }

    /// Creates or replaces [`service`] and [`slice`].
    pub fn serve(&self, name: &str, host: u8, pods: &[&str]) {
        self.put(&service(name, host));
        self.put_slice(&slice(name, pods));
    }

    /// Removes a Service with its slices.
    fn forget(&self, name: &str) {
        self.server.delete("Service", "default", name).unwrap();
        self.forget_slices(name);
    }

    fn forget_slices(&self, name: &str) {
        for family in ["ipv4", "ipv6"] {
            self.server.delete("EndpointSlice", "default", &format!("{name}-1-{family}")).unwrap();
        }
    }

    /// Connections without a pause from a place to a Service: TCP and UDP, both families.
    pub fn hammer(&self, from: &str, host: u8) -> Hammer {
        Hammer::start(self.lab.place(from), &frontends(host)).unwrap()
    }
}

/// Connections without a pause to the first ClusterIP from a pod, the node, and outside: everything from everywhere, or where
/// IPVS is, which is where the processor is emulated, from all but the node so much less that the programs under test get their
/// share of it.
fn hammers(cluster: &Cluster) -> Vec<Hammer> {
    use Family::{V4, V6};
    use Protocol::{Tcp, Udp};
    let few: [(&str, &[(Protocol, Family)]); 3] = [
        ("a2", &[(Tcp, V4), (Udp, V6)]),
        ("a", &[(Tcp, V4), (Udp, V4), (Tcp, V6), (Udp, V6)]),
        ("outside", &[(Tcp, V4), (Tcp, V6)]),
    ];
    let of = |(from, some): (&str, &[(Protocol, Family)])| {
        if !Feature::IpVs.is_here() {
            return cluster.hammer(from, 1);
        }
        let targets: Vec<_> = some.iter().map(|(protocol, family)| (*protocol, frontend(1, *family))).collect();
        Hammer::start(cluster.lab.place(from), &targets).unwrap()
    };
    few.into_iter().map(of).collect()
}

/// Port 80 of the `host`-th ClusterIP.
fn frontend(host: u8, family: Family) -> SocketAddr {
    SocketAddr::new(cluster_ip(host).of(family), PORT)
}

pub fn frontends(host: u8) -> Vec<(Protocol, SocketAddr)> {
    let of = |family| PROTOCOLS.map(|protocol| (protocol, frontend(host, family)));
    Family::BOTH.into_iter().flat_map(of).collect()
}

/// Fails if a connection of the hammer had no answer.
pub fn without_failure(hammer: Hammer) -> fairlead_lab::Tally {
    let tally = hammer.stop();
    assert!(tally.successes > 0, "nothing was tried");
    let first: Vec<_> = tally.failures.iter().take(5).collect();
    let all = tally.successes + tally.failures.len() as u64;
    let last = tally.failures.last();
    assert!(
        tally.failures.is_empty(),
        "{} of {all} connections failed: {first:#?} ... {last:#?}",
        tally.failures.len()
    );
    tally
}

/// The endpoints that answer now, refusals and silence as such.
pub fn answers(from: &Place, protocol: Protocol, to: SocketAddr) -> Vec<String> {
    let options = fairlead_lab::Options { connections: 24, ..fairlead_lab::Options::default() };
    let seen = fairlead_lab::probe_set(from, protocol, to, &options);
    assert_eq!(seen.failed, Vec::<String>::new());
    let mut all: Vec<String> = seen.reached.into_keys().collect();
    all.extend((seen.refused > 0).then(|| "refused".to_owned()));
    all.extend((seen.silence > 0).then(|| "silence".to_owned()));
    all
}

/// Waits until exactly these endpoints answer at a frontend, for both protocols and families.
pub fn until_answered_by(from: &Place, host: u8, pods: &[&str]) {
    for (protocol, to) in frontends(host) {
        let what = format!("{pods:?} answer {} at {protocol} {to}", from.name());
        crate::program::eventually(&what, || answers(from, protocol, to) == pods);
    }
}

/// Every element of a set or map of our table in a node, as `nft` prints it in JSON.
fn elements(node: &Place, family: Family, set: &str) -> Value {
    let table = crate::program::nft(node, &format!("-j list table {} fairlead", crate::listing::ip(family)));
    let table: Value = serde_json::from_str(&table).unwrap();
    let mut entries =
        table["nftables"].as_array().unwrap().iter().flat_map(|entry| entry.as_object().unwrap().values());
    let found = entries.find(|object| object["name"] == set);
    found.unwrap_or_else(|| panic!("there is no set or map {set}"))["elem"].clone()
}
