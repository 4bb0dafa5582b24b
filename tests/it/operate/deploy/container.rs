//! A container of the DaemonSet on a node of a lab, by the runtime that Kubernetes' engines use: what the manifest says becomes
//! what kubelet and an engine would ask of it.
#![expect(clippy::disallowed_methods, reason = "runc runs the container, and the volumes are made")]

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};

use fairlead_lab::{POD_NETS, Place};
use serde_json::{Value, json};

use super::rendered::{Rendered, arguments};
use super::seccomp::runtime_default;
use crate::program::{BINARY, Directory, HEALTH_PORT, METRICS_PORT, eventually, http_get};

/// Where pods have their service account.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// The limits of the whole machine stay, and so does the OOM score, which kubelet sets and a machine that is itself a container does
/// not let anybody lower.
const LIMITS: &str = "conntrack:\n  maxPerCore: 0";
/// What engines hide from containers without privilege, and what they let them read alone.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];
/// The capabilities of Linux in the order of their numbers (capability.h).
const CAPABILITIES: &str = "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE \
    NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO SYS_CHROOT SYS_PTRACE SYS_PACCT \
    SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP \
    MAC_OVERRIDE MAC_ADMIN SYSLOG WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE";

/// The pod of a node: its volumes and the image.
pub struct Pod<'a> {
    rendered: Rendered,
    place: Place,
    directory: &'a Directory,
    /// Sources of volumes.
    volumes: PathBuf,
    root: PathBuf,
    server: String,
}

impl<'a> Pod<'a> {
    /// A pod of a folder of `deploy/overlays`; `directory` holds everything; `server` is the URL of the API server.
    pub fn new(overlay: &str, place: &Place, directory: &'a Directory, server: String) -> Self {
        let pod = Self::of(Rendered::new(overlay), place, directory, server);
        pod.set(
            "clusterCIDR: 10.244.0.0/16,fd00:10:244::/56",
            &format!("clusterCIDR: {}\n{LIMITS}", POD_NETS.join(",")),
        );
        pod.set("oomScoreAdj: -997", "oomScoreAdj: 0");
        pod
    }

    /// A pod of these objects.
    pub fn of(rendered: Rendered, place: &Place, directory: &'a Directory, server: String) -> Self {
        let own = directory.path().join(format!("pod-{}", place.name()));
        let (volumes, root) = (own.join("volumes"), own.join("root"));
        fairlead_image::copy(Path::new(BINARY), &root).unwrap();
        let pod = Self { rendered, place: place.clone(), directory, volumes, root, server };
        pod.make_volumes();
        pod
    }

    fn make_volumes(&self) {
        for volume in self.rendered.pod()["volumes"].as_array().unwrap() {
            let source = self.volumes.join(volume["name"].as_str().unwrap());
            match volume["hostPath"]["type"].as_str() {
                Some("FileOrCreate") => {
                    fs::create_dir_all(&self.volumes).unwrap();
                    File::create(source).unwrap();
                }
                Some("DirectoryOrCreate") => fs::create_dir_all(source).unwrap(),
                Some(other) => panic!("a volume of type {other}"),
                None => {
                    fs::create_dir_all(&source).unwrap();
                    for (name, text) in self.rendered.files(volume["name"].as_str().unwrap()) {
                        fs::write(source.join(name), text).unwrap();
                    }
                }
            }
        }
        let account = self.volumes.join("account");
        fs::create_dir(&account).unwrap();
        fs::write(account.join("token"), "token").unwrap();
        fs::write(account.join("ca.crt"), super::super::drop_in::AUTHORITY).unwrap();
    }

    /// Changes the file of settings.
    pub fn set(&self, from: &str, to: &str) {
        let volumes = self.rendered.pod()["volumes"].as_array().unwrap().iter();
        let files = volumes.map(|volume| self.volume(volume["name"].as_str().unwrap()).join("config.conf"));
        let file = files.into_iter().find(|file| file.is_file()).unwrap();
        let text = fs::read_to_string(&file).unwrap();
        assert!(text.contains(from), "{from} in {text}");
        fs::write(file, text.replace(from, to)).unwrap();
    }

