//! What the virtual machine is told to do, and what it says in return.

use std::fmt::Write;

use crate::binaries::Binary;

/// How the lines begin that are not of the tests.
pub(crate) const MARK: &str = "fairlead-vm: ";

/// What [`crate::report`] understands of a line of the script.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Said {
    /// The machine has booted.
    Booted,
    /// The program of this number begins.
    Begin(usize),
    /// It has ended with this status.
    End(i32),
    /// All have.
    Done,
}

/// A script that runs each of these, one after the other, with these arguments.
pub(crate) fn script(binaries: &[&Binary], arguments: &[String]) -> String {
    let mut script = format!("echo '{MARK}booted'\n");
    for (name, value) in std::env::vars().filter(|(name, _)| name == "RUST_BACKTRACE" || name.starts_with("PROPTEST_"))
    {
        let _ = writeln!(script, "export {name}={}", quoted(&value));
    }
    for (number, binary) in binaries.iter().enumerate() {
        let folder = quoted(&binary.folder.to_string_lossy());
        let words: Vec<_> = arguments.iter().map(|word| quoted(word)).collect();
        let _ = writeln!(script, "echo '{MARK}begin {number}'\ncd {folder}");
        let _ = writeln!(
            script,
            "CARGO_MANIFEST_DIR={folder} FAIRLEAD_REQUIRE=all {} {}",
            quoted(&binary.file.to_string_lossy()),
            words.join(" ")
        );
        let _ = writeln!(script, "echo \"{MARK}end $?\"");
    }
    let _ = writeln!(script, "echo '{MARK}done'");
    script
}

/// Reads a line that the script has printed.
pub(crate) fn said(line: &str) -> Option<Said> {
    let words = line.strip_prefix(MARK)?;
    match words.split_once(' ') {
        None if words == "booted" => Some(Said::Booted),
        None if words == "done" => Some(Said::Done),
        Some(("begin", number)) => number.parse().ok().map(Said::Begin),
        Some(("end", status)) => status.parse().ok().map(Said::End),
        _ => None,
    }
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_reach_the_tests_as_they_are() {
        assert_eq!(quoted("a b"), "'a b'");
        assert_eq!(quoted("it's $HOME"), r"'it'\''s $HOME'");
    }

    #[test]
    fn a_shell_runs_the_script_and_its_lines_are_understood() {
        let binary =
            |file: &str| Binary { name: "it".to_owned(), file: file.into(), folder: "/".into(), is_test: true };
        let script = script(&[&binary("/bin/echo"), &binary("/bin/false")], &["it's".to_owned(), "b c".to_owned()]);
        let output = std::process::Command::new("sh").args(["-c", &script]).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines[2], "it's b c");
        let said: Vec<_> = lines.iter().filter_map(|line| said(line)).collect();
        assert_eq!(said, [Said::Booted, Said::Begin(0), Said::End(0), Said::Begin(1), Said::End(1), Said::Done]);
    }
}
