//! Checks that read the documents: their commands exist, and so do the files that they name.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::run::{Outcome, run};

/// The page that every reader sees first.
const FRONT: &str = "README.md";
/// Folders with pages of their own.
const FOLDERS: [&str; 2] = ["deploy", "dashboards"];
/// What these programs are told to do is looked at.
const PROGRAMS: [&str; 4] = ["cargo ", "fairlead ", "kubectl ", "docker "];
/// A page that a command of fairlead prints, and which.
const GENERATED: (&str, &str) = ("dashboards/metrics.md", "metrics");
/// Commands that cargo has without an alias.
const CARGO: [&str; 9] = ["bench", "build", "check", "clippy", "doc", "fmt", "install", "run", "test"];

/// Every `cargo ...` and `fairlead ...` command of every document is one that works, and every path below this repository that a
/// command or a link names is there; what is made from the code is as the code makes it.
pub(crate) fn documents(root: &Path) -> Outcome {
    let started = Instant::now();
    let read = |file: &Path| {
        fs::read_to_string(root.join(file)).map_err(|error| format!("{} cannot be read: {error}", file.display()))
    };
    let aliases = match read(Path::new(".cargo/config.toml")) {
        Ok(aliases) => aliases,
        Err(error) => return Outcome::failure(error, started),
    };
    let mut complaints = Vec::new();
    let mut flags = Vec::new();
    for file in pages(root) {
        let text = match read(&file) {
            Ok(text) => text,
            Err(error) => return Outcome::failure(error, started),
        };
        let (name, commands) = (file.display().to_string(), commands(&text));
        if name == FRONT {
            for wanted in ["cargo demo", "cargo verify"] {
                if !commands.iter().any(|command| command == wanted) {
                    complaints.push(format!("{name} does not show `{wanted}` on a line of its own"));
                }
            }
        }
        let cargo = commands.iter().filter_map(|command| command.strip_prefix("cargo "));
        complaints.extend(cargo.filter_map(|command| unknown_cargo(root, &name, command, &aliases)));
        complaints.extend(
            commands
                .iter()
                .flat_map(|command| absent_paths(root, command))
                .map(|path| format!("{name} names {path} in a command, which is not there")),
        );
        let folder = root.join(&file).parent().map(Path::to_path_buf).unwrap_or_default();
        complaints.extend(
            links(&text)
                .filter(|link| !folder.join(link).exists())
                .map(|link| format!("{name} leads to {link}, which is not there")),
        );
        flags.extend(flags_of(&name, &commands));
    }
    match unknown_flags(root, &flags).and_then(|unknown| Ok((unknown, outdated(root)?))) {
        Ok((unknown, outdated)) => complaints.extend(unknown.into_iter().chain(outdated)),
        Err(failed) => return *failed,
    }
    Outcome::of(&complaints, started)
}

/// The front page and those of [`FOLDERS`], by name.
fn pages(root: &Path) -> Vec<PathBuf> {
    let mut pages = vec![PathBuf::from(FRONT)];
    for folder in FOLDERS {
        let entries = fs::read_dir(root.join(folder)).into_iter().flatten().flatten();
        let names = entries.map(|entry| Path::new(folder).join(entry.file_name()));
        pages.extend(names.filter(|page| page.extension().is_some_and(|extension| extension == "md")));
    }
    pages.sort();
    pages
}

/// A flag that a command gives to fairlead.
struct Flag {
    /// The page with the command.
    page: String,
    /// `overlay list`; empty for none.
    subcommand: Vec<String>,
    name: String,
}

/// The flags that the commands of a page give to fairlead.
fn flags_of<'a>(page: &'a str, commands: &'a [String]) -> impl Iterator<Item = Flag> + 'a {
    commands.iter().filter_map(|command| command.strip_prefix("fairlead ")).flat_map(move |rest| {
        let is_name = |word: &&str| word.bytes().all(|byte| byte.is_ascii_lowercase());
        let subcommand: Vec<String> = rest.split_whitespace().take_while(is_name).map(str::to_owned).collect();
        let flags = rest.split_whitespace().filter(|word| word.starts_with("--"));
        flags.map(move |flag| Flag {
            page: page.to_owned(),
            subcommand: subcommand.clone(),
            name: flag.split('=').next().unwrap_or(flag).to_owned(),
        })
    })
}

/// Those that the help of fairlead, or of its subcommand, does not know.
fn unknown_flags(root: &Path, flags: &[Flag]) -> Result<Vec<String>, Box<Outcome>> {
    let mut known: BTreeMap<&[String], BTreeSet<String>> = BTreeMap::new();
    let mut complaints = Vec::new();
    for flag in flags {
        if !known.contains_key(flag.subcommand.as_slice()) {
            known.insert(&flag.subcommand, flags_in_help(root, &flag.subcommand)?);
        }
        if !known[flag.subcommand.as_slice()].contains(&flag.name) {
            let words = flag.subcommand.join(" ");
            complaints
                .push(format!("{} shows {}, which `fairlead {words} --help` does not know", flag.page, flag.name));
        }
    }
    Ok(complaints)
}

