use std::net::SocketAddr;

use fairlead_plan::Endpoint;

use super::build::{pod, ready};
use super::{both, endpoints, service};
use crate::resolve::slots::keep;

fn pool<const N: usize>(family: fairlead_plan::Family, hosts: [u8; N]) -> Vec<Endpoint> {
    hosts.map(|host| Endpoint::new(SocketAddr::new(pod(family, host), 8080), false)).to_vec()
}

#[track_caller]
fn keeps<const O: usize, const W: usize>(old: [u8; O], wanted: [u8; W], expected: &[u8]) {
    both(|f| assert_eq!(endpoints(&keep(&pool(f, old), pool(f, wanted))), expected));
}

#[test]
fn from_nothing_slots_are_sorted() {
    keeps([], [1, 2, 3], &[1, 2, 3]);
    both(|f| {
        let got = service(f).with([ready(3), ready(1)]).with([ready(2)]).resolve();
        assert_eq!(endpoints(&got.pools.cluster), [1, 2, 3]);
    });
}

#[test]
fn a_new_endpoint_goes_to_the_end() {
    keeps([2, 5], [1, 2, 5], &[2, 5, 1]);
}

#[test]
fn the_last_one_moves_into_a_hole() {
    keeps([4, 1, 3, 2], [2, 3, 4], &[4, 2, 3]);
}

#[test]
fn the_last_one_leaves_no_trace() {
    keeps([4, 1, 3], [1, 4], &[4, 1]);
}

#[test]
fn a_replacement_changes_one_slot() {
    keeps([4, 1, 3], [3, 4, 9], &[4, 9, 3]);
}

#[test]
fn everything_may_change_at_once() {
    keeps([1, 2, 3], [7, 8], &[7, 8]);
    keeps([1], [], &[]);
    keeps([1, 2, 3, 4], [4], &[4]);
}

#[test]
fn an_endpoint_that_becomes_local_keeps_its_slot() {
    both(|f| {
        let before = service(f).with([ready(1), ready(2)]).with([ready(3)]).resolve();
        let after = service(f).with([ready(2).here(), ready(3)]).after(&before).resolve();
        assert_eq!(endpoints(&after.pools.cluster), [3, 2]);
        assert!(after.pools.cluster[1].local);
    });
}
