use std::net::SocketAddr;

use fairlead_plan::Frontend;

use super::{Scene, both, reasons};
use crate::object::{Kind, LoadBalancerIngress, ServiceObject};

/// A Service that asks for an external IP.
fn with_external(scene: &Scene, service: &str, host: u8) -> ServiceObject {
    let mut object = scene.web(service, host);
    object.spec.external_ips = vec![scene.ip(200, 1).to_string()];
    object
}

fn own(scene: &Scene, host: u8) -> Frontend {
    Frontend::ClusterIp(SocketAddr::new(scene.ip(96, host), 80))
}

fn shared(scene: &Scene) -> Frontend {
    Frontend::ExternalIp(SocketAddr::new(scene.ip(200, 1), 80))
}

#[test]
fn of_two_services_with_one_address_the_older_one_has_it_in_either_order() {
    both(|mut scene| {
        scene.apply(with_external(&scene, "young", 2));
        assert_eq!(scene.frontends("young"), [own(&scene, 2), shared(&scene)]);
        scene.apply(with_external(&scene, "old", 1));
        let planned = scene.plan();
        assert_eq!(reasons(&planned), ["FrontendConflict"]);
        assert_eq!(*planned.notes[0].object.name, *"young");
        assert!(planned.notes[0].message.contains("shop/old"));
        assert_eq!(planned.counts.frontend_conflicts, 1);
        assert_eq!(scene.frontends("old"), [own(&scene, 1), shared(&scene)]);
        assert_eq!(scene.frontends("young"), [own(&scene, 2)]);
    });
}

#[test]
fn the_loser_gets_the_address_when_the_winner_gives_it_up() {
    both(|mut scene| {
        for giving_up in [true, false] {
            scene.apply(with_external(&scene, "old", 1));
            scene.apply(with_external(&scene, "young", 2));
            assert_eq!(scene.frontends("young"), [own(&scene, 2)]);
            if giving_up {
                scene.apply(scene.web("old", 1));
            } else {
                scene.delete(Kind::Service, "old");
            }
            let planned = scene.plan();
            assert_eq!((planned.notes.len(), planned.counts.frontend_conflicts), (0, 0));
            assert_eq!(scene.frontends("young"), [own(&scene, 2), shared(&scene)]);
        }
    });
}

#[test]
fn an_allocated_cluster_ip_beats_an_older_service_that_writes_it_down() {
    both(|mut scene| {
        let stolen = scene.ip(96, 9).to_string();
        let mut by_external_ip = scene.web("thief", 1);
        by_external_ip.spec.external_ips = vec![stolen.clone()];
        let mut by_status = scene.web("thief", 1);
        by_status.status.load_balancer.ingress = vec![LoadBalancerIngress { ip: Some(stolen), ip_mode: None }];
        for thief in [by_external_ip, by_status] {
            scene.apply(thief);
            scene.apply(scene.web("victim", 9));
            assert_eq!(reasons(&scene.plan()), ["FrontendConflict"]);
            assert_eq!(scene.frontends("thief"), [own(&scene, 1)]);
            assert_eq!(scene.frontends("victim"), [own(&scene, 9)]);
            scene.delete(Kind::Service, "victim");
            assert_eq!(scene.frontends("thief").len(), 2);
        }
    });
}

#[test]
fn the_same_age_is_decided_by_name_and_no_age_is_youngest() {
    both(|mut scene| {
        let mut a = with_external(&scene, "a", 1);
        let mut b = with_external(&scene, "b", 2);
        b.metadata.creation_timestamp = a.metadata.creation_timestamp.clone();
        scene.apply(b.clone());
        scene.apply(a.clone());
        assert_eq!((scene.frontends("a").len(), scene.frontends("b").len()), (2, 1));
        a.metadata.creation_timestamp = None;
        scene.apply(a);
        assert_eq!((scene.frontends("a").len(), scene.frontends("b").len()), (1, 2));
    });
}

#[test]
fn node_ports_have_one_owner_for_each_protocol() {
    both(|mut scene| {
        let with_node_port = |scene: &Scene, service: &str, host| {
            let mut object = scene.web(service, host);
            object.spec.type_ = Some("NodePort".into());
            object.spec.ports[0].node_port = Some(30080);
            object
        };
        scene.apply(with_node_port(&scene, "old", 1));
        scene.apply(with_node_port(&scene, "young", 2));
        let mut udp = with_node_port(&scene, "udp", 3);
        udp.spec.ports[0].protocol = Some("UDP".into());
        scene.apply(udp);
        let planned = scene.plan();
        assert_eq!(reasons(&planned), ["FrontendConflict"]);
        assert_eq!(planned.counts.node_ports[scene.family], 2);
        assert_eq!((scene.frontends("old").len(), scene.frontends("young").len()), (2, 1));
    });
}

#[test]
fn a_service_with_nothing_left_is_not_in_the_plan() {
    both(|mut scene| {
        scene.apply(scene.web("old", 1));
        let mut young = scene.web("young", 2);
        young.spec.cluster_ip = Some(scene.ip(96, 1).to_string());
        scene.apply(young);
        assert!(scene.service("young").is_none());
        scene.delete(Kind::Service, "old");
        assert_eq!(scene.frontends("young"), [own(&scene, 1)]);
    });
}

#[test]
fn another_port_of_one_address_is_no_conflict() {
    both(|mut scene| {
        scene.apply(with_external(&scene, "a", 1));
        let mut b = with_external(&scene, "b", 2);
        b.spec.ports[0].port = 81;
        scene.apply(b);
        assert_eq!(reasons(&scene.plan()), [""; 0]);
        assert_eq!((scene.frontends("a").len(), scene.frontends("b").len()), (2, 2));
    });
}
