//! QEMU: starts it, hears what comes out of it, and tells it what to do.

use std::fs::{self, OpenOptions};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
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

/// The same, where the clock counts instructions: what the kernel would find out by waiting for clocks, and tests of its
/// own ciphers.
const EMULATED: &str = "lpj=2000000 tsc=reliable no_timer_check cryptomgr.notests";

/// Megabytes of memory: the initramfs twice while it is unpacked, and what some labs of namespaces need.
const MEMORY: &str = "1536";

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

    fn command_line(self) -> String {
        match self {
            Self::Kvm => COMMAND_LINE.to_owned(),
            Self::Tcg => format!("{COMMAND_LINE} {EMULATED}"),
        }
    }

    /// One processor in any case: with two of them software emulation now and then executes the breakpoint of code that
    /// the kernel has just finished to patch (seen as "Oops: int3" in Linux 6.12 with QEMU 7.2). Several machines use
    /// several processors of the host.
    ///
    /// Emulated, the machine's clock counts its instructions, two nanoseconds for each, and jumps over idle time. So the
    /// time limits of tests mean the same however slow or busy the host is, and waiting costs nothing.
    const fn arguments(self) -> [&'static str; 6] {
        match self {
            Self::Kvm => ["-smp", "1", "-accel", "kvm", "-cpu", "host"],
            // A processor with few features: what QEMU does not offer, nobody uses in an emulated, slow way.
            Self::Tcg => ["-icount", "shift=1,sleep=off", "-accel", "tcg", "-cpu", "Nehalem"],
        }
    }
}

/// Something that the machine, or QEMU, has said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Event {
    /// The kernel, or QEMU about itself.
    Console(String),
    /// The tests, on standard output.
    Out(String),
    /// The tests, on standard error.
    Err(String),
    /// The machine is off.
    Off,
}

/// A virtual machine that is switched off when dropped.
#[derive(Debug)]
pub(crate) struct Machine {
    qemu: Child,
    events: Receiver<Event>,
    /// The way in, once the machine is there.
    way_in: Receiver<UnixStream>,
    stream: Option<UnixStream>,
    folder: PathBuf,
}

impl Machine {
    /// Switches it on.
    pub(crate) fn boot(kernel: &Path, initramfs: &Path, accelerator: Accelerator) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("fairlead-vm-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        // Not below target: the path of a socket has at most 107 characters.
        let folder = std::env::temp_dir().join(name);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let (sender, events) = channel();
        // A runner that is killed takes its machines along: setpriv ties them to the thread that starts them.
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "--", QEMU]);
        command.args(["-M", "q35", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
        command.args(accelerator.arguments()).args(["-m", MEMORY, "-serial", "stdio", "-device", "virtio-serial-pci"]);
        command.arg("-kernel").arg(kernel).arg("-initrd").arg(initramfs).args(["-append", &accelerator.command_line()]);
        let out = port(&mut command, &folder, "out")?;
        let err = port(&mut command, &folder, "err")?;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut qemu = command.spawn().with_context(|| format!("cannot run {QEMU}"))?;
        let (give, way_in) = channel();
        let (console, said) = (qemu.stdout.take(), qemu.stderr.take());
        let [for_out, for_err, for_qemu] = std::array::from_fn(|_| sender.clone());
        thread::spawn(move || {
            let stream = out.accept().and_then(|(stream, _)| Ok((stream.try_clone()?, stream)));
            if let Ok((reader, writer)) = stream {
                let _ = give.send(writer);
                hear(reader, &for_out, Event::Out);
            }
        });
        thread::spawn(move || err.accept().into_iter().for_each(|(stream, _)| hear(stream, &for_err, Event::Err)));
        let about_itself = |line| Event::Console(format!("qemu: {line}"));
        thread::spawn(move || said.into_iter().for_each(|stream| hear(stream, &for_qemu, about_itself)));
        thread::spawn(move || {
            console.into_iter().for_each(|stream| hear(stream, &sender, Event::Console));
            let _ = sender.send(Event::Off);
        });
        Ok(Self { qemu, events, way_in, stream: None, folder })
    }

    /// What it says next; `None` if it says nothing for so long.
    pub(crate) fn next(&self, patience: Duration) -> Option<Event> {
        match self.events.recv_timeout(patience) {
            Ok(event) => Some(event),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Event::Off),
        }
    }

    /// Processor time that it has used; unlike time by the clock it does not depend on what else this machine does.
    pub(crate) fn processor_time(&self) -> Duration {
        /// Ticks of `/proc/PID/stat` in a second, on every Linux that Debian builds.
        const TICKS: f64 = 100.0;
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.qemu.id())).unwrap_or_default();
        // The name, in parentheses, may hold spaces; utime and stime are the 12th and 13th field behind it.
        let behind = stat.rsplit(')').next().unwrap_or_default();
        let ticks: u32 = behind.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u32>().ok()).sum();
        Duration::from_secs_f64(f64::from(ticks) / TICKS)
    }

    /// Tells it a line.
    pub(crate) fn tell(&mut self, line: &str) -> io::Result<()> {
        if self.stream.is_none() {
            self.stream = self.way_in.try_recv().ok();
        }
        let stream = self.stream.as_mut().ok_or(io::ErrorKind::NotConnected)?;
        stream.write_all(format!("{line}\n").as_bytes())
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

/// A serial port of the machine that is a socket here; its number follows the order of the calls, from 1.
fn port(command: &mut Command, folder: &Path, name: &str) -> Result<UnixListener> {
    let socket = folder.join(name);
    let listener = UnixListener::bind(&socket).with_context(|| format!("cannot listen on {}", socket.display()))?;
    command.arg("-chardev").arg(format!("socket,id={name},path={}", socket.display()));
    command.args(["-device", &format!("virtserialport,chardev={name},name={name}")]);
    Ok(listener)
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
