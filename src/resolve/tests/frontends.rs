use std::net::{IpAddr, SocketAddr};

use fairlead_plan::{Affinity, Family, Frontend, Priority, Protocol};

use super::build::{Case, cluster_ip, external, ready};
use super::{both, service};
use crate::object::{ClientIpConfig, LoadBalancerIngress, ServicePort, SessionAffinityConfig};

fn at(ip: IpAddr) -> SocketAddr {
    SocketAddr::new(ip, 80)
}

fn vip(ip: IpAddr) -> Frontend {
    Frontend::LoadBalancer { addr: at(ip), allow: Vec::new() }
}

fn nothing_comes_out(case: &Case) {
    let (resolved, notes) = case.resolve_all();
    assert!(resolved.services.is_empty() && notes.is_empty(), "{notes:?}");
}

#[test]
fn every_address_of_a_service_is_a_frontend() {
    both(|f| {
        let got = service(f).node_port(30080).external_ip(2).vip(3).resolve();
        let expected = [
            Frontend::ClusterIp(at(cluster_ip(f, 1))),
            Frontend::ExternalIp(at(external(f, 2))),
            vip(external(f, 3)),
            Frontend::NodePort(30080),
        ];
        assert_eq!(got.frontends, expected);
    });
}

#[test]
fn headless_external_name_and_foreign_services_are_left_alone() {
    both(|f| {
        nothing_comes_out(&service(f).but(|case| case.object.spec.cluster_ip = Some("None".into())));
        nothing_comes_out(&service(f).but(|case| case.object.spec.type_ = Some("ExternalName".into())));
        for value in ["", "cilium"] {
            nothing_comes_out(&service(f).but(|case| {
                let labels = &mut case.object.metadata.labels;
                labels.insert("service.kubernetes.io/service-proxy-name".into(), value.into());
            }));
        }
    });
}

#[test]
fn a_service_without_address_is_named() {
    both(|f| {
        let case = service(f).but(|case| {
            case.object.spec.cluster_ip = None;
            case.object.spec.cluster_ips.clear();
        });
        assert_eq!(case.complaints(), ["NoClusterIP"]);
    });
}

#[test]
fn without_families_the_cluster_ip_says_which_family_it_is() {
    both(|f| {
        let case = service(f).but(|case| case.object.spec.ip_families.clear());
        assert_eq!(case.resolve().key.family, f);
    });
}

#[test]
fn the_families_say_which_of_the_cluster_ips_is_whose() {
    both(|f| {
        let case = service(f).but(|case| {
            let spec = &mut case.object.spec;
            spec.ip_families = vec!["IPv6".into(), "IPv4".into()];
            spec.cluster_ips = [Family::V6, Family::V4].map(|f| cluster_ip(f, 5).to_string()).to_vec();
        });
        let services = case.resolve_all().0.services;
        let ips: Vec<_> = services.iter().flat_map(|service| service.cluster_ips()).collect();
        assert_eq!(ips, [Family::V6, Family::V4].map(|f| cluster_ip(f, 5)));
    });
}

#[test]
fn external_addresses_of_a_family_without_cluster_ip_do_not_count() {
    both(|f| {
        let other = if f == Family::V4 { Family::V6 } else { Family::V4 };
        let case = service(f).but(|case| {
            case.object.spec.external_ips = vec![external(other, 1).to_string()];
            let ip = Some(external(other, 2).to_string());
            case.object.status.load_balancer.ingress = vec![LoadBalancerIngress { ip, ip_mode: None }];
        });
        assert_eq!(case.resolve().frontends, [Frontend::ClusterIp(at(cluster_ip(f, 1)))]);
    });
}

#[test]
fn a_family_that_the_node_does_not_carry_is_left_out_silently() {
    both(|f| {
        let other = if f == Family::V4 { Family::V6 } else { Family::V4 };
        nothing_comes_out(&service(f).with([ready(1)]).but(|case| case.settings.families = vec![other]));
    });
}

