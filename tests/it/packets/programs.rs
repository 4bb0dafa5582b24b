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
            &[Feature::Namespaces, Feature::Iptables, Feature::Ipset, Feature::IpVs, Feature::Dummy];
        if self == Self::Ipvs { IPVS } else { COMMON }
    }

    /// Whether a client meets one endpoint at all frontends of a Service with affinity, and is forgotten after the time out of
    /// the Service. IPVS remembers clients for each frontend, and for as long as it remembers one of their connections,
    /// closed ones too; and by a hash, for ever, where a frontend is reached by mark: at node ports, and where policy Local
    /// makes the pool depend on the origin.
    pub fn affinity_is_of_the_service(self) -> bool {
        self != Self::Ipvs
    }

    /// Whether a pod on a bridge may send datagrams of IPv6 that need fragments while rules see what bridges carry
    /// (`bridge-nf-call-ip6tables`). There they are put together before IPv6 itself sees them; IPVS (`__mtu_check_toobig_v6` in
    /// Linux) takes the result for a packet too long for the way and says so to the sender, where a router would cut it again.
    pub fn carries_fragments_from_bridges(self) -> bool {
        self != Self::Ipvs
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
            Self::Ipvs => Some(iptables.to_owned()),
        }
    }

    /// How sentences about repairs call the table in which services are.
    pub fn table(self, family: Family) -> &'static str {
        match (self, family) {
            (Self::Nft, Family::V4) => "ip fairlead",
            (Self::Nft, Family::V6) => "ip6 fairlead",
            (Self::Ipvs, _) => "virtual services or entries of sets",
            (_, Family::V4) => "iptables table nat",
            (_, Family::V6) => "ip6tables table nat",
        }
    }

    /// The command by which somebody takes away everything of ours.
    pub fn removal(self, family: Family) -> String {
        match self.tool(family) {
            None => format!("nft delete table {}", self.table(family)),
            Some(tool) if self == Self::Ipvs => format!("ipvsadm -C && {tool} -t mangle -F && {tool} -t mangle -X"),
            Some(tool) => format!("{tool} -t nat -F && {tool} -t nat -X && {tool} -F && {tool} -X"),
        }
    }

    /// Commands by which somebody takes away what we made.
    pub fn harms(self, family: Family) -> Vec<String> {
        let Some(variant) = self.tool(family) else {
            return ["delete", "flush"].map(|verb| format!("nft {verb} table {}", self.table(family))).to_vec();
        };
        if self == Self::Ipvs {
            let ip = if family == Family::V4 { "-4" } else { "-6" };
            return [
                format!("{variant} -t mangle -F KUBE-IPVS-SERVICES"),
                format!("{variant} -t mangle -F && {variant} -t mangle -X && {variant} -t nat -F"),
                format!("ip {ip} rule delete pref 99"),
                "ip link delete kube-ipvs0".to_owned(),
                "ipvsadm -C".to_owned(),
                "ipset flush".to_owned(),
            ]
            .to_vec();
        }
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

/// Makes a test of each function for each mode: `nft::NAME` and so on.
macro_rules! in_every_mode {
    ($($name:ident)*) => {
        in_every_mode! { nft, Nft, $($name)* }
        in_every_mode! { iptables_legacy, IptablesLegacy, $($name)* }
        in_every_mode! { iptables_nft, IptablesNft, $($name)* }
        in_every_mode! { ipvs, Ipvs, $($name)* }
    };
    ($module:ident, $mode:ident, $($name:ident)*) => {
        mod $module {
            use $crate::packets::programs::Mode;
            $(#[test] fn $name() { super::$name(Mode::$mode); })*
        }
    };
}
pub(crate) use in_every_mode;

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
