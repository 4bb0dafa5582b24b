//! An initramfs: a cpio archive of the "newc" kind, which is what the kernel unpacks
//! (Documentation/driver-api/early-userspace/buffer-format.rst).

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

const MAGIC: &str = "070701";
/// The name of the entry that ends an archive.
const LAST: &str = "TRAILER!!!";
/// Headers and contents begin at multiples of this.
const ALIGNMENT: usize = 4;

const DIRECTORY: u32 = 0o040_755;
const SYMBOLIC_LINK: u32 = 0o120_777;
const REGULAR: u32 = 0o100_000;
const CHARACTER_DEVICE: u32 = 0o020_600;

/// Writes an archive. Folders above an entry are made when they are first needed.
pub(crate) struct Archive<W> {
    out: W,
    written: usize,
    inode: u32,
    known: BTreeSet<PathBuf>,
}

impl<W: Write> Archive<W> {
    pub(crate) fn new(out: W) -> Self {
        Self { out, written: 0, inode: 0, known: BTreeSet::new() }
    }

    /// A folder, and those above it.
    pub(crate) fn folder(&mut self, path: &Path) -> io::Result<()> {
        let above: Vec<_> = path.ancestors().filter(|folder| folder.components().count() > 1).collect();
        for folder in above.into_iter().rev() {
            if self.known.insert(folder.to_path_buf()) {
                self.entry(folder, DIRECTORY, (0, 0), b"")?;
            }
        }
        Ok(())
    }

    /// A file with these contents; does nothing if the path was written before.
    pub(crate) fn file(&mut self, path: &Path, permissions: u32, contents: &[u8]) -> io::Result<()> {
        self.once(path, |archive| archive.entry(path, REGULAR | (permissions & 0o7777), (0, 0), contents))
    }

    /// A symbolic link.
    pub(crate) fn link(&mut self, path: &Path, target: &Path) -> io::Result<()> {
        let target = target.as_os_str().as_encoded_bytes();
        self.once(path, |archive| archive.entry(path, SYMBOLIC_LINK, (0, 0), target))
    }

    /// The device of the first process's output before it mounts anything.
    pub(crate) fn console(&mut self) -> io::Result<()> {
        /// `/dev/console` (Documentation/admin-guide/devices.txt).
        const NUMBER: (u32, u32) = (5, 1);
        let path = Path::new("/dev/console");
        self.once(path, |archive| archive.entry(path, CHARACTER_DEVICE, NUMBER, b""))
    }

    /// A file of this machine at the same path, through its links: each link is kept, and what it leads to comes along.
    pub(crate) fn copy(&mut self, path: &Path) -> Result<()> {
        // Where it is once the links of its folder are followed: in /usr/lib, where /lib is a link.
        let what = || format!("cannot read {}", path.display());
        let folder = fs::canonicalize(path.parent().unwrap_or(path)).with_context(what)?;
        let path = &folder.join(path.file_name().unwrap_or_default());
        let kind = fs::symlink_metadata(path).with_context(what)?;
        if !kind.is_symlink() {
            return self.copy_to(path, path);
        }
        let target = fs::read_link(path)?;
        self.link(path, &target)?;
        self.copy(&path.parent().unwrap_or(path).join(target))
    }

    /// A file of this machine at another path. A folder brings all that is in it.
    pub(crate) fn copy_to(&mut self, from: &Path, to: &Path) -> Result<()> {
        let what = || format!("cannot read {}", from.display());
        let kind = fs::metadata(from).with_context(what)?;
        if kind.is_dir() {
            self.folder(to)?;
            let mut names = fs::read_dir(from)?.map(|entry| Ok(entry?.file_name())).collect::<io::Result<Vec<_>>>()?;
            names.sort();
            return names.iter().try_for_each(|name| self.copy_to(&from.join(name), &to.join(name)));
        }
        let contents = fs::read(from).with_context(what)?;
        Ok(self.file(to, kind.permissions().mode(), &contents)?)
    }

