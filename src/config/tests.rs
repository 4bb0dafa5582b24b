use std::io;
use std::time::Duration;

use super::*;
use crate::resolve::{DetectMode, NodePortAddresses};

fn read(flags: &[&str]) -> Result<Command, UsageError> {
    let host = Host { name: Ok(" Node-A\n".to_owned()), families: Family::BOTH.to_vec() };
    parse(std::iter::once(&"fairlead").chain(flags).copied(), host)
}

fn settings(flags: &[&str]) -> Settings {
    match read(flags) {
        Ok(Command::Run(settings)) => *settings,
        other => panic!("{flags:?}: {other:?}"),
    }
}

fn refusal(flags: &[&str]) -> String {
    read(flags).expect_err("must be refused").to_string()
}

#[test]
fn without_flags_everything_has_kube_proxys_default() {
    let settings = settings(&[]);
    assert_eq!(settings.mode, Mode::Nft);
    assert_eq!(settings.mode.kube_proxy_name(), "nftables");
    assert_eq!(settings.traffic.node_name, "node-a");
    assert_eq!(settings.healthz, "0.0.0.0:10256".parse().ok());
    assert_eq!(settings.metrics, "127.0.0.1:10249".parse().ok());
    assert_eq!(settings.traffic.masquerade_bit, 14);
    assert_eq!(settings.traffic.detect, DetectMode::ClusterCidr(vec![]));
    assert_eq!(settings.traffic.node_port_addresses, NodePortAddresses::Primary);
    assert_eq!(settings.traffic.bind_address, None);
    assert_eq!(settings.sync_period.as_secs(), 30);
    assert_eq!(settings.resync.as_secs(), 900);
    assert_eq!(settings.oom_score_adj, -999);
    assert_eq!(settings.conntrack, ConntrackSettings::default());
    let api = ApiSettings { kubeconfig: None, master: None, qps: 5.0, burst: 10 };
    assert_eq!(settings.source, ApiSource::Api(api));
    assert_eq!(settings.log.filter(), "warn,fairlead=info");
}

#[test]
fn an_ipv6_bind_address_moves_the_default_listeners() {
    for bind in ["::", "2001:db8::1"] {
        let settings = settings(&[&format!("--bind-address={bind}")]);
        assert_eq!(settings.healthz, "[::]:10256".parse().ok());
        assert_eq!(settings.metrics, "[::1]:10249".parse().ok());
    }
}

#[test]
fn listeners_can_be_moved_and_switched_off() {
    let moved = settings(&["--healthz-bind-address=[2001:db8::1]:99", "--metrics-bind-address", "192.0.2.1"]);
    assert_eq!(moved.healthz, "[2001:db8::1]:99".parse().ok());
    assert_eq!(moved.metrics, "192.0.2.1:10249".parse().ok());
    assert_eq!(settings(&["--metrics-bind-address=::1"]).metrics, "[::1]:10249".parse().ok());
    let off = settings(&["--healthz-bind-address=", "--metrics-bind-address="]);
    assert_eq!((off.healthz, off.metrics), (None, None));
}

#[test]
fn kube_proxys_usual_command_line_is_understood() {
    let settings = settings(&[
        "--proxy-mode=nftables",
        "--kubeconfig=/var/lib/kube-proxy/kubeconfig.conf",
        "--hostname-override= Worker-1 ",
        "--cluster-cidr=fd00:10:244::/56,10.244.1.2/16",
        "--masquerade-all",
        "--nodeport-addresses=192.0.2.0/24,::/0",
        "--iptables-masquerade-bit=31",
        "--iptables-min-sync-period=1s",
        "--iptables-sync-period=1m0s",
        "--conntrack-tcp-be-liberal=true",
        "--conntrack-udp-timeout=30s",
        "--oom-score-adj",
        "-998",
        "--logging-format=json",
        "-v=4",
    ]);
    assert_eq!(settings.traffic.node_name, "worker-1");
    let nets = ["fd00:10:244::/56", "10.244.0.0/16"].map(|net| net.parse().unwrap());
    assert_eq!(settings.traffic.detect, DetectMode::ClusterCidr(nets.to_vec()));
    assert!(settings.traffic.masquerade_all);
    let nets = ["192.0.2.0/24", "::/0"].map(|net| net.parse().unwrap());
    assert_eq!(settings.traffic.node_port_addresses, NodePortAddresses::Cidrs(nets.to_vec()));
    assert_eq!(settings.traffic.masquerade_bit, 31);
    assert!(settings.conntrack.tcp_be_liberal);
    assert_eq!(settings.conntrack.udp_timeout.as_secs(), 30);
    assert_eq!(settings.oom_score_adj, -998);
    assert_eq!(settings.log, LogSettings { format: LogFormat::Json, verbosity: 4 });
    assert_eq!(settings.notes(), Vec::<String>::new());
}

