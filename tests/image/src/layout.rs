//! An OCI image layout (image-spec 1.0): `oci-layout`, `index.json` and content under its digest in `blobs/sha256`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::layer::{self, Content};
use crate::libraries;

/// Where the program is in the image.
const PROGRAM: &str = "/usr/bin/fairlead";
/// The command of kubeadm's DaemonSet, so that the image is all that has to be changed there.
const KUBE_PROXY: &str = "/usr/local/bin/kube-proxy";
/// No content depends on when it was made.
const CREATED: &str = "1970-01-01T00:00:00Z";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// An image that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    /// `sha256:...` of its manifest, by which a registry knows it.
    pub digest: String,
    /// Bytes of its layers.
    pub bytes: u64,
    /// What is in it.
    pub files: Vec<PathBuf>,
}

/// Something under its digest.
struct Blob {
    digest: String,
    size: u64,
}

impl Blob {
    fn descriptor(&self, media_type: &str) -> Value {
        json!({"mediaType": media_type, "digest": self.digest, "size": self.size})
    }
}

/// Writes the image of this program to a folder, which is made, or replaced if it is a layout already. `version` is the image's tag.
///
/// # Errors
/// If the program or a library that it names cannot be read, or the folder cannot be written or holds something else.
pub fn write(program: &Path, version: &str, folder: &Path) -> Result<Image> {
    let (machine, libraries) = libraries::of(program)?;
    clear(folder)?;
    let blobs = folder.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("cannot make {}", blobs.display()))?;
    // Libraries change with Debian and the program with each version, so they are two layers.
    let contents = [libraries_of(libraries), own(program)].into_iter();
    let contents: Vec<_> = contents.filter(|files| !files.is_empty()).collect();
    let layers =
        contents.iter().map(|files| blob(&blobs, |out| layer::write(out, files))).collect::<Result<Vec<_>>>()?;
    let digests: Vec<_> = layers.iter().map(|layer| &layer.digest).collect();
    let history = |files: &BTreeMap<PathBuf, Content>| {
        let paths: Vec<_> = files.keys().map(|path| path.display().to_string()).collect();
        json!({"created": CREATED, "created_by": format!("cargo image: {}", paths.join(" "))})
    };
    let config = json_blob(
        &blobs,
        &json!({
            "created": CREATED,
            "architecture": machine.architecture(),
            "os": "linux",
            "config": {
                "Entrypoint": [PROGRAM],
                "Env": ["PATH=/usr/bin"],
                "WorkingDir": "/",
                "Labels": {
                    "org.opencontainers.image.title": "fairlead",
                    "org.opencontainers.image.version": version,
                    "org.opencontainers.image.licenses": "Apache-2.0",
                },
            },
            "rootfs": {"type": "layers", "diff_ids": digests},
            "history": contents.iter().map(history).collect::<Vec<_>>(),
        }),
    )?;
    let manifest = json_blob(
        &blobs,
        &json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.descriptor(CONFIG),
            "layers": layers.iter().map(|layer| layer.descriptor(LAYER)).collect::<Vec<_>>(),
        }),
    )?;
    let mut entry = manifest.descriptor(MANIFEST);
    entry["platform"] = json!({"architecture": machine.architecture(), "os": "linux"});
    entry["annotations"] = json!({"org.opencontainers.image.ref.name": version});
    let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [entry]});
    fs::write(folder.join("index.json"), index.to_string())?;
    fs::write(folder.join("oci-layout"), json!({"imageLayoutVersion": "1.0.0"}).to_string())?;
    Ok(Image {
        digest: manifest.digest,
        bytes: layers.iter().map(|layer| layer.size).sum(),
        files: contents.iter().flat_map(BTreeMap::keys).cloned().collect(),
    })
}

/// Copies what is in the image of this program to a folder, as a container sees it: what a Dockerfile copies into an empty image.
///
/// # Errors
/// As [`write()`].
pub fn copy(program: &Path, folder: &Path) -> Result<Vec<PathBuf>> {
    let (_, libraries) = libraries::of(program)?;
    let mut files = libraries_of(libraries);
    files.extend(own(program));
    for (path, content) in &files {
        let to = folder.join(path.strip_prefix("/")?);
        fs::create_dir_all(to.parent().unwrap_or(folder))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let made = match content {
            Content::File(from) => fs::copy(from, &to).map(drop),
            Content::Link(target) => symlink(target, &to),
        };
        made.with_context(|| format!("cannot make {}", to.display()))?;
    }
    Ok(files.into_keys().collect())
}

fn libraries_of(found: BTreeMap<PathBuf, PathBuf>) -> BTreeMap<PathBuf, Content> {
    found.into_iter().map(|(path, from)| (path, Content::File(from))).collect()
}

/// The program under its names.
fn own(program: &Path) -> BTreeMap<PathBuf, Content> {
    BTreeMap::from([
        (PROGRAM.into(), Content::File(program.to_path_buf())),
        (KUBE_PROXY.into(), Content::Link(PROGRAM)),
    ])
}

/// An older layout goes; anything else that is there stays and is an error.
fn clear(folder: &Path) -> Result<()> {
    let empty = || fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none());
    if !folder.exists() || empty() {
        return Ok(());
    }
    anyhow::ensure!(
        folder.join("oci-layout").is_file(),
        "{} is there and no OCI layout; name another folder",
        folder.display()
    );
    fs::remove_dir_all(folder).with_context(|| format!("cannot remove the old {}", folder.display()))
}

fn json_blob(blobs: &Path, value: &Value) -> Result<Blob> {
    blob(blobs, |out| Ok(out.write_all(value.to_string().as_bytes())?))
}

/// Writes a blob under a name that it gets when its digest is known.
fn blob(blobs: &Path, content: impl FnOnce(&mut Hashing) -> Result<()>) -> Result<Blob> {
    let part = blobs.join("part");
    let file = File::create(&part).with_context(|| format!("cannot write {}", part.display()))?;
    let mut out = Hashing { file: BufWriter::new(file), hash: Sha256::new(), size: 0 };
    content(&mut out)?;
    out.flush()?;
    let hexadecimal = out.hash.finalize().iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    });
    fs::rename(&part, blobs.join(&hexadecimal))?;
    Ok(Blob { digest: format!("sha256:{hexadecimal}"), size: out.size })
}

struct Hashing {
    file: BufWriter<File>,
    hash: Sha256,
    size: u64,
}

impl Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.file.write(bytes)?;
        self.hash.update(&bytes[..written]);
        self.size += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
