//! Turns everything that can be wrong with a command line into one sentence.

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// What a shell sees when the command line is wrong.
pub const EXIT_USAGE: u8 = 2;

/// The command line is wrong. The text is one sentence: what is wrong, where, and what to do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UsageError(String);

impl UsageError {
    /// `flag` has the value `value`, which `why`: half a sentence that ends with what to do.
    pub(super) fn value(flag: &str, value: &str, why: impl std::fmt::Display) -> Self {
        Self(format!("{flag}={value}: {why}."))
    }

    /// The same, in other words.
    pub(super) fn renamed(self, words: impl FnOnce(&str) -> String) -> Self {
        Self(words(&self.0))
    }

    /// Any other sentence.
    pub(super) fn sentence(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// The sentence for what clap found.
pub(super) fn from_clap(error: &clap::Error) -> UsageError {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        Some(ContextValue::Strings(texts)) if !texts.is_empty() => Some(texts.join(", ")),
        _ => None,
    };
    let flag = text(ContextKind::InvalidArg).map_or_else(|| "the command line".to_owned(), |arg| bare(&arg));
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    UsageError(match error.kind() {
        ErrorKind::UnknownArgument | ErrorKind::InvalidSubcommand => {
            unknown(&text(ContextKind::InvalidSubcommand).unwrap_or(flag), text(ContextKind::SuggestedArg))
        }
        ErrorKind::InvalidValue if value.is_empty() => format!("{flag}: a value is missing; write {flag}=VALUE."),
        ErrorKind::InvalidValue => {
            let valid = text(ContextKind::ValidValue).unwrap_or_default();
            format!("{flag}={value}: no such value; use one of {valid}.")
        }
        ErrorKind::ValueValidation => {
            let why = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
            format!("{flag}={value}: {why}.")
        }
        ErrorKind::ArgumentConflict => match text(ContextKind::PriorArg).map(|arg| bare(&arg)) {
            Some(prior) if prior == flag => format!("{flag} is there twice; write it once."),
            Some(prior) => format!("{flag} cannot be combined with {prior}; leave one of them out."),
            None => format!("{flag} cannot come before a subcommand; write it behind."),
        },
        ErrorKind::MissingRequiredArgument => format!("{flag} is missing; add it."),
        ErrorKind::NoEquals => format!("{flag}: write its value as {flag}=VALUE."),
        ErrorKind::InvalidUtf8 => "the command line is not UTF-8; write it in UTF-8.".to_owned(),
        // Nothing else can come of the arguments that are declared; keep clap's first line.
        _ => {
            let all = error.to_string();
            let line = all.lines().next().unwrap_or_default().trim_start_matches("error: ");
            format!("{line}; see `fairlead --help`.")
        }
    })
}

/// clap names an argument as `--flag <VALUE>`.
fn bare(argument: &str) -> String {
    argument.split([' ', '=', '[']).next().unwrap_or_default().to_owned()
}

fn unknown(what: &str, suggestion: Option<String>) -> String {
    match suggestion {
        Some(similar) => format!("{what} is not a flag of fairlead; did you mean {similar}?"),
        None if what.starts_with('-') => {
            format!("{what} is not a flag of fairlead; see `fairlead --help` for those it has.")
        }
        None => {
            let commands = super::reference::commands();
            format!("{what} is not a command of fairlead; use one of {commands}, or flags alone to run it.")
        }
    }
}
