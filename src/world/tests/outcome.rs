use std::sync::Arc;
use std::time::{Duration, SystemTime};

use k8s_openapi::jiff::Timestamp;

use super::{both, reasons};
use crate::object::{Event, Kind, LoadBalancerIngress};
use crate::world::HealthCheck;

#[test]
fn a_complaint_is_made_once_while_nothing_changes_and_again_when_it_comes_back() {
    both(|mut scene| {
        let mut bad = scene.web("a", 1);
        bad.spec.external_ips = vec!["nonsense".into()];
        scene.apply(bad.clone());
        assert_eq!(reasons(&scene.plan()), ["InvalidAddress"]);
        scene.apply(bad.clone());
        scene.list(Kind::Service, vec![bad.clone().into()]);
        assert_eq!(reasons(&scene.plan()), [""; 0]);
        scene.apply(scene.web("a", 1));
        scene.apply(bad.clone());
        assert_eq!(reasons(&scene.plan()), ["InvalidAddress"]);
        bad.spec.external_ips.push("more nonsense".into());
        scene.apply(bad);
        let planned = scene.plan();
        assert_eq!(reasons(&planned), ["InvalidAddress"], "only the new one");
        assert!(planned.notes[0].message.contains("more nonsense"));
    });
}

#[test]
fn a_complaint_about_an_object_that_is_gone_is_forgotten() {
    both(|mut scene| {
        let orphan = || {
            let mut slice = scene.slice("x", "a", &[1]);
            slice.metadata.labels.clear();
            slice
        };
        let orphan = orphan();
        scene.apply(orphan.clone());
        assert_eq!(reasons(&scene.plan()), ["NoServiceName"]);
        scene.list(Kind::EndpointSlice, Vec::new());
        scene.apply(orphan.clone());
        assert_eq!(reasons(&scene.plan()), ["NoServiceName"]);
        scene.apply(scene.slice("x", "a", &[1]));
        scene.apply(orphan);
        scene.delete(Kind::EndpointSlice, "x");
        assert_eq!(reasons(&scene.plan()), [""; 0], "it went before it could be said");
    });
}

#[test]
fn one_slice_change_touches_one_service() {
    both(|mut scene| {
        for host in 1..=20 {
            let service = format!("s{host}");
            scene.apply(scene.web(&service, host));
            scene.apply(scene.slice(&service, &service, &[1]));
        }
        let before = scene.plan().plan;
        scene.apply(scene.slice("s7", "s7", &[1, 2]));
        let after = scene.plan().plan;
        let changes: Vec<_> = before.services.changes(&after.services).collect();
        assert_eq!(changes.len(), 1);
        assert_eq!(*changes[0].now.unwrap().key.name, *"s7");
        assert!(Arc::ptr_eq(&before.node, &after.node));
    });
}

#[test]
fn counts_follow_every_change() {
    both(|mut scene| {
        let f = scene.family;
        scene.apply(scene.web("a", 1));
        scene.apply(scene.web("b", 2));
        scene.apply(scene.slice("a-1", "a", &[1, 2, 3]));
        let counts = scene.plan().counts;
        assert_eq!((counts.services, counts.service_ports[f], counts.endpoints[f]), (2, 2, 3));
        scene.apply(scene.slice("a-1", "a", &[1]));
        scene.delete(Kind::Service, "b");
        let counts = scene.plan().counts;
        assert_eq!((counts.services, counts.service_ports[f], counts.endpoints[f]), (1, 1, 1));
    });
}

#[test]
fn health_checks_follow_the_endpoints_and_are_shared_while_they_stay() {
    both(|mut scene| {
        let mut object = scene.web("a", 1);
        object.spec.type_ = Some("LoadBalancer".into());
        object.spec.external_traffic_policy = Some("Local".into());
        object.spec.health_check_node_port = Some(32000);
        let ip = Some(scene.ip(200, 1).to_string());
        object.status.load_balancer.ingress = vec![LoadBalancerIngress { ip, ip_mode: None }];
        scene.apply(object);
        let answer = |local_ready| Some(HealthCheck { port: 32000, local_ready });
        assert_eq!(scene.plan().health_checks.get(&super::name("a")).copied(), answer(0));
        scene.apply(scene.slice("a-1", "a", &[1, 2]));
        let first = scene.plan().health_checks;
        assert_eq!(first.get(&super::name("a")).copied(), answer(2));
        scene.apply(scene.web("b", 2));
        assert!(Arc::ptr_eq(&first, &scene.plan().health_checks));
        scene.delete(Kind::Service, "a");
        assert!(scene.plan().health_checks.is_empty());
    });
}

#[test]
fn trigger_times_after_the_start_are_given_once() {
    both(|mut scene| {
        scene.apply(scene.web("a", 1));
        let slice = |hosts: &[u8], at: SystemTime| {
            let mut slice = scene.slice("a-1", "a", hosts);
            let at = Timestamp::try_from(at).unwrap().to_string();
            slice.metadata.annotations.insert("endpoints.kubernetes.io/last-change-trigger-time".into(), at);
            slice
        };
        let later = SystemTime::now() + Duration::from_secs(60);
        let old = slice(&[1], SystemTime::UNIX_EPOCH);
        let new = slice(&[1, 2], later);
        let relabelled = slice(&[1, 2, 3], later);
        scene.apply(old);
        assert_eq!(scene.plan().triggers, []);
        scene.apply(new.clone());
        scene.apply(new);
        assert_eq!(scene.plan().triggers, [later]);
        scene.apply(relabelled);
        assert_eq!(scene.plan().triggers, [], "this change was not triggered then");
        scene.apply(slice_without(&scene));
        scene.delete(Kind::EndpointSlice, "a-1");
        assert_eq!(scene.plan().triggers, []);
    });
}

fn slice_without(scene: &super::Scene) -> crate::object::SliceObject {
    scene.slice("a-1", "a", &[4])
}

#[test]
fn a_node_without_address_is_named_once_a_node_port_needs_it() {
    both(|mut scene| {
        let mut node = scene.node();
        node.status.addresses.clear();
        scene.apply(node);
        assert_eq!(reasons(&scene.plan()), [""; 0]);
        let mut object = scene.web("a", 1);
        object.spec.ports[0].node_port = Some(30080);
        scene.apply(object);
        assert_eq!(reasons(&scene.plan()), ["NoNodeAddress"]);
        scene.world.apply(Event::ListBegin(Kind::Node));
        assert_eq!(reasons(&scene.plan()), [""; 0]);
    });
}
