//! kubeadm's own ConfigMap and the command line of its DaemonSet, with another program in the image.
#![expect(clippy::disallowed_methods, reason = "tests make the files that a pod has")]

use std::fs::{self, File};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Stdio;

use fairlead_lab::api::Settings;
use fairlead_lab::objects::Port;
use fairlead_lab::{POD_NETS, Place, cluster_ip};
use fairlead_plan::{Family, Protocol};
use serde_json::Value;

use crate::faults::{PORT, answers, can_run, service, slice, until_answered_by, without_failure};
use crate::program::{BINARY, Cluster, METRICS_PORT, Program, eventually, run_here, tables};

/// `config.conf` as kubeadm writes it.
pub const CONFIG: &str = include_str!("../../../src/config/file/kubeadm.yaml");
/// `kubeconfig.conf` as kubeadm writes it; the server is put in.
pub const KUBECONFIG: &str = "\
apiVersion: v1
kind: Config
clusters:
- cluster:
    certificate-authority: /var/run/secrets/kubernetes.io/serviceaccount/ca.crt
    server: SERVER
  name: default
contexts:
- context:
    cluster: default
    namespace: default
    user: default
  name: default
current-context: default
users:
- name: default
  user:
    tokenFile: /var/run/secrets/kubernetes.io/serviceaccount/token
";
/// The same settings without a limit of tracked connections, which only the machine's own network namespace can set; whether it has
/// to be set depends on the number of processors.
pub fn without_limit(config: &str) -> String {
    config.replace("maxPerCore: null", "maxPerCore: 0")
}

const TOKEN: &str = "token-of-the-service-account";
pub const AUTHORITY: &str = "\
-----BEGIN CERTIFICATE-----
MIIBgTCCASegAwIBAgIUGlLrSEsYCk4+/yuUXC3R4EHrZYYwCgYIKoZIzj0EAwIw
FTETMBEGA1UEAwwKa3ViZXJuZXRlczAgFw0yNjExMjExMjM2MzJaGA8yMTI2MTAy
ODEyMzYzMlowFTETMBEGA1UEAwwKa3ViZXJuZXRlczBZMBMGByqGSM49AgEGCCqG
SM49AwEHA0IABEGLlJvD/e9YcdDXD5qNjjy5PRucb/3yPUaFj94Xz4ZgTeQfJTZR
jX96WOAyh9p0qXtS3gKfU8fEwUU9r5lCqOijUzBRMB0GA1UdDgQWBBTHejDsGJ+I
a0t44Jb4smLlVVP+aTAfBgNVHSMEGDAWgBTHejDsGJ+Ia0t44Jb4smLlVVP+aTAP
BgNVHRMBAf8EBTADAQH/MAoGCCqGSM49BAMCA0gAMEUCIQCXa5NYuHhcrRIB/8oY
uJ9koDoehaysXD0XnydZpVJ2lQIgMrGhuDISlxKw0vrbGCxhTyREUpMzWtlQ4BBc
JU6QfWs=
-----END CERTIFICATE-----
";

/// What the pod's container sees: `$1` is the directory with the two volumes, mounted where the DaemonSet has them. The
/// directories in which they are appear in the container alone.
const CONTAINER: &str = "
    mount -t tmpfs none /var/lib && mkdir /var/lib/kube-proxy && mount --bind \"$1/config\" /var/lib/kube-proxy
    mount -t tmpfs none /run && mkdir -p /run/secrets/kubernetes.io/serviceaccount
    mount --bind \"$1/account\" /run/secrets/kubernetes.io/serviceaccount
    shift
    exec \"$@\"";
/// The command of the DaemonSet, as kubeadm writes it, after the name of the program.
const ARGUMENTS: [&str; 2] = ["--config=/var/lib/kube-proxy/config.conf", "--hostname-override=a"];

/// A cluster whose API server wants the token, and the volumes of the pod.
struct Pod {
    cluster: Cluster,
}

impl Pod {
    /// `config` is `config.conf`.
    fn new(config: &str) -> Self {
        let cluster = Cluster::with(Settings { token: Some(TOKEN.to_owned()), ..Settings::default() });
        let root = cluster.directory.path();
        fs::create_dir_all(root.join("account")).unwrap();
        fs::write(root.join("account/token"), TOKEN).unwrap();
        fs::write(root.join("account/ca.crt"), AUTHORITY).unwrap();
        fs::create_dir_all(root.join("config")).unwrap();
        let pod = Self { cluster };
        pod.put_config_map(config, 1);
        pod
    }

