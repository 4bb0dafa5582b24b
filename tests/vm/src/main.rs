//! `cargo vm`: the integration tests on another kernel, one with modules, in a virtual machine.
//!
//! ```text
//!   command    the command line
//!   machine    the Debian packages that are needed; installs what is missing
//!   kernel     Debian's kernel package, unpacked below target/vm
//!   binaries   builds the tests and the program, asks which tests there are
//!   script     what runs inside, and what it says
//!   image      packs an initramfs (archive): tests, programs, libraries, modules, init.sh
//!   boot       QEMU
//!   report     counts what the machine says
//! ```
//!
//! Each test is shown as on the host, the last line counts. A kernel that panics, oopses, warns, locks up or falls silent is
//! a failure, and so is a test that was expected and did not report.
#![forbid(unsafe_code)]

mod archive;
mod binaries;
mod boot;
mod command;
mod image;
mod kernel;
mod machine;
mod report;
mod run;
mod script;

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use binaries::Binary;
use boot::{Accelerator, Event, Machine};
use command::{Command, Options};
use kernel::Kernel;
use report::{Ending, Report};

/// A machine that has not come as far as the tests after so long does not boot.
const BOOT: Duration = Duration::from_secs(120);
/// With the processor's help it takes a second or two, or it never does.
const BOOT_KVM: Duration = Duration::from_secs(20);

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let result = match Command::parse(&words) {
        Ok(Command::Help) => {
            println!("{}", command::HELP);
            Ok(true)
        }
        Ok(Command::Run(options)) => run(&options),
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

fn run(options: &Options) -> Result<bool> {
    let root = root();
    let folder = root.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    machine::prepare()?;
    let kernel = Kernel::prepare(&folder, options.kernel.as_deref())?;
    let built = binaries::build(&root, options.scope)?;
    let mut chosen = Vec::new();
    for binary in built.iter().filter(|binary| binary.is_test) {
        let tests = binary.tests(&options.arguments())?;
        if !tests.is_empty() {
            chosen.push((binary, tests));
        }
    }
    let count: usize = chosen.iter().map(|(_, tests)| tests.len()).sum();
    ensure!(count > 0, "no test has one of these words in its name: {}", options.words.join(" "));
    let programs: Vec<&Binary> = chosen.iter().map(|(binary, _)| *binary).collect();
    let script = script::script(&programs, &options.arguments());
    let initramfs = folder.join("initramfs");
    image::pack(&initramfs, &root, &kernel, &built, &script)?;
    println!("{count} tests on Linux {} with {} CPUs", kernel.release, options.cpus);
    let expected: Vec<_> = chosen.into_iter().map(|(binary, tests)| (binary.name.clone(), tests)).collect();
    let console = folder.join("console.log");
    let try_machine = |accelerator| observe(options, &kernel, &initramfs, &console, accelerator, &expected);
    let unfit = folder.join("kvm-is-unfit");
    if Accelerator::kvm_is_offered() && !unfit.exists() {
        if let Some(good) = try_machine(Accelerator::Kvm)? {
            return Ok(good);
        }
        println!(
            "KVM does not boot this kernel here, so software emulates the processor ({} remembers)",
            unfit.display()
        );
        fs::write(&unfit, "Remove this file to let `cargo vm` try KVM again.\n")?;
    }
    let good = try_machine(Accelerator::Tcg)?;
    good.with_context(|| format!("the virtual machine does not boot; its console is in {}", console.display()))
}

/// Boots and listens to the end. `None` if the machine never came as far as the tests.
fn observe(
    options: &Options,
    kernel: &Kernel,
    initramfs: &Path,
    console: &Path,
    accelerator: Accelerator,
    expected: &[(String, std::collections::BTreeSet<String>)],
) -> Result<Option<bool>> {
    let mut log = File::create(console).with_context(|| format!("cannot write {}", console.display()))?;
    let mut report = Report::new(expected.to_vec());
    let began = Instant::now();
    let boot = if accelerator == Accelerator::Kvm { BOOT_KVM } else { BOOT };
    let machine = Machine::boot(&kernel.image, initramfs, options.cpus, accelerator)?;
    let ending = loop {
        let booted = report.booted();
        let patience = if booted { options.patience } else { boot.saturating_sub(began.elapsed()) };
        match machine.next(patience) {
            None => break Ending::Quiet(patience.as_secs()),
            Some(Event::Off) => break Ending::Off,
            Some(event) => {
                if let Event::Console(line) | Event::Qemu(line) = &event {
                    writeln!(log, "{:9.3} {line}", began.elapsed().as_secs_f64())?;
                    if !booted && line.contains("KVM internal error") {
                        return Ok(None);
                    }
                }
                if let Some(line) = report.hear(&event) {
                    println!("{line}");
                }
                if !booted && report.booted() {
                    println!("booted after {:.1} s", began.elapsed().as_secs_f64());
                }
            }
        }
    };
    if !report.booted() {
        return Ok(None);
    }
    let (lines, good) = report.finish(ending);
    lines.iter().for_each(|line| println!("{line}"));
    println!("{:.0} s in the virtual machine; its console is in {}", began.elapsed().as_secs_f64(), console.display());
    Ok(Some(good))
}
