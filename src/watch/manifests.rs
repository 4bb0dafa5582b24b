//! A directory of manifests as a source.
//!
//! It is looked at five times a second instead of being watched with inotify: a ConfigMap volume changes by swapping
//! the symbolic link `..data`, which inotify reports for neither the files nor their names, and a watch on the
//! directory behind the link dies with it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Cause, Closed, Content, Message, Outlet, Problem,
    document::{self, Manifest},
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
    /// A file cannot be read.
    #[error("cannot read {}: {source}; name an existing file", path.display())]
    Unreadable {
        /// As given, or found in the directory given.
        path: PathBuf,
        /// What the kernel says.
        source: io::Error,
    },
    /// A file is no manifest.
    #[error("{}:{line}: {reason}", file.display())]
    Malformed {
        /// As given, or found in the directory given.
        file: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: String,
    },
    /// The machine has no more threads.
    #[error("cannot start the thread that reads manifests: {0}")]
    Thread(io::Error),
}

pub(super) fn start(settings: &ManifestSettings, outlet: Outlet) -> Result<(), ManifestError> {
    let mut directory = Directory::new(settings.clone());
    directory.scan().map_err(|error| ManifestError::Directory { directory: settings.directory.clone(), error })?;
    let run = move || {
        let Err(Closed) = directory.run(&outlet);
    };
    std::thread::Builder::new().name("manifests".to_owned()).spawn(run).map_err(ManifestError::Thread)?;
    Ok(())
}

type Key = (Kind, ObjectName);

/// Tells whether a file has changed. Includes the time of the last status change, which no program can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

#[derive(Debug, Default)]
struct File {
    /// As seen at the last look, `None` if it was missing.
    seen: Option<Signature>,
    /// As it was when it was last read, well or not.
    read: Option<Signature>,
    /// The last good content.
    objects: BTreeMap<Key, Arc<Object>>,
}

struct Directory {
    settings: ManifestSettings,
    files: BTreeMap<OsString, File>,
    /// What has been said to the reader.
    said: BTreeMap<Key, Arc<Object>>,
    once: Once,
    unreadable: bool,
    problems: Vec<Problem>,
}

impl Directory {
    fn new(settings: ManifestSettings) -> Self {
        Self {
            settings,
            files: BTreeMap::new(),
            said: BTreeMap::new(),
            once: Once::default(),
            unreadable: false,
            problems: Vec::new(),
        }
    }

    fn run(&mut self, outlet: &Outlet) -> Result<std::convert::Infallible, Closed> {
        let mut received = Instant::now();
        self.read_all();
        self.say(outlet, received, true)?;
        loop {
            std::thread::sleep(self.settings.interval);
            if outlet.is_closed() {
                return Err(Closed);
            }
            received = Instant::now();
            let Some(before) = self.look() else {
                self.report(outlet)?;
                continue;
            };
            if self.settle(&before) {
                self.say(outlet, received, false)?;
            }
            self.report(outlet)?;
        }
    }

    /// Looks at the directory; what the files looked like before, `None` if it cannot be read now.
    fn look(&mut self) -> Option<BTreeMap<OsString, Option<Signature>>> {
        let before = self.files.iter().map(|(name, file)| (name.clone(), file.seen)).collect();
        match self.scan() {
            Ok(()) => {
                self.unreadable = false;
                Some(before)
            }
            Err(error) => {
                if !std::mem::replace(&mut self.unreadable, true) {
                    let directory = self.settings.directory.display();
                    self.problem(
                        Cause::File,
                        format!(
                            "cannot read the directory of manifests {directory}: {error}; all it held stays in force"
                        ),
                    );
                }
                None
            }
        }
    }

    /// Reads what has changed and rested, forgets what is gone for two looks; whether anything may be different.
    fn settle(&mut self, before: &BTreeMap<OsString, Option<Signature>>) -> bool {
        let rested: BTreeSet<OsString> = self
            .files
            .iter()
            .filter(|(name, file)| before.get(*name).is_some_and(|before| *before == file.seen))
            .map(|(name, _)| name.clone())
            .collect();
        let known = self.files.len();
        self.files.retain(|name, file| file.seen.is_some() || !rested.contains(name));
        let changed: Vec<OsString> = self
            .files
            .iter()
            .filter(|(name, file)| file.seen != file.read && file.seen.is_some() && rested.contains(*name))
            .map(|(name, _)| name.clone())
            .collect();
        let gone = known != self.files.len();
        let any = gone || !changed.is_empty();
        for name in changed {
            self.read(&name);
        }
        any
    }

    fn read_all(&mut self) {
        let names: Vec<OsString> = self.files.keys().cloned().collect();
        for name in names {
            self.read(&name);
        }
    }

