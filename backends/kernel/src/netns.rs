//! Network namespaces, for tests and the lab.
//!
//! A namespace belongs to a *thread*, not to the process: [`Netns::enter`] changes only the calling thread, threads
//! started later inherit the starter's namespace, and a socket stays in the namespace in which it was opened. Never
//! enter one on a thread that is shared with other work, such as a runtime's worker; [`Netns::run`] takes a thread of
//! its own.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::thread;

/// Where `ip netns` keeps its names.
const NAMED: &str = "/run/netns";

/// A network namespace, kept alive by this handle.
#[derive(Debug)]
pub struct Netns {
    fd: OwnedFd,
}

impl Netns {
    /// Another handle to the same namespace.
    ///
    /// # Errors
    /// If the process has too many open files.
    pub fn try_clone(&self) -> io::Result<Self> {
        Ok(Self { fd: self.fd.try_clone()? })
    }

    /// The namespace of the calling thread.
    ///
    /// # Errors
    /// If `/proc` is not there.
    pub fn current() -> io::Result<Self> {
        Self::open(Path::new("/proc/thread-self/ns/net"))
    }

    /// A namespace that `ip netns add` made.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn open_named(name: &str) -> io::Result<Self> {
        Self::open(&Path::new(NAMED).join(name))
    }

    /// A namespace by a path like `/proc/PID/ns/net`.
    ///
    /// # Errors
    /// If the path cannot be opened.
    pub fn open(path: &Path) -> io::Result<Self> {
        let file = File::open(path).map_err(|error| {
            io::Error::new(error.kind(), format!("cannot open network namespace {}: {error}", path.display()))
        })?;
        Ok(Self { fd: file.into() })
    }

    /// A fresh, empty namespace; the calling thread stays where it is.
    ///
    /// # Errors
    /// If the process lacks `CAP_SYS_ADMIN`.
    pub fn create() -> io::Result<Self> {
        thread::scope(|scope| {
            let made = scope.spawn(|| {
                unshare()?;
                Self::current()
            });
            made.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Moves the calling thread into this namespace, for good.
    ///
    /// # Errors
    /// If the process lacks `CAP_SYS_ADMIN`.
    pub fn enter(&self) -> io::Result<()> {
        // SAFETY: no pointers are passed, and `fd` is open for as long as `self` lives.
        let result = unsafe { libc::setns(self.fd.as_raw_fd(), libc::CLONE_NEWNET) };
        if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Runs `work` on a new thread inside this namespace and waits for it. A panic of `work` goes on in the caller.
    ///
    /// # Errors
    /// If the namespace cannot be entered; then `work` was not run.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        thread::scope(|scope| {
            let worker = scope.spawn(|| self.enter().map(|()| work()));
            worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }
}

impl AsFd for Netns {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

/// Gives the calling thread, for good, a view of its own of the file system, in which this directory is empty. Threads and
/// programs that it starts later share the view; nobody else sees what happens there.
///
/// # Errors
/// If the process lacks `CAP_SYS_ADMIN`, or there is no such directory.
pub fn cover(directory: &Path) -> io::Result<()> {
    let path = std::ffi::CString::new(directory.as_os_str().as_encoded_bytes())?;
    // SAFETY: no pointers are passed; only the calling thread's view changes.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let nothing = std::ptr::null();
    // SAFETY: the strings end with a zero and live through the call; the other pointers may be null with these flags.
    let alone =
        unsafe { libc::mount(nothing, c"/".as_ptr(), nothing, libc::MS_REC | libc::MS_PRIVATE, nothing.cast()) };
    if alone < 0 {
        return Err(io::Error::last_os_error());
    }
    let tmpfs = c"tmpfs".as_ptr();
    // SAFETY: the strings end with a zero and live through the call; a file system in memory needs no data.
    let covered = unsafe { libc::mount(tmpfs, path.as_ptr(), tmpfs, 0, nothing.cast()) };
    if covered < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Moves the calling thread into a fresh, empty namespace, for good. It vanishes with its last thread, socket and
/// handle.
///
/// # Errors
/// If the process lacks `CAP_SYS_ADMIN`.
pub fn unshare() -> io::Result<()> {
    // SAFETY: no pointers are passed; only the calling thread's namespace changes.
    let result = unsafe { libc::unshare(libc::CLONE_NEWNET) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
