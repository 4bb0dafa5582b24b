//! The kernel settings of connection tracking that a node with many connections needs, as values.
//!
//! kube-proxy stops when one of these cannot be set. fairlead goes on and says so: it runs without the privilege to write
//! them where a read-only `/proc/sys` or a network namespace of its own forbids it, and a node that carries traffic with
//! the kernel's own limits is better than one that carries none.

use std::time::Duration;

use fairlead_kernel::address;
use fairlead_kernel::sysctl::{self, SysctlError};
use fairlead_plan::Family;

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

const FORWARDING_V6: &str = "net/ipv6/conf/all/forwarding";
const MAX: &str = "net/netfilter/nf_conntrack_max";
const TCP_BE_LIBERAL: &str = "net/netfilter/nf_conntrack_tcp_be_liberal";
const TCP_ESTABLISHED: &str = "net/netfilter/nf_conntrack_tcp_timeout_established";
const TCP_CLOSE_WAIT: &str = "net/netfilter/nf_conntrack_tcp_timeout_close_wait";
const UDP: &str = "net/netfilter/nf_conntrack_udp_timeout";
const UDP_STREAM: &str = "net/netfilter/nf_conntrack_udp_timeout_stream";

/// A value that the kernel should have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sysctl {
    /// A setting below `/proc/sys` has this value.
    Is {
        /// The setting.
        path: &'static str,
        /// Its value.
        value: u64,
    },
    /// The hash table of connection tracking has at least so many buckets.
    Buckets(u64),
    /// Packets of others are passed on, in this family, on every interface. An overlay needs it.
    Forwarding(Family),
}

impl Sysctl {
    /// Writes it if it differs. True if it was written.
    ///
    /// # Errors
    /// As the kernel says, with what to do.
    pub fn apply(self) -> Result<bool, SysctlError> {
        match self {
            Self::Is { path, value } => sysctl::set(path, &value.to_string()),
            Self::Buckets(at_least) => sysctl::raise_conntrack_buckets(at_least),
            Self::Forwarding(family) => {
                let settings = forwarding(family).into_iter();
                settings.map(|(path, value)| sysctl::set(&path, value)).try_fold(false, |any, set| Ok(set? || any))
            }
        }
    }
}

impl std::fmt::Display for Sysctl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Is { path, value } => write!(f, "{path} = {value}"),
            Self::Forwarding(family) => write!(f, "forwarding of {}", family.label()),
            Self::Buckets(at_least) => write!(f, "buckets of connection tracking >= {at_least}"),
        }
    }
}

/// The settings by which packets of others are passed on in a family, and their values, in this order.
///
/// A router does not listen to advertisements of routers, and so would lose its own default route: whichever interface listens when
/// forwarding is not on yet is told to go on.
#[must_use]
pub fn forwarding(family: Family) -> Vec<(String, &'static str)> {
    if family == Family::V4 {
        return vec![("net/ipv4/ip_forward".to_owned(), "1")];
    }
    let mut settings = Vec::new();
    if sysctl::read_number(FORWARDING_V6).unwrap_or(0) == 0 {
        let names = address::interface_names().unwrap_or_default().into_iter();
        let accept = names.map(|(_, name)| format!("net/ipv6/conf/{name}/accept_ra"));
        let listening = accept.filter(|path| sysctl::read_number(path).unwrap_or(0) == 1);
        settings.extend(listening.map(|path| (path, "2")));
    }
    settings.push((FORWARDING_V6.to_owned(), "1"));
    settings
}

