//! The same tables with node `b` behind a tunnel: the real program on both nodes, its overlay between them, and nothing else by
//! which pods of one node reach those of the other. What packets meet is what the table says; what endpoints see as the source is
//! what the table says too, with two addresses in place of others:
//!
//! - A masqueraded packet to a pod of node `b` leaves through the tunnel's device, and so has that one's address.
//! - A pod's packet to node `b` itself leaves the cluster of pods, and so gets node `a`'s address, as with flannel. The node could
//!   not answer the pod over the way on which its packet came.

use std::net::SocketAddr;
use std::time::Duration;

use fairlead::resolve::{DetectMode, Settings};
use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Lab, Options, Outcome, PORTS, Size, cluster_ip, probe_with};
use fairlead_plan::{Family, Protocol};
use serde_json::{Value, json};

use super::scenario::Scenario;
use super::{cluster_ip as cluster_ips, endpoints, external, node_port, stack, stage, topology};
use crate::program::{Directory, Program, eventually};

/// Scenarios that are not repeated over tunnels, and why.
pub const NOT_REMOTE: [(&str, &str); 4] = [
    (
        "without a detector nobody is masqueraded on the way to a ClusterIP",
        "the prefix of the cluster, which an overlay has, is the detector",
    ),
    ("without a detector pods count as clients of a Local node port", "the same"),
    ("external IPs that the cluster does not allow lead nowhere", "the program has no flag for it"),
    ("a family that the node does not carry is left alone and the other one works", "nor for this: the kernel decides"),
];

/// The MTU of pods in a cluster whose outer packets are of 1,500 bytes, in either family.
const POD_MTU: u32 = 1430;
/// The Service by which it is seen that the program has carried out what it was given before.
const MARKER: &str = "zz-marker";
/// Its ClusterIPs, from here on.
const MARKERS: u8 = 150;
const MARKER_PORT: u16 = 999;
const GLANCE: Duration = Duration::from_millis(300);

/// All tables, without what is not repeated.
pub fn scenarios() -> Vec<Scenario> {
    let tables = [
        cluster_ips::scenarios(),
        cluster_ips::unanswered(),
        node_port::scenarios(),
        external::scenarios(),
        endpoints::scenarios(),
        topology::scenarios(),
        stack::scenarios(),
    ];
    let mut all: Vec<Scenario> = tables.into_iter().flatten().collect();
    all.retain(|scenario| NOT_REMOTE.iter().all(|(sentence, _)| *sentence != scenario.sentence));
    all
}

/// A lab whose nodes know nothing of each other's pods.
pub fn lab(family: Family) -> Lab {
    let size = Size { nodes: &[("a", 3), ("b", 2)], clients: &["outside", "stranger"] };
    let lab = Lab::of_size(&size).expect("this machine can hold a lab");
    lab.forget_pod_routes().expect("the lab has such routes");
    lab.set_pod_mtu(POD_MTU).expect("links take an MTU");
    // No router cuts IPv6 packets in pieces (RFC 8200, section 5): a client learns how narrow the way is by losing its first
    // datagram, as it would without Services. Here it knows. Those of IPv4 are cut as each link demands, and arrive in pieces
    // that are larger than a pod's.
    if family == Family::V6 {
        for client in ["outside", "stranger"] {
            lab.place(client).ip(&format!("link set eth0 mtu {POD_MTU}")).expect("links take an MTU");
        }
    }
    lab
}

/// The real program on both nodes. Both read files; those of node `b` hold Nodes alone, so that it carries packets and leaves
/// Services to node `a`.
pub struct Tunnels {
    family: Family,
    services: Directory,
    nodes: Directory,
    flags: Vec<String>,
    a: Option<Program>,
    b: Option<Program>,
    rounds: u8,
}

impl Tunnels {
    /// Nothing runs yet.
    pub fn new(family: Family) -> Self {
        let (services, nodes) = (Directory::new(), Directory::new());
        Self { family, services, nodes, flags: Vec::new(), a: None, b: None, rounds: 0 }
    }

    /// What runs on node `a` from now on has these settings.
    pub fn begin(&mut self, settings: &Settings) {
        let flags = flags(settings);
        if flags != self.flags {
            (self.flags, self.a) = (flags, None);
        }
    }

