//! Checks that read the files of the repository.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use crate::run::{Outcome, run};

/// Folders with Rust sources.
const FOLDERS: [&str; 3] = ["src", "backends", "tests"];
/// The only crate that may hold unsafe code.
const UNSAFE: &str = "backends/kernel";
/// A reader loses the thread of a longer file.
const LONGEST: usize = 400;
/// Commands that cargo has without an alias.
const CARGO: [&str; 9] = ["bench", "build", "check", "clippy", "doc", "fmt", "install", "run", "test"];

/// `unsafe` stands nowhere but in [`UNSAFE`].
pub(crate) fn unsafe_code(root: &Path) -> Outcome {
    of_each_file(root, |path, text| {
        if path.starts_with(UNSAFE) {
            return Vec::new();
        }
        let lines = text.lines().enumerate().filter(|(_, line)| has_unsafe(line));
        lines
            .map(|(number, _)| format!("{}:{}: unsafe code belongs into {UNSAFE}", path.display(), number + 1))
            .collect()
    })
}

/// The keyword before something that can be unsafe; the word alone may stand in a text.
fn has_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let word = "unsafe ";
    code.split(word)
        .skip(1)
        .any(|next| ["{", "fn ", "impl ", "trait ", "extern "].iter().any(|what| next.starts_with(what)))
}

/// No file is longer than [`LONGEST`] lines.
pub(crate) fn length(root: &Path) -> Outcome {
    of_each_file(root, |path, text| {
        let lines = text.lines().count();
        let told = format!("{}: {lines} lines; split it at {LONGEST}", path.display());
        if lines > LONGEST { vec![told] } else { Vec::new() }
    })
}

fn of_each_file(root: &Path, complain: impl Fn(&Path, &str) -> Vec<String>) -> Outcome {
    let started = Instant::now();
    let mut files = Vec::new();
    let mut complaints = Vec::new();
    for folder in FOLDERS {
        if let Err(error) = rust_files(&root.join(folder), &mut files) {
            complaints.push(format!("{folder} cannot be read: {error}"));
        }
    }
    files.sort();
    if files.is_empty() {
        complaints.push(format!("no Rust file was found below {}", root.display()));
    }
    for file in files {
        let path = file.strip_prefix(root).unwrap_or(&file);
        match fs::read_to_string(&file) {
            Ok(text) => complaints.extend(complain(path, &text)),
            Err(error) => complaints.push(format!("{} cannot be read: {error}", path.display())),
        }
    }
    Outcome::of(&complaints, started)
}

fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            if path.file_name().is_none_or(|name| name != "target") {
                rust_files(&path, found)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    Ok(())
}

/// Every `cargo ...` and `fairlead ...` command of the README is one that works.
pub(crate) fn readme(root: &Path) -> Outcome {
    let started = Instant::now();
    let read =
        |file: &str| fs::read_to_string(root.join(file)).map_err(|error| format!("{file} cannot be read: {error}"));
    let (text, aliases) = match (read("README.md"), read(".cargo/config.toml")) {
        (Ok(text), Ok(aliases)) => (text, aliases),
        (Err(error), _) | (_, Err(error)) => return Outcome::failure(error, started),
    };
    let commands = commands(&text);
    let mut complaints = Vec::new();
    for wanted in ["cargo demo", "cargo verify"] {
        if !commands.iter().any(|command| command == wanted) {
            complaints.push(format!("README.md does not show `{wanted}` on a line of its own"));
        }
    }
    let cargo = commands.iter().filter_map(|command| command.strip_prefix("cargo "));
    complaints.extend(cargo.filter_map(|command| unknown_cargo(root, command, &aliases)));
    let flags: Vec<&str> = commands
        .iter()
        .filter(|command| command.starts_with("fairlead "))
        .flat_map(|command| command.split_whitespace().filter(|word| word.starts_with("--")))
        .map(|flag| flag.split('=').next().unwrap_or(flag))
        .collect();
    if !flags.is_empty() {
        let help = run(root, "cargo", &["run", "--quiet", "--locked", "--package", "fairlead", "--", "--help"], &[]);
        if !help.good {
            return help;
        }
        let unknown = flags.into_iter().filter(|flag| !help.output.contains(*flag));
        complaints.extend(unknown.map(|flag| format!("README.md shows {flag}, which `fairlead --help` does not know")));
    }
    Outcome::of(&complaints, started)
}

/// The lines of fenced blocks and the spans in backticks that are commands, without prompt, comment and continuation.
fn commands(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, block) in text.split("```").enumerate() {
        let lines: Vec<&str> =
            if index % 2 == 1 { block.lines().collect() } else { block.split('`').skip(1).step_by(2).collect() };
        for line in lines {
            let line = line.trim().trim_start_matches(['$', '#']).trim();
            let line = line.split(" #").next().unwrap_or_default().trim().trim_end_matches('\\').trim();
            if line.starts_with("cargo ") || line.starts_with("fairlead ") {
                found.push(line.to_owned());
            }
        }
    }
    found
}

/// What is wrong with `cargo COMMAND`.
fn unknown_cargo(root: &Path, command: &str, aliases: &str) -> Option<String> {
    let word = command.split_whitespace().next().unwrap_or_default();
    if CARGO.contains(&word) {
        return None;
    }
    let alias = aliases.lines().find_map(|line| line.strip_prefix(&format!("{word} = \"")));
    let Some(alias) = alias else { return Some(format!("README.md shows `cargo {command}`, which is no command")) };
    let mut words = alias.split_whitespace();
    while let Some(word) = words.next() {
        if word == "--example" {
            let name = words.next().unwrap_or_default();
            let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
            let declared =
                manifest.split("[[example]]").skip(1).any(|part| part.contains(&format!("name = \"{name}\"")));
            let there = declared || root.join("examples").join(format!("{name}.rs")).is_file();
            return (!there).then(|| format!("`cargo {command}` stands for an example {name} that does not exist"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsafe_code_is_told_from_the_word() {
        assert!(has_unsafe(&format!("    let x = {} {{ call() }};", "unsafe")));
        assert!(has_unsafe(&format!("pub {} fn f() {{}}", "unsafe")));
        assert!(!has_unsafe("#![forbid(unsafe_code)]"));
        assert!(!has_unsafe("// this would be unsafe { here }"));
        assert!(!has_unsafe("let words = \"unsafe only here\";"));
    }

    #[test]
    fn commands_are_found_in_blocks_and_spans() {
        let text = "Run `cargo demo`, then:\n```sh\n# cargo verify   # all\nls\nfairlead --mode=nft \\\n```\n and `x`.";
        assert_eq!(commands(text), ["cargo demo", "cargo verify", "fairlead --mode=nft"]);
    }

    #[test]
    fn a_command_without_alias_is_found_out() {
        let aliases = "[alias]\nverify = \"run --package fairlead-verify --\"\ndemo = \"run --example no-such --\"\n";
        let root = Path::new("/nonexistent");
        assert_eq!(unknown_cargo(root, "verify", aliases), None);
        assert_eq!(unknown_cargo(root, "test --workspace", aliases), None);
        assert!(unknown_cargo(root, "vm", aliases).is_some());
        assert!(unknown_cargo(root, "demo", aliases).is_some());
    }
}
