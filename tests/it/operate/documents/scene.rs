//! Where the commands of a page run: node `a` of a lab, with files of its own where the page has files, and a cluster.
#![expect(clippy::disallowed_methods, reason = "a scene is made of files and programs")]

use std::fs::{self, File};
use std::net::SocketAddr;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};

use fairlead_lab::objects::Port;
use fairlead_lab::{POD_NETS, Place, cluster_ip};
use fairlead_plan::{Family, Protocol};
use serde_json::{Value, json};

use crate::faults::{answers, service, slice, until_answered_by};
use crate::operate::deploy::rendered::{built, objects, root, tool};
use crate::operate::drop_in::AUTHORITY;
use crate::overlay::stage::Stage;
use crate::program::{BINARY, Program, eventually};

/// What `/etc` of the scene has of the machine's.
const OF_MACHINE: [&str; 10] = [
    "alternatives",
    "group",
    "hosts",
    "iproute2",
    "ld.so.cache",
    "nsswitch.conf",
    "passwd",
    "protocols",
    "services",
    "ssl",
];
/// Makes the node's view and runs a command in it. `$1` is the folder of the scene, `$2` the repository, `$3` the command.
const ENTER: &str = "
    hostname a
    mount --bind \"$1/etc\" /etc
    mount --bind \"$1/var-lib\" /var/lib
    mount --bind \"$1/run\" /run
    for there in deploy fairlead/deploy; do mount --bind -o ro \"$2/deploy\" \"$1/commands/$there\"; done
    cd \"$1/commands\"
    export EDITOR=\"$1/bin/editor\" HOME=\"$1/home\" PATH=\"$1/bin:$PATH\"
    eval \"$3\"";
/// Where pods have their service account.
const ACCOUNT: &str = "/run/secrets/kubernetes.io/serviceaccount";
/// The host numbers of the ClusterIPs of `web` and `kube-dns`, and the node port of `web`.
const WEB: u8 = 1;
const DNS: u8 = 10;
pub const NODE_PORT: u16 = 30_080;

/// A node with a cluster around it. Where nothing else is said, commands speak to its API server.
pub struct Scene {
    // Programs go first: their logs are in the directory of the stage.
    program: Option<Program>,
    others: Vec<Program>,
    kept: Vec<Child>,
    pub stage: Stage,
    folder: PathBuf,
    started: usize,
}

impl Scene {
    pub fn new() -> Self {
        let stage = Stage::new();
        let folder = stage.directory.path().join("scene");
        for name in ["etc", "var-lib", "run", "commands/deploy", "commands/fairlead/deploy", "bin", "home/.kube"] {
            fs::create_dir_all(folder.join(name)).unwrap();
        }
        for name in OF_MACHINE {
            let copied = Command::new("cp").arg("-a").arg(format!("/etc/{name}")).arg(folder.join("etc")).status();
            assert!(copied.unwrap().success(), "/etc/{name}");
        }
        symlink(BINARY, folder.join("bin/fairlead")).unwrap();
        symlink(tool("kubernetes-client/usr/bin/kubectl"), folder.join("bin/kubectl")).unwrap();
        write_editor(&folder.join("bin/editor"));
        let scene = Self { program: None, others: Vec::new(), kept: Vec::new(), stage, folder, started: 0 };
        scene.stage.server.kubeconfig(&scene.folder.join("home/.kube/config")).unwrap();
        fs::create_dir_all(scene.path("/var/lib/fairlead")).unwrap();
        scene.stage.server.kubeconfig(&scene.path("/var/lib/fairlead/kubeconfig")).unwrap();
        scene.write(&format!("{ACCOUNT}/token"), "token");
        scene.write(&format!("{ACCOUNT}/ca.crt"), AUTHORITY);
        for node in scene.stage.lab.nodes() {
            let mut object = scene.stage.node_object(node.name());
            object["metadata"]["labels"]["kubernetes.io/os"] = json!("linux");
            scene.stage.apply([object]);
        }
        scene.stage.apply(scene.services());
        scene
    }

    /// The Services `web` and `kube-dns` and their endpoints, which are on node `a`.
    pub fn services(&self) -> Vec<Value> {
        let web = service("web", WEB).port(Port::tcp(8080).named("n").node_port(NODE_PORT));
        let dns = fairlead_lab::objects::Service::new("kube-dns").cluster_ip(DNS);
        let dns = dns.port(Port::udp(53).named("dns")).port(Port::tcp(53).named("dns-tcp"));
        let of_dns = fairlead_lab::objects::Slice::of("kube-dns").udp("dns", 8080).tcp("dns-tcp", 8080).ready(&["a2"]);
        let of_web = slice("web", &["a1"]).tcp("n", 8080);
        let lab = &self.stage.lab;
        let both = Family::BOTH;
        let mut all = vec![web.manifest(lab, &both), dns.manifest(lab, &both)];
        all.extend(of_web.manifests(lab, &both).into_iter().chain(of_dns.manifests(lab, &both)));
        all
    }

    pub fn node(&self) -> &Place {
        self.stage.node("a")
    }

