//! events.k8s.io/v1 Events about what fairlead finds, for `kubectl describe` and `kubectl get events`.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{sync::mpsc, task::AbortHandle};

use super::backoff::Backoff;

/// The same reason for the same object is said again after this long.
const QUIET: Duration = Duration::from_secs(300);
/// Events in a second, on average; kube-proxy's client has the same limit.
const RATE: f64 = 5.0;
/// Events that may follow each other at once.
const BURST: f64 = 10.0;
/// Notes that wait to be sent; more are dropped, because nothing may depend on Events.
const WAITING: usize = 256;
/// How often one Event is tried.
const TRIES: u32 = 4;
/// How long the API server may take.
const ANSWER: Duration = Duration::from_secs(10);
/// The API refuses longer notes.
const LONGEST_NOTE: usize = 1024;
/// Where Events about objects of the cluster go.
const CLUSTER_NAMESPACE: &str = "default";
/// What `reportingController` says.
const CONTROLLER: &str = "fairlead";

/// The object that a [`Note`] is about.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Regarding {
    /// `v1`
    pub api_version: String,
    /// `Service`
    pub kind: String,
    /// Empty for objects of the cluster.
    pub namespace: String,
    /// `metadata.name`
    pub name: String,
    /// `metadata.uid`
    pub uid: Option<String>,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// Good to know.
    Normal,
    /// Somebody should do something.
    Warning,
}

/// Something that the owner of an object should know.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// What it is about.
    pub regarding: Regarding,
    /// How bad it is.
    pub severity: Severity,
    /// One word in `UpperCamelCase`, at most 128 bytes: `ExternalAddressConflict`.
    pub reason: String,
    /// One sentence; longer than 1,024 bytes it is cut.
    pub message: String,
}

/// Sends [`Note`]s as Events: at most 5 a second, and the same reason for the same object every 5 minutes. Clones
/// send through the same limit.
#[derive(Debug, Clone)]
pub struct Publisher {
    notes: Option<mpsc::Sender<Note>>,
}

impl Publisher {
    /// Sends nothing; for running without an API server.
    #[must_use]
    pub const fn silent() -> Self {
        Self { notes: None }
    }

    /// Sends from a task of its own, in the name of this node. Must be called within a tokio runtime. The task ends
    /// when the last clone is dropped; the handle ends it sooner.
    #[must_use]
    pub fn start(client: Client, node_name: &str) -> (Self, AbortHandle) {
        let (sender, notes) = mpsc::channel(WAITING);
        let worker = Worker {
            client,
            instance: node_name.to_owned(),
            sent: HashMap::new(),
            tokens: BURST,
            counted: Instant::now(),
            serial: 0,
            refused: false,
        };
        let task = tokio::spawn(worker.run(notes));
        (Self { notes: Some(sender) }, task.abort_handle())
    }

    /// Hands a note over; never waits. If too many are waiting already, it is dropped.
    pub fn publish(&self, note: Note) {
        if let Some(notes) = &self.notes
            && let Err(error) = notes.try_send(note)
        {
            tracing::debug!("an Event is not sent: {error}");
        }
    }
}

struct Worker {
    client: Client,
    instance: String,
    /// When each reason was last said for each object.
    sent: HashMap<(Regarding, String), Instant>,
    tokens: f64,
    counted: Instant,
    serial: u64,
    refused: bool,
}

impl Worker {
    async fn run(mut self, mut notes: mpsc::Receiver<Note>) {
        while let Some(note) = notes.recv().await {
            let key = (note.regarding.clone(), note.reason.clone());
            self.sent.retain(|_, sent| sent.elapsed() < QUIET);
            if self.sent.contains_key(&key) {
                continue;
            }
            self.take_token().await;
            if self.send(&note).await {
                self.sent.insert(key, Instant::now());
            }
        }
    }

    async fn take_token(&mut self) {
        loop {
            let now = Instant::now();
            self.tokens = BURST.min(self.tokens + RATE * now.duration_since(self.counted).as_secs_f64());
            self.counted = now;
            if self.tokens >= 1.0 {
                self.tokens -= 1.0;
                return;
            }
            tokio::time::sleep(Duration::from_secs_f64((1.0 - self.tokens) / RATE)).await;
        }
    }

    async fn send(&mut self, note: &Note) -> bool {
        self.serial += 1;
        let event = event(note, &self.instance, self.serial);
        let namespace = event.metadata.namespace.as_deref().unwrap_or(CLUSTER_NAMESPACE);
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let mut backoff = Backoff::new(Duration::from_millis(500), Duration::from_secs(5));
        for _ in 0..TRIES {
            let reason = match tokio::time::timeout(ANSWER, api.create(&PostParams::default(), &event)).await {
                // Already there: the first try arrived after all.
                Ok(Ok(_)) => return true,
                Ok(Err(kube::Error::Api(status))) if status.code == 409 => return true,
                Ok(Err(kube::Error::Api(status))) if (400..500).contains(&status.code) && status.code != 429 => {
                    self.log_refusal(&status.message);
                    return false;
                }
                Ok(Err(error)) => error.to_string(),
                Err(_) => "no answer".to_owned(),
            };
            tracing::debug!("an Event could not be sent yet: {reason}");
            tokio::time::sleep(backoff.delay()).await;
        }
        false
    }

    fn log_refusal(&mut self, message: &str) {
        if !std::mem::replace(&mut self.refused, true) {
            tracing::warn!("the API server refuses Events: {message}; fairlead works without them");
        }
    }
}

fn event(note: &Note, instance: &str, serial: u64) -> Event {
    let now = Timestamp::now();
    let Note { regarding, severity, reason, message } = note;
    let namespace = Some(regarding.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let mut text = message.clone();
    text.truncate(text.floor_char_boundary(LONGEST_NOTE));
    Event {
        metadata: ObjectMeta {
            // Unique over nodes and restarts, as client-go makes them.
            name: Some(format!("{}.{:x}{:04x}", regarding.name, now.as_nanosecond(), serial & 0xffff)),
            namespace: Some(namespace.unwrap_or(CLUSTER_NAMESPACE).to_owned()),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(instance.to_owned()),
        action: Some("Program".to_owned()),
        reason: Some(reason.clone()),
        regarding: Some(ObjectReference {
            api_version: Some(regarding.api_version.clone()),
            kind: Some(regarding.kind.clone()),
            namespace: namespace.map(str::to_owned),
            name: Some(regarding.name.clone()),
            uid: regarding.uid.clone(),
            ..ObjectReference::default()
        }),
        note: Some(text),
        type_: Some(match severity {
            Severity::Normal => "Normal".to_owned(),
            Severity::Warning => "Warning".to_owned(),
        }),
        ..Event::default()
    }
}