#[test]
fn leading_zeros_are_decimal_and_addresses_become_canonical() {
    let case = service(Family::V4).but(|case| {
        case.object.spec.cluster_ips = vec!["172.30.0.041".into()];
        case.object.spec.external_ips = vec!["192.000.2.007".into()];
        let ip = Some("0203.0.113.010".into());
        case.object.status.load_balancer.ingress = vec![LoadBalancerIngress { ip, ip_mode: None }];
    });
    let ips: Vec<_> = case.resolve().frontends.iter().map(|frontend| frontend.addr()).collect();
    let expected = ["172.30.0.41:80", "192.0.2.7:80", "203.0.113.10:80"];
    let expected = expected.map(|text| fairlead_plan::FrontendAddr::Addr(text.parse().unwrap()));
    assert_eq!(ips, expected);
    let case = service(Family::V6).but(|case| case.object.spec.cluster_ips = vec!["FD00:0096:0:0::0001".into()]);
    assert_eq!(case.resolve().frontends, [Frontend::ClusterIp("[fd00:96::1]:80".parse().unwrap())]);
}

#[test]
fn an_ipv4_address_in_ipv6_clothes_is_an_ipv4_address() {
    let case = service(Family::V4).but(|case| case.object.spec.external_ips = vec!["::ffff:192.0.2.07".into()]);
    assert_eq!(case.resolve().frontends[1], Frontend::ExternalIp("192.0.2.7:80".parse().unwrap()));
}

#[test]
fn a_bad_external_address_costs_only_itself() {
    both(|f| {
        for bad in ["x", "1.2.3", "1.2.3.256", "::g", "127.0.0.1", "::1", "224.0.0.1", "ff02::1", "::", "fe80::1%eth0"]
        {
            let case = service(f).external_ip(2).but(|case| case.object.spec.external_ips.push(bad.into()));
            assert_eq!(case.complaints(), ["InvalidAddress"], "{bad}");
            assert_eq!(case.resolve_all().0.services[0].frontends.len(), 2);
        }
        let empty = service(f).external_ip(2).but(|case| case.object.spec.external_ips.push(String::new()));
        assert_eq!(empty.complaints(), [""; 0]);
    });
}

#[test]
fn external_ips_can_be_forbidden() {
    both(|f| {
        let case = service(f).external_ip(2).vip(3).but(|case| case.settings.allow_external_ips = false);
        assert_eq!(case.resolve().frontends, [Frontend::ClusterIp(at(cluster_ip(f, 1))), vip(external(f, 3))]);
    });
}

#[test]
fn only_addresses_that_the_balancer_leaves_in_the_packet_are_frontends() {
    both(|f| {
        for (mode, expected) in [(None, 2), (Some("VIP"), 2), (Some("Proxy"), 1)] {
            let case = service(f).vip(3);
            let case = case.but(|case| {
                case.object.status.load_balancer.ingress[0].ip_mode = mode.map(str::to_owned);
                case.object.status.load_balancer.ingress.push(LoadBalancerIngress::default());
            });
            assert_eq!(case.resolve().frontends.len(), expected, "{mode:?}");
        }
    });
}

#[test]
fn the_status_alone_makes_a_load_balancer() {
    both(|f| {
        let case = service(f).vip(3).but(|case| case.object.spec.type_ = Some("ClusterIP".into()));
        assert_eq!(case.resolve().frontends[1], vip(external(f, 3)));
    });
}

#[test]
fn an_address_that_is_there_twice_keeps_its_strictest_meaning() {
    both(|f| {
        let case = service(f).vip(3).external_ip(3).external_ip(3).external_ip(4);
        let own = cluster_ip(f, 1).to_string();
        let got = case.but(|case| case.object.spec.external_ips.push(own)).resolve();
        let expected =
            [Frontend::ClusterIp(at(cluster_ip(f, 1))), Frontend::ExternalIp(at(external(f, 4))), vip(external(f, 3))];
        assert_eq!(got.frontends, expected);
    });
}

#[test]
fn every_port_and_protocol_is_a_service_of_its_own() {
    both(|f| {
        let case = service(f).but(|case| {
            case.object.spec.ports = ["TCP", "UDP", "SCTP"]
                .map(|protocol| ServicePort {
                    name: Some(protocol.to_lowercase()),
                    protocol: Some(protocol.into()),
                    port: 53,
                    node_port: Some(30053),
                })
                .to_vec();
        });
        let services = case.resolve_all().0.services;
        let protocols: Vec<_> = services.iter().map(|service| service.key.protocol).collect();
        assert_eq!(protocols, [Protocol::Tcp, Protocol::Udp, Protocol::Sctp]);
        assert!(services.iter().all(|service| service.frontends.len() == 2));
    });
}

