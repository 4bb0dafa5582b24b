//! The backend of the chosen mode, and the end of what other modes have left in the kernel.
//!
//! A node is switched from one mode to another, or taken over from kube-proxy, without a gap: what is there goes on working
//! until the new mode carries out the whole plan; only then is it removed.
//!
//! Two modes at once are no trouble where both translate a packet's destination: the first does, and the other passes it over.
//! Mode ipvs leads packets by a mark instead and needs the destination as it was, so on the way to and from it packets with the
//! mark are kept from being translated ([`fairlead_ipvs::pin`]). The rules of mode iptables would still refuse them, since it
//! takes what is not translated for what nobody answers: between these two, mode nft carries out the plan for a moment.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fairlead_iptables::IptablesBackend;
use fairlead_ipvs::{IpvsBackend, Keeper};
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Plan, Report, SyncError};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{IpvsSettings, Mode, Part};
use crate::guard::{self, Doubt};
use crate::metrics::Metrics;

/// A backend that removes what others have left as soon as it carries out a plan.
struct Chosen {
    backend: Box<dyn Backend>,
    /// What the backend needs so that it and others can be there at once.
    beside: Beside,
    /// Those that may have left something, by the name of their mode.
    others: Vec<Other>,
    /// Lets go of what connections from before the mode needed.
    keeper: Keeper,
}

/// What is to be done before two modes are there at once. Says what could not be done; the error is that the mode itself cannot be.
type Beside = Box<dyn FnMut(&Plan) -> Result<Vec<String>, SyncError> + Send>;

impl Backend for Chosen {
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
        // Most syncs are changes: what could not be removed is tried again when everything is looked at.
        if was.is_some() {
            return self.backend.sync(was, now);
        }
        let mut report = if self.others.is_empty() { self.backend.sync(was, now)? } else { self.take_over(now)? };
        if let Err(error) = self.keeper.start() {
            let what = "routes that keep addresses of kube-ipvs0 are not taken away";
            report.warnings.push(format!("{what}: {error}"));
        }
        Ok(report)
    }

    fn is_prompt(&self, was: &Plan, now: &Plan) -> bool {
        self.backend.is_prompt(was, now)
    }

    fn cleanup(&mut self) -> Result<(), SyncError> {
        self.backend.cleanup()
    }
}

impl Chosen {
    /// Carries out the plan beside what others have left, and then takes that away.
    fn take_over(&mut self, now: &Plan) -> Result<Report, SyncError> {
        let told = (self.beside)(now)?;
        let mut report = self.backend.sync(None, now)?;
        report.warnings.extend(told);
        self.others.retain_mut(|(mode, take_away)| match take_away() {
            Ok(told) => {
                report.warnings.extend(told);
                false
            }
            Err(error) => {
                report.warnings.push(format!("what the {mode} mode left in the kernel cannot be removed: {error}"));
                true
            }
        });
        if self.others.is_empty()
            && let Err(error) = fairlead_ipvs::unpin()
        {
            report.warnings.push(format!("the table that kept modes apart cannot be removed: {error}"));
        }
        Ok(report)
    }
}

/// The backend of a mode; what others change of it is told to `doubts`, within a `sync_period` at the latest.
///
/// # Errors
/// If a thread cannot be started.
pub fn backend(
    mode: Mode,
    sync_period: Duration,
    ipvs: &IpvsSettings,
    metrics: &Metrics,
    doubts: UnboundedSender<Doubt>,
) -> anyhow::Result<Box<dyn Backend>> {
    let keeper = Keeper::default();
    let chosen = match mode {
        Mode::Nft => {
            let backend = NftBackend::new();
            guard::start(guard::nft_table, backend.ours(), doubts).context("starting the thread that listens")?;
            let others = vec![left_ipvs(), iptables(), kube_proxy()];
            Chosen { backend: Box::new(backend), beside: Box::new(|plan| Ok(beside_ipvs(plan))), others, keeper }
        }
        Mode::Iptables(variant) => {
            let backend = IptablesBackend::new(variant);
            metrics.has_iptables(backend.figures());
            let witness: Arc<_> = backend.witness();
            guard::start_looking(witness, sync_period, doubts.clone())
                .context("starting the thread that looks at the tables")?;
            guard::start(fairlead_iptables::concerns, backend.ours(), doubts)
                .context("starting the thread that listens")?;
            let others = vec![left_ipvs(), nft(), kube_proxy()];
            Chosen { backend: Box::new(backend), beside: Box::new(|plan| Ok(by_way_of_nft(plan))), others, keeper }
        }
        Mode::Ipvs => {
            let backend = IpvsBackend::new(ipvs.backend.clone());
            guard::start_asking(backend.sentinel(), ipvs.sync_period, doubts)
                .context("starting the thread that looks at IPVS")?;
            let check = IpvsBackend::new(ipvs.backend.clone());
            let beside = Box::new(move |plan: &Plan| {
                // What cannot be is no reason to touch what is there.
                check.check()?;
                Ok(before_ipvs(plan))
            });
            Chosen { backend: Box::new(backend), beside, others: vec![nft(), iptables(), kube_proxy()], keeper }
        }
    };
    Ok(Box::new(chosen))
}