    /// Writes the ConfigMap's volume as kubelet does: a directory for each version, a link to the newest, links to its files.
    fn put_config_map(&self, config: &str, version: u32) {
        let volume = self.cluster.directory.path().join("config");
        let directory = format!("..2026_11_21_{version}");
        fs::create_dir(volume.join(&directory)).unwrap();
        fs::write(volume.join(&directory).join("config.conf"), config).unwrap();
        let kubeconfig = KUBECONFIG.replace("SERVER", &self.cluster.server.url());
        fs::write(volume.join(&directory).join("kubeconfig.conf"), kubeconfig).unwrap();
        symlink(&directory, volume.join("..data_tmp")).unwrap();
        fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
        for name in ["config.conf", "kubeconfig.conf"] {
            if version == 1 {
                symlink(Path::new("..data").join(name), volume.join(name)).unwrap();
            }
        }
    }

    fn command(&self, flags: &[&str]) -> std::process::Command {
        let mut command = self.cluster.node().command("sh");
        command
            .args(["-ec", CONTAINER, "sh"])
            .arg(self.cluster.directory.path())
            .arg(BINARY)
            .args(ARGUMENTS)
            .args(flags);
        command.env("NO_COLOR", "1").env_remove("RUST_LOG").stdin(Stdio::null());
        command
    }

    fn start(&self) -> Program {
        let log = self.cluster.directory.path().join("log");
        let mut command = self.command(&[]);
        command.stdout(Stdio::null()).stderr(File::create(&log).unwrap());
        let program = Program::of(command, self.cluster.node(), log);
        program.wait_until_ready();
        program
    }

    fn place(&self, name: &str) -> &Place {
        self.cluster.lab.place(name)
    }
}

/// kubeadm's file for the pods of the lab.
fn config() -> String {
    let of_kubeadm = "clusterCIDR: 10.244.0.0/16,fd00:10:244::/56";
    assert!(CONFIG.contains(of_kubeadm));
    CONFIG.replace(of_kubeadm, &format!("clusterCIDR: {}", POD_NETS.join(",")))
}

fn configz(program: &Program) -> Value {
    let (status, body) = program.get(METRICS_PORT, "/configz").unwrap();
    assert_eq!(status, 200);
    serde_json::from_str(&body).unwrap()
}

fn is_answered(from: &Place, to: SocketAddr) -> bool {
    answers(from, Protocol::Tcp, to) == ["a1"]
}

#[test]
fn kubeadms_config_map_and_daemon_set_run_with_another_image() {
    if !can_run() {
        return;
    }
    let pod = Pod::new(&config());
    pod.cluster.serve("web", 1, &["a1", "b1"]);
    let lab = &pod.cluster.lab;
    let node_port = service("ports", 2).port(Port::tcp(81).named("n").node_port(30_081));
    pod.cluster.apply([node_port.spec("type", "NodePort").manifest(lab, &Family::BOTH)]);
    pod.cluster.apply(slice("ports", &["a1"]).tcp("n", 8080).manifests(lab, &Family::BOTH));
    let program = pod.start();
    for from in ["a2", "outside", "a"] {
        until_answered_by(pod.place(from), 1, &["a1", "b1"]);
    }
    for family in Family::BOTH {
        for address in [pod.place("a").addr(family), pod.place("a").second().of(family)] {
            let to = SocketAddr::new(address, 30_081);
            eventually(&format!("node port {to} answers"), || is_answered(pod.place("outside"), to));
        }
    }
    let loopback = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 30_081);
    eventually("the node port answers on loopback", || is_answered(pod.place("a"), loopback));
    assert_eq!(program.get(METRICS_PORT, "/proxyMode").unwrap(), (200, "nftables".to_owned()));
    assert_eq!(program.get(METRICS_PORT, "/healthz").unwrap(), (200, "ok".to_owned()));
    assert!(program.get(METRICS_PORT, "/metrics").unwrap().1.contains("kubeproxy_sync_proxy_rules_duration_seconds"));
    for path in ["/healthz", "/livez"] {
        assert_eq!(program.get(crate::program::HEALTH_PORT, path).unwrap().0, 200, "{path}");
    }
    let shown = configz(&program);
    assert_eq!(shown["kubeproxy.config.k8s.io"]["clusterCIDR"], POD_NETS.join(","));
    assert_eq!(shown["kubeproxy.config.k8s.io"]["hostnameOverride"], "a");
    let warnings: Vec<String> =
        program.log().lines().filter(|line| line.contains("config.conf")).map(str::to_owned).collect();
    assert_eq!(warnings, Vec::<String>::new(), "nothing in kubeadm's file is strange");
}

