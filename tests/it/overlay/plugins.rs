//! The configuration that fairlead writes, in the hands of the stock CNI plugins.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, AsRawFd};
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use fairlead_kernel::netns::Netns;
use fairlead_lab::objects::{Port, Service, Slice};
use fairlead_lab::{Feature, Options, Place, cluster_ip, needs, probe_set};
use fairlead_plan::{Family, Protocol};
use serde_json::{Value, json};

use super::stage::{Stage, can_run, run};
use crate::program::{Program, eventually};

/// Where Debian keeps the plugins.
const PLUGINS: &str = "/usr/lib/cni";
const POD_PORT: u16 = 8080;
const HOST_PORT: u16 = 18_080;
const SERVICE_PORT: u16 = 80;
const PATIENCE: Duration = Duration::from_secs(5);

/// A pod that a container runtime would make: a namespace of its own that the plugins connect.
struct Pod {
    namespace: Netns,
    addresses: Vec<IpAddr>,
}

impl Pod {
    /// What `ip` prints there.
    #[expect(clippy::disallowed_methods, reason = "no place of the lab: a namespace that the plugins have furnished")]
    fn ip(&self, args: &str) -> String {
        let output = self.namespace.run(|| Command::new("ip").args(args.split(' ')).output().unwrap()).unwrap();
        String::from_utf8(output.stdout).unwrap()
    }
}

/// The configuration as fairlead has written it on node `a`.
fn conflist(stage: &Stage) -> Value {
    let path = stage.directory.path().join("net.d/10-fairlead.conflist");
    let text = || std::fs::read_to_string(&path).unwrap_or_default();
    eventually("the configuration is there", || serde_json::from_str::<Value>(&text()).is_ok());
    serde_json::from_str(&text()).unwrap()
}

fn launch(stage: &Stage, flags: &[&str]) -> Program {
    let directory = format!("--cni-conf-dir={}", stage.directory.path().join("net.d").display());
    let flags: Vec<&str> = ["--overlay-backend=vxlan", &directory].into_iter().chain(flags.iter().copied()).collect();
    let program = stage.launch("a", &flags);
    program.wait_until_ready();
    program
}

/// Runs all plugins of the configuration one after the other on node `a`, as a runtime does (CNI specification, section 4).
fn add_pod(stage: &Stage) -> Pod {
    let node = stage.node("a");
    let namespace = Netns::create().unwrap();
    // It has no name, but a path as long as this process has it open.
    let path = format!("/proc/{}/fd/{}", std::process::id(), namespace.as_fd().as_raw_fd());
    let list = conflist(stage);
    let mut result = Value::Null;
    for plugin in list["plugins"].as_array().unwrap() {
        let mut plugin = plugin.clone();
        (plugin["name"], plugin["cniVersion"]) = (list["name"].clone(), list["cniVersion"].clone());
        if plugin["type"] == "bridge" {
            // Where `host-local` keeps its memory is the machine's by default.
            plugin["ipam"]["dataDir"] = json!(stage.directory.path().join("host-local"));
        } else {
            let port = json!({ "hostPort": HOST_PORT, "containerPort": POD_PORT, "protocol": "tcp" });
            (plugin["prevResult"], plugin["runtimeConfig"]) = (result.clone(), json!({ "portMappings": [port] }));
        }
        result = call(node, &path, &plugin);
    }
    let addresses = result["ips"].as_array().unwrap().iter();
    let addresses = addresses.map(|ip| ip["address"].as_str().unwrap().split_once('/').unwrap().0.parse().unwrap());
    Pod { namespace, addresses: addresses.collect() }
}

