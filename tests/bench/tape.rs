//! What a start says to the kernel, recorded by `strace` and said again by nobody.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use fairlead_kernel::netlink::{Socket, Wait};

/// `AF_NETLINK`
const NETLINK: i32 = 16;
/// Of a line of strace's dump, so many characters are numbers: sixteen of two digits, a space behind each, one in the middle.
const NUMBERS: usize = 16 * 3 + 1;

/// Datagrams in the order in which they were sent, each with the netlink protocol that it speaks.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Tape(Vec<(i32, Vec<u8>)>);

impl Tape {
    /// Runs this program with these words in the network namespace of the caller and records what it sends; not what programs
    /// send that it runs.
    pub fn record(words: &[&str]) -> anyhow::Result<Self> {
        let path = std::env::temp_dir().join(format!("fairlead-bench-{}.strace", std::process::id()));
        let status = Command::new("strace")
            .arg("-o")
            .arg(&path)
            .args(["-e", "trace=socket,sendmsg", "-e", "verbose=none", "-X", "raw", "-e", "write=all"])
            .arg(std::env::current_exe()?)
            .args(words)
            .stdout(Stdio::null())
            .status()
            .context("cannot run strace (Debian package strace), which records what is sent")?;
        let tape = Self::read(&path);
        std::fs::remove_file(&path)?;
        ensure!(status.success(), "the run to be recorded failed");
        tape
    }

    fn read(path: &Path) -> anyhow::Result<Self> {
        Self::parse(BufReader::new(File::open(path)?))
    }

    fn parse(lines: impl BufRead) -> anyhow::Result<Self> {
        let (mut tape, mut sockets) = (Self::default(), BTreeMap::new());
        for line in lines.lines() {
            let line = line?;
            if let Some(words) = line.strip_prefix("socket(") {
                let (arguments, fd) = words.split_once(") ").context("a call of socket without its end")?;
                let protocol = arguments.rsplit(", ").next().and_then(number);
                let is_netlink = arguments.split(',').next().and_then(number) == Some(NETLINK);
                let fd = fd.trim_start().strip_prefix('=').and_then(number);
                if let (true, Some(fd), Some(protocol)) = (is_netlink, fd, protocol) {
                    sockets.insert(fd, protocol);
                }
            } else if let Some(words) = line.strip_prefix("sendmsg(") {
                let fd = words.split(',').next().and_then(number).context("a call of sendmsg without a socket")?;
                let protocol = sockets.get(&fd).context("a socket whose beginning was not seen")?;
                tape.0.push((*protocol, Vec::new()));
            } else if let Some(dump) = line.strip_prefix(" | ") {
                let (_, rest) = dump.split_once("  ").context("a dump without numbers")?;
                let bytes = rest.get(..NUMBERS.min(rest.len())).unwrap_or_default();
                let (_, datagram) = tape.0.last_mut().context("a dump of nothing")?;
                for byte in bytes.split_whitespace() {
                    datagram.push(u8::from_str_radix(byte, 16)?);
                }
            }
        }
        ensure!(!tape.0.is_empty(), "strace recorded nothing");
        Ok(tape)
    }

    /// Sends all of it in the network namespace of the caller, reads the answers, looks at nothing.
    pub fn replay(&self) -> anyhow::Result<Duration> {
        let mut buffer = Vec::new();
        let began = Instant::now();
        let mut sockets: BTreeMap<i32, Socket> = BTreeMap::new();
        for (protocol, datagram) in &self.0 {
            if !sockets.contains_key(protocol) {
                sockets.insert(*protocol, Socket::open(*protocol)?);
            }
            let socket = sockets.get_mut(protocol).context("it was opened")?;
            socket.send(datagram)?;
            // The kernel has answered before `send` returns, and writes a long list while it is read.
            while socket.recv(&mut buffer, Wait::No).is_ok() {}
        }
        Ok(began.elapsed())
    }

    /// Datagrams and bytes.
    pub fn size(&self) -> (usize, usize) {
        (self.0.len(), self.0.iter().map(|(_, datagram)| datagram.len()).sum())
    }
}

/// A number of strace's, decimal or not.
fn number(word: &str) -> Option<i32> {
    let word = word.trim();
    match word.strip_prefix("0x") {
        Some(digits) => i32::from_str_radix(digits, 16).ok(),
        None => word.parse().ok(),
    }
}
