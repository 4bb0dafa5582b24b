//! The settings of mode ipvs.

use std::time::Duration;

use fairlead_ipvs::Timeouts;
use ipnet::IpNet;

use super::UsageError;
use super::flags::IpvsFlags;
use super::settings::positive;

/// Said where connections are to be counted in this mode.
pub(super) const COUNTS_ITSELF: &str = "--service-counters has no effect in mode ipvs, where the kernel counts by itself; see ipvsadm --list --numeric --stats";

/// What only mode ipvs looks at.
#[derive(Debug, Clone, PartialEq)]
pub struct IpvsSettings {
    /// What the backend is told.
    pub backend: fairlead_ipvs::Settings,
    /// Time between two looks at everything.
    pub sync_period: Duration,
}

pub(super) fn settings(flags: &IpvsFlags) -> Result<IpvsSettings, UsageError> {
    positive("--ipvs-sync-period", flags.ipvs_sync_period)?;
    let name = flags.ipvs_scheduler.trim();
    let scheduler = match name {
        "" => Ok(fairlead_ipvs::Scheduler::default()),
        name => name.parse(),
    };
    let why = "is no name of a scheduler; write one like rr, lc or mh";
    Ok(IpvsSettings {
        backend: fairlead_ipvs::Settings {
            scheduler: scheduler.map_err(|_| UsageError::value("--ipvs-scheduler", name, why))?,
            exclude_cidrs: prefixes(&flags.ipvs_exclude_cidrs)?,
            strict_arp: flags.ipvs_strict_arp,
            timeouts: Timeouts {
                tcp: seconds("--ipvs-tcp-timeout", flags.ipvs_tcp_timeout)?,
                tcp_fin: seconds("--ipvs-tcpfin-timeout", flags.ipvs_tcpfin_timeout)?,
                udp: seconds("--ipvs-udp-timeout", flags.ipvs_udp_timeout)?,
            },
        },
        sync_period: flags.ipvs_sync_period,
    })
}

fn prefixes(text: &str) -> Result<Vec<IpNet>, UsageError> {
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let why = "is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56";
    parts.map(|part| part.parse().map_err(|_| UsageError::value("--ipvs-exclude-cidrs", part, why))).collect()
}

/// IPVS counts whole seconds, and none beyond what its clock can hold.
fn seconds(flag: &str, duration: Duration) -> Result<u32, UsageError> {
    /// `INT_MAX / HZ` at 1000 ticks a second, the most that the kernel takes.
    const MOST: u64 = 2_147_483;
    let wrong = |why| Err(UsageError::value(flag, &format!("{duration:?}"), why));
    if !duration.is_zero() && duration.as_secs() == 0 {
        return wrong("is less than a second; write whole seconds, or 0s for the kernel's value");
    }
    match u32::try_from(duration.as_secs()) {
        Ok(seconds) if duration.as_secs() <= MOST => Ok(seconds),
        _ => wrong("is longer than the kernel can count; write at most 596h"),
    }
}
