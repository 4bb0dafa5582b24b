//! The programs that run in the virtual machine: built, and asked which tests they hold.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::run::output;

/// How the names begin of the variables in which cargo describes a package to the program that it runs; they would look
/// to build scripts of dependencies like a change of theirs.
const OWN_VARIABLES: [&str; 5] = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_", "CARGO_PRIMARY_"];

/// A program that cargo has built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Binary {
    /// What its target is called.
    pub(crate) name: String,
    /// Where it is.
    pub(crate) file: PathBuf,
    /// Where its manifest is: tests run there.
    pub(crate) folder: PathBuf,
    /// Whether it holds tests.
    pub(crate) is_test: bool,
}

/// Which programs are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Scope {
    /// The integration tests of the program.
    Program,
    /// The integration tests of all crates.
    Workspace,
    /// The bench, as it is shipped: optimised.
    Bench,
}

/// Builds the integration tests and the program.
pub(crate) fn build(root: &Path, scope: Scope) -> Result<Vec<Binary>> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    match scope {
        Scope::Program => command.args(["test", "--package", "fairlead", "--test", "it"]),
        Scope::Workspace => command.args(["test", "--workspace", "--test", "*"]),
        Scope::Bench => command.args(["bench", "--package", "fairlead", "--bench", "bench"]),
    };
    command.args(["--no-run", "--locked", "--message-format", "json-render-diagnostics"]);
    let told = |name: &str| OWN_VARIABLES.iter().any(|prefix| name.starts_with(prefix));
    std::env::vars_os().filter(|(name, _)| name.to_str().is_some_and(told)).for_each(|(name, _)| {
        command.env_remove(name);
    });
    command.current_dir(root).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().context("cannot run cargo to build the tests")?;
    ensure!(output.status.success(), "the tests cannot be built");
    let binaries = parse(&String::from_utf8_lossy(&output.stdout))?;
    ensure!(binaries.iter().any(|binary| binary.is_test), "cargo has built no tests");
    Ok(binaries)
}

/// Reads what `cargo --message-format json` prints.
fn parse(messages: &str) -> Result<Vec<Binary>> {
    let mut binaries = Vec::new();
    for line in messages.lines().filter(|line| line.starts_with('{')) {
        let message: Value = serde_json::from_str(line).context("cargo prints something that is no JSON")?;
        let text = |pointer: &str| message.pointer(pointer).and_then(Value::as_str).map(str::to_owned);
        let (Some(file), Some(name), Some(manifest)) =
            (text("/executable"), text("/target/name"), text("/manifest_path"))
        else {
            continue;
        };
        let folder = Path::new(&manifest).parent().unwrap_or(Path::new("/")).to_path_buf();
        let is_test = message.pointer("/profile/test").and_then(Value::as_bool).unwrap_or_default();
        binaries.push(Binary { name, file: file.into(), folder, is_test });
    }
    Ok(binaries)
}

/// One test of a program, or a program that holds no tests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// Its whole name.
    pub(crate) name: String,
    /// Whether a test reports it; otherwise the program's status does, and what it prints is what it is for.
    pub(crate) is_reported: bool,
    folder: PathBuf,
    program: PathBuf,
    arguments: Vec<String>,
}

impl Binary {
    /// The tests that these words choose.
    pub(crate) fn tests(&self, words: &[String]) -> Result<Vec<Test>> {
        let list = output(Command::new(&self.file).args(["--list", "--format", "terse"]).args(words))?;
        let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
        let test = |name: &str| Test { is_reported: true, ..self.program(name, vec!["--exact".into(), name.into()]) };
        Ok(names.map(test).collect())
    }

    /// The program itself, with these arguments.
    pub(crate) fn program(&self, name: &str, arguments: Vec<String>) -> Test {
        let (folder, program) = (self.folder.clone(), self.file.clone());
        Test { name: name.to_owned(), is_reported: false, folder, program, arguments }
    }
}

impl Test {
    /// How the machine is told to run it; `init.sh` takes the line apart at its spaces.
    pub(crate) fn line(&self, arguments: &[String]) -> String {
        let line = format!("{} {}", self.folder.display(), self.program.display());
        self.arguments.iter().chain(arguments).fold(line, |line, argument| line + " " + argument)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_are_found_among_the_messages_of_cargo() {
        let messages = r#"{"reason":"compiler-artifact","manifest_path":"/r/Cargo.toml","target":{"name":"fairlead","kind":["lib"]},"profile":{"test":false},"executable":null}
{"reason":"compiler-artifact","manifest_path":"/r/Cargo.toml","target":{"name":"it","kind":["test"]},"profile":{"test":true},"executable":"/r/target/debug/deps/it-1"}
{"reason":"compiler-artifact","manifest_path":"/r/Cargo.toml","target":{"name":"fairlead","kind":["bin"]},"profile":{"test":false},"executable":"/r/target/debug/fairlead"}
{"reason":"build-finished","success":true}"#;
        let found = parse(messages).unwrap();
        let binary = |name: &str, file: &str, is_test| Binary {
            name: name.to_owned(),
            file: file.into(),
            folder: "/r".into(),
            is_test,
        };
        assert_eq!(
            found,
            [binary("it", "/r/target/debug/deps/it-1", true), binary("fairlead", "/r/target/debug/fairlead", false)]
        );
    }
}
