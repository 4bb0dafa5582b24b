//! One watch for each kind, for ever.
//!
//! `kube`'s client does connections, TLS and credentials. The loop around it is here and not `kube`'s `watcher`,
//! which needs a full `ObjectMeta` in every object, fails a page for one bad object, asks again and again from a
//! version for which it gets HTTP status 410, and waits for ever for the end of a list that a server does not stream.

use std::{
    convert::Infallible,
    marker::PhantomData,
    sync::Arc,
    time::{Duration, Instant},
};

use kube::{
    Client,
    api::{Request, WatchParams},
};
use serde::Deserialize;
use tokio::{sync::OnceCell, task::JoinSet};

use super::{
    Cause, Closed, Outlet,
    backoff::{Backoff, jitter},
    client::{ApiSettings, Timing},
    decode::{self, BadObject, Line},
    failure::Failure,
    kinds::{Query, Trimmed},
    lines::Lines,
    once::Once,
    seconds,
};
use crate::object::{Event, Kind, NodeObject, ServiceCidrObject, ServiceObject, SliceObject};

/// The first minor release of Kubernetes 1.x that streams lists by default.
const STREAMS_LISTS_SINCE: u32 = 32;
/// The server ends a watch after a time in this range, so that load spreads over API servers and over time.
const WATCH_LASTS: (Duration, Duration) = (Duration::from_secs(240), Duration::from_secs(290));
/// The server's end of the watch may be this late.
const WATCH_MARGIN: Duration = Duration::from_secs(10);
/// A watch that ends sooner than this is not begun again at once.
const SHORT: Duration = Duration::from_secs(5);
/// So often a server may say that it has not reached our version yet, before we believe that it never will.
const BEHIND_TRIES: u32 = 5;

/// Starts a task for each kind.
pub(super) fn start(client: &Client, settings: &ApiSettings, outlet: &Outlet) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    let streams = Arc::new(OnceCell::new());
    for kind in Kind::ALL {
        let context = (client, settings, outlet, &streams);
        match kind {
            Kind::Service => spawn::<ServiceObject>(&mut tasks, context),
            Kind::EndpointSlice => spawn::<SliceObject>(&mut tasks, context),
            Kind::Node => spawn::<NodeObject>(&mut tasks, context),
            Kind::ServiceCidr => spawn::<ServiceCidrObject>(&mut tasks, context),
        }
    }
    tasks
}

type Context<'a> = (&'a Client, &'a ApiSettings, &'a Outlet, &'a Arc<OnceCell<bool>>);

fn spawn<T: Trimmed>(tasks: &mut JoinSet<()>, (client, settings, outlet, streams): Context<'_>) {
    let timing = settings.timing.clone();
    let mut watcher = Watcher::<T> {
        client: client.clone(),
        query: Query::of(T::KIND, &settings.nodes),
        outlet: outlet.clone(),
        backoff: Backoff::new(timing.retry_first, timing.retry_most),
        timing,
        server_streams: Arc::clone(streams),
        pages: false,
        version: None,
        listed: None,
        behind: 0,
        once: Once::default(),
        failing_since: None,
        kind: PhantomData,
    };
    tasks.spawn(async move {
        let Err(Closed) = watcher.run().await;
    });
}

/// The watch of one kind.
pub(super) struct Watcher<T> {
    pub client: Client,
    pub query: Query,
    pub outlet: Outlet,
    pub timing: Timing,
    backoff: Backoff,
    /// Whether the server streams lists, by its version; asked for once for all kinds.
    server_streams: Arc<OnceCell<bool>>,
    /// Streaming was tried and did not work.
    pages: bool,
    /// Everything up to here has been said; `None` means that a list is needed.
    version: Option<String>,
    /// When the last list was complete.
    listed: Option<Instant>,
    /// How often in a row the server said that it has not reached our version.
    behind: u32,
    once: Once,
    failing_since: Option<Instant>,
    kind: PhantomData<fn() -> T>,
}

impl<T: Trimmed> Watcher<T> {
    async fn run(&mut self) -> Result<Infallible, Closed> {
        loop {
            let began = Instant::now();
            let wait = match self.attempt().await {
                Ok(()) if began.elapsed() < SHORT => self.backoff.delay(),
                Ok(()) => Duration::ZERO,
                Err(failure) => self.failed(failure).await?,
            };
            tokio::time::sleep(wait).await;
        }
    }

    /// Lists if needed and follows the watch until it ends.
    async fn attempt(&mut self) -> Result<(), Failure> {
        let mut lines = if let Some(version) = &self.version {
            self.open(version, false).await?
        } else if self.streams().await? {
            let limit = self.timing.streamed_list;
            let (lines, version) = tokio::time::timeout(limit, self.begin_with_stream())
                .await
                .map_err(|_| Failure::NoStream(format!("its end did not come within {}", seconds(limit))))??;
            self.complete(version);
            lines
        } else {
            let version = self.paged_list().await?;
            self.complete(version.clone());
            self.open(&version, false).await?
        };
        self.follow(&mut lines).await
    }

