//! The sources against a real directory and a real HTTP server.
#![expect(clippy::disallowed_methods, reason = "manifests and kubeconfigs of a test are files")]

mod api_faults;
mod api_lists;
mod credentials;
mod events;
mod manifests;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fairlead_lab::api::{ApiServer, Settings};
use serde_json::{Value, json};

use super::{ApiSettings, Cause, Content, Message, NodeScope, Problem, Source, Timing};
use crate::object::{Event, Kind, Object, ObjectName};

/// No test waits longer than this for something that must come; a hanging test helps nobody.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory that is removed at the end.
struct TempDir(PathBuf);

impl TempDir {
    fn new() -> Self {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fairlead-watch-{}-{serial}", std::process::id()));
        std::fs::create_dir_all(&path).expect("a temporary directory");
        Self(path)
    }

    fn path(&self) -> &Path {
        &self.0
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.0.join(name), text).expect("a file in the temporary directory");
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.0.join(name)).expect("the file is there");
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Reads a source and keeps what it says, as the world does.
struct Reader {
    source: Source,
    objects: BTreeMap<(Kind, ObjectName), Object>,
    /// What an unfinished list has named.
    listing: BTreeMap<Kind, Vec<ObjectName>>,
    /// How many lists of each kind are complete.
    lists: BTreeMap<Kind, usize>,
    deletions: usize,
    events: usize,
    problems: Vec<Problem>,
}

impl Reader {
    fn new(source: Source) -> Self {
        Self {
            source,
            objects: BTreeMap::new(),
            listing: BTreeMap::new(),
            lists: BTreeMap::new(),
            deletions: 0,
            events: 0,
            problems: Vec::new(),
        }
    }

    /// Reads until `done` holds.
    async fn until(&mut self, what: &str, done: impl Fn(&Self) -> bool) {
        let wait = async {
            while !done(self) {
                let message = self.source.next().await.expect("the source goes on");
                self.take(message);
            }
        };
        let ended = tokio::time::timeout(PATIENCE, wait).await;
        assert!(ended.is_ok(), "in vain: {what}; {:?} {:?} {:?}", self.names(), self.lists, self.problems);
    }

    /// Reads until the first list of every kind is complete.
    async fn synced(&mut self) {
        self.until("all lists are complete", |reader| reader.lists.len() == Kind::ALL.len()).await;
    }

    /// Reads until nothing has come for a while.
    async fn quiet(&mut self, pause: Duration) {
        while let Ok(message) = tokio::time::timeout(pause, self.source.next()).await {
            self.take(message.expect("the source goes on"));
        }
    }

    fn take(&mut self, message: Message) {
        match message.content {
            Content::Problem(problem) => self.problems.push(problem),
            Content::Event(event) => {
                self.events += 1;
                self.event(event);
            }
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::ListBegin(kind) => {
                self.listing.insert(kind, Vec::new());
            }
            Event::Apply(object) => {
                let (kind, name) = (object.kind(), object.meta().object_name());
                if let Some(listing) = self.listing.get_mut(&kind) {
                    listing.push(name.clone());
                }
                self.objects.insert((kind, name), *object);
            }
            Event::Delete(kind, name) => {
                self.deletions += 1;
                self.objects.remove(&(kind, name));
            }
            Event::ListEnd(kind) => {
                let named = self.listing.remove(&kind).expect("a list begins before it ends");
                let before = self.objects.len();
                self.objects.retain(|(of, name), _| *of != kind || named.contains(name));
                self.deletions += before - self.objects.len();
                *self.lists.entry(kind).or_default() += 1;
            }
        }
    }

    fn names(&self) -> Vec<String> {
        self.objects.keys().take(20).map(|(kind, name)| format!("{} {name}", kind.name())).collect()
    }

    fn service(&self, name: &str) -> Option<&crate::object::ServiceObject> {
        let name = ObjectName { namespace: "default".into(), name: name.into() };
        match self.objects.get(&(Kind::Service, name)) {
            Some(Object::Service(service)) => Some(service),
            _ => None,
        }
    }

    fn cluster_ip(&self, name: &str) -> Option<&str> {
        self.service(name)?.spec.cluster_ip.as_deref()
    }

    fn count(&self, cause: Cause) -> usize {
        self.problems.iter().filter(|problem| problem.cause == cause).count()
    }
}

fn quick() -> Timing {
    Timing {
        retry_first: Duration::from_millis(20),
        retry_most: Duration::from_millis(200),
        streamed_list: Duration::from_secs(20),
        absent_retry: Duration::from_millis(100),
        ..Timing::default()
    }
}

fn settings(server: &ApiServer) -> ApiSettings {
    ApiSettings {
        kubeconfig: None,
        master: Some(server.url()),
        nodes: NodeScope::Own("n1".to_owned()),
        timing: quick(),
    }
}

fn server_of(minor: u32) -> ApiServer {
    ApiServer::on_loopback(Settings { minor, ..Settings::default() }).expect("a server")
}

async fn reader_of(server: &ApiServer) -> Reader {
    reader_with(&settings(server)).await
}

async fn reader_with(settings: &ApiSettings) -> Reader {
    let client = settings.client().await.expect("a client");
    Reader::new(Source::api(&client, settings))
}

fn service(name: &str, cluster_ip: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"namespace": "default", "name": name},
        "spec": {"clusterIP": cluster_ip, "clusterIPs": [cluster_ip], "ports": [{"port": 80, "protocol": "TCP"}]},
    })
}
