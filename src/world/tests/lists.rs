use super::both;
use crate::object::{Event, Kind, ObjectName};

#[test]
fn the_world_is_complete_when_every_kind_has_been_listed() {
    both(|mut scene| {
        for kind in Kind::ALL {
            assert!(!scene.world.complete());
            scene.world.apply(Event::ListEnd(kind));
            assert!(!scene.world.complete(), "the end of a list that never began");
            scene.list(kind, Vec::new());
        }
        assert!(scene.world.complete());
        scene.world.apply(Event::ListBegin(Kind::Service));
        assert!(scene.world.complete(), "a second list takes nothing back");
    });
}

#[test]
fn what_a_list_does_not_name_is_gone_at_its_end_and_not_before() {
    both(|mut scene| {
        let objects = vec![scene.web("a", 1).into(), scene.web("b", 2).into()];
        scene.list(Kind::Service, objects);
        let slices = vec![scene.slice("a-1", "a", &[1]).into(), scene.slice("b-1", "b", &[2]).into()];
        scene.list(Kind::EndpointSlice, slices);
        assert_eq!((scene.endpoints("a"), scene.endpoints("b")), (1, 1));
        for kind in [Kind::Service, Kind::EndpointSlice] {
            scene.world.apply(Event::ListBegin(kind));
        }
        scene.apply(scene.web("b", 2));
        scene.apply(scene.slice("b-1", "b", &[2]));
        assert_eq!((scene.endpoints("a"), scene.endpoints("b")), (1, 1));
        scene.world.apply(Event::ListEnd(Kind::EndpointSlice));
        assert!(scene.refuses("a"));
        scene.world.apply(Event::ListEnd(Kind::Service));
        assert!(scene.service("a").is_none());
        assert_eq!(scene.endpoints("b"), 1);
    });
}

#[test]
fn a_list_that_breaks_off_and_begins_again_counts_from_its_new_beginning() {
    both(|mut scene| {
        let objects = vec![scene.web("a", 1).into(), scene.web("b", 2).into()];
        scene.list(Kind::Service, objects);
        scene.world.apply(Event::ListBegin(Kind::Service));
        scene.apply(scene.web("a", 1));
        let again = vec![scene.web("b", 2).into()];
        scene.list(Kind::Service, again);
        assert!(scene.service("a").is_none() && scene.service("b").is_some());
    });
}

#[test]
fn the_same_object_again_changes_nothing() {
    both(|mut scene| {
        assert!(scene.apply(scene.web("a", 1)).changed);
        assert!(scene.apply(scene.slice("a-1", "a", &[1, 2])).changed);
        assert!(scene.apply(scene.node()).changed);
        let before = scene.plan().plan;
        assert!(!scene.apply(scene.web("a", 1)).changed);
        assert!(!scene.apply(scene.slice("a-1", "a", &[1, 2])).changed);
        assert!(!scene.apply(scene.node()).changed);
        assert!(!scene.delete(Kind::Service, "unknown").changed);
        assert!(!scene.delete(Kind::EndpointSlice, "unknown").changed);
        assert_eq!(before.services.changes(&scene.plan().plan.services).count(), 0);
    });
}

#[test]
fn a_slice_that_changes_its_service_leaves_the_old_one() {
    both(|mut scene| {
        scene.apply(scene.web("a", 1));
        scene.apply(scene.web("b", 2));
        scene.apply(scene.slice("x", "a", &[1]));
        assert_eq!(scene.endpoints("a"), 1);
        scene.apply(scene.slice("x", "b", &[1]));
        assert!(scene.refuses("a"));
        assert_eq!(scene.endpoints("b"), 1);
    });
}

#[test]
fn a_slice_that_loses_its_service_name_or_becomes_headless_leaves_its_service() {
    both(|mut scene| {
        scene.apply(scene.web("a", 1));
        for label in ["", "service.kubernetes.io/headless"] {
            scene.apply(scene.slice("x", "a", &[1]));
            assert_eq!(scene.endpoints("a"), 1);
            let mut slice = scene.slice("x", "a", &[1]);
            if label.is_empty() {
                slice.metadata.labels.clear();
            } else {
                slice.metadata.labels.insert(label.into(), String::new());
            }
            scene.apply(slice);
            assert!(scene.refuses("a"));
        }
    });
}

