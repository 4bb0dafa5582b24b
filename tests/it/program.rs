//! The real program in a node of a lab, on an API server of its own.
#![expect(clippy::disallowed_methods, reason = "tests start the real program and write its files")]

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use fairlead_lab::api::{ApiServer, Settings};
use fairlead_lab::{Lab, Place, Size};
use serde_json::Value;

/// The program under test.
pub const BINARY: &str = env!("CARGO_BIN_EXE_fairlead");
/// Where `/healthz` answers.
pub const HEALTH_PORT: u16 = 10_256;
/// Where `/metrics` answers.
pub const METRICS_PORT: u16 = 10_249;

/// A condition that does not hold after so long never will. Nothing is measured by it.
pub const NEVER: Duration = Duration::from_secs(60);
/// Between two looks at a condition.
const GLANCE: Duration = Duration::from_millis(5);
/// How long an HTTP answer may take.
const HTTP_PATIENCE: Duration = Duration::from_secs(10);

/// Waits until something is so, and says how long it took.
///
/// # Panics
/// If it never is.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) -> Duration {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < NEVER, "after {NEVER:?} it is still not so that {what}");
        thread::sleep(GLANCE);
    }
    start.elapsed()
}

/// A directory that vanishes with the value.
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let name = format!("it-{}-{}", std::process::id(), NUMBER.fetch_add(1, Ordering::Relaxed));
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// A file in it with this content, replaced as a whole.
    pub fn write(&self, name: &str, content: &str) -> PathBuf {
        let (part, whole) = (self.0.join(format!(".{name}.part")), self.0.join(name));
        fs::write(&part, content).unwrap();
        fs::rename(&part, &whole).unwrap();
        whole
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A lab whose first node, `a`, can run the program on an API server that answers on its loopback.
pub struct Cluster {
    pub server: ApiServer,
    pub lab: Lab,
    pub directory: Directory,
}

impl Cluster {
    /// Node `a` with three pods, node `b` with one, the client `outside`, and an API server that knows the nodes.
    pub fn new() -> Self {
        Self::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Self {
        let lab = Lab::of_size(&Size { nodes: &[("a", 3), ("b", 1)], clients: &["outside"] }).unwrap();
        let bind = || TcpListener::bind((Ipv4Addr::LOCALHOST, 0));
        let listener = lab.node("a").run(bind).unwrap();
        let server = ApiServer::start_with(listener, settings).unwrap();
        let cluster = Self { server, lab, directory: Directory::new() };
        cluster.apply(cluster.lab.cluster_manifests());
        cluster
    }

    /// Creates or replaces objects.
    pub fn apply(&self, objects: impl IntoIterator<Item = Value>) {
        for object in objects {
            self.server.apply(object).unwrap();
        }
    }

    /// The node on which the program runs.
    pub fn node(&self) -> &Place {
        self.lab.node("a")
    }

    /// Starts the program and waits until its first sync is in the kernel.
    pub fn start(&self) -> Program {
        let program = self.launch(&[]);
        program.wait_until_ready();
        program
    }

    /// Starts the program with more flags and waits for nothing.
    pub fn launch(&self, flags: &[&str]) -> Program {
        let kubeconfig = self.directory.path().join("kubeconfig");
        if !kubeconfig.exists() {
            self.server.kubeconfig(&kubeconfig).unwrap();
        }
        let kubeconfig = format!("--kubeconfig={}", kubeconfig.display());
        let flags: Vec<&str> = [kubeconfig.as_str()].into_iter().chain(flags.iter().copied()).collect();
        Program::launch(self.node(), &self.directory, &flags)
    }
}

/// A process of the program. Dropping it kills it, and prints its log if the test has failed.
pub struct Program {
    child: Child,
    place: Place,
    log: PathBuf,
}

impl Program {
    /// Starts the program in a node, with a log in the directory.
    pub fn launch(place: &Place, directory: &Directory, flags: &[&str]) -> Self {
        Self::launch_as(place, directory, place.name(), flags)
    }

    /// As [`Program::launch`], under the name of another node.
    pub fn launch_as(place: &Place, directory: &Directory, name: &str, flags: &[&str]) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let log = directory.path().join(format!("log-{}", NUMBER.fetch_add(1, Ordering::Relaxed)));
        let mut command = place.command(BINARY);
        let cidrs = format!("--cluster-cidr={}", fairlead_lab::POD_NETS.join(","));
        command.arg(format!("--hostname-override={name}")).arg(cidrs).args(flags);
        // The limits of the whole machine are none of a test's business.
        command.args(["--conntrack-max-per-core=0", "--oom-score-adj=0", "-v=2"]);
        // All nodes of a lab share one file system, in which a test that asks has a path of its own.
        if !flags.iter().any(|flag| flag.starts_with("--socket=")) {
            command.arg("--socket=");
        }
        command.env("NO_COLOR", "1").env_remove("RUST_LOG");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Self::of(command, place, log)
    }

    /// Starts a command that is the program, or becomes it, in a node; `log` is where its standard error goes.
    pub fn of(mut command: Command, place: &Place, log: PathBuf) -> Self {
        Self { child: command.spawn().unwrap(), place: place.clone(), log }
    }

    /// The id of its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `/readyz` says yes.
    pub fn wait_until_ready(&self) -> Duration {
        eventually("the program is ready", || self.is_ready())
    }

    /// Whether the first sync is in the kernel.
    pub fn is_ready(&self) -> bool {
        self.get(HEALTH_PORT, "/readyz").is_ok_and(|(status, _)| status == 200)
    }

    /// Status and body of an answer over HTTP.
    pub fn get(&self, port: u16, path: &str) -> io::Result<(u16, String)> {
        let to = (Ipv4Addr::LOCALHOST, port).into();
        self.place.run(|| http_get(to, path))
    }

    /// The sum of all series of a metric whose labels contain this text.
    pub fn metric(&self, name: &str, labels: &str) -> f64 {
        let (_, text) = self.get(METRICS_PORT, "/metrics").unwrap();
        let values = text.lines().filter_map(|line| {
            let rest = line.strip_prefix(name)?;
            let (series, value) = rest.rsplit_once(' ')?;
            let whole_name = series.is_empty() || series.starts_with('{');
            (whole_name && series.contains(labels)).then(|| value.parse::<f64>().unwrap())
        });
        values.sum()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Waits for a line that contains all these words.
    pub fn wait_for_line(&self, words: &[&str]) {
        let said = || self.log().lines().any(|line| words.iter().all(|word| line.contains(word)));
        eventually(&format!("the log has a line with {words:?}"), said);
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// SIGKILL.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM; gives back how it ended.
    pub fn terminate(mut self) -> ExitStatus {
        self.signal("TERM");
        self.child.wait().unwrap()
    }

    /// Any signal, by its name without `SIG`.
    pub fn signal(&self, name: &str) {
        let sent = Command::new("sh").args(["-c", &format!("kill -{name} {}", self.child.id())]).status().unwrap();
        assert!(sent.success());
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails only if it has ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- log of fairlead on {}\n{}", self.place.name(), self.log());
        }
    }
}

/// Asks over HTTP/1.0, from the namespace of the calling thread.
pub fn http_get(to: std::net::SocketAddr, path: &str) -> io::Result<(u16, String)> {
    let mut stream = TcpStream::connect_timeout(&to, HTTP_PATIENCE)?;
    stream.set_read_timeout(Some(HTTP_PATIENCE))?;
    stream.write_all(format!("GET {path} HTTP/1.0\r\nHost: {to}\r\n\r\n").as_bytes())?;
    let mut text = String::new();
    stream.read_to_string(&mut text)?;
    let strange = || io::Error::new(io::ErrorKind::InvalidData, format!("no HTTP answer: {text:?}"));
    let (head, body) = text.split_once("\r\n\r\n").ok_or_else(strange)?;
    let status = head.split(' ').nth(1).and_then(|word| word.parse().ok()).ok_or_else(strange)?;
    Ok((status, body.to_owned()))
}

/// Runs the program to its end where the test runs, for what touches no kernel.
pub fn run_here(args: &[&str]) -> Output {
    Command::new(BINARY).args(args).env("NO_COLOR", "1").output().unwrap()
}

/// Runs the program to its end, in a place.
pub fn run(place: &Place, args: &[&str]) -> Output {
    place.command(BINARY).args(args).env("NO_COLOR", "1").output().unwrap()
}

/// Runs `nft` in a place and gives back what it prints.
///
/// # Panics
/// If it fails, with what it says.
pub fn nft(place: &Place, args: &str) -> String {
    let output = nft_output(place, args);
    assert!(output.status.success(), "nft {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Runs `nft` in a place.
pub fn nft_output(place: &Place, args: &str) -> Output {
    place.command("nft").args(args.split_whitespace()).output().unwrap()
}

/// Whether the kernel holds our tables, IPv4 and IPv6.
pub fn tables(place: &Place) -> [bool; 2] {
    ["ip", "ip6"].map(|family| nft_output(place, &format!("list table {family} fairlead")).status.success())
}