    async fn begin_with_stream(&mut self) -> Result<(Lines, String), Failure> {
        let mut lines = match self.open("", true).await {
            // The feature is switched off, something in between does not know the parameter, or etcd is too old for it.
            Err(Failure::Answer(400 | 422 | 500 | 501, message)) => return Err(Failure::NoStream(message)),
            opened => opened?,
        };
        let version = self.streamed_list(&mut lines).await?;
        Ok((lines, version))
    }

    fn complete(&mut self, version: String) {
        self.version = Some(version);
        self.behind = 0;
        // A version that expires as soon as it is listed must not make us list without pause.
        if self.listed.is_none_or(|listed| listed.elapsed() > SHORT) {
            self.backoff.reset();
        }
        self.listed = Some(Instant::now());
        self.works();
    }

    /// Whether to ask for a streamed list.
    async fn streams(&self) -> Result<bool, Failure> {
        if self.pages {
            return Ok(false);
        }
        self.server_streams.get_or_try_init(|| streams_lists(&self.client, self.timing.answer)).await.copied()
    }

    pub(super) fn request(&self) -> Request {
        Request::new(self.query.path)
    }

    /// Begins a watch; `initial` asks for all objects first.
    async fn open(&self, version: &str, initial: bool) -> Result<Lines, Failure> {
        let lasts = jitter(WATCH_LASTS.0, WATCH_LASTS.1).as_secs();
        let parameters = WatchParams {
            label_selector: self.query.labels.clone(),
            field_selector: self.query.fields.clone(),
            timeout: u32::try_from(lasts).ok(),
            bookmarks: true,
            send_initial_events: initial,
        };
        let request =
            self.request().watch(&parameters, version).map_err(|error| Failure::Connection(error.to_string()))?;
        let stream = tokio::time::timeout(self.timing.answer, self.client.request_stream(request)).await;
        Ok(Lines::new(stream.map_err(|_| Failure::no_answer(self.timing.answer))??))
    }

    /// Says what the watch says until the server ends it, which it does every few minutes.
    async fn follow(&mut self, lines: &mut Lines) -> Result<(), Failure> {
        let mut silence = WATCH_LASTS.1 + WATCH_MARGIN;
        loop {
            let text = tokio::time::timeout(silence, lines.next()).await;
            let text =
                text.map_err(|_| Failure::Connection(format!("the watch was silent for {}", seconds(silence))))?;
            let Some(text) = text? else { return Ok(()) };
            let received = Instant::now();
            let line = decode::line::<T>(text).map_err(|error| Failure::nonsense(&error))?;
            if matches!(line, Line::Bookmark(..)) {
                silence = silence.min(self.timing.silence);
            }
            self.line(received, line).await?;
            if lines.drained() {
                // Whoever takes the event comes first: to ask the connection for more costs a call of the system.
                tokio::task::yield_now().await;
            }
            self.backoff.reset();
            self.behind = 0;
            self.works();
        }
    }

    async fn line(&mut self, received: Instant, line: Line<T>) -> Result<(), Failure> {
        let version = match line {
            Line::Added(object) | Line::Modified(object) => {
                let version = decode::version(object.meta());
                self.outlet.event(received, Event::Apply(Box::new(object.into_object()))).await?;
                version
            }
            Line::Deleted(name, version) => {
                self.outlet.event(received, Event::Delete(T::KIND, name)).await?;
                version
            }
            Line::Bookmark(version, _) => {
                if let Some(ours) = &self.version
                    && is_older(&version, ours)
                {
                    let what = format!("the API server has gone back from version {ours} to {version}");
                    return Err(Failure::Expired(what));
                }
                version
            }
            Line::Error(code, message) => return Err(Failure::answer(code, message)),
            Line::Bad(bad, version) => {
                self.bad_object(&bad).await?;
                version
            }
            Line::Unknown(kind) => {
                self.unknown_line(&kind).await?;
                String::new()
            }
        };
        if !version.is_empty() {
            self.version = Some(version);
        }
        Ok(())
    }

    pub(super) async fn bad_object(&mut self, bad: &BadObject) -> Result<(), Closed> {
        let (kind, BadObject { name, reason }) = (T::KIND.name(), bad);
        let what = format!("cannot decode {kind} {name}: {reason}; this version of it is left out");
        if self.once.first((name, reason)) {
            tracing::warn!(cause = Cause::Object.label(), "{what}");
        }
        self.outlet.problem(Cause::Object, what).await
    }

    pub(super) async fn unknown_line(&mut self, line: &str) -> Result<(), Closed> {
        let what = format!("the watch of {} says \"{line}\", which this release does not know", T::KIND.name());
        if self.once.first(("line", line)) {
            tracing::warn!(cause = Cause::Object.label(), "{what}");
        }
        self.outlet.problem(Cause::Object, what).await
    }