#[test]
fn a_new_config_map_is_applied_in_place_and_a_wrong_one_is_refused_and_no_connection_fails() {
    if !can_run() {
        return;
    }
    let pod = Pod::new(&config());
    pod.cluster.serve("web", 1, &["a1", "b1"]);
    let program = pod.start();
    until_answered_by(pod.place("a2"), 1, &["a1", "b1"]);
    let hammer = pod.cluster.hammer("a2", 1);
    hammer.wait_for(20);
    let process = program.id();

    pod.put_config_map(&config().replace("mode: \"\"", "mode: userspace"), 2);
    program.wait_for_line(&["config.conf", "cannot be used", "mode=userspace", "the settings stay as they were"]);
    eventually("it is counted", || program.metric("fairlead_failures_total", "cause=\"input\"") == 1.0);
    assert_eq!(configz(&program)["kubeproxy.config.k8s.io"]["mode"], "");

    pod.put_config_map(&format!("# a comment\n{}", config()), 3);
    pod.put_config_map(
        &config().replace("verbosity: 0", "verbosity: 2").replace("masqueradeAll: false", "masqueradeAll: true"),
        4,
    );
    program.wait_for_line(&["config.conf", "has changed; starting again"]);
    eventually("the new settings count", || {
        program.get(METRICS_PORT, "/configz").is_ok_and(|(_, body)| body.contains("\"masqueradeAll\":true"))
    });
    program.wait_until_ready();
    assert_eq!(program.id(), process, "it is the same process, so the pod was not started again");
    let changed = program.log().matches("has changed; starting again").count();
    assert_eq!(changed, 1, "a comment changes nothing");
    let node = pod.place("a");
    for family in Family::BOTH {
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        eventually("pods are masqueraded now", || {
            let seen = fairlead_lab::probe(pod.place("a2"), Protocol::Tcp, to);
            let fairlead_lab::Outcome::Reached { source, .. } = seen else { return false };
            node.all_addresses().iter().any(|addresses| addresses.of(family) == source.ip())
        });
    }
    without_failure(hammer);
}

#[test]
fn init_only_makes_the_node_forward_where_there_is_an_overlay() {
    if !can_run() {
        return;
    }
    let pod = Pod::new(&without_limit(&config()));
    let node = pod.place("a");
    let paths = ["net/ipv4/ip_forward", "net/ipv6/conf/all/forwarding", "net/ipv6/conf/eth0/accept_ra"];
    let set = |values: [&str; 3]| {
        for (path, value) in paths.into_iter().zip(values) {
            node.run(|| fs::write(format!("/proc/sys/{path}"), value)).unwrap();
        }
    };
    let held =
        || paths.map(|path| node.run(|| fs::read_to_string(format!("/proc/sys/{path}"))).unwrap().trim().to_owned());
    for (flags, before, after) in [
        (&["--init-only"] as &[&str], ["0", "0", "1"], ["0", "0", "1"]),
        (&["--init-only", "--overlay-backend=vxlan"], ["0", "0", "1"], ["1", "1", "2"]),
        // A router that listens to no other stays one.
        (&["--init-only", "--overlay-backend=vxlan"], ["1", "1", "1"], ["1", "1", "1"]),
    ] {
        set(before);
        let output = pod.command(flags).output().unwrap();
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(held(), after, "{flags:?} after {before:?}");
    }
}

#[test]
fn init_only_and_cleanup_and_write_config_to_end_by_themselves() {
    if !can_run() {
        return;
    }
    let limits = "maxPerCore: 0\n  tcpCloseWaitTimeout: 17m";
    let config = config().replace("maxPerCore: null", limits).replace("  tcpCloseWaitTimeout: null\n", "");
    let pod = Pod::new(&config);
    let node = pod.place("a");
    let done = |flags: &[&str]| {
        let output = pod.command(flags).output().unwrap();
        assert!(output.status.success(), "{flags:?}: {}", String::from_utf8_lossy(&output.stderr));
    };
    done(&["--init-only"]);
    let setting = "/proc/sys/net/netfilter/nf_conntrack_tcp_timeout_close_wait";
    assert_eq!(node.run(|| fs::read_to_string(setting)).unwrap().trim(), "1020");
    assert_eq!(tables(node), [false, false], "it sets limits and no rules");

    let written = pod.cluster.directory.path().join("written.yaml");
    done(&[&format!("--write-config-to={}", written.display())]);
    let text = fs::read_to_string(&written).unwrap();
    for line in [
        "kind: KubeProxyConfiguration",
        "tcpCloseWaitTimeout: 17m0s",
        "hostnameOverride: a",
        "kind: FairleadConfiguration",
    ] {
        assert!(text.contains(line), "{line} in {text}");
    }

    let program = pod.start();
    assert_eq!(tables(node), [true, true]);
    assert!(program.terminate().success());
    assert_eq!(tables(node), [true, true], "services go on without the program");
    done(&["--cleanup"]);
    assert_eq!(tables(node), [false, false]);
}

