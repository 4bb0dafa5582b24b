//! Kernel settings: `/proc/sys`, one module parameter, and the number of processors.
//!
//! Paths are like `net/ipv4/ip_forward`, below `/proc/sys`. Those below `net` are of the calling thread's network
//! namespace. Where a setting of conntrack or of bridges is missing, the kernel is made to load the module.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::{fs, io};

use crate::{conntrack, module};

const ROOT: &str = "/proc/sys";
const CONNTRACK_BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const BRIDGE: &str = "/proc/sys/net/bridge";
const POSSIBLE_CPUS: &str = "/sys/devices/system/cpu/possible";

/// Why a setting could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum SysctlError {
    /// It could not be read.
    #[error("cannot read {}: {source}; {}", .file.display(), advice(.source))]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// It could not be written.
    #[error("cannot write {value:?} to {}: {source}; {}", .file.display(), advice(.source))]
    Write {
        /// The file.
        file: PathBuf,
        /// The value it should have.
        value: String,
        /// What the system said.
        source: io::Error,
    },
    /// It holds something that is not a number.
    #[error("{} holds {content:?} where a number was expected; this kernel is not understood", .file.display())]
    NotANumber {
        /// The file.
        file: PathBuf,
        /// Its content.
        content: String,
    },
}

/// The value of a setting, without the line end.
///
/// # Errors
/// If there is no such setting or it may not be read.
pub fn read(path: &str) -> Result<String, SysctlError> {
    read_file(&below_root(path))
}

/// The value of a setting that is a number.
///
/// # Errors
/// As [`read`], and if it is not a number.
pub fn read_number(path: &str) -> Result<u64, SysctlError> {
    number(&below_root(path))
}

/// Gives a setting a value, written only where it differs: a container may lack the right to write what is right
/// already. True if it was written. Differences in blanks between several values do not count.
///
/// # Errors
/// If it cannot be read or written.
pub fn set(path: &str, value: &str) -> Result<bool, SysctlError> {
    let file = below_root(path);
    let now = read_file(&file)?;
    if now.split_whitespace().eq(value.split_whitespace()) {
        return Ok(false);
    }
    write_file(&file, value)?;
    Ok(true)
}

/// Raises a number to at least this; true if it was lower.
///
/// # Errors
/// If it is no number, or cannot be read or written.
pub fn raise(path: &str, at_least: u64) -> Result<bool, SysctlError> {
    raise_file(&below_root(path), at_least)
}

/// Buckets of the conntrack hash table, which all network namespaces share.
///
/// # Errors
/// If the module `nf_conntrack` is not loaded.
pub fn conntrack_buckets() -> Result<u64, SysctlError> {
    number(Path::new(CONNTRACK_BUCKETS))
}

/// Raises the buckets of the conntrack hash table to at least this; true if there were fewer. The kernel allows it
/// only from the host's network namespace.
///
/// # Errors
/// As [`conntrack_buckets`], and if the parameter cannot be written (`/sys` is often mounted read-only in containers).
pub fn raise_conntrack_buckets(at_least: u64) -> Result<bool, SysctlError> {
    raise_file(Path::new(CONNTRACK_BUCKETS), at_least)
}

/// How many processors this machine may ever have, never less than 1. Limits of the container do not count: conntrack
/// is sized for the node.
///
/// # Errors
/// If `/sys` is not mounted.
pub fn possible_cpus() -> Result<u64, SysctlError> {
    let file = Path::new(POSSIBLE_CPUS);
    let content = read_file(file)?;
    count_ranges(&content).ok_or_else(|| SysctlError::NotANumber { file: file.to_owned(), content })
}

/// Counts what a list like `0-3,8` names.
fn count_ranges(list: &str) -> Option<u64> {
    let mut count = 0;
    for range in list.split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        count += last.checked_sub(first)? + 1;
    }
    Some(count)
}

fn below_root(path: &str) -> PathBuf {
    Path::new(ROOT).join(path.trim_start_matches('/'))
}

fn raise_file(file: &Path, at_least: u64) -> Result<bool, SysctlError> {
    let low = number(file)? < at_least;
    if low {
        write_file(file, &at_least.to_string())?;
    }
    Ok(low)
}

fn number(file: &Path) -> Result<u64, SysctlError> {
    let content = read_file(file)?;
    content.parse().map_err(|_| SysctlError::NotANumber { file: file.to_owned(), content })
}

