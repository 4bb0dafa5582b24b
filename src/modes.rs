//! The backend of the chosen mode, and the end of what other modes have left in the kernel.
//!
//! A node is switched from one mode to another, or taken over from kube-proxy, without a gap: what is there goes on working
//! until the new mode carries out the whole plan; only then is it removed.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use fairlead_iptables::IptablesBackend;
use fairlead_ipvs::IpvsBackend;
use fairlead_nft::NftBackend;
use fairlead_plan::{Backend, Plan, Report, SyncError};
use tokio::sync::mpsc::UnboundedSender;

use crate::config::{IpvsSettings, Mode, Part};
use crate::guard::{self, Doubt};
use crate::metrics::Metrics;

/// A backend that removes what others have left as soon as it carries out a plan.
struct Chosen {
    backend: Box<dyn Backend>,
    /// Those that may have left something, by the name of their mode.
    others: Vec<Other>,
}

impl Backend for Chosen {
    fn sync(&mut self, was: Option<&Plan>, now: &Plan) -> Result<Report, SyncError> {
        let mut report = self.backend.sync(was, now)?;
        // Most syncs are changes: what could not be removed is tried again when everything is looked at.
        if was.is_none() {
            self.others.retain_mut(|(mode, take_away)| match take_away() {
                Ok(()) => false,
                Err(error) => {
                    report.warnings.push(format!("what the {mode} mode left in the kernel cannot be removed: {error}"));
                    true
                }
            });
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
    let chosen = match mode {
        Mode::Nft => {
            let backend = NftBackend::new();
            guard::start(guard::nft_table, backend.ours(), doubts).context("starting the thread that listens")?;
            Chosen { backend: Box::new(backend), others: vec![iptables(), ipvs_mode(), kube_proxy()] }
        }
        Mode::Iptables(variant) => {
            let backend = IptablesBackend::new(variant);
            metrics.has_iptables(backend.figures());
            let witness: Arc<_> = backend.witness();
            guard::start_looking(witness, sync_period, doubts.clone())
                .context("starting the thread that looks at the tables")?;
            guard::start(fairlead_iptables::concerns, backend.ours(), doubts)
                .context("starting the thread that listens")?;
            Chosen { backend: Box::new(backend), others: vec![nft(), ipvs_mode(), kube_proxy()] }
        }
        Mode::Ipvs => {
            let backend = IpvsBackend::new(ipvs.backend.clone());
            guard::start_asking(backend.sentinel(), ipvs.sync_period, doubts)
                .context("starting the thread that looks at IPVS")?;
            Chosen { backend: Box::new(backend), others: vec![nft(), iptables(), kube_proxy()] }
        }
    };
    Ok(Box::new(chosen))
}

/// A mode and what takes its traces away.
type Other = (&'static str, Box<dyn FnMut() -> Result<(), SyncError> + Send>);

fn nft() -> Other {
    ("nft", Box::new(|| NftBackend::new().cleanup()))
}

fn iptables() -> Other {
    ("iptables", Box::new(|| IptablesBackend::new(None).cleanup()))
}

fn ipvs_mode() -> Other {
    ("ipvs", Box::new(|| IpvsBackend::new(fairlead_ipvs::Settings::default()).cleanup()))
}

/// kube-proxy's other modes use the names of ours.
fn kube_proxy() -> Other {
    ("kube-proxy nftables", Box::new(fairlead_nft::remove_kube_proxy))
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
        take_away().with_context(|| format!("removing what the {mode} mode has in the kernel"))
    });
    // What fails leaves the others their turn.
    removed.fold(Ok(()), anyhow::Result::and)
}
