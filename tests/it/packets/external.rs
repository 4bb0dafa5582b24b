//! External IPs and addresses of load balancers.

use fairlead_lab::external_ip;
use fairlead_lab::objects::{Port, Range, Service, Slice};
use fairlead_plan::Protocol;

use super::scenario::{Check, Objects, Scenario, To, Untouched, from};
use super::web::{NODE_PORT, PORT, web, web_behind_balancer, with_ready};

const FIRST: To = To::External(1, PORT);
const SECOND: To = To::External(2, PORT);
const BOTH_ENDPOINTS: &[&str] = &["a1", "b1"];

pub fn scenarios() -> Vec<Scenario> {
    let mut all = external_ips();
    all.extend(balancers());
    all.extend(ranges());
    all.extend(odd_ranges());
    all.extend(claims());
    all
}

fn external_ips() -> Vec<Scenario> {
    vec![
        Scenario::new("an external IP that no node has leads to all endpoints, masqueraded")
            .given(with_ready(web().external_ip(1), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a2").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("b").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("with externalTrafficPolicy Local an external IP leads clients to this node's endpoints")
            .given(with_ready(web().external_ip(1).external_local(), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).reaches(&["a1"]))
            .then(from("a2").to(FIRST).reaches(BOTH_ENDPOINTS))
            .then(from("a").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("external IPs that the cluster does not allow lead nowhere")
            .settings(|settings| settings.allow_external_ips = false)
            .given(with_ready(web().external_ip(1), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).finds_nobody(Untouched::Silence))
            .then(from("a2").to(FIRST).finds_nobody(Untouched::Silence))
            .then(from("a2").to(To::Cluster(1, PORT)).reaches(BOTH_ENDPOINTS)),
        Scenario::new("an external IP without endpoints refuses")
            .given(with_ready(web().external_ip(1), &[]))
            .then(from("outside").to(FIRST).finds_refusal())
            .then(from("a2").to(FIRST).finds_refusal())
            .then(from("a").to(FIRST).finds_refusal()),
        Scenario::new("other ports of an external IP are left alone")
            .given(with_ready(web().external_ip(1), BOTH_ENDPOINTS))
            .then(from("outside").to(To::External(1, 81)).finds_nobody(Untouched::Silence)),
    ]
}

fn balancers() -> Vec<Scenario> {
    let both_ports = |scenario: Scenario, check: Check| {
        let node_port = check.clone().to(To::Place("a", NODE_PORT));
        scenario.then(check).then(node_port)
    };
    let local_here = Scenario::new("behind a load balancer with policy Local a pod is seen by all endpoints")
        .given(with_ready(web_behind_balancer().external_local(), BOTH_ENDPOINTS))
        .then(from("outside").to(FIRST).reaches(&["a1"]));
    vec![
        Scenario::new("a load balancer address in proxy mode is left alone, the others are served")
            .given(with_ready(
                web().ingress(external_ip(1), Some("Proxy")).ingress(external_ip(2), Some("VIP")).load_balancer(3),
                BOTH_ENDPOINTS,
            ))
            .then(from("outside").to(FIRST).finds_nobody(Untouched::Silence))
            .then(from("a2").to(FIRST).finds_nobody(Untouched::Silence))
            .then(from("outside").to(SECOND).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("outside").to(To::External(3, PORT)).reaches_masqueraded(BOTH_ENDPOINTS)),
        both_ports(local_here, from("a2").to(FIRST).reaches(BOTH_ENDPOINTS)),
        Scenario::new("a load balancer address without endpoints refuses")
            .given(with_ready(web_behind_balancer(), &[]))
            .then(from("outside").to(FIRST).finds_refusal())
            .then(from("a2").to(FIRST).finds_refusal())
            .then(from("a").to(FIRST).finds_refusal()),
        Scenario::new("with policy Local and no endpoint here, the load balancer's clients meet silence")
            .given(with_ready(web_behind_balancer().external_local(), &["b1"]))
            .then(from("outside").to(FIRST).finds_silence())
            .then(from("a2").to(FIRST).reaches(&["b1"]))
            .then(from("a").to(FIRST).reaches_masqueraded(&["b1"])),
        Scenario::new("a Service may have two load balancer addresses")
            .given(with_ready(web().load_balancer(1).load_balancer(2), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("outside").to(SECOND).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("a load balancer has an address in each family")
            .secondary_family()
            .given(with_ready(web_behind_balancer(), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a2").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("TCP and UDP of one load balancer port lead to their own endpoints")
            .given(
                Objects::new()
                    .service(web_behind_balancer())
                    .slice(Slice::of("web").tcp("http", 8081).ready(&["a1"]))
                    .slice(Slice::of("web").numbered(2).udp("quic", 8082).ready(&["b1"])),
            )
            .then(from("outside").by(&[Protocol::Tcp]).to(FIRST).reaches_masqueraded(&["a1:8081"]))
            .then(from("outside").by(&[Protocol::Udp]).to(FIRST).reaches_masqueraded(&["b1:8082"])),
    ]
}

fn ranges() -> Vec<Scenario> {
    let allow = |range: Range| with_ready(web_behind_balancer().allow(range), BOTH_ENDPOINTS);
    vec![
        Scenario::new("source ranges let those in whom they name and nobody else")
            .given(allow(Range::of("outside")))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("stranger").to(FIRST).finds_silence())
            .then(from("a2").to(FIRST).finds_silence())
            .then(from("a").to(FIRST).finds_silence())
            .then(from("stranger").to(To::Cluster(1, PORT)).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("source ranges that hold the node let the node in")
            .given(allow(Range::of("a")))
            .then(from("a").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).finds_silence()),
        Scenario::new("source ranges do not filter external IPs")
            .given(with_ready(web_behind_balancer().external_ip(2).allow(Range::of("outside")), BOTH_ENDPOINTS))
            .then(from("stranger").to(SECOND).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("stranger").to(FIRST).finds_silence()),
        Scenario::new("a node in the ranges that has the load balancer's address itself may use it as source")
            .vip_on_node(1)
            .given(allow(Range::of("a")))
            .then(from("a").bound_to(external_ip(1)).to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("a node outside of the ranges that has the load balancer's address itself may not")
            .vip_on_node(1)
            .given(allow(Range::of("outside")))
            .then(from("a").bound_to(external_ip(1)).to(FIRST).finds_silence())
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("a blocked client meets silence even where there is no endpoint")
            .given(with_ready(web_behind_balancer().allow(Range::of("outside")), &[]))
            .then(from("stranger").to(FIRST).finds_silence())
            .then(from("outside").to(FIRST).finds_refusal()),
        Scenario::new("source ranges change while the Service stays")
            .given(allow(Range::of("outside")))
            .then(from("stranger").to(FIRST).finds_silence())
            .given(allow(Range::of("stranger")))
            .then(from("stranger").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).finds_silence())
            .given(with_ready(web_behind_balancer(), BOTH_ENDPOINTS))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
    ]
}

fn odd_ranges() -> Vec<Scenario> {
    let allow = |ranges: &[Range]| {
        let service = ranges.iter().fold(web_behind_balancer(), |service, range| service.allow(range.clone()));
        with_ready(service, BOTH_ENDPOINTS)
    };
    vec![
        Scenario::new("one source range of length zero means no filter at all")
            .given(allow(&[Range::of("stranger"), Range::nets("0.0.0.0/0", "::/0")]))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a2").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("two halves of the address space let everybody in")
            .given(allow(&[Range::nets("0.0.0.0/1", "::/1"), Range::nets("128.0.0.0/1", "8000::/1")]))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a2").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS)),
        Scenario::new("a source range that holds nobody shuts everybody out")
            .given(allow(&[Range::nets("198.51.100.7/32", "2001:db8:dead::7/128")]))
            .then(from("outside").to(FIRST).finds_silence())
            .then(from("a2").to(FIRST).finds_silence())
            .then(from("a").to(FIRST).finds_silence()),
        Scenario::new("overlapping source ranges are one")
            .given(allow(&[Range::of("outside"), Range::nets("192.168.50.0/24", "fd00:50::/64"), Range::of("outside")]))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("stranger").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("a2").to(FIRST).finds_silence()),
        Scenario::new("source ranges may have spaces around")
            .given(allow(&[Range::of("outside").padded()]))
            .then(from("outside").to(FIRST).reaches_masqueraded(BOTH_ENDPOINTS))
            .then(from("stranger").to(FIRST).finds_silence()),
    ]
}

fn claims() -> Vec<Scenario> {
    let service = |name: &str, host: u8, created: &'static str| {
        Service::new(name).cluster_ip(host).port(Port::tcp(PORT)).external_ip(1).created(created)
    };
    let (old, new) = ("2024-01-01T00:00:00Z", "2025-01-01T00:00:00Z");
    let slices =
        |objects: Objects| objects.slice(Slice::of("elder").ready(&["a1"])).slice(Slice::of("younger").ready(&["b1"]));
    let by_tcp = |place: &'static str| from(place).by(&[Protocol::Tcp]);
    vec![
        Scenario::new("of two Services that claim one address and port the older one has it, until it goes")
            .given(slices(Objects::new().service(service("younger", 2, new))))
            .then(by_tcp("outside").to(FIRST).reaches_masqueraded(&["b1"]))
            .given(slices(Objects::new().service(service("younger", 2, new)).service(service("elder", 3, old))))
            .then(by_tcp("outside").to(FIRST).reaches_masqueraded(&["a1"]))
            .then(by_tcp("a2").to(To::Cluster(2, PORT)).reaches(&["b1"]))
            .given(slices(Objects::new().service(service("younger", 2, new))))
            .then(by_tcp("outside").to(FIRST).reaches_masqueraded(&["b1"])),
    ]
}
