use std::path::{Path, PathBuf};

use super::document;
use super::manifests::{ManifestError, is_manifest};
use crate::object::Object;

/// Reads files of objects once; of a directory those files that [`super::Source::manifests`] would read.
///
/// # Errors
/// The first file that cannot be read or understood, with line and reason.
pub fn read_files(paths: &[PathBuf]) -> Result<Vec<Object>, ManifestError> {
    let mut objects = Vec::new();
    for path in paths {
        for file in files_of(path)? {
            let text = std::fs::read_to_string(&file).map_err(|source| unreadable(&file, source))?;
            let manifest = document::parse(&file, &text).map_err(|error| ManifestError::Malformed {
                file: file.clone(),
                line: error.line,
                reason: error.reason,
            })?;
            objects.extend(manifest.objects);
        }
    }
    Ok(objects)
}

fn files_of(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    let entries: Vec<PathBuf> = entries.map_err(|source| unreadable(path, source))?;
    let mut files: Vec<PathBuf> = entries
        .into_iter()
        .filter(|path| path.is_file() && path.file_name().map(Path::new).is_some_and(is_manifest))
        .collect();
    files.sort_unstable();
    Ok(files)
}

fn unreadable(path: &Path, source: std::io::Error) -> ManifestError {
    ManifestError::Unreadable { path: path.to_owned(), source }
}