#[test]
fn a_bad_port_costs_only_itself() {
    both(|f| {
        let bad = [
            ServicePort { name: Some("zero".into()), port: 0, ..ServicePort::default() },
            ServicePort { name: Some("far".into()), port: 65_536, ..ServicePort::default() },
            ServicePort { name: Some("ping".into()), port: 1, protocol: Some("ICMP".into()), node_port: None },
            ServicePort { port: 81, ..ServicePort::default() },
            ServicePort { name: Some("high".into()), port: 82, node_port: Some(70_000), protocol: None },
        ];
        let case = service(f).but(|case| case.object.spec.ports.extend(bad));
        assert_eq!(case.complaints(), ["InvalidPort"; 5]);
        let services = case.resolve_all().0.services;
        let ports: Vec<_> = services.iter().map(|service| service.frontends.clone()).collect();
        let [first, high] = [80, 82].map(|port| vec![Frontend::ClusterIp(SocketAddr::new(cluster_ip(f, 1), port))]);
        assert_eq!(ports, [first, high]);
    });
}

#[test]
fn the_annotation_names_the_scheduler_and_what_is_no_name_is_left_out() {
    let asked = |value: Option<&str>| {
        let case = service(Family::V6).but(|case| {
            let key = crate::resolve::ANNOTATION_SCHEDULER.to_owned();
            case.object.metadata.annotations.extend(value.map(|value| (key, value.to_owned())));
        });
        (case.resolve_all().0.services[0].scheduler.clone(), case.complaints())
    };
    assert_eq!(asked(Some(" lc ")), (Some("lc".into()), vec![]));
    assert_eq!(asked(None), (None, vec![]));
    for wrong in ["", "two words", "sixteen_letters_"] {
        assert_eq!(asked(Some(wrong)), (None, vec!["InvalidScheduler"]), "{wrong:?}");
    }
}

#[test]
fn affinity_has_the_timeout_of_the_service() {
    let affinity = |seconds: Option<i32>| {
        let case = service(Family::V6).but(|case| {
            case.object.spec.session_affinity = Some("ClientIP".into());
            let client_ip = Some(ClientIpConfig { timeout_seconds: seconds });
            case.object.spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        });
        (case.resolve_all().0.services[0].affinity, case.complaints().len())
    };
    let seconds = |timeout_seconds| Some(Affinity { timeout_seconds });
    assert_eq!(affinity(Some(60)), (seconds(60), 0));
    assert_eq!(affinity(None), (seconds(10_800), 0));
    assert_eq!(affinity(Some(0)), (seconds(10_800), 1));
    assert_eq!(affinity(Some(86_401)), (seconds(10_800), 1));
}

#[test]
fn the_timeout_without_affinity_means_nothing() {
    both(|f| {
        let case = service(f).but(|case| {
            case.object.spec.session_affinity = Some("None".into());
            let client_ip = Some(ClientIpConfig { timeout_seconds: Some(60) });
            case.object.spec.session_affinity_config = Some(SessionAffinityConfig { client_ip });
        });
        assert_eq!(case.resolve().affinity, None);
    });
}

#[test]
fn the_api_and_dns_come_first() {
    let priority = |namespace: &str, name: &str, app: Option<&str>| {
        let case = service(Family::V4).but(|case| {
            case.object.metadata.namespace = namespace.into();
            case.object.metadata.name = name.into();
            case.object.metadata.labels.extend(app.map(|app| ("k8s-app".to_owned(), app.to_owned())));
        });
        case.resolve().priority
    };
    assert_eq!(priority("default", "kubernetes", None), Priority::Api);
    assert_eq!(priority("shop", "kubernetes", None), Priority::Other);
    assert_eq!(priority("kube-system", "kube-dns", None), Priority::Dns);
    assert_eq!(priority("kube-system", "coredns", None), Priority::Dns);
    assert_eq!(priority("dns", "resolver", Some("kube-dns")), Priority::Dns);
    assert_eq!(priority("shop", "coredns", None), Priority::Other);
}

#[test]
fn health_checks_belong_to_load_balancers_with_policy_local() {
    both(|f| {
        let port = |case: Case| {
            let case = case.but(|case| case.object.spec.health_check_node_port = Some(32000));
            crate::resolve::parse_service(&case.object, &case.settings).0.unwrap().health_check_port
        };
        assert_eq!(port(service(f).vip(3).external_local()), Some(32000));
        assert_eq!(port(service(f).vip(3)), None);
        assert_eq!(port(service(f).node_port(30080).external_local()), None);
        let missing = service(f).vip(3).external_local();
        assert_eq!(missing.complaints(), ["NoHealthCheckNodePort"]);
    });
}
