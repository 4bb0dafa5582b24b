//! What carries out the plans.

use std::sync::Arc;

use fairlead::flows::Flows;
use fairlead::metrics::Metrics;
use fairlead_lab::Lab;
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

/// The nft backend together with what removes stale UDP flows.
pub fn nft_and_flows(lab: &Lab) -> Program {
    let metrics = Arc::new(Metrics::new("test", "nftables"));
    let flows = lab.node("a").run(|| Flows::start(metrics)).expect("a thread starts");
    let mut program = nft();
    Box::new(move |lab, plan| {
        program(lab, plan);
        flows.programmed(plan.clone(), false);
    })
}

/// A program that is not there.
pub fn nothing() -> Program {
    Box::new(|_, _| ())
}