fn flags_in_help(root: &Path, subcommand: &[String]) -> Result<BTreeSet<String>, Box<Outcome>> {
    // Built with all of the workspace, as the tests build it: alone it would be compiled a second time, with its dependencies.
    let built = run(root, "cargo", &["build", "--quiet", "--locked", "--workspace", "--bins"], &[]);
    if !built.good {
        return Err(Box::new(built));
    }
    let program = program(root);
    let mut arguments: Vec<&str> = subcommand.iter().map(String::as_str).collect();
    arguments.push("--help");
    let help = run(root, &program.to_string_lossy(), &arguments, &[]);
    if !help.good {
        return Err(Box::new(help));
    }
    let words = help.output.split(|c: char| !c.is_ascii_alphanumeric() && c != '-');
    Ok(words.filter(|word| word.starts_with("--")).map(str::to_owned).collect())
}

/// What is wrong with a page that is made from the code.
fn outdated(root: &Path) -> Result<Option<String>, Box<Outcome>> {
    let (page, command) = GENERATED;
    let made = run(root, &program(root).to_string_lossy(), &[command], &[]);
    if !made.good {
        return Err(Box::new(made));
    }
    // What the program prints comes behind the line that says how it was called.
    let printed = made.output.split_once('\n').map_or("", |(_, printed)| printed);
    let held = fs::read_to_string(root.join(page)).unwrap_or_default();
    let first = printed.lines().find(|line| !held.lines().any(|other| other == *line)).unwrap_or("a line too many");
    Ok((held.trim() != printed.trim())
        .then(|| format!("{page} is not what the code says ({first}); write it anew: fairlead {command} > {page}")))
}

fn program(root: &Path) -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    target.join("debug/fairlead")
}

/// The words of a command that name a file or folder of [`FOLDERS`] that does not exist.
fn absent_paths(root: &Path, command: &str) -> Vec<String> {
    let words = command.split_whitespace().map(|word| word.rsplit('=').next().unwrap_or(word));
    let ours = words.filter(|word| FOLDERS.iter().any(|folder| word.starts_with(&format!("{folder}/"))));
    ours.filter(|path| !root.join(path).exists()).map(str::to_owned).collect()
}

/// Where the links of a page lead that stay in the repository, without anchors.
fn links(text: &str) -> impl Iterator<Item = &str> {
    let targets = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let ours = targets.filter(|target| !target.contains("://") && !target.starts_with('#'));
    ours.map(|target| target.split('#').next().unwrap_or(target))
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
            if PROGRAMS.iter().any(|program| line.starts_with(program)) {
                found.push(line.to_owned());
            }
        }
    }
    found
}

/// What is wrong with `cargo COMMAND`.
fn unknown_cargo(root: &Path, file: &str, command: &str, aliases: &str) -> Option<String> {
    let word = command.split_whitespace().next().unwrap_or_default();
    if CARGO.contains(&word) {
        return None;
    }
    let alias = aliases.lines().find_map(|line| line.strip_prefix(&format!("{word} = \"")));
    let Some(alias) = alias else { return Some(format!("{file} shows `cargo {command}`, which is no command")) };
    let mut words = alias.split_whitespace();
    while let Some(word) = words.next() {
        if word == "--example" {
            let name = words.next().unwrap_or_default();
            let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap_or_default();
            let declared =
                manifest.split("[[example]]").skip(1).any(|part| part.contains(&format!("name = \"{name}\"")));
            let there = declared || root.join("examples").join(format!("{name}.rs")).is_file();
            return (!there)
                .then(|| format!("{file}: `cargo {command}` stands for an example {name} that does not exist"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_belong_to_their_subcommand() {
        let commands = ["fairlead overlay list --json", "fairlead --mode=nft", "cargo x --y"].map(str::to_owned);
        let flags: Vec<_> = flags_of("p", &commands).map(|flag| (flag.subcommand.join(" "), flag.name)).collect();
        assert_eq!(flags, [("overlay list".into(), "--json".into()), (String::new(), "--mode".into())]);
    }

    #[test]
    fn paths_and_links_are_found() {
        let root = Path::new("/nonexistent");
        assert_eq!(absent_paths(root, "kubectl apply -k deploy/overlays/nft"), ["deploy/overlays/nft"]);
        assert_eq!(absent_paths(root, "fairlead --config=deploy/x.conf --a b"), ["deploy/x.conf"]);
        let text = "[a](b.md) and [c](../d.md#e), not [f](https://g) nor [h](#i)";
        assert_eq!(links(text).collect::<Vec<_>>(), ["b.md", "../d.md"]);
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
        assert_eq!(unknown_cargo(root, "x.md", "verify", aliases), None);
        assert_eq!(unknown_cargo(root, "x.md", "test --workspace", aliases), None);
        assert!(unknown_cargo(root, "x.md", "vm", aliases).is_some());
        assert!(unknown_cargo(root, "x.md", "demo", aliases).is_some());
    }
}
