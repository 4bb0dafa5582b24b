//! What is made from the command line's own description: completions for shells, manual pages.

use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;

use super::flags::CommandLine;
use super::usage::UsageError;

const NAME: &str = "fairlead";
/// Of this release. A page that said when it was built would be another one with each build.
const RELEASED: &str = "2026-11-21";

/// A script for a shell.
pub(super) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut CommandLine::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// The manual page of the program, or of a command below it.
pub(super) fn man(of: &[String]) -> Result<String, UsageError> {
    let mut whole = CommandLine::command();
    whole.build();
    let mut command = &whole;
    for (depth, word) in of.iter().enumerate() {
        command = command.find_subcommand(word).ok_or_else(|| {
            let (path, all) = (of[..=depth].join(" "), names(command));
            match all.as_str() {
                "" => UsageError::sentence(format!("there is no manual page of `{NAME} {path}`: it has no commands.")),
                all => UsageError::sentence(format!("there is no manual page of `{NAME} {path}`; use one of {all}.")),
            }
        })?;
    }
    let title = [&[NAME.to_owned()], of].concat().join("-");
    // Names of commands below are written with their way, as in `fairlead-overlay-list(1)`.
    let source = format!("{NAME} {}", env!("CARGO_PKG_VERSION"));
    let page = Man::new(command.clone()).title(&title).manual(NAME).source(source).date(RELEASED);
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = page.render(&mut text);
    // Two line breaks around an empty line mean nothing to roff but a warning.
    Ok(String::from_utf8_lossy(&text).replace("\n.br\n\n.br\n", "\n.sp\n"))
}

/// The names of all commands.
pub(super) fn commands() -> String {
    names(&CommandLine::command())
}

fn names(command: &Command) -> String {
    let all = command.get_subcommands().map(Command::get_name).filter(|name| *name != "help");
    all.collect::<Vec<_>>().join(", ")
}
