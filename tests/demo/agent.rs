//! One real fairlead process in the namespace of its node.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fairlead_lab::{POD_NETS, Place};

use crate::interrupt;

/// Where `/readyz` answers (`--healthz-bind-address`, kube-proxy's default port).
const HEALTH_PORT: u16 = 10256;
/// Where `/metrics` answers (`--metrics-bind-address`, kube-proxy's default port).
const METRICS_PORT: u16 = 10249;
/// A program that is not ready for so long will never be.
const PATIENCE: Duration = Duration::from_secs(20);
/// How often readiness is asked for.
const GLANCE: Duration = Duration::from_millis(2);
/// A local HTTP server that does not answer for so long is broken.
const HTTP_PATIENCE: Duration = Duration::from_secs(2);

/// The program on one node. Dropping it ends the process.
#[derive(Debug)]
pub(crate) struct Agent {
    node: Place,
    binary: PathBuf,
    kubeconfig: PathBuf,
    log: PathBuf,
    child: Child,
}

impl Agent {
    /// Starts the program; does not wait for anything.
    pub(crate) fn start(node: &Place, binary: &Path, kubeconfig: &Path, folder: &Path) -> Result<Self> {
        let log = folder.join(format!("{}.log", node.name()));
        let child = spawn(node, binary, kubeconfig, &log)?;
        let (node, binary, kubeconfig) = (node.clone(), binary.to_owned(), kubeconfig.to_owned());
        Ok(Self { node, binary, kubeconfig, log, child })
    }

    pub(crate) const fn node(&self) -> &Place {
        &self.node
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Kills it without a warning (SIGKILL).
    pub(crate) fn kill(&mut self) -> Result<()> {
        self.child.kill().context("cannot kill fairlead")?;
        self.child.wait().context("cannot wait for fairlead")?;
        Ok(())
    }

    /// Starts it again after [`Self::kill`].
    pub(crate) fn restart(&mut self) -> Result<()> {
        self.child = spawn(&self.node, &self.binary, &self.kubeconfig, &self.log)?;
        Ok(())
    }

    /// Waits until its first sync is in the kernel.
    pub(crate) fn wait_ready(&mut self) -> Result<()> {
        let started = Instant::now();
        let node = self.node.clone();
        let child = &mut self.child;
        node.run(|| {
            loop {
                interrupt::check()?;
                if let Some(status) = child.try_wait()? {
                    bail!("fairlead on node {} has ended: {status}", node.name());
                }
                let answer = get(HEALTH_PORT, "/readyz");
                if answer.as_ref().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200")) {
                    return Ok(());
                }
                ensure!(started.elapsed() < PATIENCE, "fairlead on node {} is not ready: {answer:?}", node.name());
                std::thread::sleep(GLANCE);
            }
        })
    }

    /// What `/metrics` says.
    pub(crate) fn metrics(&self) -> Result<Metrics> {
        let text = self.node.run(|| get(METRICS_PORT, "/metrics"));
        text.map(Metrics).with_context(|| format!("cannot read the metrics of node {}", self.node.name()))
    }

    /// What it has logged so far, all starts together.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Removes what it has put into the kernel, by its own command.
    pub(crate) fn cleanup(&self) -> Result<()> {
        let mut command = Command::new(&self.binary);
        let output = self.node.run(|| command.arg("cleanup").output()).context("cannot run fairlead cleanup")?;
        ensure!(output.status.success(), "fairlead cleanup: {}", String::from_utf8_lossy(&output.stderr).trim());
        Ok(())
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It may have ended before.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process belongs to the namespace of the thread that starts it.
fn spawn(node: &Place, binary: &Path, kubeconfig: &Path, log: &Path) -> Result<Child> {
    let log = File::options().create(true).append(true).open(log).context("cannot write the log of fairlead")?;
    let mut command = Command::new(binary);
    command
        .arg(format!("--kubeconfig={}", kubeconfig.display()))
        .arg(format!("--hostname-override={}", node.name()))
        .arg(format!("--cluster-cidr={}", POD_NETS.join(",")))
        // The size of the connection table is a setting of the whole machine, which is not ours to change.
        .args(["--conntrack-max-per-core=0", "-v=2"])
        .env("NO_COLOR", "1")
        .env_remove("RUST_LOG")
        // Ctrl-C at the terminal is for the demo, which then ends its processes.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(log);
    node.run(|| command.spawn()).with_context(|| format!("cannot start {}", binary.display()))
}

/// A whole HTTP answer of a server on this namespace's loopback.
fn get(port: u16, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, port)))?;
    stream.set_read_timeout(Some(HTTP_PATIENCE))?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// Metrics in Prometheus' text format.
#[derive(Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    /// The sum of the series of this name whose labels hold this text.
    pub(crate) fn sum(&self, name: &str, labels: &str) -> f64 {
        let series = self.0.lines().filter_map(|line| line.strip_prefix(name));
        series
            .filter(|rest| rest.starts_with(['{', ' ']) && rest.contains(labels))
            .filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok())
            .sum()
    }
}
