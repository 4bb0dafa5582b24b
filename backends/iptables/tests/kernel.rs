//! The backend on a real kernel, in network namespaces of its own, in both variants.

mod sample;

use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_plan::{Backend, Family};

use sample::namespace::{alone, save};

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
            eprintln!("{shown}");
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