#[test]
fn localhost_adds_loopback_and_opens_no_other_address() {
    let of = |text: &str| {
        let settings = settings(&["--cluster-cidr=10.0.0.0/8", &format!("--nodeport-addresses={text}")]);
        (settings.loopback_node_ports, settings.traffic.node_port_addresses.clone(), settings.notes().len())
    };
    let only = |nets: &[&str]| NodePortAddresses::Only(nets.iter().map(|net| net.parse().unwrap()).collect());
    assert_eq!(of("localhost"), (true, only(&[]), 1));
    assert_eq!(of(" primary, localhost"), (true, NodePortAddresses::Primary, 0));
    assert_eq!(of("localhost,10.0.0.0/8"), (true, only(&["10.0.0.0/8"]), 0));
    assert_eq!(of("2001:db8::/64,localhost"), (true, only(&["2001:db8::/64"]), 0));
    assert_eq!(of("primary"), (false, NodePortAddresses::Primary, 0));
}

#[test]
fn the_flags_of_mode_ipvs_reach_the_backend() {
    let plain = settings(&["--proxy-mode=ipvs"]);
    assert_eq!(plain.mode, Mode::Ipvs);
    assert_eq!((plain.mode.name(), plain.mode.kube_proxy_name()), ("ipvs", "ipvs"));
    assert_eq!(plain.ipvs.backend, fairlead_ipvs::Settings::default());
    assert_eq!(plain.ipvs.sync_period, Duration::from_secs(30));
    let flags = [
        "--ipvs-scheduler=mh",
        "--ipvs-exclude-cidrs=10.0.0.0/8, fd00::/8",
        "--ipvs-strict-arp",
        "--ipvs-tcp-timeout=15m",
        "--ipvs-tcpfin-timeout=2m",
        "--ipvs-udp-timeout=5m",
        "--ipvs-sync-period=1m",
    ];
    let IpvsSettings { backend, sync_period } = settings(&flags).ipvs;
    assert_eq!(sync_period, Duration::from_secs(60));
    let wanted = fairlead_ipvs::Settings {
        scheduler: fairlead_ipvs::Scheduler::MaglevHash,
        exclude_cidrs: vec!["10.0.0.0/8".parse().unwrap(), "fd00::/8".parse().unwrap()],
        strict_arp: true,
        timeouts: fairlead_ipvs::Timeouts { tcp: 900, tcp_fin: 120, udp: 300 },
    };
    assert_eq!(backend, wanted);
}

#[test]
fn every_detector_can_be_chosen() {
    let of = |flags: &[&str]| settings(flags).traffic.detect;
    assert_eq!(of(&["--detect-local-mode=NodeCIDR"]), DetectMode::NodeCidr);
    let bridge = of(&["--detect-local-mode=BridgeInterface", "--pod-bridge-interface=cni0"]);
    assert_eq!(bridge, DetectMode::BridgeInterface("cni0".into()));
    let prefix = of(&["--detect-local-mode=InterfaceNamePrefix", "--pod-interface-name-prefix=veth"]);
    assert_eq!(prefix, DetectMode::InterfaceNamePrefix("veth".into()));
}

#[test]
fn a_missing_detector_and_a_missing_family_are_said_loudly() {
    assert_eq!(settings(&[]).notes().len(), 1);
    let notes = settings(&["--cluster-cidr=10.0.0.0/8", "--nodeport-addresses=10.0.0.0/8"]).notes();
    assert!(notes.len() == 1 && notes[0].contains("IPv6"), "{notes:?}");
}