/// What the kernel should have on a machine with this many CPUs ([`sysctl::possible_cpus`]). Mode nft needs nothing else.
#[must_use]
pub fn wanted(settings: &ConntrackSettings, cpus: u64) -> Vec<Sysctl> {
    let mut all = Vec::new();
    if settings.max_per_core > 0 {
        let scaled = settings.max_per_core.saturating_mul(cpus).min(MAX_SCALED);
        let max = scaled.max(settings.min);
        all.push(Sysctl::Is { path: MAX, value: max });
        all.push(Sysctl::Buckets(max / ENTRIES_PER_BUCKET));
    }
    if settings.tcp_be_liberal {
        all.push(Sysctl::Is { path: TCP_BE_LIBERAL, value: 1 });
    }
    let timeouts = [
        (TCP_ESTABLISHED, settings.tcp_timeout_established),
        (TCP_CLOSE_WAIT, settings.tcp_timeout_close_wait),
        (UDP, settings.udp_timeout),
        (UDP_STREAM, settings.udp_timeout_stream),
    ];
    let given = timeouts.into_iter().filter(|(_, timeout)| !timeout.is_zero());
    // The kernel counts in seconds, and its 0 would forget every connection at once.
    all.extend(given.map(|(path, timeout)| Sysctl::Is { path, value: timeout.as_secs().max(1) }));
    all
}

/// What [`apply`] did.
#[derive(Debug, Default)]
pub struct Applied {
    /// What was written.
    pub written: Vec<Sysctl>,
    /// What could not be, with what the kernel says and what to do.
    pub failed: Vec<(Sysctl, SysctlError)>,
}

/// Writes what differs; a failure does not keep the others from being written.
#[must_use]
pub fn apply(wanted: &[Sysctl]) -> Applied {
    let mut applied = Applied::default();
    for sysctl in wanted {
        match sysctl.apply() {
            Ok(true) => applied.written.push(*sysctl),
            Ok(false) => {}
            Err(error) => applied.failed.push((*sysctl, error)),
        }
    }
    applied
}

#[cfg(test)]
mod tests {
    use fairlead_kernel::netns::Netns;

    use super::*;

    #[test]
    fn the_limit_grows_with_the_cpus_between_its_bounds() {
        let of = |settings: &ConntrackSettings, cpus| wanted(settings, cpus)[..2].to_vec();
        let limit = |max| vec![Sysctl::Is { path: MAX, value: max }, Sysctl::Buckets(max / 4)];
        let settings = ConntrackSettings::default();
        for (cpus, max) in [(1, 131_072), (4, 131_072), (8, 262_144), (32, 1_048_576), (256, 1_048_576)] {
            assert_eq!(of(&settings, cpus), limit(max), "{cpus} CPUs");
        }
        let large = ConntrackSettings { min: 4_000_000, ..ConntrackSettings::default() };
        assert_eq!(of(&large, 256), limit(4_000_000), "the operator's minimum is stronger than the cap");
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

    /// The settings that belong to a network namespace, with values that no kernel starts with.
    fn of_a_namespace() -> Vec<Sysctl> {
        let settings = ConntrackSettings {
            max_per_core: 0,
            tcp_be_liberal: true,
            tcp_timeout_established: Duration::from_secs(12_345),
            tcp_timeout_close_wait: Duration::from_secs(1234),
            udp_timeout: Duration::from_millis(10),
            udp_timeout_stream: Duration::from_secs(123),
            ..ConntrackSettings::default()
        };
        wanted(&settings, 1)
    }

    #[test]
    fn every_setting_reaches_its_file() {
        let is = |path, value| Sysctl::Is { path, value };
        let right = [
            is(TCP_BE_LIBERAL, 1),
            is(TCP_ESTABLISHED, 12_345),
            is(TCP_CLOSE_WAIT, 1234),
            is(UDP, 1),
            is(UDP_STREAM, 123),
        ];
        assert_eq!(of_a_namespace(), right);
    }

    #[test]
    fn only_what_differs_is_written_and_the_rest_goes_on_after_a_failure() {
        let namespace = Netns::create().expect("a network namespace");
        namespace
            .run(|| {
                let mut list = of_a_namespace();
                let absent = Sysctl::Is { path: "net/netfilter/no_such_setting", value: 1 };
                list.insert(0, absent);
                let first = apply(&list);
                assert_eq!(first.written, list[1..], "{first:?}");
                assert_eq!(first.failed.len(), 1);
                assert_eq!(first.failed[0].0, absent);
                let second = apply(&list);
                assert_eq!((second.written.len(), second.failed.len()), (0, 1), "{second:?}");
                assert_eq!(sysctl::read_number(TCP_CLOSE_WAIT).expect("it was written"), 1234);
            })
            .expect("the namespace can be entered");
    }
}
