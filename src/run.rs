//! Puts the parts together and runs them in the foreground.

use std::sync::Arc;

use anyhow::{Context, bail};
use fairlead_kernel::sysctl;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tracing::{info, warn};

use crate::config::{self, ApiSource, Command, Reload, Settings, UsageError};
use crate::flows::Flows;
use crate::health::{self, Health, WantedChecks};
use crate::local::{self, Facts};
use crate::loopback::Loopback;
use crate::metrics::{Cause, Metrics};
use crate::outward::{self, Outward};
use crate::overlay::{self, Overlay};
use crate::page::Known;
use crate::program::Programmer;
use crate::reconcile::{Pace, Reconciler};
use crate::sysctls::Sysctl;
use crate::watch::{ApiSettings, ManifestSettings, NodeScope, Publisher, Source, Timing};
use crate::world::World;
use crate::{counters, modes, sysctls};

/// Why [`run`] ended well.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// It was told to stop.
    Stopped,
    /// A file of the settings says something else now: start again.
    Changed,
}

/// Does the job until told to stop (SIGTERM, SIGINT), or until the settings that `read` gives are others. What the kernel holds
/// stays: services go on without us.
///
/// # Errors
/// What cannot be started, or what the kernel lacks.
pub async fn run(
    settings: Settings,
    read: impl Fn() -> Result<Command, UsageError> + Send + 'static,
) -> anyhow::Result<Ended> {
    let metrics = Arc::new(Metrics::new(env!("CARGO_PKG_VERSION"), settings.mode.kube_proxy_name()));
    tune(&settings, &metrics);
    let resolved = settings.traffic.clone();
    for sentence in settings.notes() {
        warn!("{sentence}");
    }
    let health = Arc::new(Health::new(settings.sync_period, &resolved.families));
    let (patches, wanted_patches) = watch::channel(None);
    let (source, publisher) = source(&settings, wanted_patches).await?;
    let overlay = (settings.overlay.backend != overlay::Backend::None).then(|| {
        metrics.has_overlay();
        health.await_overlay();
        let (metrics, health) = (Arc::clone(&metrics), Arc::clone(&health));
        Overlay::start(settings.overlay.clone(), metrics, health, publisher.clone(), patches)
    });
    let overlay = overlay.transpose().context("starting the overlay")?;
    surround(&settings, overlay.as_ref(), &metrics)?;
    let (checks, wanted_checks) = watch::channel(WantedChecks::default());
    let facts = Arc::new(Facts::new(settings.mode.kube_proxy_name()));
    let known = Known {
        node: settings.traffic.node_name.clone(),
        facts: Arc::clone(&facts),
        health: Arc::clone(&health),
        metrics: Arc::clone(&metrics),
    };
    if settings.counts_connections()
        && let Err(error) = counters::start(&facts, &metrics)
    {
        warn!("connections are not counted by Service: {error:#}");
    }
    let mut failures = serve(&settings, known, &publisher, wanted_checks)?;

    // Held until the program ends: then nobody finds it any more.
    let _local = answer_locally(&settings, &facts);
    let (doubt_sender, doubts) = mpsc::unbounded_channel();
    let backend = modes::backend(settings.mode, settings.sync_period, &settings.ipvs, &metrics, doubt_sender)?;
    let (outcome_sender, outcomes) = mpsc::unbounded_channel();
    let programmer = Programmer::start(backend, outcome_sender).context("starting the thread that programs")?;
    let loopback = settings.loopback_node_ports.then(|| Loopback::start(Arc::clone(&metrics))).transpose();
    let outward = Outward {
        flows: Flows::start(Arc::clone(&metrics)).context("starting the thread that removes stale flows")?,
        loopback: loopback.context("starting the thread that answers on loopback")?,
        metrics: Arc::clone(&metrics),
        facts,
        health,
        checks,
        publisher,
        answered: outward::Answered::default(),
        overlay,
    };
    let pace = Pace { min_sync_period: settings.min_sync_period, retry_most: settings.sync_period };
    let reconciler = Reconciler::new(World::new(resolved), programmer, outward, pace);
    let (changes, changed) = mpsc::unbounded_channel();
    config::follow(settings.clone(), read, changes).context("starting the thread that watches the settings")?;
    info!(node = settings.traffic.node_name, mode = settings.mode.kube_proxy_name(), "fairlead starts");
    // A task of its own comes next when a source has given it something; this future would first have the driver look for more.
    let mut looping = tokio::spawn(reconciler.run(source, outcomes, doubts));
    let ended = tokio::select! {
        ended = &mut looping => {
            ended?.with_context(|| format!("the {} mode cannot run on this node", settings.mode.name()))?;
            return Ok(Ended::Stopped);
        }
        Some(failure) = failures.recv() => Err(failure),
        signal = stop() => signal.map_err(anyhow::Error::from).map(|signal| {
            info!("stopping on {signal}; what the kernel holds stays");
            Ended::Stopped
        }),
        () = other_settings(changed, &metrics) => Ok(Ended::Changed),
    };
    // Waits for the call under way. Nobody but us has ended it.
    looping.abort();
    let _ = looping.await;
    ended
}

