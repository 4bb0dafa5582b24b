//! watch: a stream of lines that follows the store's history.

use std::{
    convert::Infallible,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::Stream;
use hyper::body::{Bytes, Frame};
use tokio::sync::watch;

use super::{
    request::{Query, Target},
    resources::Resource,
    selector::Selector,
    state::{Shared, Signals},
    status::Failure,
    store::{Change, Stored, with_version},
};

/// About how much is put into one chunk of the answer.
const CHUNK: usize = 64 * 1024;
/// What the API server uses if the client does not say.
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(1800);
/// The minor release from which on lists can be streamed by default.
const STREAMING_LISTS_SINCE: u32 = 32;
/// The minor release from which on `sendInitialEvents` is known at all; older ones ignore it.
const STREAMING_LISTS_KNOWN_SINCE: u32 = 27;

/// One running watch.
pub(super) struct Watch {
    shared: Arc<Shared>,
    resource: &'static Resource,
    selector: Selector,
    signals: watch::Receiver<Signals>,
    /// What the signals were when the watch began.
    at_start: Signals,
    garbled: u64,
    /// Objects of the initial list that are still to be sent, last first.
    initial: Vec<Arc<Stored>>,
    /// Whether the initial list ends with a bookmark.
    initial_bookmark: bool,
    /// Sent up to this version.
    cursor: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    deadline: Instant,
    ended: bool,
}

impl Watch {
    /// Begins a watch.
    ///
    /// # Errors
    /// 400, 410, 422 and 504 as the API server answers them.
    pub fn start(shared: &Arc<Shared>, target: &Target, query: &Query) -> Result<Self, Failure> {
        let selector = Selector::parse(&target.namespace, query.get("labelSelector"), query.get("fieldSelector"))?;
        let streamed = streamed_list(shared, query)?;
        let signals = shared.subscribe();
        let at_start = signals.borrow().clone();
        let store = shared.store();
        let current = store.version();
        let (cursor, with_initial) = match query.get("resourceVersion") {
            "" | "0" => (current, streamed.unwrap_or(true)),
            text => {
                let asked: u64 = text
                    .parse()
                    .map_err(|_| Failure::bad_request(format!("resourceVersion: Invalid value: \"{text}\"")))?;
                if asked > current {
                    return Err(Failure::too_large(asked, current));
                }
                if streamed == Some(true) { (current, true) } else { (asked, false) }
            }
        };
        if at_start.faults.gone_as_status && cursor < store.oldest() {
            return Err(Failure::expired(cursor, store.oldest()));
        }
        let mut initial: Vec<Arc<Stored>> = Vec::new();
        if with_initial {
            let objects = store.objects(target.resource).values().rev();
            initial.extend(objects.filter(|object| selector.matches(object)).cloned());
        }
        drop(store);
        *shared.watches().entry(target.resource.plural).or_default() += 1;
        let now = Instant::now();
        let timeout = query.number("timeoutSeconds").filter(|&seconds| seconds > 0);
        Ok(Self {
            shared: Arc::clone(shared),
            resource: target.resource,
            selector,
            signals,
            garbled: at_start.garble_watches,
            at_start,
            initial,
            initial_bookmark: streamed == Some(true),
            cursor,
            bookmarks: query.flag("allowWatchBookmarks"),
            next_bookmark: now + shared.settings.bookmark_every,
            deadline: now + timeout.map_or(DEFAULT_TIMEOUT, Duration::from_secs),
            ended: false,
        })
    }

    /// The body of the answer.
    pub fn into_stream(self) -> impl Stream<Item = Result<Frame<Bytes>, Infallible>> + Send {
        futures::stream::unfold(self, |mut watch| async move {
            let chunk = watch.next_chunk().await?;
            Some((Ok(Frame::data(chunk)), watch))
        })
    }

    async fn next_chunk(&mut self) -> Option<Bytes> {
        loop {
            if self.ended {
                return None;
            }
            let signals = self.signals.borrow_and_update().clone();
            if signals.close_watches != self.at_start.close_watches || signals.stop {
                return None;
            }
            if !signals.faults.hang {
                let chunk = self.fill(&signals);
                if !chunk.is_empty() {
                    return Some(Bytes::from(chunk));
                }
            }
            let wake = if self.bookmarks { self.deadline.min(self.next_bookmark) } else { self.deadline };
            tokio::select! {
                changed = self.signals.changed() => changed.ok()?,
                () = tokio::time::sleep_until(wake.into()), if !signals.faults.hang => {}
            }
        }
    }

    /// Everything that is to be said now, up to about one chunk.
    fn fill(&mut self, signals: &Signals) -> Vec<u8> {
        let mut chunk = Vec::new();
        if signals.expire_watches != self.at_start.expire_watches {
            self.fail(&mut chunk, &Failure::expired(self.cursor, signals.version));
            return chunk;
        }
        if signals.garble_watches != self.garbled {
            self.garbled = signals.garble_watches;
            chunk.extend_from_slice(b"<html>502 Bad Gateway</html>\n");
        }
        while chunk.len() < CHUNK
            && let Some(object) = self.initial.pop()
        {
            self.line(&mut chunk, "ADDED", &object);
        }
        if !self.initial.is_empty() {
            return chunk;
        }
        if self.initial_bookmark && !signals.faults.drop_bookmarks {
            self.initial_bookmark = false;
            self.bookmark(&mut chunk, true);
        }
        self.changes(&mut chunk);
        let now = Instant::now();
        if self.bookmarks && now >= self.next_bookmark && !self.ended {
            self.next_bookmark = now + self.shared.settings.bookmark_every;
            if !signals.faults.drop_bookmarks {
                self.bookmark(&mut chunk, false);
            }
        }
        self.ended |= now >= self.deadline;
        chunk
    }

    fn changes(&mut self, chunk: &mut Vec<u8>) {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        let Some(changes) = store.changes_after(self.cursor) else {
            let failure = Failure::expired(self.cursor, store.oldest());
            return self.fail(chunk, &failure);
        };
        for change in changes {
            if chunk.len() >= CHUNK {
                return;
            }
            self.cursor = change.version;
            if change.resource == self.resource {
                self.change(chunk, change);
            }
        }
        self.cursor = store.version();
    }

    /// Objects that enter or leave the selection look created or deleted.
    fn change(&self, chunk: &mut Vec<u8>, change: &Change) {
        let before = change.before.as_ref().filter(|before| self.selector.matches(before));
        let now = !change.deleted && self.selector.matches(&change.now);
        match (before, now) {
            (None, true) => self.line(chunk, "ADDED", &change.now),
            (Some(_), true) => self.line(chunk, "MODIFIED", &change.now),
            (Some(before), false) => self.line(chunk, "DELETED", &with_version(before, change.version)),
            (None, false) => {}
        }
    }

    fn line(&self, chunk: &mut Vec<u8>, kind: &str, object: &Stored) {
        chunk.extend_from_slice(format!(r#"{{"type":"{kind}","object":"#).as_bytes());
        object.write(self.resource, chunk);
        chunk.extend_from_slice(b"}\n");
    }

    fn bookmark(&self, chunk: &mut Vec<u8>, ends_initial_list: bool) {
        let annotations = if ends_initial_list { r#","annotations":{"k8s.io/initial-events-end":"true"}"# } else { "" };
        let (kind, api_version, zero) = (self.resource.kind, self.resource.api_version(), self.resource.zero);
        let version = self.cursor;
        chunk.extend_from_slice(
            format!(
                r#"{{"type":"BOOKMARK","object":{{"kind":"{kind}","apiVersion":"{api_version}","metadata":{{"resourceVersion":"{version}","creationTimestamp":null{annotations}}}{zero}}}}}"#
            )
            .as_bytes(),
        );
        chunk.push(b'\n');
    }

    fn fail(&mut self, chunk: &mut Vec<u8>, failure: &Failure) {
        chunk.extend_from_slice(format!(r#"{{"type":"ERROR","object":{}}}"#, failure.to_json()).as_bytes());
        chunk.push(b'\n');
        self.ended = true;
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        *self.shared.watches().entry(self.resource.plural).or_default() -= 1;
    }
}

/// Whether a streamed list is asked for; `None` if the request does not say or the release does not know it.
fn streamed_list(shared: &Shared, query: &Query) -> Result<Option<bool>, Failure> {
    let minor = shared.settings.minor;
    if query.get("sendInitialEvents").is_empty() || minor < STREAMING_LISTS_KNOWN_SINCE {
        return Ok(None);
    }
    if !shared.settings.streaming_lists.unwrap_or(minor >= STREAMING_LISTS_SINCE) {
        let message = "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for watch unless the WatchList \
                       feature gate is enabled";
        return Err(Failure::invalid(message));
    }
    if query.get("resourceVersionMatch") != "NotOlderThan" {
        return Err(Failure::invalid("resourceVersionMatch: Forbidden: sendInitialEvents requires NotOlderThan"));
    }
    Ok(Some(query.flag("sendInitialEvents")))
}
