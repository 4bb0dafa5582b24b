//! Node ports.

use fairlead::resolve::NodePortAddresses;
use fairlead_lab::objects::{Port, Range, Slice};
use fairlead_plan::Protocol;

use super::scenario::{Objects, Scenario, To, Untouched, from};
use super::web::{NODE_PORT, PORT, web, web_behind_balancer, web_on_nodes, with_ready};

const ON_NODE: To = To::Place("a", NODE_PORT);
const ON_SECOND: To = To::Second("a", NODE_PORT);

pub fn scenarios() -> Vec<Scenario> {
    let mut all = addresses();
    all.extend(policy());
    all.extend(ports());
    all
}

fn addresses() -> Vec<Scenario> {
    let refused = Untouched::Refused;
    vec![
        Scenario::new("a node port leads everybody to all endpoints, masqueraded")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .then(from("a2").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .then(from("a").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .then(from("b").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("with primary, the node's other addresses have no node ports")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_SECOND).finds_nobody(refused))
            .then(from("a2").to(ON_SECOND).finds_nobody(refused))
            .then(from("a").to(ON_SECOND).finds_nobody(refused)),
        Scenario::new("prefixes that cover the second address give it node ports")
            .settings(|settings| {
                let nets = ["192.168.50.0/24", "fd00:50::/64"].map(|net| net.parse().expect("a prefix"));
                settings.node_port_addresses = NodePortAddresses::Cidrs(nets.to_vec());
            })
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_SECOND).reaches_masqueraded(&["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("with all addresses every local one has node ports, and loopback has none")
            .settings(|settings| settings.node_port_addresses = NodePortAddresses::All)
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_SECOND).reaches_masqueraded(&["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .then(from("a").to(To::Loopback(NODE_PORT)).finds_nobody(refused)),
        Scenario::new("loopback has no node ports")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("a").to(To::Loopback(NODE_PORT)).finds_nobody(refused)),
        Scenario::new("a node port of this node means nothing at another node's address")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("a2").to(To::Place("b", NODE_PORT)).finds_nobody(refused))
            .then(from("a").to(To::Place("b", NODE_PORT)).finds_nobody(refused)),
    ]
}

fn policy() -> Vec<Scenario> {
    let local = || web_on_nodes().external_local();
    vec![
        Scenario::new("with externalTrafficPolicy Local a client reaches this node's endpoints and is seen by them")
            .given(with_ready(local(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches(&["a1"]))
            .then(from("b").to(ON_NODE).reaches(&["a1"])),
        Scenario::new("with externalTrafficPolicy Local pods and the node itself still reach all endpoints")
            .given(with_ready(local(), &["a1", "b1"]))
            .then(from("a2").to(ON_NODE).reaches(&["a1", "b1"]))
            .then(from("a").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new(
            "with externalTrafficPolicy Local and no endpoint here, clients meet silence and this node does not",
        )
        .given(with_ready(local(), &["b1"]))
        .then(from("outside").to(ON_NODE).finds_silence())
        .then(from("a2").to(ON_NODE).reaches(&["b1"]))
        .then(from("a").to(ON_NODE).reaches_masqueraded(&["b1"]))
        .then(from("a2").to(To::Cluster(1, PORT)).reaches(&["b1"])),
        Scenario::new("without a detector pods count as clients of a Local node port")
            .settings(|settings| settings.detect = fairlead::resolve::DetectMode::ClusterCidr(Vec::new()))
            .given(with_ready(local(), &["a1", "b1"]))
            .then(from("a2").to(ON_NODE).reaches(&["a1"]))
            .then(from("a").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("externalTrafficPolicy changes while connections come in")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .given(with_ready(local(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches(&["a1"]))
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("a node port without endpoints refuses")
            .given(with_ready(web_on_nodes(), &[]))
            .then(from("outside").to(ON_NODE).finds_refusal())
            .then(from("a2").to(ON_NODE).finds_refusal())
            .then(from("a").to(ON_NODE).finds_refusal()),
        Scenario::new("internalTrafficPolicy Local leaves node ports alone")
            .given(with_ready(web_on_nodes().internal_local(), &["b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["b1"]))
            .then(from("a2").to(To::Cluster(1, PORT)).finds_silence()),
        Scenario::new("source ranges of a load balancer do not filter its node port")
            .given(with_ready(web_behind_balancer().allow(Range::of("stranger")), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .then(from("outside").to(To::External(1, PORT)).finds_silence()),
    ]
}

fn ports() -> Vec<Scenario> {
    vec![
        Scenario::new("TCP and UDP of one node port number lead to their own endpoints")
            .given(
                Objects::new()
                    .service(web_on_nodes())
                    .slice(Slice::of("web").tcp("http", 8081).ready(&["a1"]))
                    .slice(Slice::of("web").numbered(2).udp("quic", 8082).ready(&["b1"])),
            )
            .then(from("outside").by(&[Protocol::Tcp]).to(ON_NODE).reaches_masqueraded(&["a1:8081"]))
            .then(from("outside").by(&[Protocol::Udp]).to(ON_NODE).reaches_masqueraded(&["b1:8082"])),
        Scenario::new("large requests and answers come through a node port")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").with_payload(30_000).to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("node ports come, change their number and go")
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"]))
            .given(with_ready(
                web()
                    .without_ports()
                    .port(Port::tcp(PORT).named("http").node_port(30_081))
                    .port(Port::udp(PORT).named("quic").node_port(30_081)),
                &["a1", "b1"],
            ))
            .then(from("outside").to(ON_NODE).finds_nobody(Untouched::Refused))
            .then(from("outside").to(To::Place("a", 30_081)).reaches_masqueraded(&["a1", "b1"]))
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("outside").to(To::Place("a", 30_081)).finds_nobody(Untouched::Refused)),
    ]
}
