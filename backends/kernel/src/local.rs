//! Sockets in the file system, by which a program on this machine is asked (`AF_UNIX`, `unix(7)`).

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// The owner alone may ask.
const MODE: u32 = 0o600;
/// Of the directory, if it has to be made.
const DIRECTORY_MODE: u32 = 0o755;

/// A socket that answers at a path. Dropping it removes the path, if it still leads here.
#[derive(Debug)]
pub struct Local {
    /// Where connections come in.
    pub listener: UnixListener,
    path: PathBuf,
    /// Device and inode.
    identity: (u64, u64),
}

/// Listens at a path with mode 0600, in the place of whatever socket was there: one that nobody answers on, or that of a process
/// that this one takes over from. The directory is made if it is missing.
///
/// # Errors
/// As the system says; [`io::ErrorKind::AlreadyExists`] if what is there is no socket.
pub fn listen(path: &Path) -> io::Result<Local> {
    use std::os::unix::fs::FileTypeExt;
    if fs::symlink_metadata(path).is_ok_and(|there| !there.file_type().is_socket()) {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is there is no socket"));
    }
    if let Some(directory) = path.parent().filter(|directory| !directory.as_os_str().is_empty()) {
        fs::DirBuilder::new().recursive(true).mode(DIRECTORY_MODE).create(directory)?;
    }
    // Under its name from the moment on which nobody else may use it.
    let mut part = path.as_os_str().to_owned();
    part.push(format!(".{}", std::process::id()));
    let part = PathBuf::from(part);
    // One of an earlier process of this number.
    let _ = fs::remove_file(&part);
    let listener = UnixListener::bind(&part)?;
    let named = fs::set_permissions(&part, fs::Permissions::from_mode(MODE)).and_then(|()| {
        let there = fs::symlink_metadata(&part)?;
        fs::rename(&part, path)?;
        Ok((there.dev(), there.ino()))
    });
    if named.is_err() {
        // What was made must not stay.
        let _ = fs::remove_file(&part);
    }
    Ok(Local { listener, path: path.to_owned(), identity: named? })
}

/// Connects to whoever answers at a path.
///
/// # Errors
/// As the system says; [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] mean that nobody does.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    UnixStream::connect(path)
}

impl Drop for Local {
    fn drop(&mut self) {
        let ours = fs::symlink_metadata(&self.path).is_ok_and(|there| (there.dev(), there.ino()) == self.identity);
        if ours {
            // Nobody asks a program that ends.
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn the_newest_answers_and_the_others_leave_its_path_alone() {
        let directory = std::env::temp_dir().join(format!("fairlead-local-{}", std::process::id()));
        let path = directory.join("deep").join("fairlead.sock");
        let old = listen(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, MODE);
        let new = listen(&path).unwrap();
        drop(old);
        let mut client = connect(&path).unwrap();
        client.write_all(b"who").unwrap();
        drop(client);
        let mut said = String::new();
        new.listener.accept().unwrap().0.read_to_string(&mut said).unwrap();
        assert_eq!(said, "who");
        drop(new);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        fs::write(&path, "no socket").unwrap();
        assert_eq!(listen(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "no socket");
        fs::remove_dir_all(&directory).unwrap();
    }
}