fn read_file(file: &Path) -> Result<String, SysctlError> {
    let mut content = fs::read_to_string(file);
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    // On a node that has just been started nobody has needed conntrack yet, and our own rules come later.
    let load = || is_of_conntrack(file) && conntrack::load() || file.starts_with(BRIDGE) && load_for_bridges();
    if content.as_ref().is_err_and(absent) && load() {
        content = fs::read_to_string(file);
    }
    match content {
        Ok(content) => Ok(content.trim().to_owned()),
        Err(source) => Err(SysctlError::Read { file: file.to_owned(), source }),
    }
}

/// Nothing loads `br_netfilter` on demand. Tried once: a node that lacks it lacks it the next time.
fn load_for_bridges() -> bool {
    static LOADED: OnceLock<bool> = OnceLock::new();
    *LOADED.get_or_init(|| module::load("br_netfilter"))
}

fn is_of_conntrack(file: &Path) -> bool {
    let is_setting = || file.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"nf_conntrack_"));
    file == Path::new(CONNTRACK_BUCKETS) || (file.starts_with("/proc/sys/net/netfilter") && is_setting())
}

/// Writes without creating: a setting that the kernel lacks is an error, never a new file.
pub(crate) fn write_file(file: &Path, value: &str) -> Result<(), SysctlError> {
    use io::Write;
    let result = fs::OpenOptions::new().write(true).open(file).and_then(|mut open| open.write_all(value.as_bytes()));
    result.map_err(|source| SysctlError::Write { file: file.to_owned(), value: value.to_owned(), source })
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "this kernel lacks it or its module is not loaded: load the module on the node",
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "set it on the node, or run with the right to write it"
        }
        io::ErrorKind::InvalidInput => "the kernel does not accept this value, choose another",
        io::ErrorKind::Unsupported => "it can only be set from the host's network namespace",
        _ => "set it on the node",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::netns::Netns;

    #[test]
    fn lists_of_processors_are_counted_and_nonsense_is_refused() {
        assert_eq!(count_ranges("0"), Some(1));
        assert_eq!(count_ranges("0-3"), Some(4));
        assert_eq!(count_ranges("0-1,4,8-9"), Some(5));
        assert_eq!(count_ranges(""), None);
        assert_eq!(count_ranges("3-0"), None);
        assert!(possible_cpus().unwrap() >= 1);
    }

    #[test]
    fn a_setting_is_written_only_where_it_differs() {
        let namespace = Netns::create().unwrap();
        namespace
            .run(|| {
                for path in ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding"] {
                    let other = if read(path).unwrap() == "1" { "0" } else { "1" };
                    assert!(set(path, other).unwrap());
                    assert_eq!(read(path).unwrap(), other);
                    assert!(!set(path, &format!(" {other}\n")).unwrap());
                }
                let range = "net/ipv4/ip_local_port_range";
                assert!(set(range, "20000 40000").unwrap());
                assert!(!set(range, "20000\t40000").unwrap());
            })
            .unwrap();
    }

    #[test]
    fn a_number_is_raised_and_never_lowered() {
        let namespace = Netns::create().unwrap();
        namespace
            .run(|| {
                let path = "net/ipv4/neigh/default/gc_thresh3";
                let Ok(now) = read_number("net/core/somaxconn") else {
                    panic!("somaxconn is of the namespace: {path}")
                };
                assert!(!raise("net/core/somaxconn", now).unwrap());
                assert!(!raise("net/core/somaxconn", 1).unwrap());
                assert!(raise("net/core/somaxconn", now + 1).unwrap());
                assert_eq!(read_number("net/core/somaxconn").unwrap(), now + 1);
            })
            .unwrap();
    }

    #[test]
    fn errors_name_the_file_and_say_what_to_do() {
        let text = set("net/ipv4/no_such_thing", "1").unwrap_err().to_string();
        assert!(text.starts_with("cannot read /proc/sys/net/ipv4/no_such_thing: "), "{text}");
        assert!(text.ends_with("load the module on the node"), "{text}");
        assert!(!Path::new("/proc/sys/net/ipv4/no_such_thing").exists());
        let text = read_number("kernel/ostype").unwrap_err().to_string();
        assert!(text.starts_with("/proc/sys/kernel/ostype holds \"Linux\""), "{text}");
    }
}