#[test]
fn wrong_input_gets_one_sentence_that_names_the_flag_and_the_remedy() {
    let cases: &[(&[&str], &str)] = &[
        (&["--mode=ebpf"], "--mode=ebpf: no such mode; use nft, iptables or ipvs."),
        (&["--iptables-variant=old"], "--iptables-variant=old: no such variant; use auto, legacy or nft."),
        (&["--mod=nft"], "--mod is not a flag of fairlead; did you mean --mode?"),
        (
            &["--feature-gates=AllowServiceExternalIPs"],
            "--feature-gates=AllowServiceExternalIPs: is no gate; write it like AllowServiceExternalIPs=false.",
        ),
        (
            &["--ipvs-scheduler=round robin"],
            "--ipvs-scheduler=round robin: is no name of a scheduler; write one like rr, lc or mh.",
        ),
        (
            &["--ipvs-exclude-cidrs=10.0.0.0/8,here"],
            "--ipvs-exclude-cidrs=here: is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56.",
        ),
        (
            &["--ipvs-udp-timeout=900h"],
            "--ipvs-udp-timeout=3240000s: is longer than the kernel can count; write at most 596h.",
        ),
        (
            &["--ipvs-tcp-timeout=10ms"],
            "--ipvs-tcp-timeout=10ms: is less than a second; write whole seconds, or 0s for the kernel's value.",
        ),
        (&["--ipvs-sync-period=0"], "--ipvs-sync-period=0s: must be longer than nothing; write something like 30s."),
        (
            &["clean"],
            "clean is not a command of fairlead; use one of cleanup, render, status, services, explain, completions, man, \
             metrics, overlay, or flags alone to run it.",
        ),
        (&["render"], "--filename is missing; add it."),
        (
            &["--iptables-sync-period=30"],
            "--iptables-sync-period=30: is not a duration; write it like 30s, 1m30s or 1h.",
        ),
        (
            &["--iptables-sync-period=0"],
            "--iptables-sync-period=0s: must be longer than nothing; write something like 30s.",
        ),
        (
            &["--iptables-min-sync-period=1m"],
            "--iptables-min-sync-period=60s: is longer than --iptables-sync-period (30s); make it shorter or that one longer.",
        ),
        (&["--masquerade-all=yes"], "--masquerade-all=yes: is neither yes nor no; write true or false."),
        (&["--logging-format=xml"], "--logging-format=xml: no such value; use one of text, json."),
        (
            &["--manifests=d", "--kubeconfig=f"],
            "--manifests cannot be combined with --kubeconfig; leave one of them out.",
        ),
        (&["--v=1", "--v=2"], "--v is there twice; write it once."),
        (&["--oom-score-adj=-1001"], "--oom-score-adj=-1001: is out of range; use -1000 (never) to 1000 (first)."),
        (
            &["--iptables-masquerade-bit=32"],
            "--iptables-masquerade-bit=32: a packet mark has the bits 0 to 31; use one of those.",
        ),
        (
            &["--bind-address=node"],
            "--bind-address=node: is not an IP address; write one like 192.0.2.1 or 2001:db8::1, or 0.0.0.0 or :: for any.",
        ),
        (
            &["--metrics-bind-address=[::1]:70000"],
            "--metrics-bind-address=[::1]:70000: is not an IP address and port; write it like 127.0.0.1:10249, or leave it empty for nowhere.",
        ),
        (
            &["--cluster-cidr=10.0.0.0/8,10.1.0.0/16"],
            "--cluster-cidr=10.0.0.0/8,10.1.0.0/16: names two prefixes of one family; write one for each family, like 10.244.0.0/16,fd00:10:244::/56.",
        ),
        (
            &["--nodeport-addresses=fd00::/200"],
            "--nodeport-addresses=fd00::/200: is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56.",
        ),
        (
            &["--nodeport-addresses=localhost,primary,10.0.0.0/8"],
            "--nodeport-addresses=localhost,primary,10.0.0.0/8: mixes primary with prefixes; use one of the two, with or without localhost.",
        ),
        (
            &["--nodeport-addresses=Localhost"],
            "--nodeport-addresses=Localhost: is not a prefix; write one like 10.244.0.0/16 or fd00:10:244::/56.",
        ),
        (
            &["--detect-local-mode=BridgeInterface"],
            "--pod-bridge-interface=: the chosen --detect-local-mode needs a name here; write one like cni0.",
        ),
        (
            &["--conntrack-min=-1"],
            "--conntrack-min=-1: must not be negative; write 0 to leave the kernel's value alone.",
        ),
        (&["--master=host:6443"], "--master=host:6443: is not a URL; write it like https://192.0.2.10:6443."),
    ];
    for (flags, wanted) in cases {
        assert_eq!(refusal(flags), *wanted, "{flags:?}");
    }
}