fn call(node: &Place, path: &str, plugin: &Value) -> Value {
    let program = format!("{PLUGINS}/{}", plugin["type"].as_str().unwrap());
    let mut command = node.command(&program);
    command.env("CNI_COMMAND", "ADD").env("CNI_CONTAINERID", "pod").env("CNI_IFNAME", "eth0");
    command.env("CNI_NETNS", path).env("CNI_PATH", PLUGINS);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(plugin.to_string().as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{program}: {text}{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap()
}

/// Answers every connection with one word, until the process ends.
fn serve(pod: &Pod) {
    for addr in &pod.addresses {
        let at = SocketAddr::new(*addr, POD_PORT);
        // A fresh IPv6 address is not usable at once.
        let mut listener = None;
        eventually("the pod has its address", || {
            listener = pod.namespace.run(|| TcpListener::bind(at)).unwrap().ok();
            listener.is_some()
        });
        let listener = listener.unwrap();
        thread::spawn(move || {
            for stream in listener.incoming() {
                let _ = stream.and_then(|mut stream| stream.write_all(b"pod"));
            }
        });
    }
}

fn answers(from: &Place, to: SocketAddr) -> bool {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&to, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    from.run(ask).is_ok_and(|text| text == "pod")
}

#[test]
fn ac3_1_service_rules_come_before_those_of_host_ports_and_both_work_in_every_mode() {
    if !can_run() || !needs(&[Feature::Iptables]) {
        return;
    }
    for mode in ["--mode=nft", "--mode=iptables"] {
        let stage = Stage::new();
        let _programs = [launch(&stage, &[mode]), stage.launch("b", &["--overlay-backend=vxlan", mode])];
        let pod = add_pod(&stage);
        serve(&pod);
        let service = Service::new("web").cluster_ip(1).port(Port::tcp(SERVICE_PORT).named("t"));
        stage.apply([service.manifest(&stage.lab, &Family::BOTH)]);
        stage.apply(Slice::of("web").tcp("t", POD_PORT).ready(&["b1"]).manifests(&stage.lab, &Family::BOTH));
        for family in Family::BOTH {
            let (node, other) = (stage.node("a"), stage.lab.place("outside"));
            let at = SocketAddr::new(node.addr(family), HOST_PORT);
            eventually(&format!("{mode}: the host port answers in {}", family.label()), || answers(other, at));
            let vip = SocketAddr::new(cluster_ip(1).of(family), SERVICE_PORT);
            let seen = || probe_set(stage.lab.place("a1"), Protocol::Tcp, vip, &Options::default());
            eventually("the Service answers", || seen().reached.contains_key("b1"));
            assert!(answers(other, at), "{mode}: the host port still answers");
            if mode == "--mode=iptables" {
                let tool = if family == Family::V4 { "iptables" } else { "ip6tables" };
                let rules = run(node, &format!("{tool} -t nat -S PREROUTING"));
                let place = |chain: &str| rules.lines().position(|rule| rule.contains(chain));
                let (ours, theirs) = (place("-j KUBE-SERVICES"), place("-j CNI-HOSTPORT-DNAT"));
                assert!(ours.is_some() && theirs.is_some() && ours < theirs, "{rules}");
            }
        }
    }
}

#[test]
fn ac4_6_pods_get_exactly_the_documents_three_routes() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let _programs = [launch(&stage, &[]), stage.launch("b", &["--overlay-backend=vxlan"])];
    let pod = add_pod(&stage);
    let routes = |family: &str| {
        let text = pod.ip(&format!("{family} route show"));
        let lines = text.lines().map(|line| line.split(" proto").next().unwrap().trim());
        let mut lines: Vec<String> = lines.map(|line| line.replace(" metric 1024 pref medium", "")).collect();
        lines.retain(|line| !line.starts_with("fe80:"));
        lines
    };
    let v4 = ["default via 10.244.1.1 dev eth0", "10.244.0.0/16 via 10.244.1.1 dev eth0", "10.244.1.0/24 dev eth0"];
    assert_eq!(routes("-4"), v4);
    let mut v6 = routes("-6");
    v6.sort();
    assert_eq!(
        v6,
        [
            "default via fd00:244:0:1::1 dev eth0",
            "fd00:244:0:1::/64 dev eth0",
            "fd00:244::/32 via fd00:244:0:1::1 dev eth0",
        ]
    );
    let link = pod.ip("link show eth0");
    assert!(link.contains(&format!("mtu {}", conflist(&stage)["plugins"][0]["mtu"])), "{link}");
    serve(&pod);
    for addr in &pod.addresses {
        let at = SocketAddr::new(*addr, POD_PORT);
        eventually("it is reached from another node", || answers(stage.lab.place("b1"), at));
    }
}

#[test]
fn ac4_10_the_bridge_plugin_is_told_what_flannels_plugin_tells_it() {
    if !can_run() {
        return;
    }
    let stage = Stage::new();
    let conf = r#"{"Network": "10.244.0.0/16", "Backend": {"Type": "vxlan"}}"#;
    let flag = format!("--net-config-path={}", stage.directory.write("net-conf.json", conf).display());
    run(stage.node("a"), "ip link set eth0 mtu 1450");
    let _program = launch(&stage, &[&flag]);
    let list = conflist(&stage);
    // The delegate of the document, with `ranges` in place of `subnet` as flannel's current plugin has it.
    let delegate = json!({
        "bridge": "cni0",
        "hairpinMode": true,
        "ipMasq": false,
        "ipam": {
            "ranges": [[{ "subnet": "10.244.1.0/24" }]],
            "routes": [{ "dst": "10.244.0.0/16" }],
            "type": "host-local",
        },
        "isDefaultGateway": true,
        "isGateway": true,
        "mtu": 1400,
        "type": "bridge",
    });
    assert_eq!(list["plugins"][0], delegate);
    assert_eq!((&list["name"], &list["cniVersion"]), (&json!("cbr0"), &json!("0.3.1")));
    assert_eq!(list["plugins"][1], json!({ "type": "portmap", "capabilities": { "portMappings": true } }));
}