/// Answers those on this node who ask. Services do not depend on it, so a place where nothing can be made is a warning.
fn answer_locally(settings: &Settings, facts: &Arc<Facts>) -> Option<fairlead_kernel::local::Local> {
    let path = settings.socket.as_deref()?;
    match local::serve(path, Arc::clone(facts)) {
        Ok(local) => Some(local),
        Err(error) => {
            let path = path.display();
            warn!(
                "commands on this node cannot ask this program, since nothing answers at {path}: {error}; see --socket"
            );
            None
        }
    }
}

/// Ends when the settings are others.
async fn other_settings(mut changes: mpsc::UnboundedReceiver<Reload>, metrics: &Metrics) {
    while let Some(reload) = changes.recv().await {
        match reload {
            Reload::Refused => metrics.failed(Cause::Input),
            Reload::Changed(_) => return,
        }
    }
    std::future::pending().await
}

/// Sets what a container without privilege cannot set while it does the job.
///
/// # Errors
/// What could not be set.
pub fn init(settings: &Settings) -> anyhow::Result<()> {
    let cpus = sysctl::possible_cpus().unwrap_or(1);
    let mut wanted = sysctls::wanted(&settings.conntrack, cpus);
    if settings.overlay.backend != overlay::Backend::None {
        wanted.extend(settings.traffic.families.iter().map(|family| Sysctl::Forwarding(*family)));
    }
    let applied = sysctls::apply(&wanted);
    applied.written.iter().for_each(|sysctl| info!("{sysctl} is set now"));
    applied.failed.iter().for_each(|(sysctl, error)| warn!("{sysctl} is not set: {error}"));
    modes::prepare(settings.mode, &settings.ipvs)?;
    match applied.failed.len() {
        0 => Ok(()),
        failed => {
            bail!("{failed} settings of the kernel could not be made; run --init-only as root on the host's network")
        }
    }
}

/// Starts what belongs around the overlay. Without one, what an earlier one has left goes.
fn surround(settings: &Settings, overlay: Option<&Overlay>, metrics: &Arc<Metrics>) -> anyhow::Result<()> {
    let Some(overlay) = overlay else {
        if let Err(error) = overlay::rules::remove() {
            warn!("rules that an earlier overlay may have left cannot be removed: {error}");
        }
        return Ok(());
    };
    overlay::cni::start(settings.overlay.clone(), overlay.installed())
        .context("starting the thread that writes CNI files")?;
    let mark = 1_u32.checked_shl(settings.traffic.masquerade_bit.into()).unwrap_or_default();
    let place = overlay::rules::Place::of(settings.mode);
    overlay::rules::start(settings.overlay.clone(), place, mark, overlay.installed(), Arc::clone(metrics))
        .context("starting the thread that keeps the overlay's rules")?;
    overlay::selftest::start(overlay.installed(), Arc::clone(metrics))
        .context("starting the thread that tests whether peers answer")
}

async fn stop() -> std::io::Result<&'static str> {
    let (mut term, mut int) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}

/// Settings of the kernel and of this process that help but are not needed.
fn tune(settings: &Settings, metrics: &Metrics) {
    let cpus = sysctl::possible_cpus().unwrap_or(1);
    let applied = sysctls::apply(&sysctls::wanted(&settings.conntrack, cpus));
    for sysctl in applied.written {
        info!("{sysctl} is set now");
    }
    for (sysctl, error) in applied.failed {
        metrics.failed(Cause::Sysctl);
        warn!("{sysctl} is not set: {error}");
    }
    if let Err(error) = fairlead_kernel::process::oom_score_adj(settings.oom_score_adj) {
        warn!("the OOM score stays as it is: {error}");
    }
}

