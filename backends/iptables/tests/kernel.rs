//! The backend on a real kernel, in network namespaces of its own, in both variants.

mod sample;

use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_plan::{Backend, Family, Plan};

use sample::namespace::{alone, load, program, run, save};

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
