//! What to do when a file of the settings changes.
//!
//! kube-proxy ends when its file is written, so that its pod is started again; and it does not notice a ConfigMap, whose files
//! change by a link. fairlead looks at what the files hold. A change that is right is applied at once: the program begins anew
//! in the same process (`exec`), for every setting alike, because a start finds its rules in the kernel, keeps what is right and
//! drops no connection, and so nothing could be forgotten that depends on a setting. A change that is wrong is said, and the
//! settings that are good stay.

use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::{debug, info, warn};

use super::{Command, Settings, UsageError};

/// Between two looks. kubelet takes a minute to renew the files of a ConfigMap.
const GLANCE: Duration = Duration::from_secs(1);

/// What a change of the files comes to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reload {
    /// Other settings, which are right.
    Changed(PathBuf),
    /// The file is wrong; the settings stay as they are.
    Refused,
}

/// Watches the files of these settings until nobody listens. `read` reads the command line and the files again.
///
/// # Errors
/// If the thread cannot be started.
pub fn follow(
    settings: Settings,
    read: impl Fn() -> Result<Command, UsageError> + Send + 'static,
    changes: mpsc::UnboundedSender<Reload>,
) -> std::io::Result<()> {
    let mut contents = contents(&settings.files);
    let look = move || {
        while !changes.is_closed() {
            thread::sleep(GLANCE);
            let now = self::contents(&settings.files);
            let Some(at) = now.iter().zip(&contents).position(|(now, was)| now != was) else { continue };
            contents = now;
            let path = &settings.files[at];
            let Some(reload) = judge(path, &settings, read()) else { continue };
            if changes.send(reload.clone()).is_err() || reload != Reload::Refused {
                return;
            }
        }
    };
    thread::Builder::new().name("configuration".into()).spawn(look).map(drop)
}

/// A file that cannot be read has no content; kubelet never shows one so.
fn contents(files: &[PathBuf]) -> Vec<Option<Vec<u8>>> {
    files.iter().map(|path| std::fs::read(path).ok()).collect()
}

fn judge(path: &std::path::Path, settings: &Settings, read: Result<Command, UsageError>) -> Option<Reload> {
    match read {
        Ok(Command::Run(now)) if *now == *settings => {
            debug!("{} has changed in nothing that matters", path.display());
            None
        }
        Ok(_) => {
            info!("{} has changed; starting again with the new settings, the kernel goes on as it is", path.display());
            Some(Reload::Changed(path.to_owned()))
        }
        Err(error) => {
            warn!("{} has changed and cannot be used ({error}); the settings stay as they were", path.display());
            Some(Reload::Refused)
        }
    }
}
