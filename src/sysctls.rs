//! The kernel settings of connection tracking that a node with many connections needs, as values.
//!
//! kube-proxy stops when one of these cannot be set. fairlead goes on and says so: it runs without the privilege to write
//! them where a read-only `/proc/sys` or a network namespace of its own forbids it, and a node that carries traffic with
//! the kernel's own limits is better than one that carries none.

use std::time::Duration;

use fairlead_kernel::sysctl;

/// kube-proxy scales the limit with the CPUs up to here (about 300 MB of kernel memory when full).
const MAX_SCALED: u64 = 1_048_576;
/// The kernel's own relation of entries to hash buckets that keeps chains short.
const ENTRIES_PER_BUCKET: u64 = 4;

/// Limits and timeouts of connection tracking (`conntrack` of KubeProxyConfiguration). A timeout of zero leaves the
/// kernel's value alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConntrackSettings {
    /// Entries for each CPU (`maxPerCore`); 0 leaves the kernel's limit alone.
    pub max_per_core: u64,
    /// Entries at least (`min`).
    pub min: u64,
    /// Whether TCP segments outside the window count as part of the connection (`tcpBeLiberal`).
    pub tcp_be_liberal: bool,
    /// `tcpEstablishedTimeout`
    pub tcp_timeout_established: Duration,
    /// `tcpCloseWaitTimeout`
    pub tcp_timeout_close_wait: Duration,
    /// `udpTimeout`
    pub udp_timeout: Duration,
    /// `udpStreamTimeout`
    pub udp_timeout_stream: Duration,
}

impl Default for ConntrackSettings {
    fn default() -> Self {
        Self {
            max_per_core: 32_768,
            min: 131_072,
            tcp_be_liberal: false,
            tcp_timeout_established: Duration::from_secs(24 * 3600),
            tcp_timeout_close_wait: Duration::from_secs(3600),
            udp_timeout: Duration::ZERO,
            udp_timeout_stream: Duration::ZERO,
        }
    }
}

/// A value that the kernel should have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sysctl {
    /// The file that holds it.
    pub path: &'static str,
    /// What it should hold.
    pub value: u64,
    /// When it is written.
    pub write: Write,
}

/// When a value is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// When it is another.
    IfDifferent,
    /// When it is smaller.
    IfSmaller,
}

const MAX: &str = "/proc/sys/net/netfilter/nf_conntrack_max";
const BUCKETS: &str = "/sys/module/nf_conntrack/parameters/hashsize";
const TCP_BE_LIBERAL: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal";
const TCP_ESTABLISHED: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const UDP: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "/proc/sys/net/netfilter/nf_conntrack_udp_timeout_stream";

/// What the kernel should have on a machine with this many CPUs. Mode nft needs nothing else.
#[must_use]
pub fn wanted(settings: &ConntrackSettings, cpus: u64) -> Vec<Sysctl> {
    let exactly = |path, value| Sysctl { path, value, write: Write::IfDifferent };
    let mut all = Vec::new();
    if settings.max_per_core > 0 {
        let scaled = settings.max_per_core.saturating_mul(cpus).min(MAX_SCALED);
        let max = scaled.max(settings.min);
        all.push(exactly(MAX, max));
        all.push(Sysctl { path: BUCKETS, value: max / ENTRIES_PER_BUCKET, write: Write::IfSmaller });
    }
    if settings.tcp_be_liberal {
        all.push(exactly(TCP_BE_LIBERAL, 1));
    }
    let timeouts = [
        (TCP_ESTABLISHED, settings.tcp_timeout_established),
        (TCP_CLOSE_WAIT, settings.tcp_timeout_close_wait),
        (UDP, settings.udp_timeout),
        (UDP_STREAM, settings.udp_timeout_stream),
    ];
    let given = timeouts.into_iter().filter(|(_, timeout)| !timeout.is_zero());
    // The kernel counts in seconds, and its 0 would forget every connection at once.
    all.extend(given.map(|(path, timeout)| exactly(path, timeout.as_secs().max(1))));
    all
}

/// How many CPUs the machine has, from the text of `/sys/devices/system/cpu/online`, for example `0-3,8`.
///
/// The number of CPUs that this process may use would be wrong: a limit for the process is none for the traffic.
#[must_use]
pub fn cpus(online: &str) -> Option<u64> {
    let ranges = online.trim().split(',').map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u64, u64) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    });
    ranges.sum()
}

/// The kernel's settings; a table in memory in tests.
pub trait Kernel {
    /// The text of the file.
    ///
    /// # Errors
    /// As the kernel says.
    fn read(&self, path: &str) -> std::io::Result<String>;

    /// Replaces the text of the file.
    ///
    /// # Errors
    /// As the kernel says.
    fn write(&mut self, path: &str, value: &str) -> std::io::Result<()>;
}

/// The kernel of this machine, in the network namespace of the calling thread.
#[derive(Debug, Clone, Copy)]
pub struct Host;

impl Kernel for Host {
    fn read(&self, path: &str) -> std::io::Result<String> {
        let value = match path.strip_prefix("/proc/sys/") {
            Some(name) => sysctl::read(name),
            None => sysctl::conntrack_buckets().map(|buckets| buckets.to_string()),
        };
        value.map_err(std::io::Error::other)
    }

    fn write(&mut self, path: &str, value: &str) -> std::io::Result<()> {
        let written = match path.strip_prefix("/proc/sys/") {
            Some(name) => sysctl::set(name, value),
            None => sysctl::raise_conntrack_buckets(value.parse().map_err(std::io::Error::other)?),
        };
        written.map(drop).map_err(std::io::Error::other)
    }
}

