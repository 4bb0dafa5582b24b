//! Ctrl-C, `kill` and a closed terminal: the work stops after the step under way, and everything is cleaned up.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use tokio::signal::unix::{Signal, SignalKind, signal};

static REQUESTED: AtomicBool = AtomicBool::new(false);

/// Starts to listen, on a thread that ends with the program.
pub(crate) fn listen() -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let signals = runtime.block_on(async {
        [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()]
            .map(signal)
            .into_iter()
            .collect::<std::io::Result<Vec<Signal>>>()
    })?;
    let wait = move || {
        runtime.block_on(async {
            let mut signals = signals;
            loop {
                let each = signals.iter_mut().map(|signal| Box::pin(signal.recv()));
                futures::future::select_all(each).await;
                if !REQUESTED.swap(true, Ordering::Relaxed) {
                    eprintln!("\ninterrupted; everything will be cleaned up");
                }
            }
        });
    };
    std::thread::Builder::new().name("signals".into()).spawn(wait).context("starting a thread")?;
    Ok(())
}

/// Whether the person wants to stop.
pub(crate) fn requested() -> bool {
    REQUESTED.load(Ordering::Relaxed)
}

/// # Errors
/// If the person wants to stop.
pub(crate) fn check() -> Result<()> {
    if requested() {
        bail!("interrupted");
    }
    Ok(())
}
