//! An API server in the test's own process, over real HTTP, with switches for everything that can go wrong.
//!
//! It answers like kube-apiserver from 1.27 on for the few resources in [`RESOURCES`]: versions, pages, watches with
//! bookmarks, streamed lists, 410 in both forms, `Status` errors. It does not validate, default or allocate: what a
//! test applies is what clients see, so that broken objects can be served too.
//!
//! DaemonSets have pods on the nodes that they choose, a history and a status at once, so that `kubectl` can roll them out and
//! back. Of a kubelet it has the logs alone.
//!
//! ```no_run
//! let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
//! let server = fairlead_lab::api::ApiServer::start(listener)?;
//! server.apply(serde_json::json!({
//!     "kind": "Service", "metadata": {"namespace": "default", "name": "web"}, "spec": {"clusterIP": "10.96.0.10"},
//! }))?;
//! server.kubeconfig(std::path::Path::new("/tmp/kubeconfig"))?;
//! # anyhow::Ok(())
//! ```

mod daemons;
mod discovery;
mod list;
mod patch;
mod request;
mod resources;
mod selector;
mod serve;
mod state;
mod status;
mod store;
mod stream;
mod table;
#[cfg(test)]
mod tests;
mod time;
mod write;

use std::{
    net::{SocketAddr, TcpListener},
    path::Path,
    sync::Arc,
    thread::JoinHandle,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use state::Shared;
pub use {
    resources::{RESOURCES, Resource},
    state::{Faults, RecordedRequest},
};

/// How the server presents itself.
#[derive(Debug, Clone)]
pub struct Settings {
    /// It claims to be release 1.`minor`; what that release does not serve is not served.
    pub minor: u32,
    /// Whether lists can be streamed; by default as the release does.
    pub streaming_lists: Option<bool>,
    /// If set, requests without this bearer token get 401.
    pub token: Option<String>,
    /// How often a watch that allows bookmarks gets one; kube-apiserver does it about every minute.
    pub bookmark_every: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { minor: 34, streaming_lists: None, token: None, bookmark_every: Duration::from_secs(60) }
    }
}

/// A running server. Dropping it cuts all connections and ends its thread.
pub struct ApiServer {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

impl ApiServer {
    /// Serves on `listener` with default settings, in a thread of its own. The listener may belong to any network
    /// namespace; the server stays in it.
    ///
    /// # Errors
    /// If the listener has no address or no thread can be started.
    pub fn start(listener: TcpListener) -> Result<Self> {
        Self::start_with(listener, Settings::default())
    }

    /// Serves on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn on_loopback(settings: Settings) -> Result<Self> {
        Self::start_with(TcpListener::bind("127.0.0.1:0").context("binding a port of 127.0.0.1")?, settings)
    }