    /// Gives the programs these objects and waits until node `a` carries them out.
    pub fn carry_out(&mut self, lab: &Lab, manifests: &[Value]) {
        let manifests: Vec<Value> = manifests.iter().map(|manifest| annotated(lab, manifest)).collect();
        write(&self.nodes, &manifests.iter().filter(|one| one["kind"] == "Node").cloned().collect::<Vec<_>>());
        let options = Options { resend: false, patience: GLANCE, ..Options::default() };
        let launch = |node: &str, directory: &Directory, flags: &[String]| {
            let given = format!("--manifests={}", directory.path().display());
            let own = [given.as_str(), "--overlay-backend=vxlan", "--min-sync-period=0s"];
            let flags: Vec<&str> = own.into_iter().chain(flags.iter().map(String::as_str)).collect();
            // Its log must not be taken for a manifest.
            Program::launch(lab.node(node), &Directory::new(), &flags)
        };
        // A file is told object by object, Services and their endpoints before Nodes: what the first round says has been carried
        // out as a whole when the second one is.
        for _ in 0..2 {
            let at = self.mark(lab, &manifests);
            self.a.get_or_insert_with(|| launch("a", &self.services, &self.flags));
            self.b.get_or_insert_with(|| launch("b", &self.nodes, &[]));
            eventually("the program carries out what it was given", || {
                matches!(probe_with(lab.place("a3"), Protocol::Tcp, at, &options), Outcome::Reached { .. })
            });
        }
    }

    /// Gives node `a` these objects, and the marker at an address that nobody has had for long.
    fn mark(&mut self, lab: &Lab, manifests: &[Value]) -> SocketAddr {
        self.rounds = (self.rounds + 1) % 50;
        let host = MARKERS + self.rounds;
        let service = Service::new(MARKER).cluster_ip(host).port(Port::tcp(MARKER_PORT).named("m"));
        let mut marker = vec![service.manifest(lab, &[self.family])];
        marker.extend(Slice::of(MARKER).tcp("m", PORTS[0]).ready(&["b2"]).manifests(lab, &[self.family]));
        write(&self.services, &[manifests, &marker].concat());
        SocketAddr::new(cluster_ip(host).of(self.family), MARKER_PORT)
    }
}

/// One file, so that all of it is one change.
fn write(directory: &Directory, objects: &[Value]) {
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": objects });
    directory.write("all.json", &list.to_string());
}

/// A Node with what an agent on it would write, which with files nobody does.
fn annotated(lab: &Lab, manifest: &Value) -> Value {
    let mut manifest = manifest.clone();
    if manifest["kind"] != "Node" {
        return manifest;
    }
    let name = manifest["metadata"]["name"].as_str().expect("a Node has a name").to_owned();
    let node = lab.node(&name);
    for (key, value) in [
        ("kube-subnet-manager", "true".to_owned()),
        ("backend-type", "vxlan".to_owned()),
        ("public-ip", node.addr(Family::V4).to_string()),
        ("public-ipv6", node.addr(Family::V6).to_string()),
        ("backend-data", format!(r#"{{"VNI":1,"VtepMAC":"0a:00:00:00:04:0{name}"}}"#)),
        ("backend-v6-data", format!(r#"{{"VNI":1,"VtepMAC":"0a:00:00:00:06:0{name}"}}"#)),
    ] {
        manifest["metadata"]["annotations"][format!("flannel.alpha.coreos.com/{key}")] = value.into();
    }
    manifest
}

/// The flags that come to these settings.
///
/// # Panics
/// If there are none: such a scenario belongs into [`NOT_REMOTE`].
fn flags(settings: &Settings) -> Vec<String> {
    use fairlead::resolve::NodePortAddresses;
    let mut rest = settings.clone();
    let usual = stage::settings();
    let mut flags = Vec::new();
    if std::mem::take(&mut rest.masquerade_all) {
        flags.push("--masquerade-all=true".to_owned());
    }
    match std::mem::replace(&mut rest.detect, usual.detect.clone()) {
        DetectMode::NodeCidr => flags.push("--detect-local-mode=NodeCIDR".to_owned()),
        DetectMode::BridgeInterface(name) => {
            flags.extend(["--detect-local-mode=BridgeInterface".to_owned(), format!("--pod-bridge-interface={name}")])
        }
        DetectMode::InterfaceNamePrefix(name) => flags.extend([
            "--detect-local-mode=InterfaceNamePrefix".to_owned(),
            format!("--pod-interface-name-prefix={name}"),
        ]),
        detect => assert_eq!(detect, usual.detect, "there is no flag for it"),
    }
    match std::mem::replace(&mut rest.node_port_addresses, usual.node_port_addresses.clone()) {
        NodePortAddresses::All => flags.push("--nodeport-addresses=0.0.0.0/0,::/0".to_owned()),
        NodePortAddresses::Cidrs(nets) => {
            let nets: Vec<_> = nets.iter().map(ToString::to_string).collect();
            flags.push(format!("--nodeport-addresses={}", nets.join(",")));
        }
        NodePortAddresses::Primary => {}
        only @ NodePortAddresses::Only(_) => panic!("there is no flag for {only:?} alone"),
    }
    assert_eq!(format!("{rest:?}"), format!("{usual:?}"), "there is no flag for it");
    flags
}
