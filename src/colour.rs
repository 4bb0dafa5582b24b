//! Whether what is printed has colours.

use std::io::IsTerminal;

/// If a terminal shows it and nobody has said otherwise (<https://no-color.org>).
#[must_use]
pub fn is_wanted(stream: &impl IsTerminal) -> bool {
    stream.is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}
