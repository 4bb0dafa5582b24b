//! The backend on a real kernel, in network namespaces of its own, in both variants.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use std::path::Path;
use std::time::Duration;

use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_kernel::netns;
use fairlead_kernel::xtables::{LOCK_FILE, Lock};
use fairlead_plan::{Backend, Family, Plan, SyncError};

use namespace::{alone, fails, load, program, run, save};

const VARIANTS: [Variant; 2] = [Variant::Legacy, Variant::Nft];

fn backend(variant: Variant) -> IptablesBackend {
    IptablesBackend::new(Some(variant))
}

/// Everything that the kernel holds.
fn everything(variant: Variant) -> String {
    let tables =
        Family::BOTH.into_iter().flat_map(|family| ["nat", "filter"].map(|table| save(variant, family, table)));
    tables.collect()
}

#[test]
fn a_second_start_writes_nothing() {
    for variant in VARIANTS {
        alone(|| {
            let plan = sample::everything();
            let first = backend(variant).sync(None, &plan).expect("the kernel takes it");
            assert!(first.writes > 100, "{first:?}");
            let shown = everything(variant);
            let mut again = backend(variant);
            let second = again.sync(None, &plan).expect("the kernel takes it");
            assert_eq!(second.writes, 0, "{second:?}");
            assert_eq!(first.held, second.held);
            let third = again.sync(None, &plan).expect("the kernel takes it");
            assert_eq!((third.writes, third.repaired), (0, vec![]));
            let fourth = again.sync(Some(&plan), &plan).expect("the kernel takes it");
            assert_eq!(fourth.writes, 0, "{fourth:?}");
            assert_eq!(everything(variant), shown);
        });
    }
}

#[test]
fn what_iptables_makes_of_our_text_is_what_we_write_ourselves() {
    for variant in VARIANTS {
        alone(|| {
            let plan = sample::everything();
            for family in Family::BOTH {
                load(variant, family, &["--noflush"], &fairlead_iptables::family_text(&plan, family));
            }
            let shown = everything(variant);
            let mut backend = backend(variant);
            backend.sync(None, &Plan::default()).expect("the kernel takes it");
            backend.sync(None, &plan).expect("the kernel takes it");
            let ours = everything(variant);
            assert_eq!(sorted(&shown), sorted(&ours));
        });
    }
}

/// Lines that stand in no meaningful order: those of different chains.
fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_by_key(|line| line.split(' ').take(2).collect::<Vec<_>>());
    lines
}

#[test]
fn the_listing_loads_back_and_is_adopted() {
    for variant in VARIANTS {
        alone(|| {
            let plan = sample::everything();
            backend(variant).sync(None, &plan).expect("the kernel takes it");
            let shown = everything(variant);
            for family in Family::BOTH {
                let saved = run(&program(variant, family, "-save"), &[]);
                load(variant, family, &[], &saved);
            }
            assert_eq!(everything(variant), shown);
            backend(variant).sync(None, &plan).expect("the kernel takes it");
            assert_eq!(sorted(&everything(variant)), sorted(&shown));
            assert_eq!(backend(variant).sync(None, &plan).expect("the kernel takes it").writes, 0);
        });
    }
}

/// Long enough for anything that is not stuck.
const LONG: Duration = Duration::from_secs(60);

#[test]
fn while_another_program_holds_the_lock_a_sync_waits_and_then_says_who_is_waited_for() {
    const PATIENCE: Duration = Duration::from_millis(300);
    alone(|| {
        // The lock of this machine is left alone.
        netns::cover(Path::new("/run")).expect("root may do so");
        let plan = sample::everything();
        let lock = Lock::take(Duration::ZERO).expect("nobody else sees this file");
        let other = fails(&program(Variant::Legacy, Family::V4, ""), &["-w", "1", "-t", "nat", "-N", "OTHER"]);
        assert!(other.contains("xtables lock"), "it is not the lock that iptables takes: {other}");
        let mut backend = backend(Variant::Legacy).with_lock_patience(PATIENCE);
        let error = backend.sync(None, &plan).expect_err("somebody holds the lock");
        assert!(matches!(error, SyncError::Failed(_)), "{error:?}");
        let said = error.to_string();
        assert!(said.contains(LOCK_FILE) && said.contains("300ms") && said.contains("fuser -v"), "{said}");
        assert!(!everything(Variant::Legacy).contains("KUBE-"), "it was written without the lock");
        drop(lock);
        let report = backend.sync(None, &plan).expect("the lock is free");
        assert!(report.writes > 100, "{report:?}");
    });
}

#[test]
fn a_sync_goes_on_as_soon_as_the_lock_is_free() {
    alone(|| {
        netns::cover(Path::new("/run")).expect("root may do so");
        let plan = sample::everything();
        let mut backend = backend(Variant::Legacy).with_lock_patience(LONG);
        backend.sync(None, &plan).expect("the lock is free");
        let lock = Lock::take(Duration::ZERO).expect("nobody else sees this file");
        let shown = everything(Variant::Legacy);
        std::thread::scope(|scope| {
            let waiting =
                scope.spawn(|| backend.sync(Some(&plan), &Plan { services: Default::default(), ..plan.clone() }));
            std::thread::sleep(Duration::from_millis(200));
            let (waited, meanwhile) = (!waiting.is_finished(), everything(Variant::Legacy));
            drop(lock);
            let report = waiting.join().expect("no panic").expect("the lock is free");
            assert!(waited, "it did not wait for the lock");
            assert_eq!(meanwhile, shown, "it was written without the lock");
            assert!(report.writes > 0, "{report:?}");
        });
        assert!(!everything(Variant::Legacy).contains("KUBE-SEP-"));
    });
}

#[test]
fn the_lock_of_the_legacy_variant_does_not_hinder_the_other() {
    alone(|| {
        netns::cover(Path::new("/run")).expect("root may do so");
        let _lock = Lock::take(Duration::ZERO).expect("nobody else sees this file");
        let mut backend = backend(Variant::Nft).with_lock_patience(LONG);
        let report = backend.sync(None, &sample::everything()).expect("nothing is waited for");
        assert!(report.writes > 100, "{report:?}");
    });
}