    /// Where a volume of the node is.
    pub fn volume(&self, name: &str) -> PathBuf {
        self.volumes.join(name)
    }

    /// Runs the first container to its end, which must be a good one.
    pub fn prepare(&self) {
        let mut container = self.launch("init", self.rendered.init_container());
        let status = container.child.wait().unwrap();
        assert!(status.success(), "the first container ended with {status}");
    }

    /// Starts the one that does the job.
    pub fn start(&self) -> Container {
        let container = self.launch("main", self.rendered.container());
        container.wait_until_ready(&self.rendered);
        container
    }

    /// Starts it without one of its capabilities, and waits for nothing.
    pub fn start_without(&self, capability: &str) -> Container {
        let mut container = self.rendered.container().clone();
        let given = container["securityContext"]["capabilities"]["add"].as_array_mut().unwrap();
        given.retain(|name| name != capability);
        self.launch("main", &container)
    }

    fn launch(&self, name: &str, container: &Value) -> Container {
        let bundle = self.volumes.with_file_name(name);
        fs::create_dir_all(&bundle).unwrap();
        fs::write(bundle.join("config.json"), self.config(container).to_string()).unwrap();
        let id = format!("{}-{name}", self.place.namespace());
        let log = self.directory.path().join(format!("{id}.log"));
        let mut command = Command::new("runc");
        command.args(["run", "--bundle"]).arg(&bundle).arg(&id);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        Container { child: command.spawn().unwrap(), id, place: self.place.clone(), log }
    }

    /// The container for an OCI runtime.
    fn config(&self, container: &Value) -> Value {
        let security = &container["securityContext"];
        let privileged = security["privileged"] == true;
        let capabilities = capabilities(security);
        let pod = self.rendered.pod();
        assert_eq!(pod["hostNetwork"], true);
        let environment = [("NODE_NAME", self.place.name()), ("API_SERVER", self.server.as_str())];
        let mut words = arguments(container, &environment);
        if container.get("command").is_none() {
            words.insert(0, "/usr/bin/fairlead".to_owned());
        }
        let mut process = json!({
            "user": {"uid": security["runAsUser"].as_u64().unwrap_or(0), "gid": 0},
            "args": words,
            "env": ["PATH=/usr/bin", "NO_COLOR=1"],
            "cwd": "/",
            "noNewPrivileges": security["allowPrivilegeEscalation"] == false,
        });
        process["capabilities"] =
            json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities});
        let mut linux = json!({
            "namespaces": [
                {"type": "mount"}, {"type": "pid"}, {"type": "ipc"}, {"type": "uts"},
                {"type": "network", "path": format!("/run/netns/{}", self.place.namespace())},
            ],
        });
        if !privileged {
            assert_eq!(pod["securityContext"]["seccompProfile"]["type"], "RuntimeDefault");
            linux["seccomp"] = runtime_default(&capabilities);
            linux["readonlyPaths"] = json!(READ_ONLY);
        }
        json!({
            "ociVersion": "1.0.2",
            "process": process,
            "root": {"path": self.root, "readonly": security["readOnlyRootFilesystem"] == true},
            "hostname": self.place.name(),
            "mounts": self.mounts(container, privileged),
            "linux": linux,
        })
    }

    fn mounts(&self, container: &Value, privileged: bool) -> Vec<Value> {
        let sys = if privileged { "rw" } else { "ro" };
        let mut mounts = vec![
            json!({"destination": "/proc", "type": "proc", "source": "proc"}),
            json!({"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]}),
            json!({"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", sys]}),
        ];
        let bind = |from: PathBuf, to: &str, read_only: bool| {
            let access = if read_only { "ro" } else { "rw" };
            json!({"destination": to, "type": "bind", "source": from, "options": ["rbind", access]})
        };
        let wanted = container["volumeMounts"].as_array().unwrap().iter();
        mounts.extend(wanted.map(|mount| {
            let (name, path) = (mount["name"].as_str().unwrap(), mount["mountPath"].as_str().unwrap());
            bind(self.volume(name), path, mount["readOnly"] == true)
        }));
        mounts.push(bind(self.volume("account"), ACCOUNT, true));
        mounts
    }
}

