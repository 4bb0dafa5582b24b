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

    /// Any other sentence.
    pub(super) fn sentence(text: impl Into<String>) -> Self {
        Self(text.into())
    }
}

/// Flags of kube-proxy that fairlead leaves out, and what to do about each.
const KUBE_PROXY_ONLY: &[(&str, &str)] = &[
    ("--cleanup", "run `fairlead cleanup` instead"),
    ("--config", "write the settings as flags; `fairlead --help` lists them"),
    ("--init-only", "leave it out; fairlead sets what it needs when it starts"),
    ("--write-config-to", "leave it out; flags are the only configuration"),
    ("--feature-gates", "leave it out; fairlead has no feature gates"),
    ("--kube-api-content-type", "leave it out; fairlead asks for JSON"),
    ("--healthz-port", "use --healthz-bind-address instead"),
    ("--metrics-port", "use --metrics-bind-address instead"),
    ("--profiling", "leave it out; fairlead has no Go profiles"),
    ("--show-hidden-metrics-for-version", "leave it out; fairlead hides no metrics"),
    ("--iptables-localhost-nodeports", "use --nodeport-addresses=primary,localhost to have node ports on loopback"),
    ("--vmodule", "use RUST_LOG instead"),
    ("--log-", "leave it out; fairlead writes to standard error without buffers"),
    ("--boot-id-file", "leave it out; fairlead does not use it"),
    ("--machine-id-file", "leave it out; fairlead does not use it"),
];

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
    let known = KUBE_PROXY_ONLY
        .iter()
        .find(|(flag, _)| if flag.ends_with('-') { what.starts_with(flag) } else { what == *flag });
    match (known, suggestion) {
        (Some((_, instead)), _) => format!("{what} is a flag of kube-proxy that fairlead does not have; {instead}."),
        (None, Some(similar)) => format!("{what} is not a flag of fairlead; did you mean {similar}?"),
        (None, None) if what.starts_with('-') => {
            format!("{what} is not a flag of fairlead; see `fairlead --help` for those it has.")
        }
        (None, None) => {
            format!(
                "{what} is not a command of fairlead; use cleanup, overlay, render, status, or flags alone to run it."
            )
        }
    }
}
