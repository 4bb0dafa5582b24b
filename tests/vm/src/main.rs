//! `cargo vm`: the integration tests on another kernel, one with modules, in virtual machines.
//!
//! ```text
//!   command    the command line
//!   bench      not tests, but the modes beside each other
//!   machine    the Debian packages that are needed; installs what is missing
//!   kernel     Debian's kernel package, unpacked below target/vm
//!   binaries   builds the tests and the program, asks which tests there are
//!   image      packs an initramfs (archive): tests, programs, libraries, modules, init.sh
//!   fleet      several machines that take tests from one queue
//!   session    one machine and the tests that it runs; judges each
//!   boot       QEMU
//! ```
//!
//! Each test is shown as on the host, the last line counts. A kernel that panics, oopses, warns or locks up, and a machine
//! that falls silent, is a failure of the test that it was running; another machine goes on with the next one.
#![forbid(unsafe_code)]

mod archive;
mod bench;
mod binaries;
mod boot;
mod command;
mod fleet;
mod image;
mod kernel;
mod machine;
mod run;
mod session;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Context, Result, ensure};

use binaries::{Binary, Test};
use boot::Accelerator;
use command::{Command, Options};
use fleet::{Fleet, Tally};
use kernel::Kernel;
use session::Session;

/// How the name begins of the folder of one command; its process id follows.
const OWN: &str = "run-";

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match Command::parse(&words) {
        Ok(Command::Help) => {
            println!("{}", command::HELP);
            Ok(true)
        }
        Ok(Command::Run(options)) => run(&options, tests),
        Ok(Command::Bench(options)) => run(&options, |built, options| Ok(vec![bench::test(built, &options.words)?])),
        Err(error) => Err(error),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// The top of the repository: two folders above this crate's manifest, wherever the command is started.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).map(Path::to_path_buf).unwrap_or_default()
}

/// The tests that the words choose.
fn tests(built: &[Binary], options: &Options) -> Result<Vec<Test>> {
    let mut tests = Vec::new();
    for binary in built.iter().filter(|binary| binary.is_test) {
        tests.extend(binary.tests(&[options.words.as_slice(), &options.more].concat())?);
    }
    ensure!(!tests.is_empty(), "no test has one of these words in its name: {}", options.words.join(" "));
    Ok(tests)
}

/// Builds, boots, and runs what is chosen among what was built.
fn run(options: &Options, choose: impl FnOnce(&[Binary], &Options) -> Result<Vec<Test>>) -> Result<bool> {
    let root = root();
    let folder = root.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    machine::prepare()?;
    let kernel = Kernel::prepare(&folder, options.kernel.as_deref())?;
    let built = binaries::build(&root, options.scope)?;
    let tests = choose(&built, options)?;
    remove_leftovers(&folder)?;
    // Two of these commands may run side by side.
    let own = folder.join(format!("{OWN}{}", std::process::id()));
    fs::create_dir_all(&own)?;
    let initramfs = own.join("initramfs");
    let result = image::pack(&initramfs, &root, &kernel, &built).and_then(|()| {
        let accelerator = accelerator(&folder, &kernel, &initramfs)?;
        let fleet = Fleet { options, kernel: &kernel, initramfs: &initramfs, logs: &own, accelerator };
        let count = tests.len();
        println!(
            "{} on Linux {}",
            if count == 1 { tests[0].name.clone() } else { format!("{count} tests") },
            kernel.release
        );
        let began = Instant::now();
        let tally = fleet.run(tests)?;
        Ok((tally, began.elapsed().as_secs_f64()))
    });
    // The consoles stay until the next of these commands.
    fs::remove_file(&initramfs)?;
    let (tally, seconds) = result?;
    println!("{seconds:.0} s in virtual machines; what their kernels said is in {}", own.display());
    Ok(conclude(&tally))
}

/// Deletes what commands left behind that were killed.
fn remove_leftovers(folder: &Path) -> Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let owner = name.strip_prefix(OWN).and_then(|process| process.parse::<u32>().ok());
        if owner.is_some_and(|process| !Path::new(&format!("/proc/{process}")).exists()) {
            fs::remove_dir_all(entry.path())?;
        }
    }
    Ok(())
}

/// Whether the processor can help is known only after a kernel has booted with its help.
fn accelerator(folder: &Path, kernel: &Kernel, initramfs: &Path) -> Result<Accelerator> {
    let unfit = folder.join("kvm-is-unfit");
    if !Accelerator::kvm_is_offered() || unfit.exists() {
        return Ok(Accelerator::Tcg);
    }
    if Session::boot(kernel, initramfs, &folder.join("console-kvm.log"), Accelerator::Kvm)?.is_some() {
        return Ok(Accelerator::Kvm);
    }
    println!("KVM does not boot this kernel here, so software emulates the processor; {} remembers", unfit.display());
    fs::write(&unfit, "Remove this file to let `cargo vm` try KVM again.\n")?;
    Ok(Accelerator::Tcg)
}

fn conclude(tally: &Tally) -> bool {
    tally.skipped.iter().for_each(|line| println!("{line}"));
    tally.failed.iter().for_each(|line| println!("failed: {line}"));
    let (failed, skipped) = (tally.failed.len(), tally.skipped.len() + tally.ignored);
    println!("vm: {} passed, {failed} failed, {skipped} skipped", tally.passed);
    failed == 0
}
