//! Why a list or a watch has ended.

use std::{io, time::Duration};

use super::{Closed, seconds};

/// Why a try has ended.
#[derive(Debug)]
pub(super) enum Failure {
    /// Nobody reads the channel.
    Closed,
    /// The API server cannot be reached, is silent, or talks nonsense.
    Connection(String),
    /// It answers with this code.
    Answer(u16, String),
    /// The version is forgotten: only a new list helps.
    Expired(String),
    /// A streamed list does not come.
    NoStream(String),
}

impl Failure {
    pub fn answer(code: u16, message: String) -> Self {
        if code == 410 { Self::Expired(message) } else { Self::Answer(code, message) }
    }

    pub fn nonsense(error: &serde_json::Error) -> Self {
        Self::Connection(format!("the answer is not what an API server says: {error}"))
    }

    pub fn no_answer(after: Duration) -> Self {
        Self::Connection(format!("no answer within {}", seconds(after)))
    }
}

impl From<Closed> for Failure {
    fn from(Closed: Closed) -> Self {
        Self::Closed
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Connection(format!("the connection broke: {error}"))
    }
}

impl From<kube::Error> for Failure {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::answer(status.code, status.message.clone()),
            error => Self::Connection(with_sources(&error)),
        }
    }
}

/// The outermost error often says only that something failed; the reason is further in.
fn with_sources(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let inner = error.to_string();
        if !text.contains(&inner) {
            text = format!("{text}: {inner}");
        }
        source = error.source();
    }
    text
}
