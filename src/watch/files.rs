//! Which files of a directory have changed and come to rest.

use std::{
    collections::BTreeMap,
    ffi::{OsStr, OsString},
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

/// Tells whether a file has changed. Includes the time of the last status change, which no program can set back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Signature {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Signature {
    /// Of a regular file, through links. A dangling link, or a file that has just vanished, is missing.
    fn of(path: &Path) -> Option<Self> {
        let metadata = fs::metadata(path).ok().filter(fs::Metadata::is_file)?;
        Some(Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        })
    }
}

#[derive(Debug, Default)]
struct File {
    /// At the last look, `None` if it was missing.
    seen: Option<Signature>,
    /// At the look before.
    seen_before: Option<Signature>,
    /// When it was last read.
    read: Option<Signature>,
}

/// What a look has found. A change counts at the second look that sees it: by then the writer is done, or an editor
/// that removes the file before it writes the new one has done so.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub gone: Vec<OsString>,
    pub changed: Vec<OsString>,
}

/// The manifest files of a directory.
#[derive(Debug)]
pub(super) struct Files {
    directory: PathBuf,
    files: BTreeMap<OsString, File>,
}

impl Files {
    pub fn new(directory: &Path) -> Self {
        Self { directory: directory.to_owned(), files: BTreeMap::new() }
    }

    pub fn path(&self, name: &OsStr) -> PathBuf {
        self.directory.join(name)
    }

    /// All files that are there.
    pub fn first_look(&mut self) -> io::Result<Vec<OsString>> {
        self.scan()?;
        Ok(self.files.keys().cloned().collect())
    }

    pub fn look(&mut self) -> io::Result<Changes> {
        self.scan()?;
        let mut changes = Changes::default();
        for (name, file) in self.files.iter().filter(|(_, file)| file.seen == file.seen_before) {
            match file.seen {
                None => changes.gone.push(name.clone()),
                seen if seen != file.read => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        for name in &changes.gone {
            self.files.remove(name);
        }
        Ok(changes)
    }

    fn scan(&mut self) -> io::Result<()> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            names.push(entry?.file_name());
        }
        for file in self.files.values_mut() {
            file.seen_before = file.seen.take();
        }
        for name in names.into_iter().filter(|name| is_manifest(Path::new(name))) {
            if let Some(signature) = Signature::of(&self.directory.join(&name)) {
                self.files.entry(name).or_default().seen = Some(signature);
            }
        }
        Ok(())
    }

    /// The text of a file, or why there is none; `None` if it changed meanwhile and is to be read later.
    pub fn read(&mut self, name: &OsStr) -> Option<Result<String, String>> {
        let path = self.path(name);
        let file = self.files.get_mut(name)?;
        let text = fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()));
        if file.seen != Signature::of(&path) {
            return None;
        }
        file.read = file.seen;
        Some(text)
    }
}

pub(super) fn is_manifest(name: &Path) -> bool {
    let hidden = name.as_os_str().as_encoded_bytes().starts_with(b".");
    let suffix = name.extension().and_then(|suffix| suffix.to_str());
    !hidden && matches!(suffix, Some("yaml" | "yml" | "json"))
}