/// The capabilities of a container, as the kernel names them. One with privilege has all that can be had on this machine.
fn capabilities(security: &Value) -> Vec<String> {
    let named = |name: &str| format!("CAP_{name}");
    if security["privileged"] == true {
        let ours = fs::read_to_string("/proc/self/status").unwrap();
        let ours = ours.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).unwrap();
        let ours = u64::from_str_radix(ours, 16).unwrap();
        let all = CAPABILITIES.split_whitespace().enumerate().filter(|(bit, _)| ours >> bit & 1 == 1);
        return all.map(|(_, name)| named(name)).collect();
    }
    assert_eq!(security["capabilities"]["drop"], json!(["ALL"]));
    security["capabilities"]["add"].as_array().unwrap().iter().map(|name| named(name.as_str().unwrap())).collect()
}

/// These capabilities as the kernel shows a set of them.
pub fn mask(security: &Value) -> String {
    let given = capabilities(security);
    let bits = CAPABILITIES.split_whitespace().enumerate();
    let bits = bits.filter(|(_, name)| given.contains(&format!("CAP_{name}"))).map(|(bit, _)| 1_u64 << bit);
    format!("{:016x}", bits.sum::<u64>())
}

/// A container that runs. Dropping it ends and removes it, and prints its log if the test has failed.
pub struct Container {
    child: Child,
    id: String,
    place: Place,
    log: PathBuf,
}

impl Container {
    /// Waits until the probes of the manifest succeed, asked as kubelet asks; where it has none, until the program is ready.
    fn wait_until_ready(&self, rendered: &Rendered) {
        let probes = ["startupProbe", "readinessProbe", "livenessProbe"].into_iter();
        let paths = probes.filter_map(|probe| rendered.container()[probe]["httpGet"]["path"].as_str());
        for path in paths.chain(["/readyz"]) {
            let good = || self.get(HEALTH_PORT, path).is_some_and(|(status, _)| status == 200);
            eventually(&format!("{path} succeeds"), good);
        }
    }

    /// An answer at the node's own address, `None` while there is none; metrics at loopback.
    pub fn get(&self, port: u16, path: &str) -> Option<(u16, String)> {
        let address = self.place.addr(fairlead_plan::Family::V4);
        let to = if port == METRICS_PORT { [127, 0, 0, 1].into() } else { address };
        self.place.run(|| http_get((to, port).into(), path)).ok()
    }

    /// The fields of `/proc/PID/status` of its process.
    pub fn status(&self) -> BTreeMap<String, String> {
        let output = Command::new("runc").args(["state", &self.id]).output().unwrap();
        let state: Value = serde_json::from_slice(&output.stdout).unwrap();
        let status = fs::read_to_string(format!("/proc/{}/status", state["pid"])).unwrap();
        let fields = status.lines().filter_map(|line| line.split_once(":\t"));
        fields.map(|(name, value)| (name.to_owned(), value.trim().to_owned())).collect()
    }

    /// What it has logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap()
    }

    /// Ends it as kubelet does and gives back how it ended.
    pub fn stop(mut self) -> ExitStatus {
        let sent = Command::new("runc").args(["kill", &self.id, "TERM"]).status().unwrap();
        assert!(sent.success());
        self.child.wait().unwrap()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // Fails if it has ended, and then there is nothing left to remove.
        let _ = Command::new("runc").args(["delete", "--force", &self.id]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- log of {}\n{}", self.id, self.log());
        }
    }
}
