//! Few constant rules through the programs `iptables-save` and `iptables-restore`, of the variant that the host uses.
//!
//! Meant for rules that are written once at the start: each call is a process.

use std::io::{self, Write};
use std::process::{Command, Output, Stdio};

/// How long to wait for others who change rules, in seconds.
const LOCK_WAIT: &str = "5";

/// Why rules could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    /// A program could not be run.
    #[error("cannot run {program}: {source}; install the package iptables")]
    Run {
        /// Its name.
        program: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A program refused.
    #[error("{program} failed: {said}")]
    Refused {
        /// Its name.
        program: &'static str,
        /// Its words.
        said: String,
    },
}

/// One table as text, IPv4 or IPv6.
///
/// # Errors
/// If the program is missing or fails.
pub fn save(v6: bool, table: &str) -> Result<String, RestoreError> {
    let program = if v6 { "ip6tables-save" } else { "iptables-save" };
    let output = Command::new(program).args(["-t", table]).stdin(Stdio::null()).output();
    let output = done(program, output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Several tables as text, IPv4 or IPv6, in one process. One that the kernel does not have is empty.
///
/// # Errors
/// If the program is missing or fails.
pub fn save_all<const N: usize>(v6: bool, tables: [&str; N]) -> Result<[String; N], RestoreError> {
    let program = if v6 { "ip6tables-save" } else { "iptables-save" };
    let output = done(program, Command::new(program).stdin(Stdio::null()).output())?;
    let text = String::from_utf8_lossy(&output.stdout);
    Ok(tables.map(|table| of_table(&text, table)))
}

/// The part of a text that is about a table.
fn of_table(text: &str, table: &str) -> String {
    let (mut part, mut inside) = (String::new(), false);
    for line in text.lines() {
        inside = line.strip_prefix('*').map_or(inside, |name| name == table);
        if inside {
            part.extend([line, "\n"]);
        }
    }
    part
}

/// Applies a text as `iptables-restore --noflush` does: chains that it declares are emptied first, all else stays. Each
/// table is changed at once.
///
/// # Errors
/// If the program is missing or refuses the text.
pub fn restore(v6: bool, input: &str) -> Result<(), RestoreError> {
    let program = if v6 { "ip6tables-restore" } else { "iptables-restore" };
    let spawned = Command::new(program)
        .args(["--noflush", "--wait", LOCK_WAIT])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn();
    let mut child = spawned.map_err(|source| RestoreError::Run { program, source })?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that ends early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    done(program, child.wait_with_output()).map(drop)
}

fn done(program: &'static str, output: io::Result<Output>) -> Result<Output, RestoreError> {
    let output = output.map_err(|source| RestoreError::Run { program, source })?;
    if output.status.success() {
        return Ok(output);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(RestoreError::Refused { program, said: said.split_whitespace().collect::<Vec<_>>().join(" ") })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_told_from_each_other() {
        let text = "# Generated\n*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n*mangle\n-A INPUT -j ACCEPT\nCOMMIT\n";
        assert_eq!(of_table(text, "nat"), "*nat\n:INPUT ACCEPT [0:0]\nCOMMIT\n");
        assert_eq!(of_table(text, "mangle"), "*mangle\n-A INPUT -j ACCEPT\nCOMMIT\n");
        assert_eq!(of_table(text, "filter"), "");
    }
}
