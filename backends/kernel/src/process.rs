//! What concerns this process and the kernel it runs on.

use std::ffi::OsString;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use crate::sysctl::{SysctlError, write_file};

/// Tells the kernel how gladly to kill this process when memory is short: -1000 never, 1000 first. kube-proxy's
/// default is -999.
///
/// # Errors
/// Lowering the value needs `CAP_SYS_RESOURCE`.
pub fn oom_score_adj(adjustment: i32) -> Result<(), SysctlError> {
    write_file(Path::new("/proc/self/oom_score_adj"), &adjustment.to_string())
}

/// Raises the number of files that this process may have open (RLIMIT_NOFILE) to the most that it may set without
/// privilege, and gives that number.
///
/// # Errors
/// If the kernel does not tell or take the limit.
pub fn raise_open_files() -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live local of the right type; `getrlimit` only writes to it.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: the pointer is to a live local of the right type; `setrlimit` only reads it.
    if unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(limit.rlim_max)
}

/// Begins this program anew in the same process, with the same arguments and environment: even if its file was replaced
/// meanwhile, it is the same version. What is open closes, other threads end where they are.
///
/// Returns only if that fails, with the reason.
#[must_use]
pub fn begin_anew() -> io::Error {
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_else(|| OsString::from("fairlead"));
    Command::new("/proc/self/exe").arg0(name).args(arguments).exec()
}

/// Major and minor version of the running kernel; (0, 0), older than any, if it states none.
#[must_use]
pub fn kernel_release() -> (u32, u32) {
    let mut names = MaybeUninit::<libc::utsname>::zeroed();
    // SAFETY: the pointer is to a live local of the right type; `uname` only writes to it.
    unsafe { libc::uname(names.as_mut_ptr()) };
    // SAFETY: all zeroes is a valid `utsname`, and `uname` leaves it valid.
    let names = unsafe { names.assume_init() };
    let release: Vec<u8> =
        names.release.iter().map(|character| *character as u8).take_while(|byte| *byte != 0).collect();
    parse(&String::from_utf8_lossy(&release))
}

fn parse(release: &str) -> (u32, u32) {
    let mut numbers = release.split(|character: char| !character.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor),
        _ => (0, 0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_of_distributions_are_understood() {
        assert_eq!(parse("6.1.0-18-amd64"), (6, 1));
        assert_eq!(parse("5.14.0-427.el9.x86_64"), (5, 14));
        assert_eq!(parse("6.18-rc3+"), (6, 18));
        assert_eq!(parse("weird"), (0, 0));
        assert!(kernel_release() >= (4, 0));
    }

    #[test]
    fn as_many_files_as_allowed_can_be_open() {
        let most = raise_open_files().unwrap();
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap();
        let soft: u64 = line.split_whitespace().nth(3).unwrap().parse().unwrap();
        assert_eq!(soft, most);
    }

    #[test]
    fn the_wish_to_be_killed_first_can_be_written() {
        let before = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        let before: i32 = before.trim().parse().unwrap();
        oom_score_adj(before + 1).unwrap();
        let after = std::fs::read_to_string("/proc/self/oom_score_adj").unwrap();
        assert_eq!(after.trim(), (before + 1).to_string());
    }
}
