//! QEMU: starts it and hears what comes out of it.

use std::fs::{self, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

/// The program that is the machine.
const QEMU: &str = "qemu-system-x86_64";

/// On the kernel's command line: what goes wrong in the kernel ends the machine, and nothing waits for a person.
///
/// Mitigations protect from neighbours that this machine does not have, and are slow in software emulation.
const COMMAND_LINE: &str = "console=ttyS0 loglevel=5 panic=-1 oops=panic mitigations=off nokaslr \
                            sysctl.kernel.softlockup_panic=1 sysctl.kernel.hung_task_panic=1";

/// Megabytes of memory: the initramfs and what some labs of namespaces need.
const MEMORY: &str = "3072";

/// How the machine's instructions are carried out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accelerator {
    /// By the processor.
    Kvm,
    /// By software.
    Tcg,
}

impl Accelerator {
    /// Whether this machine offers the processor's help. That it works is known only after a kernel has booted with it.
    pub(crate) fn kvm_is_offered() -> bool {
        OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
    }

    const fn arguments(self) -> [&'static str; 4] {
        match self {
            Self::Kvm => ["-accel", "kvm", "-cpu", "host"],
            // A processor with few features: what QEMU does not offer, nobody uses in an emulated, slow way.
            Self::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "Nehalem"],
        }
    }
}

/// Something that the machine, or QEMU, has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kernel.
    Console(String),
    /// The tests, on standard output.
    Out(String),
    /// The tests, on standard error.
    Err(String),
    /// QEMU.
    Qemu(String),
    /// The machine is off.
    Off,
}

/// A virtual machine that is switched off when dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    events: Receiver<Event>,
    folder: PathBuf,
}

impl Machine {
    /// Switches it on.
    pub(crate) fn boot(kernel: &Path, initramfs: &Path, cpus: usize, accelerator: Accelerator) -> Result<Self> {
        let folder = std::env::temp_dir().join(format!("fairlead-vm-{}", std::process::id()));
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (sender, events) = channel();
        let mut command = Command::new(QEMU);
        command.args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(accelerator.arguments()).args(["-m", MEMORY, "-smp", &cpus.to_string()]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", COMMAND_LINE]);
        command.args(["-serial", "stdio", "-device", "virtio-serial-pci"]);
        let ways: [(&str, fn(String) -> Event); 2] = [("out", Event::Out), ("err", Event::Err)];
        for (name, event) in ways {
            let socket = folder.join(name);
            // What an earlier machine of this process left.
            let _ = fs::remove_file(&socket);
            let listener =
                UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
            command.arg("-chardev").arg(format!("socket,id={name},path={}", socket.display()));
            command.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
            let sender = sender.clone();
            thread::spawn(move || {
                if let Ok((stream, _)) = listener.accept() {
                    hear(stream, &sender, event);
                }
            });
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = command.spawn().with_context(|| format!("cannot run {QEMU}"))?;
        let (console, said) = (qemu.stdout.take(), qemu.stderr.take());
        let own = sender.clone();
        thread::spawn(move || said.into_iter().for_each(|stream| hear(stream, &own, Event::Qemu)));
        thread::spawn(move || {
            console.into_iter().for_each(|stream| hear(stream, &sender, Event::Console));
            let _ = sender.send(Event::Off);
        });
        Ok(Self { qemu, events, folder })
    }

    /// What it says next; `None` if it says nothing for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Event> {
        self.events.recv_timeout(patience).ok()
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn hear(stream: impl Read, sender: &Sender<Event>, event: fn(String) -> Event) {
    let mut stream = BufReader::new(stream);
    let mut line = Vec::new();
    while stream.read_until(b'\n', &mut line).is_ok_and(|length| length > 0) {
        let text = String::from_utf8_lossy(&line).trim_end_matches(['\r', '\n']).to_owned();
        line.clear();
        if sender.send(event(text)).is_err() {
            return;
        }
    }
}
