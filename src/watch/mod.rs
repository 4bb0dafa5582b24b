//! Where objects come from: the Kubernetes API, or a directory of manifests.
//!
//! Either source speaks [`Event`]s through one bounded channel; a slow reader slows the source, and memory stays
//! small. A source never says that an object is gone unless it is: lost connections, restarts of the API server and
//! expired versions end in a new list between [`Event::ListBegin`] and [`Event::ListEnd`], a broken file in nothing.

mod api;
mod backoff;
mod client;
mod decode;
mod document;
mod failure;
mod files;
mod given;
mod kinds;
mod lines;
mod list;
mod manifests;
mod once;
mod publish;
#[cfg(test)]
mod tests;

use std::{
    fmt,
    time::{Duration, Instant},
};

use tokio::{sync::mpsc, task::JoinSet};

use crate::object::Event;

pub(crate) use document::split_yaml;

pub use client::{ApiSettings, ConnectError, Timing};
pub use given::read_files;
pub use kinds::NodeScope;
pub use manifests::{ManifestError, ManifestSettings, parse_manifest};
pub use publish::{Note, Publisher, Regarding, Severity};

/// Messages that wait for the reader before the source waits.
const CHANNEL: usize = 1024;

/// One thing that a source has to say.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// When it arrived at this process; the latency of programming counts from here.
    pub received: Instant,
    /// What it is.
    pub content: Content,
}

/// What a [`Message`] carries.
#[derive(Debug, Clone, PartialEq)]
pub enum Content {
    /// The world has changed.
    Event(Event),
    /// Something is wrong with the input. It has been logged already where that is useful; it is here to be counted.
    Problem(Problem),
}

/// Input that could not be used, or a source that could not be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The label in metrics.
    pub cause: Cause,
    /// One sentence: what, where, why.
    pub what: String,
}

/// Why there is a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// The API server could not be reached, or the connection broke.
    Connection,
    /// The API server answered with an error, for example 403.
    Refused,
    /// The version from which a watch was to go on is forgotten (410); a new list follows.
    Expired,
    /// The API server does not stream lists as it should; lists are read in pages instead.
    ListFallback,
    /// One object could not be decoded and was left out.
    Object,
    /// A manifest file could not be read or understood; its last good content stays in force.
    File,
    /// Two manifest files define the same object; the first by name counts.
    Duplicate,
    /// A manifest holds a kind that fairlead does not use.
    IgnoredKind,
}

impl Cause {
    /// All causes, so that a metric can show each from the start.
    pub const ALL: [Self; 8] = [
        Self::Connection,
        Self::Refused,
        Self::Expired,
        Self::ListFallback,
        Self::Object,
        Self::File,
        Self::Duplicate,
        Self::IgnoredKind,
    ];

    /// The value of the metric label `cause`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Connection => "connection",
            Self::Refused => "refused",
            Self::Expired => "expired",
            Self::ListFallback => "list_fallback",
            Self::Object => "object",
            Self::File => "file",
            Self::Duplicate => "duplicate",
            Self::IgnoredKind => "ignored_kind",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// A running source of objects. Dropping it ends it.
#[derive(Debug)]
pub struct Source {
    messages: mpsc::Receiver<Message>,
    /// Aborted when dropped. A source that reads files has a thread instead, which ends when the channel closes.
    _tasks: JoinSet<()>,
}

impl Source {
    /// Watches the Kubernetes API. It never ends by itself: what fails is tried again for ever, with back-off.
    ///
    /// Must be called within a tokio runtime.
    #[must_use]
    pub fn api(client: &kube::Client, settings: &ApiSettings) -> Self {
        let (sender, messages) = mpsc::channel(CHANNEL);
        Self { messages, _tasks: api::start(client, settings, &Outlet { sender }) }
    }

    /// Reads a directory of manifests and follows its changes, in a thread of its own.
    ///
    /// # Errors
    /// If the directory cannot be read at all or no thread can be started. Bad files are reported as [`Problem`]s.
    pub fn manifests(settings: &ManifestSettings) -> Result<Self, ManifestError> {
        let (sender, messages) = mpsc::channel(CHANNEL);
        manifests::start(settings, Outlet { sender })?;
        Ok(Self { messages, _tasks: JoinSet::new() })
    }

    /// The next message; `None` if the source has ended. May be dropped while waiting without losing one.
    pub async fn next(&mut self) -> Option<Message> {
        self.messages.recv().await
    }

    /// Waits for a message and takes up to `limit` of those that are there; 0 if the source has ended. May be dropped
    /// while waiting without losing one.
    pub async fn next_many(&mut self, into: &mut Vec<Message>, limit: usize) -> usize {
        self.messages.recv_many(into, limit).await
    }
}

/// Nobody reads any more: the source should end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Closed;

/// The sending side of a source.
#[derive(Debug, Clone)]
struct Outlet {
    sender: mpsc::Sender<Message>,
}

impl Outlet {
    async fn event(&self, received: Instant, event: Event) -> Result<(), Closed> {
        self.send(Message { received, content: Content::Event(event) }).await
    }

    async fn problem(&self, cause: Cause, what: String) -> Result<(), Closed> {
        self.send(Message { received: Instant::now(), content: Content::Problem(Problem { cause, what }) }).await
    }

    async fn send(&self, message: Message) -> Result<(), Closed> {
        self.sender.send(message).await.map_err(|_| Closed)
    }

    /// For threads outside the runtime.
    fn send_blocking(&self, message: Message) -> Result<(), Closed> {
        self.sender.blocking_send(message).map_err(|_| Closed)
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

/// Seconds with one decimal, for sentences in the log.
fn seconds(duration: Duration) -> String {
    format!("{:.1} s", duration.as_secs_f64())
}
