use fairlead_plan::{Action, Pool, Protocol};

use super::build::{Pod, TARGET_PORT, gone, host, pod, ready, terminating, unready};
use super::{both, endpoints, service};
use crate::object::SlicePort;

#[test]
fn ready_endpoints_get_traffic_and_others_do_not() {
    both(|f| {
        let got = service(f).with([ready(1), unready(2), ready(3), terminating(4), gone(5)]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1, 3]);
        assert!(got.pools.local.is_empty());
    });
}

#[test]
fn absent_conditions_mean_ready_serving_and_not_terminating() {
    both(|f| {
        let silent = Pod { ready: None, serving: None, terminating: None, ..ready(1) };
        assert_eq!(endpoints(&service(f).with([silent]).resolve().pools.cluster), [1]);
    });
}

#[test]
fn serving_that_is_not_mentioned_is_true_for_a_terminating_endpoint() {
    both(|f| {
        let got = service(f).with([Pod { serving: None, ..terminating(1) }]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1]);
    });
}

#[test]
fn terminating_endpoints_that_serve_are_used_when_nothing_is_ready() {
    both(|f| {
        let got = service(f).with([terminating(1), gone(2), unready(3), terminating(4)]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1, 4]);
    });
}

#[test]
fn an_endpoint_that_serves_but_is_neither_ready_nor_terminating_is_never_used() {
    both(|f| {
        let got = service(f).with([Pod { serving: Some(true), ..unready(1) }]).resolve();
        assert_eq!(got.internal.from_pod, Action::Reject);
        assert!(got.pools.cluster.is_empty());
    });
}

#[test]
fn terminating_endpoints_are_used_whatever_their_hints_say() {
    both(|f| {
        let got = service(f).with([terminating(1).zones(["zone-b"]), terminating(2).zones(["zone-a"])]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1, 2]);
    });
}

#[test]
fn an_endpoint_that_is_ready_while_it_terminates_counts_as_ready() {
    both(|f| {
        let published = Pod { ready: Some(true), ..terminating(1) };
        let got = service(f).with([published, terminating(2)]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1]);
    });
}

#[test]
fn local_traffic_falls_back_to_terminating_endpoints_here_although_others_are_ready_elsewhere() {
    both(|f| {
        let case = service(f).node_port(30080).external_local();
        let got = case.with([terminating(1).here(), ready(2).on("node-b"), gone(3).here()]).resolve();
        assert_eq!(endpoints(&got.pools.local), [1]);
        assert_eq!(endpoints(&got.pools.cluster), [2]);
    });
}

#[test]
fn local_traffic_prefers_ready_endpoints_here_to_terminating_ones_here() {
    both(|f| {
        let got = service(f).internal_local().with([terminating(1).here(), ready(2).here(), ready(3)]).resolve();
        assert_eq!(endpoints(&got.pools.local), [2]);
        assert!(got.pools.cluster.is_empty(), "no action refers to it");
    });
}

#[test]
fn an_endpoint_without_node_is_never_local() {
    both(|f| {
        let got = service(f).internal_local().with([ready(1)]).resolve();
        assert_eq!(got.internal.from_pod, Action::Drop);
    });
}

#[test]
fn a_running_pod_beats_a_terminating_one_with_the_same_address_in_either_order() {
    both(|f| {
        for slices in [[terminating(1), ready(1).here()], [ready(1).here(), terminating(1)]] {
            let [first, second] = slices;
            let got = service(f).with([first]).with([second]).resolve();
            assert_eq!(endpoints(&got.pools.cluster), [1]);
            assert!(got.pools.cluster[0].local);
        }
    });
}

#[test]
fn a_pod_that_does_not_terminate_hides_a_terminating_one_even_if_it_is_not_ready() {
    both(|f| {
        let got = service(f).with([terminating(1)]).with([unready(1)]).resolve();
        assert_eq!(got.internal.from_pod, Action::Reject);
    });
}

#[test]
fn of_two_running_pods_with_one_address_the_ready_one_counts() {
    both(|f| {
        for [first, second] in [[unready(1), ready(1)], [ready(1), unready(1)]] {
            let got = service(f).with([first]).with([second]).resolve();
            assert_eq!(endpoints(&got.pools.cluster), [1]);
        }
    });
}

#[test]
fn one_address_on_two_ports_is_two_endpoints() {
    both(|f| {
        let other = SlicePort { port: Some(9090), ..SlicePort { name: Some(String::new()), ..SlicePort::default() } };
        let got = service(f).with([ready(1)]).with([ready(1)]).but(|case| case.slices[1].ports = vec![other]).resolve();
        let ports: Vec<_> = got.pools.cluster.iter().map(|endpoint| endpoint.addr().port()).collect();
        assert_eq!(ports, [TARGET_PORT, 9090]);
    });
}

