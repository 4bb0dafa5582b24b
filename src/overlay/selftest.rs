//! After the start every peer is asked through the overlay, until all have answered once: a network that drops the tunnel's
//! packets looks well from inside, and its users would find out first.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use std::{io, thread};

use ipnet::IpNet;
use tokio::sync::watch;
use tracing::{debug, info, warn};

use super::outside::Installed;
use super::probe::{self, Finding, words};
use crate::metrics::Metrics;

/// After the overlay is installed, and after every change of peers, time for those that are written and for the peers' own.
const SETTLE: Duration = Duration::from_secs(3);
/// Pause after a test in which somebody did not answer; doubles up to the longest.
const AGAIN: Duration = Duration::from_secs(10);
const LONGEST: Duration = Duration::from_secs(300);
/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(1);

/// Starts the thread, in the network namespace of the caller. It ends once all peers have answered, or with the overlay.
///
/// # Errors
/// If the thread cannot be started.
pub fn start(installed: watch::Receiver<Installed>, metrics: Arc<Metrics>) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    let test = Test { installed, metrics, said: BTreeSet::new() };
    thread::Builder::new().name("overlay-test".into()).spawn(move || runtime.block_on(test.run())).map(drop)
}

struct Test {
    installed: watch::Receiver<Installed>,
    metrics: Arc<Metrics>,
    /// Who was complained about, and why.
    said: BTreeSet<(Option<IpNet>, &'static str)>,
}

impl Test {
    async fn run(mut self) {
        let mut pause = AGAIN;
        loop {
            if self.installed.wait_for(|installed| !installed.ends.is_empty()).await.is_err() {
                return;
            }
            // While peers are still coming, those that are last would be asked too early.
            while let Ok(changed) = tokio::time::timeout(SETTLE, self.installed.changed()).await {
                if changed.is_err() {
                    return;
                }
            }
            let (mut ways, mut silent) = (0, 0);
            let asked = probe::in_portions(PATIENCE, |findings| {
                ways += findings.len();
                silent += self.complain(&findings);
            });
            match asked {
                Ok(()) if self.tell(ways, silent) => return,
                Ok(()) => {}
                Err(error) => {
                    info!("overlay: whether peers answer cannot be tested: {error:#}");
                    return;
                }
            }
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                changed = self.installed.changed() => if changed.is_err() { return },
            }
            pause = (pause * 2).min(LONGEST);
        }
    }

    /// Says who does not answer, and counts them.
    fn complain(&mut self, findings: &[Finding]) -> usize {
        let silent = || findings.iter().filter(|finding| is_silent(finding));
        for finding in silent() {
            let (cause, problem) = (finding.cause.unwrap_or_default(), finding.problem.as_deref().unwrap_or_default());
            if self.said.insert((finding.prefix, cause)) {
                let pods = finding.prefix.map_or_else(|| "-".to_owned(), |prefix| prefix.to_string());
                warn!("overlay: the way to the pods {pods} does not carry packets as it should: {problem}");
            }
        }
        silent().count()
    }

    /// Says how many there are; whether all answer.
    fn tell(&self, ways: usize, silent: usize) -> bool {
        self.metrics.overlay_silent(silent);
        if silent == 0 {
            let again = if self.said.is_empty() { "" } else { " now" };
            info!("overlay: all peers answer{again}; ways: {ways}");
        } else {
            debug!(silent, ways, "overlay: some peers do not answer; asking again");
        }
        silent == 0
    }
}

/// A tunnel that works to a node that does not answer echoes works; what the kernel lacks is repaired by others.
fn is_silent(finding: &Finding) -> bool {
    !finding.is_well() && !matches!(finding.cause, Some(words::ICMP_BLOCKED | words::DRIFT))
}
