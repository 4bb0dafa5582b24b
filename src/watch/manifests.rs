//! A directory of manifests as a source.
//!
//! It is looked at five times a second instead of being watched with inotify: a ConfigMap volume changes by swapping
//! the symbolic link `..data`, which inotify reports for neither the files nor their names, and a watch on the
//! directory behind the link dies with it.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    convert::Infallible,
    ffi::OsString,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Cause, Closed, Content, Message, Outlet, Problem,
    document::{self, Manifest},
    files::{Changes, Files},
    kinds::{NodeScope, selected},
    once::Once,
};
use crate::object::{Event, Kind, Object, ObjectName};

/// Which directory to read, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ManifestSettings {
    /// Files ending in `.yaml`, `.yml` or `.json` in it count; hidden ones and subdirectories do not.
    pub directory: PathBuf,
    /// Which Nodes are wanted.
    pub nodes: NodeScope,
    /// How often the directory is looked at. A change counts when it has rested for this long, so that a file is not
    /// read while it is being written.
    pub interval: Duration,
}

impl ManifestSettings {
    /// Reads `directory` every 200 ms.
    #[must_use]
    pub fn new(directory: impl Into<PathBuf>, nodes: NodeScope) -> Self {
        Self { directory: directory.into(), nodes, interval: Duration::from_millis(200) }
    }
}

/// Why a directory of manifests cannot be a source.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// It is missing, no directory, or not readable.
    #[error("cannot read the directory of manifests {}: {error}; name an existing directory", directory.display())]
    Directory {
        /// As given.
        directory: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// A file or directory cannot be read.
    #[error("cannot read {}: {error}; name an existing file", path.display())]
    Unreadable {
        /// As given, or found in the directory given.
        path: PathBuf,
        /// What the kernel says.
        error: io::Error,
    },
    /// A file is not a manifest.
    #[error("{}:{line}: {reason}", path.display())]
    File {
        /// As given.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong there.
        reason: String,
    },
    /// The machine has no more threads.
    #[error("cannot start the thread that reads manifests: {0}")]
    Thread(io::Error),
}

/// The objects in the text of one manifest file, without those that the API server would not select for this node's
/// proxy, and without kinds that fairlead does not use. `path` says in which format it is and stands in errors.
///
/// # Errors
/// [`ManifestError::File`] for the first mistake; there is no partial result.
pub fn parse_manifest(path: &Path, text: &str, nodes: &NodeScope) -> Result<Vec<Object>, ManifestError> {
    let manifest = document::parse(path, text).map_err(|error| ManifestError::File {
        path: path.to_owned(),
        line: error.line,
        reason: error.reason,
    })?;
    Ok(manifest.objects.into_iter().filter(|object| selected(object, nodes)).collect())
}

pub(super) fn start(settings: &ManifestSettings, outlet: Outlet) -> Result<(), ManifestError> {
    let mut directory = Directory::new(settings.clone());
    let names = directory.files.first_look();
    let names = names.map_err(|error| ManifestError::Directory { directory: settings.directory.clone(), error })?;
    let run = move || {
        let Err(Closed) = directory.run(&names, &outlet);
    };
    std::thread::Builder::new().name("manifests".to_owned()).spawn(run).map_err(ManifestError::Thread)?;
    Ok(())
}

type Key = (Kind, ObjectName);
type Objects = BTreeMap<Key, Arc<Object>>;

struct Directory {
    settings: ManifestSettings,
    files: Files,
    /// The last good content of each file.
    contents: BTreeMap<OsString, Objects>,
    /// What has been said to the reader.
    said: Objects,
    once: Once,
    unreadable: bool,
    problems: Vec<Problem>,
}

impl Directory {
    fn new(settings: ManifestSettings) -> Self {
        Self {
            files: Files::new(&settings.directory),
            settings,
            contents: BTreeMap::new(),
            said: Objects::new(),
            once: Once::default(),
            unreadable: false,
            problems: Vec::new(),
        }
    }

    fn run(&mut self, names: &[OsString], outlet: &Outlet) -> Result<Infallible, Closed> {
        let received = Instant::now();
        names.iter().for_each(|name| self.read(name));
        self.say_all(outlet, received)?;
        loop {
            std::thread::sleep(self.settings.interval);
            if outlet.is_closed() {
                return Err(Closed);
            }
            let received = Instant::now();
            if self.look() {
                self.say_changes(outlet, received)?;
            }
            self.report(outlet)?;
        }
    }

