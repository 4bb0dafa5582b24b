//! The other kernel: Debian's package, unpacked below `target`, with the modules that the network needs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::run::{finish, output};

/// Modules that may matter to the network, and those for the way out of the machine, which some kernels have built in. The
/// rest is for hardware that it does not have.
const MODULES: [&str; 8] = [
    "net",
    "lib",
    "crypto",
    "arch",
    "drivers/net",
    "drivers/virtio",
    "drivers/char/virtio_console.ko",
    "drivers/char/virtio_console.ko.xz",
];
/// Below those, hardware again.
const HARDWARE: [&str; 6] = [
    "drivers/net/ethernet",
    "drivers/net/hyperv",
    "drivers/net/wwan",
    "drivers/net/vmxnet3",
    "drivers/net/wireless",
    "net/bluetooth",
];

/// Its name in the folder, when everything else is in place.
const IMAGE: &str = "vmlinux";

/// A kernel, ready to be booted.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// Its image.
    pub(crate) image: PathBuf,
    /// A folder that holds `lib/modules/RELEASE`, with uncompressed modules and the index that modprobe reads.
    pub(crate) root: PathBuf,
    /// What `uname -r` will say.
    pub(crate) release: String,
}

impl Kernel {
    /// Takes what an earlier run has unpacked, else downloads it. Nothing is installed on this machine.
    pub(crate) fn prepare(folder: &Path, version: Option<&str>) -> Result<Self> {
        let folder = folder.join(format!("linux-{}", version.unwrap_or("newest")));
        if !folder.join(IMAGE).is_file() {
            fetch(&folder, version)?;
        }
        let modules = folder.join("root/lib/modules");
        let release = only_entry(&modules)?;
        Ok(Self { image: folder.join(IMAGE), root: folder.join("root"), release })
    }
}

fn fetch(folder: &Path, version: Option<&str>) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder)?;
    }
    fs::create_dir_all(folder)?;
    // A list of packages that cannot be refreshed may still be good enough.
    let _ = output(Command::new("apt-get").args(["--quiet", "update"]));
    let package = package(version)?;
    eprintln!("downloading {package} into {}", folder.display());
    output(Command::new("apt-get").args(["--quiet", "download", &package]).current_dir(folder))
        .with_context(|| format!("the kernel package {package} cannot be downloaded"))?;
    let archive = folder.join(only_entry(folder)?);
    let unpacked = folder.join("package");
    output(Command::new("dpkg").arg("-x").args([&archive, &unpacked]))?;
    fs::remove_file(archive)?;
    // From Debian 13 on, modules are in /usr/lib.
    let modules =
        ["lib/modules", "usr/lib/modules"].map(|path| unpacked.join(path)).into_iter().find(|path| path.is_dir());
    let modules = modules.with_context(|| format!("{package} has no modules"))?;
    let release = only_entry(&modules)?;
    let root = folder.join("root");
    keep_modules(&modules.join(&release), &root.join("lib/modules").join(&release))?;
    output(Command::new("depmod").arg("-b").args([&root, Path::new(&release)]))?;
    // In two steps, because its presence says that all is complete.
    let image = unpacked.join(IMAGE);
    decompress(&unpacked.join(format!("boot/vmlinuz-{release}")), &image)?;
    fs::rename(image, folder.join(IMAGE))?;
    fs::remove_dir_all(unpacked)?;
    Ok(())
}

/// Takes the kernel itself out of its image, so that the slower machine need not do it at each start; QEMU boots both
/// (Documentation/arch/x86/boot.rst has the offsets). An image that cannot be taken apart stays as it is.
fn decompress(image: &Path, to: &Path) -> Result<()> {
    const SETUP_SECTORS: usize = 0x1f1;
    const PAYLOAD_OFFSET: usize = 0x248;
    const PAYLOAD_LENGTH: usize = 0x24c;
    const SECTOR: usize = 512;
    /// How a compressed kernel begins, and what decompresses it.
    const PROGRAMS: [(&[u8], &str); 2] =
        [(b"\x28\xb5\x2f\xfd", "zstd -dcq"), (b"\xfd7zXZ\0", "xz -dc --single-stream")];
    let bytes = fs::read(image).with_context(|| format!("cannot read {}", image.display()))?;
    let number = |at: usize| {
        let field = bytes.get(at..at + 4).and_then(|field| field.try_into().ok()).unwrap_or_default();
        u32::from_le_bytes(field) as usize
    };
    let start =
        (usize::from(bytes.get(SETUP_SECTORS).copied().unwrap_or_default()) + 1) * SECTOR + number(PAYLOAD_OFFSET);
    let payload = bytes.get(start..start + number(PAYLOAD_LENGTH)).unwrap_or_default();
    if let Some((_, program)) = PROGRAMS.iter().find(|(magic, _)| payload.starts_with(magic)) {
        let compressed = to.with_extension("compressed");
        fs::write(&compressed, payload)?;
        // Both programs complain about the length that the kernel's build puts behind the compressed data.
        let _ =
            finish(Command::new("sh").args(["-c", &format!("{program} < \"$0\" > \"$1\"")]).args([&compressed, to]));
    }
    const ELF: &[u8] = b"\x7fELF";
    let begins_right = fs::read(to).is_ok_and(|kernel| kernel.starts_with(ELF) && kernel.len() > bytes.len());
    if !begins_right {
        fs::copy(image, to)?;
    }
    Ok(())
}

/// The package that Debian's package of this version, or of its newest version for clouds, depends on.
fn package(version: Option<&str>) -> Result<String> {
    let names = match version {
        Some(version) => vec![format!("linux-image-{version}-cloud-amd64"), "linux-image-cloud-amd64".to_owned()],
        None => vec!["linux-image-6.12-cloud-amd64".to_owned(), "linux-image-cloud-amd64".to_owned()],
    };
    let wanted = |package: &str| version.is_none_or(|version| package.starts_with(&format!("linux-image-{version}.")));
    let found = names.iter().find_map(|name| {
        let depends = output(Command::new("apt-cache").args(["depends", name])).ok()?;
        let packages = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: "));
        packages.map(str::to_owned).find(|package| package.starts_with("linux-image-") && wanted(package))
    });
    found.with_context(|| {
        let version = version.unwrap_or("6.12");
        format!("Debian's package lists have no kernel {version} for clouds (looked for {})", names.join(", "))
    })
}

fn keep_modules(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for folder in HARDWARE.map(|folder| from.join("kernel").join(folder)).iter().filter(|folder| folder.exists()) {
        fs::remove_dir_all(folder)?;
    }
    for folder in MODULES {
        let (from, to) = (from.join("kernel").join(folder), to.join("kernel").join(folder));
        fs::create_dir_all(to.parent().unwrap_or(&to))?;
        if from.exists() {
            fs::rename(&from, &to).with_context(|| format!("cannot move {}", from.display()))?;
        }
    }
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        if entry.file_type()?.is_file() {
            fs::rename(entry.path(), to.join(entry.file_name()))?;
        }
    }
    // Uncompressed here once, so that the slower machine need not do it at each start.
    let command = r#"find "$0" -name '*.ko.xz' -print0 | xargs -0 -r -n 50 xz -d"#;
    finish(Command::new("sh").args(["-c", command]).arg(to))
}

/// The name of the one thing in a folder.
fn only_entry(folder: &Path) -> Result<String> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names: Vec<_> =
        entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    ensure!(names.len() == 1, "{} should hold one thing, and holds {names:?}", folder.display());
    Ok(names.into_iter().next().unwrap_or_default())
}
