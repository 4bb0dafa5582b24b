//! The socket in the file system by which the running program is asked: one line of JSON to it, one line back.
//!
//! ```text
//!  fairlead explain, services, status ── Question ──> socket ──> Facts (what the loop has told) ──> answer
//! ```
//!
//! It answers from what the loop has told it, so that nobody who asks is waited for. Only the owner of the process may ask.

mod facts;
mod serve;
mod view;

use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, bail};
use fairlead_plan::Packet;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

pub use facts::{Facts, State, Trouble};
pub use serve::serve;
pub use view::{EndpointView, FrontendView, ServiceView};

use crate::explain::Decision;

/// Where the program answers if nothing else is said.
pub const DEFAULT_SOCKET: &str = "/run/fairlead/fairlead.sock";
/// How long the running program may take to answer; it answers at once if it lives.
const PATIENCE: Duration = Duration::from_secs(5);

/// What may be asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "ask", rename_all = "lowercase")]
pub enum Question {
    /// How the program does: [`State`].
    State,
    /// Every service port: a list of [`ServiceView`].
    Services,
    /// What the plan says about a packet: [`Decision`], or nothing if there is no plan yet.
    Decide {
        /// The packet.
        packet: Packet,
    },
}

/// What the plan of the running program says about a packet; `None` if no program answers at this path, or has no plan yet.
///
/// # Errors
/// If whoever answers is no fairlead of this release, or if the socket may not be used.
pub fn decision(socket: Option<&Path>, packet: &Packet) -> anyhow::Result<Option<Decision>> {
    Ok(ask(socket, &Question::Decide { packet: packet.clone() })?.flatten())
}

/// Every service port that the running program knows; `None` if none answers.
///
/// # Errors
/// As [`decision`].
pub fn services(socket: Option<&Path>) -> anyhow::Result<Option<Vec<ServiceView>>> {
    ask(socket, &Question::Services)
}

/// How the running program does; `None` if none answers.
///
/// # Errors
/// As [`decision`].
pub fn state(socket: Option<&Path>) -> anyhow::Result<Option<State>> {
    ask(socket, &Question::State)
}

fn ask<T: DeserializeOwned>(socket: Option<&Path>, question: &Question) -> anyhow::Result<Option<T>> {
    let Some(path) = socket else { return Ok(None) };
    let mut stream = match fairlead_kernel::local::connect(path) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            return Ok(None);
        }
        other => other.with_context(|| format!("asking the running fairlead at {}", path.display()))?,
    };
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut line = serde_json::to_string(question)?;
    line.push('\n');
    let mut answer = String::new();
    let asked = stream.write_all(line.as_bytes()).and_then(|()| BufReader::new(stream).read_line(&mut answer));
    asked.with_context(|| format!("the fairlead at {} does not answer", path.display()))?;
    if answer.is_empty() {
        bail!("what answers at {} does not know this question; is it a fairlead of another release?", path.display());
    }
    let answer = serde_json::from_str(&answer);
    Ok(Some(answer.with_context(|| format!("what answers at {} is no fairlead of this release", path.display()))?))
}