    fn scan(&mut self) -> io::Result<()> {
        let mut found = BTreeMap::new();
        for entry in std::fs::read_dir(&self.settings.directory)? {
            let name = entry?.file_name();
            if is_manifest(Path::new(&name)) {
                let metadata = std::fs::metadata(self.settings.directory.join(&name));
                // A dangling link or a file that vanished meanwhile is missing; it is not the directory's fault.
                if let Ok(metadata) = metadata
                    && metadata.is_file()
                {
                    found.insert(name, signature(&metadata));
                }
            }
        }
        for (name, file) in &mut self.files {
            file.seen = found.remove(name);
        }
        self.files.extend(found.into_iter().map(|(name, seen)| (name, File { seen: Some(seen), ..File::default() })));
        Ok(())
    }

    /// Reads one file; if it is bad, its last good content stays.
    fn read(&mut self, name: &OsString) {
        let path = self.settings.directory.join(name);
        let parsed = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
        let parsed = parsed.and_then(|text| {
            document::parse(&path, &text)
                .map_err(|error| format!("{}:{}: {}", path.display(), error.line, error.reason))
        });
        let Some(file) = self.files.get_mut(name) else { return };
        file.read = file.seen;
        match parsed {
            Ok(manifest) => self.take(name, &path, manifest),
            Err(what) => {
                let kept = if file.objects.is_empty() {
                    "nothing of the file is used"
                } else {
                    "its last good content stays in force"
                };
                self.problem(Cause::File, format!("{what}; {kept}"));
            }
        }
    }

    fn take(&mut self, name: &OsString, path: &Path, manifest: Manifest) {
        let mut objects = BTreeMap::new();
        for object in manifest.objects {
            let key = (object.kind(), object.meta().object_name());
            if objects.contains_key(&key) {
                let (kind, object) = (key.0.name(), &key.1);
                let what =
                    format!("{}: {kind} {object} is defined twice in this file; the first counts", path.display());
                self.problem(Cause::Duplicate, what);
            } else if selected(&object, &self.settings.nodes) {
                objects.insert(key, Arc::new(object));
            }
        }
        for (what, line) in manifest.ignored {
            if self.once.first(("ignored", &what)) {
                let what = format!(
                    "{}:{line}: {what} is ignored, here and everywhere: fairlead does not use it",
                    path.display()
                );
                self.problem(Cause::IgnoredKind, what);
            }
        }
        if let Some(file) = self.files.get_mut(name) {
            file.objects = objects;
        }
    }

    /// What is in force: of several definitions the one in the first file.
    fn in_force(&mut self) -> BTreeMap<Key, Arc<Object>> {
        let mut winners: BTreeMap<Key, (Arc<Object>, OsString)> = BTreeMap::new();
        let mut duplicates = Vec::new();
        for (name, file) in &self.files {
            for (key, object) in &file.objects {
                if let Some((_, winner)) = winners.get(key) {
                    duplicates.push((key.clone(), winner.clone(), name.clone()));
                } else {
                    winners.insert(key.clone(), (Arc::clone(object), name.clone()));
                }
            }
        }
        for (key, winner, loser) in duplicates {
            if self.once.first((&key, &winner, &loser)) {
                let (loser, winner) = (self.settings.directory.join(loser), self.settings.directory.join(winner));
                let what = format!(
                    "{}: {} {} is defined in {} as well, which comes first by name and counts; remove one of them",
                    loser.display(),
                    key.0.name(),
                    key.1,
                    winner.display()
                );
                self.problem(Cause::Duplicate, what);
            }
        }
        winners.into_iter().map(|(key, (object, _))| (key, object)).collect()
    }

    /// Says what is different from what was said, or everything as complete lists.
    fn say(&mut self, outlet: &Outlet, received: Instant, first: bool) -> Result<(), Closed> {
        let now = self.in_force();
        self.report(outlet)?;
        let before = std::mem::replace(&mut self.said, now);
        let send = |event| outlet.send_blocking(Message { received, content: Content::Event(event) });
        if first {
            for kind in Kind::ALL {
                send(Event::ListBegin(kind))?;
                for object in self.said.values().filter(|object| object.kind() == kind) {
                    send(Event::Apply(Box::new(Object::clone(object))))?;
                }
                send(Event::ListEnd(kind))?;
            }
            return Ok(());
        }
        for key in before.keys().filter(|key| !self.said.contains_key(key)) {
            send(Event::Delete(key.0, key.1.clone()))?;
        }
        for (key, object) in &self.said {
            if before.get(key).is_none_or(|before| before != object) {
                send(Event::Apply(Box::new(Object::clone(object))))?;
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

pub(super) fn is_manifest(name: &Path) -> bool {
    let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
    let suffix = name.extension().and_then(|suffix| suffix.to_str());
    !hidden && matches!(suffix, Some("yaml" | "yml" | "json"))
}

fn signature(metadata: &std::fs::Metadata) -> Signature {
    Signature {
        device: metadata.dev(),
        inode: metadata.ino(),
        size: metadata.size(),
        modified: (metadata.mtime(), metadata.mtime_nsec()),
        changed: (metadata.ctime(), metadata.ctime_nsec()),
    }
}
