//! The lock that all programs of the legacy variant take (`iptables -w`).

use std::fs::{File, OpenOptions, TryLockError};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::XtablesError;

/// Where the lock is, unless the environment variable `XTABLES_LOCKFILE` says otherwise, as for `iptables` itself.
pub const LOCK_FILE: &str = "/run/xtables.lock";

/// Pause between two attempts.
const PAUSE: Duration = Duration::from_millis(5);

/// The lock, held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock at its usual place.
    ///
    /// # Errors
    /// [`XtablesError::Locked`] if somebody holds it for so long.
    pub fn take(patience: Duration) -> Result<Self, XtablesError> {
        let path = std::env::var_os("XTABLES_LOCKFILE").map_or_else(|| PathBuf::from(LOCK_FILE), PathBuf::from);
        Self::take_at(&path, patience)
    }

    /// Takes the lock of this file, which is made if there is none.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_at(path: &Path, patience: Duration) -> Result<Self, XtablesError> {
        let failed = |source| XtablesError::Lock { path: path.to_owned(), source };
        let mut options = OpenOptions::new();
        let file = options.create(true).truncate(false).write(true).open(path).map_err(failed)?;
        let start = Instant::now();
        loop {
            match file.try_lock() {
                Ok(()) => return Ok(Self { _file: file }),
                Err(TryLockError::WouldBlock) if start.elapsed() < patience => thread::sleep(PAUSE),
                Err(TryLockError::WouldBlock) => {
                    return Err(XtablesError::Locked { path: path.to_owned(), waited: patience });
                }
                Err(TryLockError::Error(source)) => return Err(failed(source)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_second_waits_and_is_told_who_to_look_for() {
        let path = std::env::temp_dir().join(format!("fairlead-lock-{}", std::process::id()));
        let first = Lock::take_at(&path, Duration::ZERO).unwrap();
        let error = Lock::take_at(&path, Duration::from_millis(20)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("20ms") && text.contains(path.to_str().unwrap()) && text.contains("fuser"), "{text}");
        thread::scope(|scope| {
            let second = scope.spawn(|| Lock::take_at(&path, Duration::from_secs(60)));
            drop(first);
            second.join().unwrap().unwrap();
        });
        std::fs::remove_file(&path).unwrap();
    }
}