#[test]
fn every_flag_of_kube_proxy_is_accepted_and_what_means_nothing_is_said() {
    let flags = [
        "--bind-address=0.0.0.0",
        "--bind-address-hard-fail=false",
        "--boot-id-file=/x",
        "--cleanup=false",
        "--cluster-cidr=10.0.0.0/8",
        "--config-sync-period=15m0s",
        "--conntrack-max-per-core=32768",
        "--conntrack-min=131072",
        "--conntrack-tcp-be-liberal",
        "--conntrack-tcp-timeout-close-wait=1h0m0s",
        "--conntrack-tcp-timeout-established=24h0m0s",
        "--conntrack-udp-timeout=0s",
        "--conntrack-udp-timeout-stream=0s",
        "--detect-local-mode=ClusterCIDR",
        "--feature-gates=AllowServiceExternalIPs=true,NFTablesProxyMode=true",
        "--healthz-bind-address=0.0.0.0",
        "--healthz-port=10256",
        "--hostname-override=n",
        "--init-only=false",
        "--iptables-localhost-nodeports=true",
        "--iptables-masquerade-bit=14",
        "--iptables-min-sync-period=1s",
        "--iptables-sync-period=30s",
        "--ipvs-exclude-cidrs=10.0.0.0/8",
        "--ipvs-min-sync-period=0s",
        "--ipvs-scheduler=rr",
        "--ipvs-strict-arp",
        "--ipvs-sync-period=30s",
        "--ipvs-tcp-timeout=0s",
        "--ipvs-tcpfin-timeout=0s",
        "--ipvs-udp-timeout=0s",
        "--kube-api-burst=10",
        "--kube-api-content-type=application/vnd.kubernetes.protobuf",
        "--kube-api-qps=5",
        "--kubeconfig=/x",
        "--log-flush-frequency=5s",
        "--log-json-info-buffer-size=0",
        "--log-json-split-stream",
        "--log-text-info-buffer-size=0",
        "--log-text-split-stream=false",
        "--logging-format=text",
        "--machine-id-file=/x",
        "--masquerade-all=false",
        "--master=https://192.0.2.1:6443",
        "--metrics-bind-address=127.0.0.1",
        "--metrics-port=10249",
        "--nodeport-addresses=primary",
        "--oom-score-adj=-999",
        "--pod-bridge-interface=",
        "--pod-interface-name-prefix=",
        "--profiling=true",
        "--proxy-mode=iptables",
        "--show-hidden-metrics-for-version=1.35",
        "-v=2",
        "--vmodule=a=1",
        "--version=false",
    ];
    let directory = crate::program::Directory::new();
    let to = directory.path().join("written.yaml");
    let write = format!("--write-config-to={}", to.display());
    let output = run_here(&flags.iter().copied().chain([write.as_str()]).collect::<Vec<_>>());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(fs::read_to_string(to).unwrap().contains("mode: iptables"));
    let version = run_here(&["--version=raw"]);
    assert_eq!(String::from_utf8_lossy(&version.stdout), format!("fairlead {}\n", env!("CARGO_PKG_VERSION")));
    // A manifest directory that is not there ends the program after it has said what it thinks of its flags.
    let output = run_here(&[
        "--manifests=/no/such/directory",
        "--conntrack-max-per-core=0",
        "--profiling",
        "--vmodule=a=1",
        "--oom-score-adj=0",
        "--conntrack-tcp-timeout-established=0",
        "--conntrack-tcp-timeout-close-wait=0",
        "--feature-gates=NFTablesProxyMode=true",
    ]);
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    let line = log.lines().find(|line| line.contains("no effect in fairlead have")).unwrap_or_else(|| panic!("{log}"));
    for word in ["--profiling (", "--vmodule (RUST_LOG does it)", "--feature-gates=NFTablesProxyMode ("] {
        assert!(line.contains(word), "{word} in {line}");
    }
}