/// What [`apply`] did, one sentence each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Applied {
    /// What was written, with the value before.
    pub written: Vec<String>,
    /// What could not be read or written, and what to do.
    pub warnings: Vec<String>,
}

/// Writes what differs.
pub fn apply(wanted: &[Sysctl], kernel: &mut impl Kernel) -> Applied {
    let mut applied = Applied::default();
    for Sysctl { path, value, write } in wanted {
        let now = match kernel.read(path) {
            Ok(now) => now.trim().to_owned(),
            Err(error) => {
                applied.warnings.push(format!(
                    "{path} should be {value} but cannot be read ({error}); load the kernel module nf_conntrack, or \
                     switch the setting off with its --conntrack flag"
                ));
                continue;
            }
        };
        let right = match (now.parse::<u64>(), write) {
            (Ok(now), Write::IfDifferent) => now == *value,
            (Ok(now), Write::IfSmaller) => now >= *value,
            (Err(_), _) => false,
        };
        if right {
            continue;
        }
        match kernel.write(path, &value.to_string()) {
            Ok(()) => applied.written.push(format!("{path} was {now} and is {value} now")),
            Err(error) => applied.warnings.push(format!(
                "{path} is {now}, should be {value}, and cannot be written ({error}); set it on the host, or switch the \
                 setting off with its --conntrack flag"
            )),
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io;

    use super::*;

    /// Files in memory; those named in `locked` cannot be written.
    #[derive(Default)]
    struct Memory {
        files: BTreeMap<String, String>,
        locked: Vec<&'static str>,
    }

    impl Kernel for Memory {
        fn read(&self, path: &str) -> io::Result<String> {
            self.files.get(path).cloned().ok_or_else(|| io::ErrorKind::NotFound.into())
        }

        fn write(&mut self, path: &str, value: &str) -> io::Result<()> {
            if self.locked.contains(&path) {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
            self.files.insert(path.to_owned(), value.to_owned());
            Ok(())
        }
    }

    fn value(settings: &ConntrackSettings, cpus: u64, path: &str) -> Option<u64> {
        wanted(settings, cpus).into_iter().find(|sysctl| sysctl.path == path).map(|sysctl| sysctl.value)
    }

    #[test]
    fn the_limit_grows_with_the_cpus_between_its_bounds() {
        let settings = ConntrackSettings::default();
        let cases = [(1, 131_072), (4, 131_072), (8, 262_144), (32, 1_048_576), (256, 1_048_576)];
        for (cpus, max) in cases {
            assert_eq!(value(&settings, cpus, MAX), Some(max), "{cpus} CPUs");
            assert_eq!(value(&settings, cpus, BUCKETS), Some(max / 4), "{cpus} CPUs");
        }
        let large = ConntrackSettings { min: 4_000_000, ..ConntrackSettings::default() };
        assert_eq!(value(&large, 256, MAX), Some(4_000_000), "the operator's minimum is stronger than the cap");
    }

    #[test]
    fn what_is_switched_off_is_left_alone() {
        let off = ConntrackSettings {
            max_per_core: 0,
            tcp_timeout_established: Duration::ZERO,
            tcp_timeout_close_wait: Duration::ZERO,
            ..ConntrackSettings::default()
        };
        assert_eq!(wanted(&off, 8), []);
    }

    #[test]
    fn every_setting_reaches_its_file() {
        let all = ConntrackSettings {
            tcp_be_liberal: true,
            udp_timeout: Duration::from_millis(10),
            udp_timeout_stream: Duration::from_secs(180),
            ..ConntrackSettings::default()
        };
        let values: Vec<_> = wanted(&all, 1).into_iter().map(|sysctl| (sysctl.path, sysctl.value)).collect();
        let right = [
            (MAX, 131_072),
            (BUCKETS, 32_768),
            (TCP_BE_LIBERAL, 1),
            (TCP_ESTABLISHED, 86_400),
            (TCP_CLOSE_WAIT, 3600),
            (UDP, 1),
            (UDP_STREAM, 180),
        ];
        assert_eq!(values, right);
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_goes_on_after_a_failure() {
        let mut kernel = Memory { locked: vec![MAX], ..Memory::default() };
        for (path, text) in [(MAX, "65536\n"), (BUCKETS, "65536\n"), (TCP_ESTABLISHED, "432000\n")] {
            kernel.files.insert(path.to_owned(), text.to_owned());
        }
        let list = wanted(&ConntrackSettings::default(), 1);
        let applied = apply(&list, &mut kernel);
        assert_eq!(applied.written, [format!("{TCP_ESTABLISHED} was 432000 and is 86400 now")]);
        assert_eq!(applied.warnings.len(), 2, "{applied:?}");
        assert!(applied.warnings[0].contains(MAX) && applied.warnings[0].contains("set it on the host"));
        assert!(applied.warnings[1].contains(TCP_CLOSE_WAIT) && applied.warnings[1].contains("cannot be read"));
        assert_eq!(kernel.files[BUCKETS], "65536\n", "a larger table is not made smaller");
        assert_eq!(
            apply(&list, &mut kernel).written,
            Vec::<String>::new(),
            "the second time there is nothing to write"
        );
    }

    #[test]
    fn cpus_are_counted_as_the_kernel_lists_them() {
        assert_eq!(cpus("0\n"), Some(1));
        assert_eq!(cpus("0-3\n"), Some(4));
        assert_eq!(cpus("0-3,8,10-11\n"), Some(7));
        assert_eq!(cpus(""), None);
        assert_eq!(cpus("3-1"), None);
    }
}