#[test]
fn a_service_goes_and_comes_back_with_the_label_of_another_proxy() {
    both(|mut scene| {
        scene.apply(scene.slice("x", "a", &[1]));
        scene.apply(scene.web("a", 1));
        assert_eq!(scene.endpoints("a"), 1);
        let mut foreign = scene.web("a", 1);
        foreign.metadata.labels.insert("service.kubernetes.io/service-proxy-name".into(), "other".into());
        scene.apply(foreign);
        assert!(scene.service("a").is_none());
        scene.apply(scene.web("a", 1));
        assert_eq!(scene.endpoints("a"), 1);
    });
}

#[test]
fn service_prefixes_are_there_as_long_as_one_object_names_them() {
    both(|mut scene| {
        scene.apply(scene.cidr("one", &["10.96.0.0/16", "fd00:96::/112"]));
        scene.apply(scene.cidr("two", &["10.96.0.0/16"]));
        assert_eq!(scene.plan().plan.node.service_cidrs.len(), 2);
        let one = ObjectName { namespace: "".into(), name: "one".into() };
        assert!(scene.world.apply(Event::Delete(Kind::ServiceCidr, one)).changed);
        assert_eq!(scene.plan().plan.node.service_cidrs, ["10.96.0.0/16".parse().unwrap()]);
        scene.list(Kind::ServiceCidr, Vec::new());
        assert!(scene.plan().plan.node.service_cidrs.is_empty());
    });
}

#[test]
fn the_facts_of_a_deleted_node_stay_but_it_is_not_eligible() {
    both(|mut scene| {
        assert!(!scene.world.node_eligible());
        scene.apply(scene.node());
        assert!(scene.world.node_eligible());
        let mut other = scene.node();
        other.metadata.name = "node-b".into();
        assert!(!scene.apply(other).changed);
        let own = ObjectName { namespace: "".into(), name: "node-a".into() };
        scene.world.apply(Event::Delete(Kind::Node, own));
        assert!(!scene.world.node_eligible());
        assert_eq!(scene.plan().plan.node.node_port_addresses.len(), 1);
        let nodes = vec![scene.node().into()];
        scene.list(Kind::Node, nodes);
        assert!(scene.world.node_eligible());
        scene.list(Kind::Node, Vec::new());
        assert!(!scene.world.node_eligible());
    });
}

#[test]
fn a_new_zone_takes_effect_at_once() {
    both(|mut scene| {
        scene.apply(scene.web("a", 1));
        let mut slice = scene.slice("a-1", "a", &[1, 2]);
        slice.endpoints[0].hints = Some(super::hint("east"));
        slice.endpoints[1].hints = Some(super::hint("west"));
        scene.apply(slice);
        assert_eq!(scene.endpoints("a"), 2);
        let mut node = scene.node();
        node.metadata.labels.insert("topology.kubernetes.io/zone".into(), "west".into());
        assert!(scene.apply(node).changed);
        assert_eq!(scene.endpoints("a"), 1);
        assert!(scene.apply(scene.node()).changed);
        assert_eq!(scene.endpoints("a"), 2);
    });
}

#[test]
fn nothing_is_left_of_what_is_gone() {
    both(|mut scene| {
        scene.apply(scene.web("a", 1));
        scene.apply(scene.slice("a-1", "a", &[1]));
        scene.apply(scene.slice("b-1", "b", &[1]));
        scene.plan();
        scene.delete(Kind::Service, "a");
        scene.delete(Kind::EndpointSlice, "a-1");
        scene.delete(Kind::EndpointSlice, "b-1");
        let planned = scene.plan();
        assert!(planned.plan.services.is_empty());
        assert_eq!(planned.counts, crate::resolve::Tally::default());
        assert!(scene.world.store.services.is_empty());
    });
}
