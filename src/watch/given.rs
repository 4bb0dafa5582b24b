use std::path::{Path, PathBuf};

use super::NodeScope;
use super::files::is_manifest;
use super::manifests::{ManifestError, parse_manifest};
use crate::object::Object;

/// Reads files of objects once; of a directory those files that [`super::Source::manifests`] would read.
///
/// # Errors
/// The first file that cannot be read or understood, with line and reason.
pub fn read_files(paths: &[PathBuf], nodes: &NodeScope) -> Result<Vec<Object>, ManifestError> {
    let mut objects = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = std::fs::read_to_string(&file).map_err(|error| unreadable(&file, error))?;
            objects.extend(parse_manifest(&file, &text, nodes)?);
        }
    }
    Ok(objects)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let mut files: Vec<PathBuf> = entries.map_err(|error| unreadable(path, error))?;
    files.retain(|path| path.is_file() && path.file_name().map(Path::new).is_some_and(is_manifest));
    files.sort_unstable();
    Ok(files)
}

fn unreadable(path: &Path, error: std::io::Error) -> ManifestError {
    ManifestError::Unreadable { path: path.to_owned(), error }
}
