//! `cargo image`: builds fairlead and writes its container image as an OCI layout.
#![forbid(unsafe_code)]

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use anyhow::{Context, Result, bail, ensure};

const HELP: &str = "\
cargo image [--program FILE] [--output FOLDER | --files FOLDER]
Writes the container image of fairlead as an OCI layout, by default to target/image. Without --program it is built first, with
optimisation. Give the folder to a tool that knows the format: skopeo copy oci:target/image docker://REGISTRY/fairlead:VERSION
With --files the files of the image are copied to a folder instead, as they are in a container.";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("cargo image: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).context("this crate has moved")?;
    let (mut program, mut output, mut files) = (None, root.join("target/image"), None);
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().map(PathBuf::from).with_context(|| format!("{word} needs a path"));
        match word.as_str() {
            "--program" => program = Some(value()?),
            "--output" => output = value()?,
            "--files" => files = Some(value()?),
            "--help" | "-h" => {
                println!("{HELP}");
                return Ok(());
            }
            _ => bail!("{word} is not known; see cargo image --help"),
        }
    }
    let program = match program {
        Some(program) => program,
        None => build(root)?,
    };
    if let Some(folder) = files {
        let copied = fairlead_image::copy(&program, &folder)?;
        copied.iter().for_each(|file| println!("{}{}", folder.display(), file.display()));
        return Ok(());
    }
    let image = fairlead_image::write(&program, env!("CARGO_PKG_VERSION"), &output)?;
    println!("{} {} MB {}", output.display(), image.bytes.div_ceil(1_000_000), image.digest);
    image.files.iter().for_each(|file| println!("  {}", file.display()));
    Ok(())
}

fn build(root: &Path) -> Result<PathBuf> {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let mut command = Command::new(cargo);
    command.args(["build", "--release", "--locked", "--package", "fairlead"]).current_dir(root);
    ensure!(command.status().context("cannot run cargo")?.success(), "fairlead cannot be built");
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    Ok(target.join("release/fairlead"))
}
