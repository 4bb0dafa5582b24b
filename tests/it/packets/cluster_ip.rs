//! ClusterIPs.

use fairlead::resolve::DetectMode;
use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_plan::Protocol;

use super::scenario::{Objects, Scenario, To, from};
use super::web::{PORT, web, with_ready};

const WEB: To = To::Cluster(1, PORT);
const TCP: &[Protocol] = &[Protocol::Tcp];
const UDP: &[Protocol] = &[Protocol::Udp];
const SCTP: &[Protocol] = &[Protocol::Sctp];

pub fn scenarios() -> Vec<Scenario> {
    let mut all = origins();
    all.extend(detectors());
    all.extend(ports());
    all.extend(local());
    all
}

fn origins() -> Vec<Scenario> {
    vec![
        Scenario::new("a pod reaches near and far endpoints with its own address")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("what is outside of the cluster reaches all endpoints, masqueraded")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("outside").to(WEB).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("the node itself reaches all endpoints, masqueraded")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("with masqueradeAll pods are masqueraded too")
            .settings(|settings| settings.masquerade_all = true)
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches_masqueraded(&["a1", "b1"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("an endpoint that meets itself sees the node and the others see the endpoint")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a1").to(WEB).reaches_also_itself(&["a1", "b1"])),
        Scenario::new("an endpoint of this node sees the pod's own address")
            .given(with_ready(web(), &["a1"]))
            .then(from("a2").to(WEB).reaches(&["a1"])),
        Scenario::new("an endpoint of another node sees the pod's own address")
            .given(with_ready(web(), &["b1"]))
            .then(from("a2").to(WEB).reaches(&["b1"])),
        Scenario::new("all of many endpoints are reached")
            .given(with_ready(web(), &["a1", "a2", "a3", "b1", "b2"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a1", "a2", "a3", "b1", "b2"])),
        Scenario::new("a hostNetwork endpoint on this node and one elsewhere are reached")
            .given(with_ready(web(), &["a", "b"]))
            .then(from("a2").to(WEB).reaches(&["a", "b"]))
            .then(from("outside").to(WEB).reaches_masqueraded(&["a", "b"])),
    ]
}

fn detectors() -> Vec<Scenario> {
    let seen = |sentence| {
        Scenario::new(sentence)
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a1", "b1"]))
            .then(from("outside").to(WEB).reaches_masqueraded(&["a1", "b1"]))
    };
    vec![
        Scenario::new("without a detector nobody is masqueraded on the way to a ClusterIP")
            .settings(|settings| settings.detect = DetectMode::ClusterCidr(Vec::new()))
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("outside").to(WEB).reaches(&["a1", "b1"]))
            .then(from("a").to(WEB).reaches(&["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        seen("pods are recognised by the node's own prefixes")
            .settings(|settings| settings.detect = DetectMode::NodeCidr),
        seen("pods are recognised by their bridge")
            .settings(|settings| settings.detect = DetectMode::BridgeInterface("cni0".to_owned())),
        seen("pods are recognised by how the name of their link begins")
            .settings(|settings| settings.detect = DetectMode::InterfaceNamePrefix("cn".to_owned())),
    ]
}

fn ports() -> Vec<Scenario> {
    let two = || Service::new("web").cluster_ip(1).port(Port::tcp(80).named("one")).port(Port::tcp(443).named("two"));
    vec![
        Scenario::new("two ports of a Service lead to the right port of its endpoints")
            .given(
                Objects::new()
                    .service(two())
                    .slice(Slice::of("web").tcp("one", 8081).tcp("two", 8082).ready(&["a1", "b1"])),
            )
            .then(from("a2").by(TCP).to(To::Cluster(1, 80)).reaches(&["a1:8081", "b1:8081"]))
            .then(from("a2").by(TCP).to(To::Cluster(1, 443)).reaches(&["a1:8082", "b1:8082"])),
        Scenario::new("TCP, UDP and SCTP of one port number have endpoints of their own")
            .given(
                Objects::new()
                    .service(web().port(Port::new(Protocol::Sctp, PORT).named("sctp")))
                    .slice(Slice::of("web").tcp("http", 8080).ready(&["a1"]))
                    .slice(Slice::of("web").numbered(2).udp("quic", 8081).ready(&["b1"]))
                    .slice(Slice::of("web").numbered(3).port("sctp", Protocol::Sctp, 8082).ready(&["a3"])),
            )
            .then(from("a2").by(TCP).to(WEB).reaches(&["a1"]))
            .then(from("a2").by(UDP).to(WEB).reaches(&["b1:8081"]))
            .then(from("a2").by(SCTP).to(WEB).reaches(&["a3:8082"])),
        Scenario::new("large requests and answers come through a ClusterIP")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").with_payload(30_000).to(WEB).reaches(&["a1", "b1"]))
            .then(from("outside").with_payload(30_000).to(WEB).reaches_masqueraded(&["a1", "b1"])),
    ]
}

fn local() -> Vec<Scenario> {
    vec![
        Scenario::new("with internalTrafficPolicy Local only endpoints of this node are reached")
            .given(with_ready(web().internal_local(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1"]))
            .then(from("outside").to(WEB).reaches_masqueraded(&["a1"])),
        Scenario::new("with internalTrafficPolicy Local the node itself reaches the pods it carries")
            .given(with_ready(web().internal_local(), &["a1", "b1"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a1"])),
        Scenario::new("with internalTrafficPolicy Local only this node's hostNetwork endpoint is reached")
            .given(with_ready(web().internal_local(), &["a", "b"]))
            .then(from("a2").to(WEB).reaches(&["a"]))
            .then(from("a").to(WEB).reaches_masqueraded(&["a"])),
    ]
}

/// Where a ClusterIP does not lead anywhere.
pub fn unanswered() -> Vec<Scenario> {
    let tcp_only = || Service::new("web").cluster_ip(1).port(Port::tcp(PORT).named("http"));
    let from_all = |scenario: Scenario, to: To, refused: bool| {
        ["a2", "a", "outside"].into_iter().fold(scenario, |scenario, place| {
            let check = from(place).to(to);
            scenario.then(if refused { check.finds_refusal() } else { check.finds_silence() })
        })
    };
    vec![
        Scenario::new("the other protocol of a port that is TCP only is refused")
            .given(Objects::new().service(tcp_only()).slice(Slice::of("web").tcp("http", 8080).ready(&["a1"])))
            .then(from("a2").by(TCP).to(WEB).reaches(&["a1"]))
            .then(from("a2").by(UDP).to(WEB).finds_refusal())
            .then(from("a").by(UDP).to(WEB).finds_refusal())
            .then(from("outside").by(UDP).to(WEB).finds_refusal()),
        from_all(
            Scenario::new("an unused port of a ClusterIP is refused").given(with_ready(web(), &["a1"])),
            To::Cluster(1, 81),
            true,
        ),
        from_all(
            Scenario::new("an address of the service network that belongs to nobody stays silent")
                .given(with_ready(web(), &["a1"])),
            To::Cluster(77, PORT),
            false,
        ),
        from_all(Scenario::new("a Service without endpoints refuses").given(with_ready(web(), &[])), WEB, true),
        from_all(Scenario::new("a Service without a slice refuses").given(Objects::new().service(web())), WEB, true),
        from_all(
            Scenario::new(
                "with internalTrafficPolicy Local and remote endpoints only it stays silent, and others go on",
            )
            .given(
                with_ready(web().internal_local(), &["b1"])
                    .service(Service::new("other").cluster_ip(2).port(Port::tcp(PORT)))
                    .slice(Slice::of("other").ready(&["b1"])),
            )
            .then(from("a2").by(TCP).to(To::Cluster(2, PORT)).reaches(&["b1"])),
            WEB,
            false,
        ),
        Scenario::new("with internalTrafficPolicy Local silence turns into refusal when the last slice goes")
            .given(with_ready(web().internal_local(), &["b1"]))
            .then(from("a2").to(WEB).finds_silence())
            .given(Objects::new().service(web().internal_local()))
            .then(from("a2").to(WEB).finds_refusal()),
    ]
}
