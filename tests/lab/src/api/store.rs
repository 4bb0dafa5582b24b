//! The objects, each kept as the JSON text that is sent, and the history that watches follow.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};

use hyper::body::Bytes;
use serde_json::{Value, json};

use super::{
    resources::{RESOURCES, Resource},
    time::rfc3339_now,
};

/// The version of an empty store. Not 0 or 1, because "0" means "any version" in a request.
const FIRST_VERSION: u64 = 1000;
/// Changes that are remembered for watches; the oldest are forgotten, as with a compaction.
const HISTORY: usize = 200_000;

/// One version of one object.
#[derive(Debug)]
pub struct Stored {
    /// Empty for objects of the cluster.
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `metadata.labels`
    pub labels: BTreeMap<String, String>,
    /// `spec.clusterIP`, empty if there is none.
    pub cluster_ip: Box<str>,
    /// The object without `kind` and `apiVersion`, as lists carry it.
    pub body: Bytes,
}

impl Stored {
    /// Takes an object whose metadata is complete.
    pub fn from_json(mut object: Value) -> Self {
        if let Some(fields) = object.as_object_mut() {
            fields.remove("kind");
            fields.remove("apiVersion");
        }
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().into();
        let labels = object.pointer("/metadata/labels").and_then(Value::as_object);
        let labels =
            labels.into_iter().flatten().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.into())));
        Self {
            namespace: text("/metadata/namespace"),
            name: text("/metadata/name"),
            cluster_ip: text("/spec/clusterIP"),
            labels: labels.collect(),
            body: Bytes::from(object.to_string()),
        }
    }

    /// The object as JSON, without `kind` and `apiVersion`.
    pub fn to_json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("the store holds what it has serialised itself")
    }

    /// The text of the object with `kind` and `apiVersion`, as it is sent alone.
    pub fn write(&self, resource: &Resource, into: &mut Vec<u8>) {
        let head = format!(r#"{{"kind":"{}","apiVersion":"{}""#, resource.kind, resource.api_version());
        into.extend_from_slice(head.as_bytes());
        if self.body.len() > 2 {
            into.push(b',');
        }
        into.extend_from_slice(&self.body[1..]);
    }
}

/// Namespace and name; sorts as the API sorts lists.
pub type Key = (Box<str>, Box<str>);

/// The objects of one resource.
pub type Objects = BTreeMap<Key, Arc<Stored>>;

/// One write.
#[derive(Debug)]
pub struct Change {
    /// The version that it made.
    pub version: u64,
    /// What was written.
    pub resource: &'static Resource,
    /// The new state; for a deletion the last one, with the version of the deletion.
    pub now: Arc<Stored>,
    /// The state before.
    pub before: Option<Arc<Stored>>,
    /// Whether the object is gone.
    pub deleted: bool,
}

/// All objects and the recent changes.
#[derive(Debug)]
pub struct Store {
    version: u64,
    objects: Vec<Objects>,
    log: VecDeque<Change>,
    /// Changes up to this version are forgotten.
    forgotten: u64,
    uids: u64,
}

impl Default for Store {
    fn default() -> Self {
        Self {
            version: FIRST_VERSION,
            objects: RESOURCES.iter().map(|_| Objects::new()).collect(),
            log: VecDeque::new(),
            forgotten: FIRST_VERSION - 1,
            uids: 0,
        }
    }
}

impl Store {
    /// The newest version.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// The oldest version from which a watch can still start.
    pub fn oldest(&self) -> u64 {
        self.forgotten
    }

    /// All objects of a resource, now.
    pub fn objects(&self, resource: &Resource) -> &Objects {
        &self.objects[resource.index()]
    }

    /// One object.
    pub fn get(&self, resource: &Resource, namespace: &str, name: &str) -> Option<&Arc<Stored>> {
        self.objects(resource).get(&(namespace.into(), name.into()))
    }