/// What is said to the operator when connections may fail.
const GAP: &str = "connections that are opened while the mode changes may fail";

/// Before rules that translate are there beside those of mode ipvs.
fn beside_ipvs(plan: &Plan) -> Vec<String> {
    let done = match fairlead_ipvs::is_here() {
        Ok(false) => Ok(()),
        Ok(true) => fairlead_ipvs::pin(plan.node.masquerade_mark),
        Err(error) => Err(SyncError::Failed(Box::new(error))),
    };
    done.err().map(|error| format!("{GAP}: {error}")).into_iter().collect()
}

/// Before mode iptables takes over, from mode ipvs too.
fn by_way_of_nft(plan: &Plan) -> Vec<String> {
    let mut told = beside_ipvs(plan);
    if fairlead_ipvs::is_here().unwrap_or(false) {
        match NftBackend::new().sync(None, plan).and_then(|_| left_ipvs().1()) {
            Ok(cut) => told.extend(cut),
            Err(error) => told.push(format!("{GAP}: {error}")),
        }
    }
    told
}

/// Before mode ipvs takes over. A start with its rules there takes over from nobody.
fn before_ipvs(plan: &Plan) -> Vec<String> {
    // What fails here fails again when the rules are written, and is said then.
    if fairlead_ipvs::has_rules().unwrap_or(true) {
        return Vec::new();
    }
    let mut done = Ok(());
    let chains = !matches!(fairlead_iptables::held_variant(), Ok(None));
    // kube-proxy has chains of the same names in its mode ipvs, which refuse nothing.
    if chains && !fairlead_ipvs::is_here().unwrap_or(true) {
        done = NftBackend::new().sync(None, plan).and_then(|_| IptablesBackend::new(None).cleanup());
    }
    if chains || fairlead_ipvs::others_translate().unwrap_or(true) {
        done = done.and(fairlead_ipvs::pin(plan.node.masquerade_mark));
    }
    done.err().map(|error| format!("{GAP}: {error}")).into_iter().collect()
}

/// A mode and what takes its traces away; it may have something to tell.
type Other = (&'static str, Box<dyn FnMut() -> Result<Option<String>, SyncError> + Send>);

fn nft() -> Other {
    ("nft", Box::new(|| NftBackend::new().cleanup().map(|()| None)))
}

fn iptables() -> Other {
    ("iptables", Box::new(|| IptablesBackend::new(None).cleanup().map(|()| None)))
}

fn ipvs_mode() -> Other {
    ("ipvs", Box::new(|| IpvsBackend::new(fairlead_ipvs::Settings::default()).cleanup().map(|()| None)))
}

/// The same while another mode is at work: connections that are open may end.
fn left_ipvs() -> Other {
    ("ipvs", Box::new(|| IpvsBackend::new(fairlead_ipvs::Settings::default()).leave()))
}

/// kube-proxy's other modes use the names of ours.
fn kube_proxy() -> Other {
    ("kube-proxy nftables", Box::new(|| fairlead_nft::remove_kube_proxy().map(|()| None)))
}

/// Makes the settings of the kernel that a mode needs, for a container that may not make them itself.
///
/// # Errors
/// What could not be set.
pub fn prepare(mode: Mode, ipvs: &IpvsSettings) -> anyhow::Result<()> {
    match mode {
        Mode::Nft | Mode::Iptables(_) => Ok(()),
        Mode::Ipvs => IpvsBackend::new(ipvs.backend.clone()).prepare().context("settings of the kernel for mode ipvs"),
    }
}

/// Takes everything of every mode out of the kernel, kube-proxy's included, or only what these have written.
///
/// # Errors
/// What could not be removed.
pub fn cleanup(only: &[Part]) -> anyhow::Result<()> {
    let all = [
        (Some(Part::Nft), nft()),
        (Some(Part::Iptables), iptables()),
        (Some(Part::Ipvs), ipvs_mode()),
        (None, kube_proxy()),
    ];
    let wanted = all.into_iter().filter(|(part, _)| match part {
        Some(part) => only.is_empty() || only.contains(part),
        None => only.is_empty(),
    });
    let removed = wanted.map(|(_, (mode, mut take_away))| {
        take_away().map(drop).with_context(|| format!("removing what the {mode} mode has in the kernel"))
    });
    // Whichever mode goes, nobody is left to look after these.
    let kept = fairlead_ipvs::let_go().context("removing routes that keep addresses of kube-ipvs0");
    // What fails leaves the others their turn.
    removed.fold(kept, anyhow::Result::and)
}
