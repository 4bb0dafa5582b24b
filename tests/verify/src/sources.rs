//! Checks that read the files of the repository.

use std::path::{Path, PathBuf};
use std::time::Instant;
use std::{fs, io};

use crate::run::Outcome;

/// Folders with Rust sources.
const FOLDERS: [&str; 3] = ["src", "backends", "tests"];
/// The only crate that may hold unsafe code.
const UNSAFE: &str = "backends/kernel";
/// A reader loses the thread of a longer file.
const LONGEST: usize = 400;

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
}