    /// Serves on `listener`.
    ///
    /// # Errors
    /// As [`Self::start`].
    pub fn start_with(listener: TcpListener, settings: Settings) -> Result<Self> {
        let address = listener.local_addr().context("reading the listener's address")?;
        let shared = Shared::new(settings);
        let serving = Arc::clone(&shared);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("making a runtime")?;
        let run = move || {
            if let Err(error) = runtime.block_on(serve::accept(listener, serving)) {
                eprintln!("API server: {error:#}");
            }
        };
        let thread = std::thread::Builder::new().name("api-server".into()).spawn(run).context("starting a thread")?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:34567`
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Writes a kubeconfig file that leads here, with the token if there is one.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn kubeconfig(&self, path: &Path) -> Result<()> {
        let user = self.shared.settings.token.as_ref().map_or_else(|| json!({}), |token| json!({"token": token}));
        let config = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "lab",
            "clusters": [{"name": "lab", "cluster": {"server": self.url()}}],
            "users": [{"name": "lab", "user": user}],
            "contexts": [{"name": "lab", "context": {"cluster": "lab", "user": "lab"}}],
        });
        std::fs::write(path, config.to_string()).with_context(|| format!("writing {}", path.display()))
    }

    /// Creates or replaces an object; `kind` says what it is. A missing namespace is `default`. Returns it as stored.
    ///
    /// # Errors
    /// If the kind is not served or the object has no name.
    pub fn apply(&self, mut object: Value) -> Result<Value> {
        let resource = resource_of(object["kind"].as_str().unwrap_or_default())?;
        if object.pointer("/metadata/name").and_then(Value::as_str).is_none_or(str::is_empty) {
            bail!("an object of kind {} has no metadata.name", resource.kind);
        }
        if resource.namespaced && object["metadata"]["namespace"].is_null() {
            object["metadata"]["namespace"] = json!("default");
        }
        Ok(self.shared.write(|store| store.put(resource, object)).to_json())
    }

    /// Removes an object; whether it was there.
    ///
    /// # Errors
    /// If the kind is not served.
    pub fn delete(&self, kind: &str, namespace: &str, name: &str) -> Result<bool> {
        let resource = resource_of(kind)?;
        Ok(self.shared.write(|store| store.remove(resource, namespace, name)).is_some())
    }

    /// An object as stored, `None` if it is not there or its kind is not served.
    #[must_use]
    pub fn get(&self, kind: &str, namespace: &str, name: &str) -> Option<Value> {
        let resource = Resource::of_kind(kind)?;
        self.shared.store().get(resource, namespace, name).map(|stored| stored.to_json())
    }

    /// The newest resourceVersion.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.shared.store().version()
    }

    /// Changes the fault switches: `server.set_fault(|faults| faults.hang = true)`.
    pub fn set_fault(&self, change: impl FnOnce(&mut Faults)) {
        self.shared.signal(|signals| change(&mut signals.faults));
    }

    /// Switches all faults off.
    pub fn clear_faults(&self) {
        self.set_fault(|faults| *faults = Faults::default());
    }

    /// How many watches of a resource, by its plural name, are running: what the three switches below reach.
    #[must_use]
    pub fn watches(&self, plural: &str) -> usize {
        self.shared.watches().get(plural).copied().unwrap_or_default()
    }

    /// Ends all watches cleanly, as at their timeout.
    pub fn close_watches(&self) {
        self.shared.signal(|signals| signals.close_watches += 1);
    }

    /// Ends all watches with an ERROR event 410.
    pub fn expire_watches(&self) {
        self.shared.signal(|signals| signals.expire_watches += 1);
    }

    /// Puts a line that is not JSON into all watches, as a broken proxy does.
    pub fn garble_watches(&self) {
        self.shared.signal(|signals| signals.garble_watches += 1);
    }

    /// Forgets all history: a watch or page from any earlier version gets 410.
    pub fn compact(&self) {
        self.shared.write(|store| {
            // A client that has seen everything must be too old as well.
            store.skip_versions(1);
            store.compact();
        });
    }

    /// Cuts all connections. Objects and versions stay, as when the process behind the address is replaced.
    pub fn restart(&self) {
        self.shared.signal(|signals| signals.cut_connections += 1);
    }

    /// What `kubectl logs` of a pod shows.
    pub fn set_log(&self, pod: &str, text: impl Into<String>) {
        self.shared.logs().insert(pod.to_owned(), text.into());
    }

    /// All objects of a kind; none if it is not served.
    #[must_use]
    pub fn all(&self, kind: &str) -> Vec<Value> {
        let Some(resource) = Resource::of_kind(kind) else { return Vec::new() };
        self.shared.store().objects(resource).values().map(|stored| stored.to_json()).collect()
    }

    /// All requests so far, oldest first.
    #[must_use]
    pub fn requests(&self) -> Vec<RecordedRequest> {
        self.shared.requests().clone()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.requests().clear();
    }

    /// All events.k8s.io/v1 Events that were written, in the order of their keys.
    #[must_use]
    pub fn events(&self) -> Vec<Value> {
        self.all("Event")
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        self.shared.signal(|signals| signals.stop = true);
        if let Some(thread) = self.thread.take() {
            // The thread ends by itself; a panic in it has been printed already.
            let _ = thread.join();
        }
    }
}

fn resource_of(kind: &str) -> Result<&'static Resource> {
    Resource::of_kind(kind).with_context(|| format!("the API server of the lab does not serve the kind \"{kind}\""))
}
