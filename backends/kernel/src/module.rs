//! Modules that the kernel does not load by itself when they are asked for.

use std::fs;
use std::process::{Command, Stdio};

/// The program that the kernel itself would use.
const PROGRAM: &str = "/proc/sys/kernel/modprobe";

/// Loads a module. False if there is none, or if this process may not.
pub(crate) fn load(name: &str) -> bool {
    let Ok(program) = fs::read_to_string(PROGRAM) else { return false };
    let mut command = Command::new(program.trim());
    command.args(["-q", "--", name]).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