    /// Where the test finds a file of the node; a path that is not absolute is one in the folder of the commands.
    pub fn path(&self, file: &str) -> PathBuf {
        for (there, here) in [("/etc/", "etc"), ("/var/lib/", "var-lib"), ("/run/", "run")] {
            if let Some(rest) = file.strip_prefix(there) {
                return self.folder.join(here).join(rest);
            }
        }
        assert!(!file.starts_with('/'), "{file} is the machine's");
        self.folder.join("commands").join(file)
    }

    /// Writes a file of the node.
    pub fn write(&self, file: &str, text: &str) {
        let path = self.path(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Reads one; empty if there is none.
    pub fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap_or_default()
    }

    /// A command line on the node.
    pub fn command(&self, line: &str) -> Command {
        let mut command = self.node().command("unshare");
        command.args(["--uts", "sh", "-ec", ENTER, "sh"]).arg(&self.folder).arg(root()).arg(line);
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").env_remove("KUBECONFIG").stdin(Stdio::null());
        command
    }

    /// Runs it to its end.
    pub fn output(&self, line: &str) -> Output {
        self.command(line).output().unwrap()
    }

    /// Runs it to its end, which must be a good one, and gives back what it prints.
    pub fn run(&self, line: &str) -> String {
        let output = self.output(line);
        let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{line}: {}\n{out}{err}", output.status);
        out.into_owned()
    }

    /// Starts something else, which stays until the end.
    pub fn keep(&mut self, line: &str) {
        let mut command = self.command(&format!("exec {line}"));
        self.kept.push(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    }

    /// Starts fairlead by this command line in the place of the one that runs, and waits until it is ready.
    pub fn start(&mut self, line: &str) {
        self.end();
        self.started += 1;
        let log = self.stage.directory.path().join(format!("scene-{}.log", self.started));
        let mut command = self.command(&format!("exec {line}"));
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let mut program = Program::of(command, self.node(), log);
        eventually("it is ready or has ended", || program.is_ready() || !program.is_running());
        assert!(program.is_running(), "{line} has ended");
        self.program = Some(program);
    }

    /// Starts fairlead as a page assumes it to run, with more flags.
    pub fn assume_running(&mut self, flags: &str) {
        let cidrs = POD_NETS.join(",");
        self.start(&format!("fairlead --kubeconfig /var/lib/fairlead/kubeconfig --cluster-cidr {cidrs} {flags}"));
    }

    /// The same on the other nodes, once.
    pub fn assume_others(&mut self, flag: &str) {
        if self.others.is_empty() {
            self.others = ["b", "c"].map(|node| self.stage.launch(node, &[flag])).into();
            self.others.iter().for_each(|program| _ = program.wait_until_ready());
        }
    }

    /// The fairlead that a page has started.
    pub fn program(&self) -> &Program {
        self.program.as_ref().expect("it was started")
    }

    /// Ends it.
    pub fn end(&mut self) {
        if let Some(program) = self.program.take() {
            assert!(program.terminate().success());
        }
    }

    /// Services are answered, in both families: from a pod, from the node and from outside.
    pub fn serves(&self) {
        for place in ["a2", "a", "outside"] {
            until_answered_by(self.stage.lab.place(place), WEB, &["a1"]);
        }
        for family in Family::BOTH {
            let to = SocketAddr::new(self.node().addr(family), NODE_PORT);
            let from = self.stage.lab.place("outside");
            eventually("the node port answers", || answers(from, Protocol::Tcp, to) == ["a1"]);
            let to = SocketAddr::new(cluster_ip(DNS).of(family), 53);
            let from = self.stage.lab.place("a1");
            eventually("kube-dns answers", || answers(from, Protocol::Udp, to) == ["a2"]);
        }
    }

    /// The cluster has what a folder of `deploy/overlays` makes.
    pub fn deploy(&self, overlay: &str) {
        self.stage.apply(objects(&built(overlay)).into_values());
    }

    /// The nodes on which a DaemonSet has pods.
    pub fn nodes_of(&self, set: &str) -> Vec<String> {
        let pods = self.stage.server.all("Pod").into_iter();
        let owned = pods.filter(|pod| pod["metadata"]["ownerReferences"][0]["name"] == set);
        let mut nodes: Vec<_> = owned.map(|pod| pod["spec"]["nodeName"].as_str().unwrap().to_owned()).collect();
        nodes.sort();
        nodes
    }

    /// The nodes that have a label.
    pub fn labelled(&self, key: &str, value: &str) -> Vec<String> {
        let nodes = self.stage.server.all("Node").into_iter();
        let with = nodes.filter(|node| node["metadata"]["labels"][key] == value);
        with.map(|node| node["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    }

    /// An object of the namespace `kube-system`.
    pub fn system(&self, kind: &str, name: &str) -> Value {
        self.stage.server.get(kind, "kube-system", name).unwrap_or_default()
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        for mut child in self.kept.drain(..) {
            // Fails only if it has ended.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// An operator who changes kube-proxy's mode.
fn write_editor(file: &Path) {
    fs::write(file, "#!/bin/sh\nexec sed -i 's/mode: \"\"/mode: iptables/' \"$1\"\n").unwrap();
    fs::set_permissions(file, fs::Permissions::from_mode(0o755)).unwrap();
}
