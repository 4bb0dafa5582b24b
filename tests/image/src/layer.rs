//! A layer: a tar archive (POSIX.1-1988 "ustar") whose bytes follow from paths and contents alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

/// tar counts in blocks of so many bytes.
const BLOCK: usize = 512;
/// Bytes for a path in a header.
const PATH_MAX: usize = 100;
/// Everything is executable: programs, libraries, folders.
const MODE: u32 = 0o755;

/// What is at a path of the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Content {
    /// A copy of this file.
    File(PathBuf),
    /// A symbolic link.
    Link(&'static str),
}

/// Writes files and links, by their paths in the image, and the folders above them, in the order of their paths.
pub(crate) fn write(out: &mut impl Write, files: &BTreeMap<PathBuf, Content>) -> Result<()> {
    let mut folders = BTreeSet::new();
    for path in files.keys() {
        folders.extend(path.ancestors().skip(1).map(Path::to_path_buf).filter(|folder| folder.parent().is_some()));
    }
    let all: BTreeSet<&PathBuf> = folders.iter().chain(files.keys()).collect();
    for path in all {
        match files.get(path) {
            Some(Content::File(from)) => {
                file(out, path, from).with_context(|| format!("cannot pack {}", from.display()))?;
            }
            Some(Content::Link(to)) => out.write_all(&header(path, b'2', 0, to)?)?,
            None => out.write_all(&header(path, b'5', 0, "")?)?,
        }
    }
    // Two empty blocks end an archive.
    out.write_all(&[0; 2 * BLOCK])?;
    Ok(())
}

fn file(out: &mut impl Write, path: &Path, from: &Path) -> Result<()> {
    let file = File::open(from)?;
    let size = file.metadata()?.len();
    out.write_all(&header(path, b'0', size, "")?)?;
    let copied = io::copy(&mut file.take(size), out)?;
    ensure!(copied == size, "it became shorter meanwhile");
    let rest = usize::try_from(size % BLOCK as u64)?;
    if rest != 0 {
        out.write_all(&vec![0; BLOCK - rest])?;
    }
    Ok(())
}

/// Owner and group are root, the time is that of 1970.
fn header(path: &Path, kind: u8, size: u64, link: &str) -> Result<[u8; BLOCK]> {
    let mut name = path.strip_prefix("/")?.to_str().context("a path is no UTF-8")?.to_owned();
    if kind == b'5' {
        name.push('/');
    }
    ensure!(name.len() < PATH_MAX, "the path {name} is longer than a header has room for");
    let mut block = [0; BLOCK];
    let mut put = |at: usize, text: &str| block[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, &name);
    put(100, &format!("{MODE:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(157, link);
    put(257, "ustar\x0000");
    block[156] = kind;
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    Ok(block)
}
