//! Files that others read while they are written.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

/// Readable for all, writable for the owner.
const MODE: u32 = 0o644;

/// Puts a file with this content and mode 0644 in the place of the path, at once: whoever reads sees all of the old or all of
/// the new. The directory is made if it is missing.
///
/// # Errors
/// As the system says; then the old file is as it was.
pub fn replace(path: &Path, content: &[u8]) -> io::Result<()> {
    let (Some(directory), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "names no file"));
    };
    fs::create_dir_all(directory)?;
    // Programs that read a directory leave out names that begin so, and what does not end as they want it.
    let part = directory.join(format!(".{}.{}.part", name.to_string_lossy(), std::process::id()));
    let written = write(&part, content).and_then(|()| fs::rename(&part, path));
    if written.is_err() {
        // What was not made cannot be removed.
        let _ = fs::remove_file(&part);
    }
    written
}

fn write(part: &Path, content: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(MODE).open(part)?;
    file.write_all(content)?;
    // The mode at creation is less what the process masks.
    file.set_permissions(fs::Permissions::from_mode(MODE))?;
    file.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_and_leaves_nothing_beside_it() {
        let directory = std::env::temp_dir().join(format!("fairlead-file-{}", std::process::id()));
        let path = directory.join("deep").join("subnet.env");
        replace(&path, b"first and longer").unwrap();
        replace(&path, b"second").unwrap();
        assert_eq!(fs::read(&path).unwrap(), b"second");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        assert_eq!(fs::read_dir(directory.join("deep")).unwrap().count(), 1);
        fs::create_dir(directory.join("taken")).unwrap();
        assert!(replace(&directory.join("taken"), b"x").is_err(), "a directory is in its place");
        assert_eq!(fs::read_dir(&directory).unwrap().count(), 2, "no part of it is left");
        fs::remove_dir_all(&directory).unwrap();
    }
}
