//! What the kernel says about this process.

use std::fs;

/// Ticks a second in `/proc/self/stat`: the user-space HZ of Linux, 100 on every architecture that Kubernetes runs on.
const TICKS: f64 = 100.0;

/// One reading. What cannot be read is absent and keeps its last value.
#[derive(Debug, Default, Clone, Copy, PartialEq)]
pub(super) struct Process {
    pub(super) resident_bytes: Option<i64>,
    pub(super) resident_peak_bytes: Option<i64>,
    pub(super) cpu_seconds: Option<f64>,
    pub(super) open_files: Option<i64>,
    /// Seconds since 1970.
    pub(super) started: Option<f64>,
}

impl Process {
    pub(super) fn read() -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        let mut process = Self::parse(&text("/proc/self/stat"), &text("/proc/self/status"), &text("/proc/stat"));
        let files = fs::read_dir("/proc/self/fd").ok();
        // The reading itself holds one open.
        process.open_files = files.and_then(|files| i64::try_from(files.count()).ok()).map(|count| count - 1);
        process
    }

    /// From the texts of `/proc/self/stat`, `/proc/self/status` and `/proc/stat`.
    fn parse(stat: &str, status: &str, machine: &str) -> Self {
        // The name of the program may hold spaces and parentheses; what follows the last one has neither.
        let fields: Vec<&str> = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace().collect();
        // proc(5) counts from 1, and two fields are gone with the name.
        let ticks = |number: usize| fields.get(number - 3)?.parse::<f64>().ok();
        let booted = machine.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse::<f64>().ok());
        let kilobytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim().strip_suffix("kB")?.trim().parse::<i64>().ok().map(|kilobytes| kilobytes * 1024)
        };
        Self {
            resident_bytes: kilobytes("VmRSS:"),
            resident_peak_bytes: kilobytes("VmHWM:"),
            cpu_seconds: ticks(14).zip(ticks(15)).map(|(user, system)| (user + system) / TICKS),
            open_files: None,
            started: ticks(22).zip(booted).map(|(since_boot, booted)| booted + since_boot / TICKS),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_files_are_read_whatever_the_program_is_called() {
        let stat = "7 (a b) c) S 1 7 7 0 -1 4194560 1 2 3 4 150 50 0 0 20 0 3 0 1000 2000 500 18446744073709551615";
        let process =
            Process::parse(stat, "Name:\ta\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\n", "cpu 1\nbtime 1700000000\n");
        let wanted = Process {
            resident_bytes: Some(1_048_576),
            resident_peak_bytes: Some(2_097_152),
            cpu_seconds: Some(2.0),
            open_files: None,
            started: Some(1_700_000_010.0),
        };
        assert_eq!(process, wanted);
        assert_eq!(Process::parse("", "", ""), Process::default());
    }

    #[test]
    fn this_process_can_be_read() {
        let process = Process::read();
        assert!(process.resident_bytes > Some(100_000), "{process:?}");
        assert!(process.open_files > Some(2), "{process:?}");
        assert!(process.cpu_seconds.is_some() && process.started.is_some(), "{process:?}");
    }
}
