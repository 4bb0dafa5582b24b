use std::io::Write;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Runs many lines of the program `ip` in one process, in the namespace of this name or, without one, where we are.
///
/// # Errors
/// The first line that failed, with what `ip` said.
pub(crate) fn batch(namespace: Option<&str>, lines: &[String]) -> Result<()> {
    let mut command = Command::new("ip");
    if let Some(name) = namespace {
        command.args(["-n", name]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run the program ip (Debian package iproute2)")?;
    let mut input = child.stdin.take().expect("stdin is piped");
    // A closed pipe means that ip gave up at some line; what it says about that is better than our EPIPE.
    let written = input.write_all((lines.join("\n") + "\n").as_bytes());
    drop(input);
    let output = child.wait_with_output()?;
    if output.status.success() {
        return written.context("ip did not read all its lines");
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let failed = said.split_once("Command failed -:").and_then(|(_, number)| number.trim().parse::<usize>().ok());
    let line = failed.and_then(|number| lines.get(number - 1)).map_or("(unknown line)", String::as_str);
    bail!("ip {} ({}): {}", line, namespace.unwrap_or("outside of the lab"), said.trim());
}

/// What `ip` answers on standard output.
///
/// # Errors
/// If it fails, with what it said.
pub(crate) fn run(namespace: &str, args: &str) -> Result<String> {
    let output = Command::new("ip").args(["-n", namespace]).args(args.split_whitespace()).output()?;
    if !output.status.success() {
        bail!("ip -n {namespace} {args}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
