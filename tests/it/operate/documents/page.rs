//! The commands of a page: the lines of its `console` blocks, and the spans in backticks that are whole commands.

use std::fs;
use std::path::Path;

use crate::operate::deploy::rendered::root;

/// A span that begins so is a command. (Those of cargo measure for minutes or are those of blocks.)
const PROGRAMS: [&str; 2] = ["fairlead ", "kubectl "];
/// Folders without pages of the project.
const FOREIGN: [&str; 2] = ["target", "node_modules"];

/// A command that a page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub text: String,
    /// Whether it stands in a block, and not within a sentence.
    pub in_block: bool,
}

/// All pages of the repository, as paths from its top.
pub fn pages() -> Vec<String> {
    let mut found = Vec::new();
    collect(root(), &mut found);
    found.sort();
    found
}

fn collect(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && !name.starts_with('.') && !FOREIGN.contains(&name.as_str()) {
            collect(&path, found);
        } else if name.ends_with(".md") {
            found.push(path.strip_prefix(root()).unwrap().display().to_string());
        }
    }
}

/// The commands of a page, in its order.
pub fn shown_in(page: &str) -> Vec<Shown> {
    shown(&fs::read_to_string(root().join(page)).unwrap())
}

fn shown(text: &str) -> Vec<Shown> {
    let mut all = Vec::new();
    let (mut block, mut prose, mut begun) = (None, String::new(), String::new());
    for line in text.lines() {
        match (line.trim_start().strip_prefix("```"), block) {
            (Some(language), None) => {
                all.extend(spans(&std::mem::take(&mut prose)));
                block = Some(language == "console");
            }
            (Some(_), Some(_)) => block = None,
            (None, Some(true)) => {
                begun += without_comment(line);
                if let Some(part) = begun.strip_suffix('\\') {
                    begun = part.to_owned();
                } else if !begun.is_empty() {
                    all.push(Shown { text: std::mem::take(&mut begun), in_block: true });
                }
            }
            (None, Some(false)) => {}
            (None, None) => prose += &format!("{line}\n"),
        }
    }
    all.extend(spans(&prose));
    all
}

fn without_comment(line: &str) -> &str {
    line.split(" #").next().unwrap_or_default().trim()
}

fn spans(prose: &str) -> Vec<Shown> {
    let spans = prose.split('`').skip(1).step_by(2);
    let words = spans.map(|span| span.split_whitespace().collect::<Vec<_>>().join(" "));
    let commands = words.filter(|span| PROGRAMS.iter().any(|program| span.starts_with(program)));
    commands.map(|text| Shown { text, in_block: false }).collect()
}

#[test]
fn commands_are_found_in_blocks_and_in_sentences() {
    let page = "Run `fairlead x` or `kubectl get\npods` in `x`:\n```console\na b   # why\n\nc \\\n  d\n```\n```yaml\ne\n```\n `fairlead x`";
    let found: Vec<_> = shown(page).into_iter().map(|shown| (shown.text, shown.in_block)).collect();
    let wanted =
        [("fairlead x", false), ("kubectl get pods", false), ("a b", true), ("c d", true), ("fairlead x", false)];
    assert_eq!(found, wanted.map(|(text, block)| (text.to_owned(), block)));
}
