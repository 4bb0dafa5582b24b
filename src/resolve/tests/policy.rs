use fairlead_plan::{Action, Pool, Route};

use super::build::{Case, ready, terminating};
use super::{both, service};

const fn to(pool: Pool, masquerade: bool) -> Action {
    Action::Forward { to: pool, masquerade }
}

const KEPT: Action = to(Pool::Cluster, false);
const MASQUERADED: Action = to(Pool::Cluster, true);
const LOCAL: Action = to(Pool::Local, false);
const LOCAL_MASQUERADED: Action = to(Pool::Local, true);

const fn route(from_pod: Action, from_node: Action, from_outside: Action) -> Route {
    Route { from_pod, from_node, from_outside }
}

/// A Service with a ClusterIP and a node port, an endpoint here and one elsewhere.
fn here_and_there(f: fairlead_plan::Family) -> Case {
    service(f).node_port(30080).with([ready(1).here(), ready(2).on("node-b")])
}

/// The same with endpoints elsewhere only.
fn only_there(f: fairlead_plan::Family) -> Case {
    service(f).node_port(30080).with([ready(2).on("node-b")])
}

#[test]
fn cluster_ip_traffic_is_masqueraded_unless_it_comes_from_a_pod() {
    both(|f| assert_eq!(here_and_there(f).resolve().internal, route(KEPT, MASQUERADED, MASQUERADED)));
}

#[test]
fn without_detector_cluster_ip_traffic_keeps_its_source() {
    both(|f| assert_eq!(here_and_there(f).no_detector().resolve().internal, Route::all(KEPT)));
}

#[test]
fn masquerade_all_masquerades_pods_too() {
    both(|f| {
        assert_eq!(here_and_there(f).masquerade_all().resolve().internal, Route::all(MASQUERADED));
        assert_eq!(here_and_there(f).masquerade_all().no_detector().resolve().internal, Route::all(MASQUERADED));
    });
}

#[test]
fn external_traffic_with_policy_cluster_is_always_masqueraded() {
    both(|f| {
        assert_eq!(here_and_there(f).resolve().external, Route::all(MASQUERADED));
        assert_eq!(here_and_there(f).no_detector().resolve().external, Route::all(MASQUERADED));
        assert_eq!(here_and_there(f).masquerade_all().resolve().external, Route::all(MASQUERADED));
    });
}

#[test]
fn external_traffic_with_policy_local_keeps_its_source_and_pods_and_node_take_a_short_cut() {
    both(|f| {
        let expected = route(KEPT, MASQUERADED, LOCAL);
        assert_eq!(here_and_there(f).external_local().resolve().external, expected);
        assert_eq!(here_and_there(f).external_local().masquerade_all().resolve().external, expected);
    });
}

#[test]
fn without_detector_pods_get_no_short_cut() {
    both(|f| {
        let got = here_and_there(f).external_local().no_detector().resolve();
        assert_eq!(got.external, route(LOCAL, MASQUERADED, LOCAL));
    });
}

#[test]
fn external_traffic_drops_when_only_other_nodes_have_endpoints() {
    both(|f| {
        let got = only_there(f).external_local().resolve();
        assert_eq!(got.external, route(KEPT, MASQUERADED, Action::Drop));
        assert_eq!(got.internal, route(KEPT, MASQUERADED, MASQUERADED), "the ClusterIP does not care");
        assert!(got.pools.local.is_empty());
    });
}

#[test]
fn internal_traffic_stays_on_the_node_with_policy_local() {
    both(|f| {
        let got = here_and_there(f).internal_local().resolve();
        assert_eq!(got.internal, route(LOCAL, LOCAL_MASQUERADED, LOCAL_MASQUERADED));
        assert_eq!(got.external, Route::all(MASQUERADED), "external traffic does not care");
    });
}

#[test]
fn internal_traffic_drops_when_only_other_nodes_have_endpoints() {
    both(|f| {
        let got = only_there(f).internal_local().resolve();
        assert_eq!(got.internal, Route::all(Action::Drop));
        assert_eq!(got.external, Route::all(MASQUERADED));
    });
}

#[test]
fn terminating_endpoints_elsewhere_count_as_endpoints_elsewhere() {
    both(|f| {
        let case = service(f).node_port(30080).internal_local().external_local();
        let got = case.with([terminating(2).on("node-b")]).resolve();
        assert_eq!(got.internal, Route::all(Action::Drop));
        assert_eq!(got.external, route(KEPT, MASQUERADED, Action::Drop));
    });
}

#[test]
fn without_endpoints_anywhere_clients_are_refused_whatever_the_policy() {
    both(|f| {
        let empty = || service(f).node_port(30080);
        for case in [empty(), empty().internal_local(), empty().external_local(), empty().masquerade_all()] {
            let got = case.resolve();
            assert_eq!((got.internal, got.external), (Route::all(Action::Reject), Route::all(Action::Reject)));
        }
    });
}

#[test]
fn external_policy_means_nothing_for_a_cluster_ip_service_without_external_ip() {
    both(|f| {
        let policy = |case: &mut Case| {
            case.object.spec.type_ = Some("ClusterIP".into());
            case.object.spec.external_traffic_policy = Some("Local".into());
        };
        let only_status = service(f).vip(3).but(policy).with([ready(1).here()]).resolve();
        assert_eq!(only_status.external, Route::all(MASQUERADED));
        let with_address = service(f).external_ip(7).but(policy).with([ready(1).here()]).resolve();
        assert_eq!(with_address.external.from_outside, LOCAL);
    });
}

#[test]
fn routes_that_no_frontend_uses_refer_to_no_pool() {
    both(|f| {
        let got = service(f).with([ready(1).here()]).resolve();
        assert_eq!(got.external, Route::all(Action::Reject));
        let got = service(f).internal_local().external_local().with([ready(1).here(), ready(2)]).resolve();
        assert!(got.pools.cluster.is_empty());
    });
}

#[test]
fn ports_without_local_endpoints_are_counted_by_policy_and_family() {
    both(|f| {
        let (none, _) = here_and_there(f).internal_local().external_local().resolve_all();
        assert_eq!((none.tally.no_local_internal[f], none.tally.no_local_external[f]), (0, 0));
        let (both, _) = only_there(f).internal_local().external_local().resolve_all();
        assert_eq!((both.tally.no_local_internal[f], both.tally.no_local_external[f]), (1, 1));
        let (empty, _) = service(f).node_port(30080).internal_local().external_local().resolve_all();
        assert_eq!((empty.tally.no_local_internal[f], empty.tally.no_local_external[f]), (0, 0));
    });
}

#[test]
fn endpoints_of_both_pools_are_counted_once() {
    both(|f| {
        let (resolved, _) = here_and_there(f).external_local().resolve_all();
        assert_eq!(resolved.tally.endpoints[f], 2);
        assert_eq!((resolved.tally.services, resolved.tally.service_ports[f]), (1, 1));
        assert_eq!(resolved.tally.node_ports[f], 1);
    });
}