/// Where objects come from, and what is written back: Events, and to this node's Node what the overlay wants.
async fn source(
    settings: &Settings,
    patches: watch::Receiver<Option<overlay::Patch>>,
) -> anyhow::Result<(Source, Publisher)> {
    let has_overlay = settings.overlay.backend != overlay::Backend::None;
    let own = settings.traffic.node_name.clone();
    let nodes = if has_overlay { NodeScope::All } else { NodeScope::Own(own.clone()) };
    match &settings.source {
        ApiSource::Manifests(directory) => {
            Ok((Source::manifests(&ManifestSettings::new(directory, nodes))?, Publisher::silent()))
        }
        ApiSource::Api(api) => {
            let api = ApiSettings {
                kubeconfig: api.kubeconfig.clone(),
                master: api.master.clone(),
                nodes,
                timing: Timing::default(),
            };
            let client = api.client().await?;
            // The task ends with the program.
            let (publisher, _) = Publisher::start(client.clone(), &own);
            if has_overlay {
                tokio::spawn(overlay::publish(client.clone(), own, patches));
            }
            Ok((Source::api(&client, &api), publisher))
        }
    }
}

/// Starts the HTTP servers on a thread of their own, so that they answer while the loop waits for the kernel. What ends one
/// comes through the channel.
fn serve(
    settings: &Settings,
    known: Known,
    publisher: &Publisher,
    wanted_checks: watch::Receiver<WantedChecks>,
) -> anyhow::Result<mpsc::UnboundedReceiver<anyhow::Error>> {
    let (failed, failures) = mpsc::unbounded_channel();
    let (notes, mut said) = mpsc::unbounded_channel();
    let (hard, healthz, scrape) = (settings.bind_hard_fail, settings.healthz, settings.metrics);
    let facts = health::Facts { mode: settings.mode, configuration: serde_json::to_string(&settings.configuration)? };
    let (publisher, known) = (publisher.clone(), Arc::new(known));
    let run = async move {
        let mut servers: JoinSet<anyhow::Result<()>> = JoinSet::new();
        if let Some(address) = healthz {
            let (known, notes) = (Arc::clone(&known), notes.clone());
            servers.spawn(async move { Ok(health::serve_health(address, hard, known, notes).await?) });
        }
        if let Some(address) = scrape {
            let (known, notes) = (Arc::clone(&known), notes.clone());
            servers.spawn(async move { Ok(health::serve_metrics(address, hard, facts, known, notes).await?) });
        }
        let (health, metrics) = (Arc::clone(&known.health), Arc::clone(&known.metrics));
        servers.spawn(async move {
            health::serve_checks(wanted_checks, health, metrics, notes).await;
            Ok(())
        });
        servers.spawn(async move {
            while let Some(note) = said.recv().await {
                outward::server_note(&publisher, &known.node, note);
            }
            Ok(())
        });
        while let Some(ended) = servers.join_next().await {
            // Nobody receives it only while the program ends.
            let _ = ended.map_err(anyhow::Error::from).flatten().map_err(|error| failed.send(error));
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new()
        .name("servers".into())
        .spawn(move || runtime.block_on(run))
        .context("starting the thread that answers questions about health")?;
    Ok(failures)
}

/// Takes everything of fairlead out of the kernel, or what was asked for.
///
/// # Errors
/// What could not be removed.
pub fn cleanup(settings: &config::Cleanup) -> anyhow::Result<()> {
    // What fails leaves the others their turn.
    let (rules, overlay) = if settings.only.is_empty() || settings.only.contains(&config::Part::Overlay) {
        let rules = overlay::rules::remove().context("removing the rules around the overlay");
        (rules, overlay::cleanup().context("removing the overlay"))
    } else {
        (Ok(()), Ok(0))
    };
    modes::cleanup(&settings.only)?;
    rules?;
    overlay?;
    if settings.only.is_empty() {
        info!("nothing of fairlead is left in the kernel");
    } else {
        info!(only = ?settings.only, "what was asked for is removed from the kernel");
    }
    Ok(())
}
