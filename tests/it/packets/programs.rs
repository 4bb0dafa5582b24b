//! What carries out the plans.

use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Plan};

use super::stage::Program;

/// The nft backend, as a program that has just been started.
pub fn nft() -> Program {
    let mut backend = NftBackend::new();
    let mut held: Option<Plan> = None;
    Box::new(move |lab, plan| {
        let report = lab.node("a").run(|| backend.sync(held.as_ref(), plan));
        let report = report.unwrap_or_else(|error| panic!("the nft backend cannot carry out the plan: {error}"));
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        held = Some(plan.clone());
    })
}
