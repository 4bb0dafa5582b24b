//! Hints for zones and nodes.

use fairlead_lab::objects::Endpoint;

use super::scenario::{Objects, Scenario, To, from};
use super::web::{NODE_PORT, PORT, web, web_on_nodes, with};

const WEB: To = To::Cluster(1, PORT);

fn zoned(place: &str, zone: &str) -> Endpoint {
    Endpoint::at(place).for_zone(zone)
}

/// A Service with an endpoint for the west here and one there, and one for the east.
fn by_zone() -> Objects {
    with(web(), [zoned("a1", "west"), zoned("b1", "west"), zoned("b2", "east")])
}

pub fn scenarios() -> Vec<Scenario> {
    let reaches = |scenario: Scenario, endpoints: &[&'static str]| {
        scenario
            .then(from("a2").to(WEB).reaches(endpoints))
            .then(from("outside").to(WEB).reaches_masqueraded(endpoints))
    };
    let all = &["a1", "b1", "b2"];
    let mut scenarios = vec![
        reaches(
            Scenario::new("where every endpoint has a hint, those for our zone are used").given(by_zone().zone("west")),
            &["a1", "b1"],
        ),
        reaches(
            Scenario::new("one endpoint without a hint makes all hints void")
                .given(with(web(), [zoned("a1", "west"), zoned("b1", "east"), Endpoint::at("b2")]).zone("west")),
            all,
        ),
        reaches(
            Scenario::new("where no hint is for our zone, all endpoints are used").given(by_zone().zone("north")),
            all,
        ),
        reaches(Scenario::new("where the node has no zone, all endpoints are used").given(by_zone()), all),
        reaches(
            reaches(
                Scenario::new("a node that moves to another zone takes its traffic along")
                    .given(by_zone().zone("west")),
                &["a1", "b1"],
            )
            .given(by_zone().zone("east")),
            &["b2"],
        ),
    ];
    scenarios.extend(nodes());
    scenarios.extend(with_policy());
    scenarios
}

fn nodes() -> Vec<Scenario> {
    let here = || zoned("a1", "west").for_node("a");
    let near = || zoned("b1", "west").for_node("b");
    let far = || zoned("b2", "east").for_node("b");
    vec![
        Scenario::new("endpoints for our node are used first, then those for our zone, then all")
            .given(with(web(), [here(), near(), far()]).zone("west"))
            .then(from("a2").to(WEB).reaches(&["a1"]))
            .given(with(web(), [near(), far()]).zone("west"))
            .then(from("a2").to(WEB).reaches(&["b1"]))
            .given(with(web(), [far()]).zone("west"))
            .then(from("a2").to(WEB).reaches(&["b2"])),
        Scenario::new("an endpoint for our node that is not ready any more makes room for others")
            .given(with(web(), [here(), near()]))
            .then(from("a2").to(WEB).reaches(&["a1"]))
            .given(with(web(), [here().unready(), near()]))
            .then(from("a2").to(WEB).reaches(&["b1"])),
    ]
}

fn with_policy() -> Vec<Scenario> {
    let endpoints = || [zoned("a1", "east"), zoned("b1", "west")];
    vec![
        Scenario::new("hints do not keep clients from a local endpoint of another zone")
            .given(with(web_on_nodes().external_local(), endpoints()).zone("west"))
            .then(from("outside").to(To::Place("a", NODE_PORT)).reaches(&["a1"]))
            .then(from("a2").to(WEB).reaches(&["b1"]))
            .then(from("a2").to(To::Place("a", NODE_PORT)).reaches(&["b1"])),
    ]
}