    /// The objects as they were at `version`, `None` if that is forgotten.
    pub fn objects_at(&self, resource: &Resource, version: u64) -> Option<Objects> {
        if version < self.forgotten {
            return None;
        }
        let mut objects = self.objects(resource).clone();
        let later = self.log.iter().rev().take_while(|change| change.version > version);
        for change in later.filter(|change| change.resource == resource) {
            let key = (change.now.namespace.clone(), change.now.name.clone());
            match &change.before {
                Some(before) => objects.insert(key, Arc::clone(before)),
                None => objects.remove(&key),
            };
        }
        Some(objects)
    }

    /// The changes after `version`, oldest first, `None` if some of them are forgotten.
    pub fn changes_after(&self, version: u64) -> Option<impl Iterator<Item = &Change>> {
        if version < self.forgotten {
            return None;
        }
        let start = self.log.partition_point(|change| change.version <= version);
        Some(self.log.range(start..))
    }

    /// Creates or replaces an object. Fills uid, creationTimestamp, resourceVersion and generation.
    pub fn put(&mut self, resource: &'static Resource, mut object: Value) -> Arc<Stored> {
        let probe = Stored::from_json(json!({"metadata": object["metadata"]}));
        let key = (probe.namespace, probe.name);
        let before = self.objects[resource.index()].get(&key).cloned();
        let old = before.as_ref().map(|stored| stored.to_json());
        self.version += 1;
        self.fill_metadata(&mut object, old.as_ref());
        let now = Arc::new(Stored::from_json(object));
        self.objects[resource.index()].insert(key, Arc::clone(&now));
        self.record(Change { version: self.version, resource, now: Arc::clone(&now), before, deleted: false });
        now
    }

    fn fill_metadata(&mut self, object: &mut Value, old: Option<&Value>) {
        let generation = match old {
            Some(old) => {
                let generation = old["metadata"]["generation"].as_u64().unwrap_or(1);
                generation + u64::from(wanted_state(old) != wanted_state(object))
            }
            None => 1,
        };
        if !object["metadata"].is_object() {
            object["metadata"] = json!({});
        }
        let metadata = &mut object["metadata"];
        for field in ["uid", "creationTimestamp"] {
            if let Some(old) = old {
                metadata[field] = old["metadata"][field].clone();
            }
        }
        if metadata["uid"].is_null() {
            self.uids += 1;
            metadata["uid"] = json!(format!("00000000-0000-4000-8000-{:012x}", self.uids));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!(rfc3339_now());
        }
        metadata["resourceVersion"] = json!(self.version.to_string());
        metadata["generation"] = json!(generation);
    }

    /// Removes an object; its last state, if it existed.
    pub fn remove(&mut self, resource: &'static Resource, namespace: &str, name: &str) -> Option<Arc<Stored>> {
        let before = self.objects[resource.index()].remove(&(namespace.into(), name.into()))?;
        self.version += 1;
        let now = Arc::new(with_version(&before, self.version));
        self.record(Change {
            version: self.version,
            resource,
            now: Arc::clone(&now),
            before: Some(before),
            deleted: true,
        });
        Some(now)
    }

    /// Forgets all history: watches and pages from older versions get 410.
    pub fn compact(&mut self) {
        self.log.clear();
        self.forgotten = self.version;
    }

    /// Makes the next write at least this far away, so that a later compaction leaves a gap behind.
    pub fn skip_versions(&mut self, count: u64) {
        self.version += count;
    }

    fn record(&mut self, change: Change) {
        self.log.push_back(change);
        if self.log.len() > HISTORY
            && let Some(dropped) = self.log.pop_front()
        {
            self.forgotten = dropped.version;
        }
    }
}

/// The object with another resourceVersion, as a DELETED event carries it.
pub fn with_version(stored: &Stored, version: u64) -> Stored {
    let mut object = stored.to_json();
    object["metadata"]["resourceVersion"] = json!(version.to_string());
    Stored::from_json(object)
}

/// Everything whose change raises `metadata.generation`.
fn wanted_state(object: &Value) -> Value {
    let mut object = object.clone();
    if let Some(fields) = object.as_object_mut() {
        for field in ["metadata", "status", "kind", "apiVersion"] {
            fields.remove(field);
        }
    }
    object
}