    /// Deals with a failure; how long to wait before the next try.
    async fn failed(&mut self, failure: Failure) -> Result<Duration, Closed> {
        let kind = T::KIND.name();
        match failure {
            Failure::Closed => Err(Closed),
            Failure::NoStream(reason) => {
                self.pages = true;
                let what = format!("the API server does not stream the list of {kind}: {reason}; reading it in pages");
                tracing::info!("{what}");
                self.outlet.problem(Cause::ListFallback, what).await?;
                Ok(Duration::ZERO)
            }
            Failure::Expired(reason) => {
                self.version = None;
                tracing::info!("watch of {kind}: {reason}; listing again");
                self.outlet.problem(Cause::Expired, format!("watch of {kind}: {reason}")).await?;
                let soon = self.listed.is_some_and(|listed| listed.elapsed() < SHORT);
                Ok(if soon { self.backoff.delay() } else { Duration::ZERO })
            }
            Failure::Answer(code @ (403 | 404), reason) if T::KIND == Kind::ServiceCidr => {
                self.absent(code, &reason).await?;
                Ok(jitter(self.timing.absent_retry / 2, self.timing.absent_retry))
            }
            Failure::Answer(504, reason) if self.version.is_some() && reason.contains("Too large resource version") => {
                self.behind += 1;
                if self.behind > BEHIND_TRIES {
                    // It was restored from a backup, and would never get there.
                    self.version = None;
                }
                self.trouble(Cause::Expired, &reason).await
            }
            Failure::Answer(code, reason) => {
                self.trouble(Cause::Refused, &format!("the API server answers {code}: {reason}")).await
            }
            Failure::Connection(reason) => self.trouble(Cause::Connection, &reason).await,
        }
    }

    async fn trouble(&mut self, cause: Cause, reason: &str) -> Result<Duration, Closed> {
        let delay = self.backoff.delay();
        let what = format!("watch of {}: {reason}; what is known stays in force", T::KIND.name());
        if self.failing_since.is_none() {
            self.failing_since = Some(Instant::now());
            tracing::warn!(cause = cause.label(), "{what}; trying again until it works");
        } else {
            tracing::debug!(cause = cause.label(), "{what}; next try in {}", seconds(delay));
        }
        self.outlet.problem(cause, what).await?;
        Ok(delay)
    }

    fn works(&mut self) {
        if let Some(since) = self.failing_since.take() {
            tracing::info!("watch of {} works again after {}", T::KIND.name(), seconds(since.elapsed()));
        }
    }

    /// ServiceCIDRs came with Kubernetes 1.33, and older roles do not allow them. Without them fairlead cannot tell
    /// unallocated ClusterIPs from foreign addresses, and can do all the rest.
    async fn absent(&mut self, code: u16, reason: &str) -> Result<(), Closed> {
        let kind = T::KIND.name();
        let what = format!("the API server answers {code} for {kind}: {reason}; going on without");
        if self.once.first(("absent", code)) {
            tracing::info!("{what}");
            if code == 403 {
                self.outlet.problem(Cause::Refused, what).await?;
            }
        }
        if self.listed.is_none() {
            self.listed = Some(Instant::now());
            self.outlet.event(Instant::now(), Event::ListBegin(T::KIND)).await?;
            self.outlet.event(Instant::now(), Event::ListEnd(T::KIND)).await?;
        }
        Ok(())
    }
}

/// Whether the server is new enough to stream lists. One that will not tell its version gets pages.
async fn streams_lists(client: &Client, limit: Duration) -> Result<bool, Failure> {
    #[derive(Deserialize)]
    struct Version {
        major: String,
        minor: String,
    }
    let request = hyper::Request::get("/version").body(Vec::new());
    let request = request.map_err(|error| Failure::Connection(error.to_string()))?;
    let answer = tokio::time::timeout(limit, client.request_text(request)).await;
    let text = match answer.map_err(|_| Failure::no_answer(limit))?.map_err(Failure::from) {
        Ok(text) => text,
        Err(Failure::Answer(403 | 404, _)) => return Ok(false),
        Err(failure) => return Err(failure),
    };
    let version: Version = serde_json::from_str(&text).map_err(|error| Failure::nonsense(&error))?;
    // Some distributions write "34+".
    let digits: String = version.minor.chars().take_while(char::is_ascii_digit).collect();
    let minor: u32 = digits.parse().unwrap_or(0);
    Ok(version.major != "1" || minor >= STREAMS_LISTS_SINCE)
}

/// Whether one version is older than the other, where both are numbers, as those of kube-apiserver are.
fn is_older(version: &str, than: &str) -> bool {
    matches!((version.parse::<u64>(), than.parse::<u64>()), (Ok(version), Ok(than)) if version < than)
}
