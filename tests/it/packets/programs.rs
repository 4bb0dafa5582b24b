//! What carries out the plans.

use std::sync::Arc;

use fairlead::flows::Flows;
use fairlead::metrics::Metrics;
use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_lab::Lab;
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Family, Plan};

use super::stage::Program;

/// A way of programming the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Nft,
    IptablesLegacy,
    IptablesNft,
}

impl Mode {
    pub const ALL: [Self; 3] = [Self::Nft, Self::IptablesLegacy, Self::IptablesNft];

    /// A backend as of a program that has just been started.
    pub fn backend(self) -> Box<dyn Backend> {
        match self {
            Self::Nft => Box::new(NftBackend::new()),
            Self::IptablesLegacy => Box::new(IptablesBackend::new(Some(Variant::Legacy))),
            Self::IptablesNft => Box::new(IptablesBackend::new(Some(Variant::Nft))),
        }
    }

    /// The program that shows what the mode writes; `None` for `nft`.
    pub fn tool(self, family: Family) -> Option<String> {
        let iptables = match family {
            Family::V4 => "iptables",
            Family::V6 => "ip6tables",
        };
        match self {
            Self::Nft => None,
            Self::IptablesLegacy => Some(format!("{iptables}-legacy")),
            Self::IptablesNft => Some(format!("{iptables}-nft")),
        }
    }

    /// How sentences about repairs call the table in which services are.
    pub fn table(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "ip fairlead",
            (Self::Nft, Family::V6) => "ip6 fairlead",
            (_, Family::V4) => "iptables table nat",
            (_, Family::V6) => "ip6tables table nat",
        }
    }

    /// The command by which somebody takes away everything of ours.
    pub fn removal(self, family: Family) -> String {
        match self.tool(family) {
            None => format!("nft delete table {}", self.table(family)),
            Some(tool) => format!("{tool} -t nat -F && {tool} -t nat -X && {tool} -F && {tool} -X"),
        }
    }

    /// Commands by which somebody takes away what we made.
    pub fn harms(self, family: Family) -> Vec<String> {
        let Some(variant) = self.tool(family) else {
            return ["delete", "flush"].map(|verb| format!("nft {verb} table {}", self.table(family))).to_vec();
        };
        [
            "TOOL -t nat -F",
            "TOOL -t nat -F && TOOL -t nat -X && TOOL -F && TOOL -X",
            "TOOL -t nat -D PREROUTING 1 && TOOL -D FORWARD 2",
            "TOOL -t nat -F KUBE-SERVICES && TOOL -F KUBE-SERVICES",
            "TOOL -t nat -D KUBE-POSTROUTING 3",
        ]
        .map(|harm| harm.replace("TOOL", &variant))
        .to_vec()
    }
}

/// Every way, in both families.
pub fn everywhere() -> impl Iterator<Item = (Mode, Family)> {
    Mode::ALL.into_iter().flat_map(|mode| Family::BOTH.map(|family| (mode, family)))
}

/// A backend, as a program that has just been started.
pub fn of(mode: Mode) -> Program {
    let mut backend = mode.backend();
    let mut held: Option<Plan> = None;
    Box::new(move |lab, plan| {
        let report = lab.node("a").run(|| backend.sync(held.as_ref(), plan));
        let report = report.unwrap_or_else(|error| panic!("the {mode:?} backend cannot carry out the plan: {error}"));
        assert!(report.warnings.is_empty(), "{:?}", report.warnings);
        held = Some(plan.clone());
    })
}

/// A backend together with what removes stale UDP flows.
pub fn with_flows(mode: Mode, lab: &Lab) -> Program {
    let metrics = Arc::new(Metrics::new("test", "nftables"));
    let flows = lab.node("a").run(|| Flows::start(metrics)).expect("a thread starts");
    let mut program = of(mode);
    Box::new(move |lab, plan| {
        program(lab, plan);
        flows.programmed(plan.clone(), false);
    })
}

/// A program that is not there.
pub fn nothing() -> Program {
    Box::new(|_, _| ())
}