#[test]
fn endpoints_join_by_port_name_and_protocol() {
    both(|f| {
        let port = |name: &str, protocol: &str, port| SlicePort {
            name: Some(name.into()),
            port: Some(port),
            protocol: Some(protocol.into()),
        };
        let case = service(f).with([ready(1)]).but(|case| {
            case.object.spec.ports[0].name = Some("dns".into());
            case.object.spec.ports[0].protocol = Some("UDP".into());
            case.slices[0].ports = vec![port("dns", "TCP", 1), port("dns", "UDP", 2), port("web", "UDP", 3)];
        });
        let got = case.resolve();
        assert_eq!(got.key.protocol, Protocol::Udp);
        assert_eq!(got.pools.cluster[0].addr(), (pod(f, 1), 2).into());
    });
}

#[test]
fn flows_of_udp_may_go_on_to_everything_that_serves() {
    both(|f| {
        let case = service(f).internal_local().but(|case| case.object.spec.ports[0].protocol = Some("UDP".into()));
        let pods = [ready(1).here(), ready(2), terminating(3), gone(4), unready(5)];
        let got = case.with(pods).but(|case| case.slices[0].ports[0].protocol = Some("UDP".into())).resolve();
        assert_eq!(got.serving.iter().copied().map(host).collect::<Vec<_>>(), [1, 2, 3]);
        assert_eq!(got.internal.from_pod, Action::Forward { to: Pool::Local, masquerade: false });
    });
}

#[test]
fn tcp_services_list_no_serving_endpoints() {
    both(|f| assert!(service(f).with([ready(1)]).resolve().serving.is_empty()));
}

#[test]
fn only_the_first_address_of_an_endpoint_counts() {
    both(|f| {
        let second = pod(f, 9).to_string();
        let got = service(f).with([ready(1)]).but(|case| case.slices[0].endpoints[0].addresses.push(second)).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1]);
    });
}

#[test]
fn a_bad_endpoint_costs_only_itself() {
    both(|f| {
        for bad in ["", "nonsense", "300.1.1.1", "127.0.0.1", "::1", "0.0.0.0", "ff02::1"] {
            let case = service(f).with([ready(1), ready(2)]);
            let case = case.but(|case| case.slices[0].endpoints[0].addresses = vec![bad.into()]);
            assert_eq!(case.complaints(), ["InvalidEndpoint"], "{bad}");
            assert_eq!(endpoints(&case.resolve_all().0.services[0].pools.cluster), [2]);
        }
    });
}

#[test]
fn a_slice_of_another_type_or_without_service_is_left_out_and_named() {
    both(|f| {
        let fqdn = service(f).with([ready(1)]).but(|case| case.slices[0].address_type = "FQDN".into());
        assert_eq!(fqdn.complaints(), ["UnsupportedAddressType"]);
        let orphan = service(f).with([ready(1)]).but(|case| case.slices[0].metadata.labels.clear());
        assert_eq!(orphan.complaints(), ["NoServiceName"]);
    });
}

#[test]
fn a_headless_slice_is_left_out_silently() {
    both(|f| {
        let case = service(f).with([ready(1)]).but(|case| {
            case.slices[0].metadata.labels.insert("service.kubernetes.io/headless".into(), String::new());
        });
        assert_eq!(case.resolve().internal.from_pod, Action::Reject);
    });
}

#[test]
fn a_slice_port_without_name_or_number_is_left_out_and_named() {
    both(|f| {
        for bad in [
            SlicePort { name: None, port: Some(80), protocol: None },
            SlicePort { name: Some(String::new()), port: None, protocol: None },
            SlicePort { name: Some(String::new()), port: Some(0), protocol: None },
            SlicePort { name: Some(String::new()), port: Some(80), protocol: Some("ICMP".into()) },
        ] {
            let case = service(f).with([ready(1)]).but(|case| case.slices[0].ports.insert(0, bad));
            assert_eq!(case.complaints(), ["InvalidPort"]);
            assert_eq!(endpoints(&case.resolve_all().0.services[0].pools.cluster), [1]);
        }
    });
}

#[test]
fn the_health_check_counts_ready_addresses_here_once_over_all_ports() {
    both(|f| {
        let case = service(f).vip(1).external_local();
        let pods = [ready(1).here(), ready(2).here(), terminating(3).here(), ready(4), unready(5).here()];
        let case = case.with(pods).with([ready(1).here()]).but(|case| {
            case.object.spec.health_check_node_port = Some(32000);
            let mut second = case.object.spec.ports[0].clone();
            second.name = Some("admin".into());
            second.port = 81;
            case.object.spec.ports.push(second);
            case.slices[0].ports.push(SlicePort { name: Some("admin".into()), port: Some(81), protocol: None });
        });
        assert_eq!(case.resolve_all().0.local_ready, 2);
    });
}
