//! What carries out the plans.

use std::sync::Arc;

use fairlead::flows::Flows;
use fairlead::metrics::Metrics;
use fairlead_iptables::{IptablesBackend, Variant};
use fairlead_ipvs::{IpvsBackend, Settings};
use fairlead_lab::{Feature, Lab};
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Family, Plan};

use super::stage::Program;

/// A way of programming the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    Nft,
    IptablesLegacy,
    IptablesNft,
    /// The last one: machines may lack what it needs, which ends a test that goes through all.
    Ipvs,
}

impl Mode {
    pub const ALL: [Self; 4] = [Self::Nft, Self::IptablesLegacy, Self::IptablesNft, Self::Ipvs];

    /// A backend as of a program that has just been started.
    pub fn backend(self) -> Box<dyn Backend> {
        match self {
            Self::Nft => Box::new(NftBackend::new()),
            Self::IptablesLegacy => Box::new(IptablesBackend::new(Some(Variant::Legacy))),
            Self::IptablesNft => Box::new(IptablesBackend::new(Some(Variant::Nft))),
            Self::Ipvs => Box::new(IpvsBackend::new(Settings::default())),
        }
    }

    /// What it needs of the machine.
    pub fn needed(self) -> &'static [Feature] {
        const COMMON: &[Feature] = &[Feature::Namespaces, Feature::NfTables, Feature::Iptables];
        const IPVS: &[Feature] =
            &[Feature::Namespaces, Feature::NfTables, Feature::Iptables, Feature::Ipset, Feature::IpVs, Feature::Dummy];
        if self == Self::Ipvs { IPVS } else { COMMON }
    }

    /// Commands by which somebody takes away what we made.
    pub fn harms(self, family: Family) -> Vec<String> {
        let (ip, iptables) = match family {
            Family::V4 => ("ip", "iptables"),
            Family::V6 => ("ip6", "ip6tables"),
        };
        let variant = match self {
            Self::Nft => return ["delete", "flush"].map(|verb| format!("nft {verb} table {ip} fairlead")).to_vec(),
            Self::Ipvs => {
                return [
                    format!("{iptables} -t mangle -F KUBE-SERVICES"),
                    format!("{iptables} -t mangle -F && {iptables} -t mangle -X && {iptables} -t nat -F"),
                    format!("ip {} rule delete pref 99", if family == Family::V4 { "-4" } else { "-6" }),
                    "ip link delete kube-ipvs0".to_owned(),
                    "ipvsadm -C".to_owned(),
                    "ipset flush".to_owned(),
                ]
                .to_vec();
            }
            Self::IptablesLegacy => format!("{iptables}-legacy"),
            Self::IptablesNft => format!("{iptables}-nft"),
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