    /// Looks at the directory and reads what has changed; whether anything may be different.
    fn look(&mut self) -> bool {
        match self.files.look() {
            Ok(changes) => {
                self.unreadable = false;
                for name in &changes.gone {
                    self.contents.remove(name);
                }
                changes.changed.iter().for_each(|name| self.read(name));
                changes != Changes::default()
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    let directory = self.settings.directory.display();
                    let what = format!("cannot read the directory of manifests {directory}: {error}");
                    self.problem(Cause::File, format!("{what}; all it held stays in force"));
                }
                false
            }
        }
    }

    /// Reads one file; if it is bad, its last good content stays.
    fn read(&mut self, name: &OsString) {
        let path = self.files.path(name);
        let Some(text) = self.files.read(name) else { return };
        let parsed = text.and_then(|text| {
            document::parse(&path, &text)
                .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.reason))
        });
        match parsed {
            Ok(manifest) => self.take(name, &path, manifest),
            Err(what) => {
                let kept = if self.contents.contains_key(name) {
                    "its last good content stays in force"
                } else {
                    "nothing of the file is used"
                };
                self.problem(Cause::File, format!("{what}; {kept}"));
            }
        }
    }

    fn take(&mut self, name: &OsString, path: &Path, manifest: Manifest) {
        let path = path.display();
        let mut objects = Objects::new();
        for object in manifest.objects {
            let (kind, name) = (object.kind(), object.meta().object_name());
            if !selected(&object, &self.settings.nodes) {
                tracing::debug!("{path}: {} {name} is not for this node's proxy", kind.name());
                continue;
            }
            match objects.entry((kind, name)) {
                Entry::Vacant(entry) => {
                    entry.insert(Arc::new(object));
                }
                Entry::Occupied(entry) => {
                    let (kind, name) = entry.key();
                    let what = format!("{path}: {} {name} is defined twice in this file", kind.name());
                    self.problem(Cause::Duplicate, format!("{what}; the first counts, remove the other"));
                }
            }
        }
        for (what, line) in manifest.ignored {
            if self.once.first(("ignored", &what)) {
                let what = format!("{path}:{line}: {what} is ignored, here and everywhere: fairlead does not use it");
                self.problem(Cause::IgnoredKind, what);
            }
        }
        self.contents.insert(name.clone(), objects);
    }

    /// What is in force: of several definitions the one in the first file.
    fn in_force(&mut self) -> Objects {
        let mut winners: BTreeMap<&Key, (&Arc<Object>, &OsString)> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (name, objects) in &self.contents {
            for (key, object) in objects {
                match winners.entry(key) {
                    Entry::Vacant(entry) => {
                        entry.insert((object, name));
                    }
                    Entry::Occupied(entry) if self.once.first((key, entry.get().1, name)) => {
                        let (first, second) = (self.files.path(entry.get().1), self.files.path(name));
                        duplicates.push(format!(
                            "{}: {} {} is defined in {} as well, which comes first by name and counts; remove one",
                            second.display(),
                            key.0.name(),
                            key.1,
                            first.display()
                        ));
                    }
                    Entry::Occupied(_) => {}
                }
            }
        }
        let in_force = winners.into_iter().map(|(key, (object, _))| (key.clone(), Arc::clone(object))).collect();
        duplicates.into_iter().for_each(|what| self.problem(Cause::Duplicate, what));
        in_force
    }

    /// Says everything, as one complete list of each kind.
    fn say_all(&mut self, outlet: &Outlet, received: Instant) -> Result<(), Closed> {
        self.said = self.in_force();
        self.report(outlet)?;
        for kind in Kind::ALL {
            send(outlet, received, Event::ListBegin(kind))?;
            for object in self.said.values().filter(|object| object.kind() == kind) {
                send(outlet, received, Event::Apply(Box::new(Object::clone(object))))?;
            }
            send(outlet, received, Event::ListEnd(kind))?;
        }
        Ok(())
    }

    /// Says what is different from what was said.
    fn say_changes(&mut self, outlet: &Outlet, received: Instant) -> Result<(), Closed> {
        let now = self.in_force();
        self.report(outlet)?;
        let before = std::mem::replace(&mut self.said, now);
        for key in before.keys().filter(|key| !self.said.contains_key(key)) {
            send(outlet, received, Event::Delete(key.0, key.1.clone()))?;
        }
        for (key, object) in &self.said {
            if before.get(key).is_none_or(|before| before != object) {
                send(outlet, received, Event::Apply(Box::new(Object::clone(object))))?;
            }
        }
        Ok(())
    }

    fn problem(&mut self, cause: Cause, what: String) {
        if cause == Cause::IgnoredKind {
            tracing::info!("{what}");
        } else {
            tracing::warn!(cause = cause.label(), "{what}");
        }
        self.problems.push(Problem { cause, what });
    }

    fn report(&mut self, outlet: &Outlet) -> Result<(), Closed> {
        self.problems.drain(..).try_for_each(|problem| {
            outlet.send_blocking(Message { received: Instant::now(), content: Content::Problem(problem) })
        })
    }
}

fn send(outlet: &Outlet, received: Instant, event: Event) -> Result<(), Closed> {
    outlet.send_blocking(Message { received, content: Content::Event(event) })
}