    /// Ends the archive.
    pub(crate) fn finish(mut self) -> io::Result<W> {
        self.entry(Path::new(LAST), 0, (0, 0), b"")?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn once(&mut self, path: &Path, write: impl FnOnce(&mut Self) -> io::Result<()>) -> io::Result<()> {
        self.folder(path.parent().unwrap_or(path))?;
        if self.known.insert(path.to_path_buf()) { write(self) } else { Ok(()) }
    }

    fn entry(&mut self, path: &Path, mode: u32, device: (u32, u32), contents: &[u8]) -> io::Result<()> {
        let name = path.strip_prefix("/").unwrap_or(path).as_os_str().as_encoded_bytes();
        let too_long = |_| io::Error::new(io::ErrorKind::FileTooLarge, "more than 4 GiB do not fit into an initramfs");
        let length = u32::try_from(contents.len()).map_err(too_long)?;
        let name_length = u32::try_from(name.len() + 1).map_err(too_long)?;
        self.inode += 1;
        let fields = [self.inode, mode, 0, 0, 1, 0, length, 0, 0, device.0, device.1, name_length, 0]
            .map(|f| format!("{f:08x}"));
        self.put(MAGIC.as_bytes())?;
        self.put(fields.concat().as_bytes())?;
        self.put(name)?;
        self.put(b"\0")?;
        self.align()?;
        self.put(contents)?;
        self.align()
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    fn align(&mut self) -> io::Result<()> {
        let missing = self.written.next_multiple_of(ALIGNMENT) - self.written;
        self.put(&[0; ALIGNMENT][..missing])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and contents of each entry, read as the format's description says.
    fn entries(mut archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let whole = archive.len();
        loop {
            assert_eq!(&archive[..6], MAGIC.as_bytes());
            let field = |n: usize| {
                u32::from_str_radix(str::from_utf8(&archive[6 + 8 * n..14 + 8 * n]).unwrap(), 16).unwrap() as usize
            };
            let (mode, size, name_size) = (field(1), field(6), field(11));
            let name = str::from_utf8(&archive[110..110 + name_size - 1]).unwrap().to_owned();
            let data = (110 + name_size).next_multiple_of(4);
            if name == LAST {
                assert_eq!(whole % 4, 0);
                return entries;
            }
            entries.push((name, u32::try_from(mode).unwrap(), archive[data..data + size].to_vec()));
            archive = &archive[(data + size).next_multiple_of(4)..];
        }
    }

    #[test]
    fn folders_come_before_what_is_in_them_and_once() {
        let mut archive = Archive::new(Vec::new());
        archive.file(Path::new("/a/b/one"), 0o755, b"12345").unwrap();
        archive.file(Path::new("/a/b/two"), 0o644, b"").unwrap();
        archive.link(Path::new("/a/three"), Path::new("b/one")).unwrap();
        archive.file(Path::new("/a/b/one"), 0o755, b"not again").unwrap();
        let found = entries(&archive.finish().unwrap());
        let expected = [
            ("a", 0o040_755, ""),
            ("a/b", 0o040_755, ""),
            ("a/b/one", 0o100_755, "12345"),
            ("a/b/two", 0o100_644, ""),
            ("a/three", 0o120_777, "b/one"),
        ];
        let expected = expected.map(|(name, mode, data)| (name.to_owned(), mode, data.as_bytes().to_vec()));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_copied_link_brings_what_it_leads_to() {
        let folder = std::env::temp_dir().join(format!("fairlead-vm-archive-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("library.so.1.2"), "code").unwrap();
        std::os::unix::fs::symlink("library.so.1.2", folder.join("library.so.1")).unwrap();
        let mut archive = Archive::new(Vec::new());
        archive.copy(&folder.join("library.so.1")).unwrap();
        let found = entries(&archive.finish().unwrap());
        fs::remove_dir_all(&folder).unwrap();
        let files: Vec<_> = found.iter().filter(|(_, mode, _)| mode & 0o170_000 != 0o040_000).collect();
        assert_eq!(files.len(), 2);
        assert_eq!((files[0].1, files[0].2.as_slice()), (0o120_777, b"library.so.1.2".as_slice()));
        assert_eq!(files[1].2, b"code");
    }
}
