use fairlead_plan::Action;

use super::build::{Pod, ready, terminating, unready};
use super::{both, endpoints, service};

/// Four ready endpoints, each meant for one zone.
fn one_zone_each() -> [Pod; 4] {
    [ready(1).zones(["zone-a"]), ready(2).zones(["zone-b"]), ready(3).zones(["zone-c"]), ready(4).zones(["zone-a"])]
}

#[track_caller]
fn cluster_is<const N: usize>(zone: &str, pods: [Pod; N], expected: &[u8]) {
    both(|f| assert_eq!(endpoints(&service(f).zone(zone).with(pods.clone()).resolve().pools.cluster), expected));
}

#[test]
fn only_endpoints_meant_for_this_zone_are_used() {
    cluster_is("zone-a", one_zone_each(), &[1, 4]);
}

#[test]
fn annotations_and_traffic_distribution_are_not_asked() {
    both(|f| {
        let case = service(f).with(one_zone_each()).but(|case| {
            let annotations = &mut case.object.metadata.annotations;
            annotations.insert("service.kubernetes.io/topology-mode".into(), "Disabled".into());
        });
        assert_eq!(endpoints(&case.resolve().pools.cluster), [1, 4]);
    });
}

#[test]
fn a_zone_that_no_endpoint_is_meant_for_uses_all() {
    cluster_is("zone-d", one_zone_each(), &[1, 2, 3, 4]);
}

#[test]
fn a_node_without_zone_uses_all() {
    both(|f| {
        let case = service(f).with(one_zone_each()).but(|case| case.node.metadata.labels.clear());
        assert_eq!(endpoints(&case.resolve().pools.cluster), [1, 2, 3, 4]);
    });
}

#[test]
fn an_empty_zone_label_is_no_zone() {
    cluster_is("", [ready(1).zones(["zone-a"]), ready(2).zones([""])], &[1, 2]);
}

#[test]
fn one_ready_endpoint_without_zone_hint_disables_zones_for_all() {
    cluster_is("zone-a", [ready(1).zones(["zone-a"]), ready(2).zones(["zone-b"]), ready(3)], &[1, 2, 3]);
}

#[test]
fn endpoints_that_are_not_ready_need_no_hints() {
    cluster_is("zone-a", [ready(1).zones(["zone-a"]), ready(2).zones(["zone-b"]), unready(3), terminating(4)], &[1]);
}

#[test]
fn an_endpoint_that_is_not_ready_does_not_make_the_zone_served() {
    cluster_is(
        "zone-a",
        [unready(1).zones(["zone-a"]), ready(2).zones(["zone-b"]), ready(3).zones(["zone-c"])],
        &[2, 3],
    );
}

#[test]
fn an_unready_endpoint_of_this_zone_is_not_used() {
    cluster_is("zone-a", [ready(1).zones(["zone-a"]), unready(2).zones(["zone-a"])], &[1]);
}

#[test]
fn an_endpoint_may_be_meant_for_several_zones() {
    let pods = [
        ready(1).zones(["zone-a", "zone-b", "zone-c"]),
        ready(2).zones(["zone-b", "zone-c"]),
        ready(3).zones(["zone-b", "zone-d"]),
        ready(4).zones(["zone-c"]),
    ];
    cluster_is("zone-c", pods, &[1, 2, 4]);
}

#[test]
fn endpoints_meant_for_this_node_are_stronger_than_those_meant_for_its_zone() {
    let pods = [
        ready(1).nodes(["node-a"]).zones(["zone-a"]),
        ready(2).nodes(["node-b"]).zones(["zone-a"]),
        ready(3).nodes(["node-c"]).zones(["zone-b"]),
    ];
    cluster_is("zone-a", pods, &[1]);
}

#[test]
fn a_node_that_no_endpoint_is_meant_for_goes_by_zone() {
    let pods = [ready(1).nodes(["node-b"]).zones(["zone-a"]), ready(2).nodes(["node-c"]).zones(["zone-b"])];
    cluster_is("zone-a", pods, &[1]);
}

#[test]
fn one_ready_endpoint_without_node_hint_leaves_zones_to_decide() {
    let pods = [
        ready(1).nodes(["node-a"]).zones(["zone-b"]),
        ready(2).zones(["zone-a"]),
        ready(3).nodes(["node-c"]).zones(["zone-a"]),
    ];
    cluster_is("zone-a", pods, &[2, 3]);
}

#[test]
fn node_hints_alone_that_do_not_name_this_node_use_all() {
    cluster_is("zone-a", [ready(1).nodes(["node-b"]), ready(2).nodes(["node-c"])], &[1, 2]);
}

#[test]
fn node_hints_work_without_a_zone() {
    both(|f| {
        let case = service(f).with([ready(1).nodes(["node-a"]), ready(2).nodes(["node-b"])]);
        let got = case.but(|case| case.node.metadata.labels.clear()).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1]);
    });
}

#[test]
fn the_terminating_fallback_ignores_node_and_zone() {
    let pods = [
        terminating(1).nodes(["node-b"]).zones(["zone-b"]),
        terminating(2).nodes(["node-a"]).zones(["zone-a"]),
        unready(3).nodes(["node-a"]).zones(["zone-a"]),
    ];
    cluster_is("zone-a", pods, &[1, 2]);
}

#[test]
fn without_endpoints_there_is_no_topology_to_decide() {
    both(|f| assert_eq!(service(f).with([]).resolve().internal.from_pod, Action::Reject));
}

#[test]
fn local_endpoints_are_used_whatever_zone_they_are_meant_for() {
    both(|f| {
        let pods = [
            ready(1).here().zones(["zone-a"]),
            ready(2).here().zones(["zone-b"]),
            ready(3).zones(["zone-c"]),
            ready(4).zones(["zone-a"]),
        ];
        let external = service(f).node_port(30080).external_local().with(pods.clone()).resolve();
        assert_eq!(endpoints(&external.pools.local), [1, 2]);
        assert_eq!(endpoints(&external.pools.cluster), [1, 4]);
        let internal = service(f).node_port(30080).internal_local().with(pods).resolve();
        assert_eq!(endpoints(&internal.pools.local), [1, 2]);
        assert_eq!(endpoints(&internal.pools.cluster), [1, 4], "the node port uses it");
    });
}
