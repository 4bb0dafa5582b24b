//! What all connections share: the store, the fault switches, the signals, the record of requests.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::watch;

use super::{Settings, daemons, store::Store};

/// What goes wrong on purpose. All off by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Faults {
    /// New connections are reset at once and the open ones are cut.
    pub refuse: bool,
    /// Nothing is answered and watches say nothing; connections stay open.
    pub hang: bool,
    /// No bookmark is sent, not even the one that ends an initial list.
    pub drop_bookmarks: bool,
    /// Every list, and the start of every streamed list, takes this long.
    pub slow_lists: Duration,
    /// Plural names of resources that are answered with 403.
    pub forbidden: BTreeSet<String>,
    /// A watch from a forgotten version gets HTTP status 410 and not an ERROR event in a stream with status 200.
    pub gone_as_status: bool,
}

/// Told to every connection and watch when it changes.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    /// The store's version.
    pub version: u64,
    /// Raised to end all watches cleanly.
    pub close_watches: u64,
    /// Raised to end all watches with an ERROR event 410.
    pub expire_watches: u64,
    /// Raised to put a line into all watches that is not JSON.
    pub garble_watches: u64,
    /// Raised to cut all connections.
    pub cut_connections: u64,
    /// Raised to end the server.
    pub stop: bool,
    pub faults: Faults,
}

/// One request, in the words of RBAC.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RecordedRequest {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`; for paths outside the API `get`.
    pub verb: String,
    /// API group, empty for the core group.
    pub group: String,
    /// Plural name, empty for paths outside the API.
    pub resource: String,
    /// `status`, for pods also `log`, `exec` and `portforward`; or empty.
    pub subresource: String,
    /// Empty for all namespaces and for objects of the cluster.
    pub namespace: String,
    /// Empty for lists and watches.
    pub name: String,
    /// Path and query as they came.
    pub uri: String,
}

pub(super) struct Shared {
    pub settings: Settings,
    store: Mutex<Store>,
    requests: Mutex<Vec<RecordedRequest>>,
    /// Running watches by plural name.
    watches: Mutex<BTreeMap<&'static str, usize>>,
    /// What pods have logged, by their names.
    logs: Mutex<BTreeMap<String, String>>,
    signals: watch::Sender<Signals>,
}

impl Shared {
    pub fn new(settings: Settings) -> Arc<Self> {
        let store = Store::default();
        let signals = Signals { version: store.version(), ..Signals::default() };
        Arc::new(Self {
            settings,
            store: Mutex::new(store),
            requests: Mutex::default(),
            watches: Mutex::default(),
            logs: Mutex::default(),
            signals: watch::Sender::new(signals),
        })
    }

    pub fn store(&self) -> MutexGuard<'_, Store> {
        self.store.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the store and wakes the watches.
    pub fn write<T>(&self, change: impl FnOnce(&mut Store) -> T) -> T {
        let mut store = self.store();
        let result = change(&mut store);
        daemons::settle(&mut store);
        let version = store.version();
        drop(store);
        self.signal(|signals| signals.version = signals.version.max(version));
        result
    }

    pub fn signal(&self, change: impl FnOnce(&mut Signals)) {
        self.signals.send_modify(change);
    }

    pub fn subscribe(&self) -> watch::Receiver<Signals> {
        self.signals.subscribe()
    }

    pub fn faults(&self) -> Faults {
        self.signals.borrow().faults.clone()
    }

    pub fn watches(&self) -> MutexGuard<'_, BTreeMap<&'static str, usize>> {
        self.watches.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn logs(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn requests(&self) -> MutexGuard<'_, Vec<RecordedRequest>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