#[test]
fn whatever_is_wrong_the_refusal_is_one_line() {
    let cases: &[&[&str]] = &[
        &["--kube-api-burst=x"],
        &["--kube-api-qps"],
        &["--v=300"],
        &["--masquerade-all", "yes"],
        &["-x"],
        &["--mode=nft", "cleanup"],
        &["render", "-f"],
        &["render", "-f", "x", "-o", "yaml"],
    ];
    for flags in cases {
        let said = refusal(flags);
        assert!(
            !said.contains('\n') && said.ends_with(['.', '?']) && !said.contains("the command line:"),
            "{flags:?}: {said}"
        );
    }
}

#[test]
fn a_host_without_a_name_needs_the_flag() {
    let host = |name| Host { name, families: vec![] };
    let nameless = parse(["fairlead"], host(Ok(" \n".to_owned()))).expect_err("no name").to_string();
    assert!(nameless.contains("--hostname-override"), "{nameless}");
    let file = PathBuf::from("/proc/sys/kernel/hostname");
    let error = SysctlError::Read { file, source: io::Error::other("no /proc") };
    let unreadable = parse(["fairlead"], host(Err(error))).expect_err("no name").to_string();
    assert!(unreadable.contains("no /proc") && unreadable.contains("--hostname-override"), "{unreadable}");
}

#[test]
fn render_takes_files_and_the_same_traffic_flags() {
    let Ok(Command::Render(render)) =
        read(&["render", "-f", "a.yaml", "-f", "b", "--cluster-cidr=fd00::/8", "-o=json"])
    else {
        panic!("render is a command");
    };
    assert_eq!(render.files, [PathBuf::from("a.yaml"), "b".into()]);
    assert_eq!(render.output, RenderOutput::Json);
    assert_eq!(render.traffic.detect, DetectMode::ClusterCidr(vec!["fd00::/8".parse().unwrap()]));
    assert!(matches!(
        read(&["cleanup", "-v", "2"]),
        Ok(Command::Cleanup(Cleanup { only, log: LogSettings { verbosity: 2, .. } })) if only.is_empty()
    ));
    assert!(matches!(
        read(&["cleanup", "--only=nft,overlay"]),
        Ok(Command::Cleanup(Cleanup { only, .. })) if only == [Part::Nft, Part::Overlay]
    ));
}

#[test]
fn connections_are_counted_where_it_is_asked_for_and_not_in_mode_ipvs() {
    let settings = |flags: &[&str]| match read(flags) {
        Ok(Command::Run(settings)) => settings,
        other => panic!("{other:?}"),
    };
    assert!(!settings(&[]).counts_connections());
    for flags in [&["--service-counters"] as &[&str], &["--service-counters=true", "--mode=iptables"]] {
        assert!(settings(flags).counts_connections(), "{flags:?}");
    }
    let ipvs = settings(&["--service-counters", "--mode=ipvs"]);
    assert!(!ipvs.counts_connections());
    assert!(ipvs.notes().iter().any(|note| note.contains("--service-counters has no effect in mode ipvs")));
}

#[test]
fn help_groups_the_flags_and_version_is_one_line() {
    let Ok(Command::Print(help)) = read(&["--help"]) else { panic!("help is printed") };
    for heading in ["Service traffic:", "Connection tracking:", "Health and metrics:", "Examples:", "--mode <MODE>"] {
        assert!(help.contains(heading), "{heading} in {help}");
    }
    let Ok(Command::Print(version)) = read(&["--version"]) else { panic!("version is printed") };
    assert_eq!(version, format!("fairlead {}\n", env!("CARGO_PKG_VERSION")));
}
