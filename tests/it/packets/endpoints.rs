//! Conditions of endpoints, and the slices they come in.

use fairlead_lab::objects::{Endpoint, Port, Service, Slice};
use fairlead_plan::Protocol;

use super::scenario::{Objects, Scenario, To, Untouched, from};
use super::web::{NODE_PORT, PORT, slice, web, web_behind_balancer, web_on_nodes, with, with_ready};

const WEB: To = To::Cluster(1, PORT);
const ON_NODE: To = To::Place("a", NODE_PORT);
const TCP: &[Protocol] = &[Protocol::Tcp];

pub fn scenarios() -> Vec<Scenario> {
    let mut all = terminating();
    all.extend(published());
    all.extend(slices());
    all.extend(changes());
    all.extend(names_and_numbers());
    all
}

fn at(place: &str) -> Endpoint {
    Endpoint::at(place)
}

fn terminating() -> Vec<Scenario> {
    let here = || at("a1").terminating(true);
    let far = || at("b1").terminating(true);
    vec![
        Scenario::new("while an endpoint is ready, terminating ones get nothing")
            .given(with(web(), [at("a1"), far()]))
            .then(from("a2").to(WEB).reaches(&["a1"])),
        Scenario::new("where all endpoints are terminating, those that still serve are used")
            .given(with(web(), [here(), far(), at("a3").terminating(false)]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("with internalTrafficPolicy Local a terminating endpoint here is used")
            .given(with(web().internal_local(), [here(), at("b1")]))
            .then(from("a2").to(WEB).reaches(&["a1"])),
        Scenario::new(
            "with externalTrafficPolicy Local clients reach the terminating endpoint here, others the ready one",
        )
        .given(with(web_on_nodes().external_local(), [here(), at("b1")]))
        .then(from("outside").to(ON_NODE).reaches(&["a1"]))
        .then(from("a2").to(WEB).reaches(&["b1"])),
        Scenario::new(
            "with externalTrafficPolicy Local and a terminating endpoint elsewhere only, clients meet silence",
        )
        .given(with(web_on_nodes().external_local(), [far()]))
        .then(from("outside").to(ON_NODE).finds_silence())
        .then(from("a2").to(WEB).reaches(&["b1"])),
        Scenario::new("where nothing serves any more, connections are refused")
            .given(with(web_on_nodes(), [at("a1").unready(), at("b1").terminating(false)]))
            .then(from("a2").to(WEB).finds_refusal())
            .then(from("outside").to(ON_NODE).finds_refusal()),
        Scenario::new("the health check tells ready endpoints only, and traffic to terminating ones goes on")
            .given(with(
                web_behind_balancer().external_local().spec("healthCheckNodePort", 32_000),
                [at("a1"), at("a3").terminating(true), at("b1")],
            ))
            .then_healthy_endpoints(1)
            .then(from("outside").to(To::External(1, PORT)).reaches(&["a1"]))
            .given(with(web_behind_balancer().external_local().spec("healthCheckNodePort", 32_000), [here(), at("b1")]))
            .then_healthy_endpoints(0)
            .then(from("outside").to(To::External(1, PORT)).reaches(&["a1"])),
    ]
}

fn published() -> Vec<Scenario> {
    vec![
        Scenario::new("endpoints published as ready are used though their pods terminate")
            .given(with(web(), [at("a1").conditions(true, false, true), at("b1").conditions(true, true, true)]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("unready endpoints are not used where others are ready, nor where none is")
            .given(with(web(), [at("a1").unready(), at("b1")]))
            .then(from("a2").to(WEB).reaches(&["b1"]))
            .given(with(web(), [at("a1").unready(), at("b1").unready()]))
            .then(from("a2").to(WEB).finds_refusal()),
        Scenario::new("an endpoint that becomes ready is used at once")
            .given(with(web(), [at("a1").unready(), at("b1")]))
            .then(from("a2").to(WEB).reaches(&["b1"]))
            .given(with(web(), [at("a1"), at("b1")]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
    ]
}

fn slices() -> Vec<Scenario> {
    vec![
        Scenario::new("of two slices that name one endpoint the one in which it runs wins, whatever their order")
            .given(
                Objects::new()
                    .service(web())
                    .slice(slice().endpoint(at("a1").terminating(true)))
                    .slice(slice().numbered(2).endpoint(at("a1")).endpoint(at("b1"))),
            )
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(
                Objects::new()
                    .service(web())
                    .slice(slice().endpoint(at("a1")).endpoint(at("b1")))
                    .slice(slice().numbered(2).endpoint(at("a1").terminating(true))),
            )
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("slices made by hand, mirrored and of the controller count alike")
            .given(
                Objects::new()
                    .service(web())
                    .slice(slice().ready(&["a1"]))
                    .slice(slice().numbered(2).managed_by("endpointslicemirroring-controller.k8s.io").ready(&["b1"]))
                    .slice(slice().numbered(3).managed_by("nobody").ready(&["a3"])),
            )
            .then(from("a2").to(WEB).reaches(&["a1", "a3", "b1"])),
        Scenario::new("a named port may have another number in each slice")
            .given(
                Objects::new()
                    .service(Service::new("web").cluster_ip(1).port(Port::tcp(PORT).named("http")))
                    .slice(Slice::of("web").tcp("http", 8081).ready(&["a1"]))
                    .slice(Slice::of("web").numbered(2).tcp("http", 8082).ready(&["b1"])),
            )
            .then(from("a2").by(TCP).to(WEB).reaches(&["a1:8081", "b1:8082"])),
        Scenario::new("one pod may serve a port at two numbers")
            .given(
                Objects::new()
                    .service(Service::new("web").cluster_ip(1).port(Port::tcp(PORT).named("http")))
                    .slice(Slice::of("web").tcp("http", 8081).ready(&["a1"]))
                    .slice(Slice::of("web").numbered(2).tcp("http", 8082).ready(&["a1"])),
            )
            .then(from("a2").by(TCP).to(WEB).reaches(&["a1:8081", "a1:8082"])),
    ]
}

fn changes() -> Vec<Scenario> {
    let external_name = || web().spec("type", "ExternalName").spec("externalName", "example.org");
    vec![
        // A label that takes a Service or a slice out of our sight makes the API server report it as deleted.
        Scenario::new("a Service that another proxy takes over goes out of our hands and comes back")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(Objects::new().slice(slice().ready(&["a1", "b1"])))
            .then(from("a2").to(WEB).finds_silence())
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("a slice that becomes headless takes the Service down until it is none any more")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(Objects::new().service(web()))
            .then(from("a2").to(WEB).finds_refusal())
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"])),
        Scenario::new("a Service becomes an ExternalName and a node port Service again")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(with_ready(external_name(), &["a1", "b1"]))
            .then(from("a2").to(WEB).finds_silence())
            .given(with_ready(web_on_nodes(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .then(from("outside").to(ON_NODE).reaches_masqueraded(&["a1", "b1"])),
        Scenario::new("endpoints come and go one by one")
            .given(with_ready(web(), &["a1"]))
            .then(from("a2").to(WEB).reaches(&["a1"]))
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(with_ready(web(), &["a1", "b1", "a3"]))
            .then(from("a2").to(WEB).reaches(&["a1", "a3", "b1"]))
            .given(with_ready(web(), &["a3", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a3", "b1"]))
            .given(with_ready(web(), &["b2"]))
            .then(from("a2").to(WEB).reaches(&["b2"])),
    ]
}

fn names_and_numbers() -> Vec<Scenario> {
    let renumbered = || Service::new("web").cluster_ip(1).port(Port::tcp(8_000).named("http"));
    vec![
        Scenario::new("ports of a Service are renumbered, and the Service goes and comes again under its name")
            .given(with_ready(web(), &["a1", "b1"]))
            .then(from("a2").to(WEB).reaches(&["a1", "b1"]))
            .given(with_ready(renumbered(), &["a1", "b1"]))
            .then(from("a2").to(WEB).finds_refusal())
            .then(from("a2").by(TCP).to(To::Cluster(1, 8_000)).reaches(&["a1", "b1"]))
            .given(Objects::new())
            .then(from("a2").to(WEB).finds_silence())
            .then(from("outside").to(ON_NODE).finds_nobody(Untouched::Refused))
            .given(with_ready(web().cluster_ip(9), &["b1"]))
            .then(from("a2").to(To::Cluster(9, PORT)).reaches(&["b1"]))
            .then(from("a2").to(WEB).finds_silence()),
    ]
}
