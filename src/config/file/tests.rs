use std::io::Write;
use std::time::Duration;

use fairlead_plan::Family;

use super::*;
use crate::config::{ApiSettings, ApiSource, Command, ConntrackSettings, Host, LogFormat, Mode, Settings, parse};
use crate::overlay::Backend;
use crate::resolve::{DetectMode, NodePortAddresses};

/// As kubeadm 1.34 writes it into the ConfigMap kube-proxy.
const KUBEADM: &str = include_str!("kubeadm.yaml");

/// A file that vanishes with the value.
struct OnDisk(PathBuf);

impl OnDisk {
    #[expect(clippy::disallowed_methods, reason = "a test writes the file that it reads")]
    fn new(text: &str) -> Self {
        static NUMBER: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fairlead-config-{}-{number}", std::process::id()));
        std::fs::File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Self(path)
    }
}

impl Drop for OnDisk {
    fn drop(&mut self) {
        // What is gone cannot be removed.
        let _ = std::fs::remove_file(&self.0);
    }
}

fn command(text: &str, flags: &[&str]) -> Result<Command, String> {
    let file = OnDisk::new(text);
    let host = Host { name: Ok("host".to_owned()), families: Family::BOTH.to_vec() };
    let config = format!("--config={}", file.0.display());
    let said = parse(["fairlead", config.as_str()].into_iter().chain(flags.iter().copied()), host);
    said.map_err(|error| error.to_string().replace(&file.0.display().to_string(), "FILE"))
}

fn settings(text: &str, flags: &[&str]) -> Settings {
    match command(text, flags) {
        Ok(Command::Run(settings)) => *settings,
        other => panic!("{other:?}"),
    }
}

fn document(fields: &str) -> String {
    format!("apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n{fields}\n")
}

fn said(text: &str) -> String {
    settings(text, &[]).said.join("\n")
}

#[test]
fn kubeadms_own_file_says_what_it_says_to_kube_proxy() {
    let settings = settings(KUBEADM, &["--hostname-override=Node-1"]);
    assert_eq!(settings.traffic.node_name, "node-1");
    assert_eq!(settings.mode, Mode::Nft, "no mode means this program's own default");
    let kubeconfig = Some("/var/lib/kube-proxy/kubeconfig.conf".into());
    assert_eq!(settings.source, ApiSource::Api(ApiSettings { kubeconfig, master: None, qps: 5.0, burst: 10 }));
    let pods = ["10.244.0.0/16", "fd00:10:244::/56"].map(|net| net.parse().unwrap());
    assert_eq!(settings.traffic.detect, DetectMode::ClusterCidr(pods.to_vec()));
    assert_eq!(settings.conntrack, ConntrackSettings::default());
    assert_eq!(settings.healthz, "0.0.0.0:10256".parse().ok());
    assert_eq!(settings.metrics, "127.0.0.1:10249".parse().ok());
    assert_eq!((settings.sync_period.as_secs(), settings.resync.as_secs(), settings.oom_score_adj), (30, 900, -999));
    assert!(settings.traffic.allow_external_ips);
    let everywhere = ["0.0.0.0/0", "::/0"].map(|net| net.parse().unwrap());
    assert_eq!(settings.traffic.node_port_addresses, NodePortAddresses::Only(everywhere.to_vec()));
    assert!(settings.loopback_node_ports, "localhostNodePorts is true where nobody says otherwise");
    assert_eq!(settings.said, Vec::<String>::new(), "nothing in it is strange");
}

#[test]
fn every_field_that_means_something_reaches_the_settings() {
    let text = document(
        "bindAddress: '::'\nbindAddressHardFail: true\nclusterCIDR: fd00:10:244::/56,10.244.0.0/16
clientConnection: {kubeconfig: /k, qps: 50, burst: 100}\nconfigSyncPeriod: 20m\nmode: nftables
conntrack: {maxPerCore: 0, min: 5, tcpBeLiberal: true, tcpCloseWaitTimeout: 10m, tcpEstablishedTimeout: 0s, udpTimeout: 30s, udpStreamTimeout: 1m30s}
detectLocalMode: InterfaceNamePrefix\ndetectLocal: {interfaceNamePrefix: cali}\nfeatureGates: {AllowServiceExternalIPs: false}
healthzBindAddress: '192.0.2.1'\nmetricsBindAddress: '[::]:9999'\nhostnameOverride: ' Other '
logging: {format: json, verbosity: 4}\nnodePortAddresses: [192.0.2.0/24]\noomScoreAdj: -500
nftables: {masqueradeAll: true, masqueradeBit: 20, minSyncPeriod: 2s, syncPeriod: 1m}
iptables: {masqueradeAll: false, masqueradeBit: 3, syncPeriod: 7s}
ipvs: {scheduler: mh, excludeCIDRs: [10.0.0.0/8], strictARP: true, tcpTimeout: 15m, tcpFinTimeout: 2m, udpTimeout: 5m, syncPeriod: 40s}",
    );
    let got = settings(&text, &[]);
    assert_eq!((got.mode, got.traffic.node_name.as_str(), got.bind_hard_fail), (Mode::Nft, "other", true));
    assert_eq!(got.traffic.detect, DetectMode::InterfaceNamePrefix("cali".to_owned()));
    assert!(got.traffic.masquerade_all && !got.traffic.allow_external_ips && !got.loopback_node_ports);
    assert_eq!(got.traffic.masquerade_bit, 20);
    assert_eq!((got.sync_period.as_secs(), got.min_sync_period.as_secs(), got.resync.as_secs()), (60, 2, 1200));
    assert_eq!(got.traffic.node_port_addresses, NodePortAddresses::Cidrs(vec!["192.0.2.0/24".parse().unwrap()]));
    assert_eq!((got.healthz, got.metrics), ("192.0.2.1:10256".parse().ok(), "[::]:9999".parse().ok()));
    assert_eq!((got.log.format, got.log.verbosity, got.oom_score_adj), (LogFormat::Json, 4, -500));
    let conntrack = ConntrackSettings {
        max_per_core: 0,
        min: 5,
        tcp_be_liberal: true,
        tcp_timeout_established: Duration::ZERO,
        tcp_timeout_close_wait: Duration::from_secs(600),
        udp_timeout: Duration::from_secs(30),
        udp_timeout_stream: Duration::from_secs(90),
    };
    assert_eq!(got.conntrack, conntrack);
    let ipvs = &got.ipvs;
    assert_eq!((&ipvs.backend.scheduler, ipvs.backend.strict_arp), (&fairlead_ipvs::Scheduler::MaglevHash, true));
    assert_eq!((ipvs.backend.timeouts.tcp, ipvs.backend.timeouts.tcp_fin, ipvs.backend.timeouts.udp), (900, 120, 300));
    assert_eq!((ipvs.backend.exclude_cidrs.len(), ipvs.sync_period.as_secs()), (1, 40));
    let shown = serde_json::to_value(&got.configuration).unwrap();
    assert_eq!(shown["kubeproxy.config.k8s.io"]["nftables"]["syncPeriod"], "1m0s");
    assert_eq!(shown["kubeproxy.config.k8s.io"]["conntrack"]["tcpEstablishedTimeout"], "0s");
    assert_eq!(shown["kubeproxy.config.k8s.io"]["kind"], "KubeProxyConfiguration");
}

#[test]
fn the_section_that_counts_is_the_one_that_kube_proxy_reads() {
    let sections = "iptables: {masqueradeBit: 3, masqueradeAll: true, syncPeriod: 3s}\nnftables: {masqueradeBit: 4, syncPeriod: 4s}\nipvs: {syncPeriod: 5s}";
    for (mode, bit, all, period) in
        [("''", 3, true, 3), ("iptables", 3, true, 3), ("nftables", 4, false, 4), ("ipvs", 3, true, 5)]
    {
        let got = settings(&document(&format!("mode: {mode}\n{sections}")), &[]);
        let (traffic, sync) = (&got.traffic, got.sync_period.as_secs());
        assert_eq!((traffic.masquerade_bit, traffic.masquerade_all, sync), (bit, all, period), "{mode}");
    }
}

#[test]
fn node_ports_answer_where_kube_proxy_has_them_in_the_mode_of_the_file() {
    let of = |fields: &str| {
        let got = settings(&document(fields), &[]);
        (got.traffic.node_port_addresses, got.loopback_node_ports)
    };
    let nets = |nets: &[&str]| nets.iter().map(|net| net.parse().unwrap()).collect();
    let everywhere: Vec<_> = nets(&["0.0.0.0/0", "::/0"]);
    assert_eq!(of("mode: nftables"), (NodePortAddresses::Primary, false));
    assert_eq!(of("mode: iptables"), (NodePortAddresses::Only(everywhere.clone()), true));
    assert_eq!(
        of("mode: iptables\niptables: {localhostNodePorts: false}"),
        (NodePortAddresses::Cidrs(everywhere.clone()), false)
    );
    assert_eq!(of("mode: ipvs"), (NodePortAddresses::Cidrs(everywhere), false));
    assert_eq!(of("nodePortAddresses: [primary]"), (NodePortAddresses::Primary, false));
    let with_loopback = nets(&["127.0.0.0/8", "::/0"]);
    assert_eq!(of("nodePortAddresses: [127.0.0.0/8]"), (NodePortAddresses::Only(with_loopback), true));
}

#[test]
fn what_is_unknown_or_twice_is_named_and_the_rest_counts() {
    let unknown = said(&document("masqueradeEverything: true\niptables: {masqueradeBits: 7}\nmode: nftables"));
    let wanted = ": iptables.masqueradeBits, masqueradeEverything are unknown to fairlead and ignored; correct the spelling or take them out";
    assert!(unknown.contains(wanted), "{unknown}");
    let twice = document("oomScoreAdj: 1\nmode: nftables\noomScoreAdj: 2");
    let got = settings(&twice, &[]);
    assert_eq!(got.oom_score_adj, 2, "the last one counts");
    assert!(got.said[0].contains("line 5: the field `oomScoreAdj: 2` is there twice"), "{:?}", got.said);
}

#[test]
fn fields_that_mean_nothing_here_are_said_in_one_line() {
    let fields = "enableProfiling: true\nwinkernel: {enableDSR: true}\nportRange: 30000-32767\nfeatureGates: {NFTablesProxyMode: true}
clientConnection: {contentType: application/json, qps: 5, burst: 10}\nlogging: {flushFrequency: 5s, vmodule: [a=1]}";
    let got = said(&document(fields));
    assert_eq!(got.lines().count(), 1, "{got}");
    for word in [
        "enableProfiling",
        "winkernel (for Windows)",
        "portRange",
        "featureGates.NFTablesProxyMode",
        "contentType",
        "vmodule",
    ] {
        assert!(got.contains(word), "{word} in {got}");
    }
    assert!(!got.contains("qps"), "what has kube-proxy's default need not be said: {got}");
}

#[test]
fn what_is_wrong_in_the_file_is_said_by_its_field() {
    let cases = [
        ("mode: userspace", "FILE: mode=userspace: no such mode; use nft, iptables or ipvs."),
        (
            "iptables: {masqueradeBit: 32}",
            "FILE: iptables.masqueradeBit=32: a packet mark has the bits 0 to 31; use one of those.",
        ),
        (
            "mode: nftables\nnftables: {minSyncPeriod: 1m}",
            "FILE: nftables.minSyncPeriod=60s: is longer than nftables.syncPeriod (30s); make it shorter or that one longer.",
        ),
        (
            "mode: ipvs\nipvs: {minSyncPeriod: 1m}",
            "FILE: ipvs.minSyncPeriod=60s: is longer than ipvs.syncPeriod (30s); make it shorter or that one longer.",
        ),
        ("oomScoreAdj: -2000", "FILE: oomScoreAdj=-2000: is out of range; use -1000 (never) to 1000 (first)."),
        (
            "conntrack: {min: -1}",
            "FILE: conntrack.min=-1: must not be negative; write 0 to leave the kernel's value alone.",
        ),
        (
            "detectLocalMode: BridgeInterface",
            "FILE: detectLocal.bridgeInterface=: the chosen detectLocalMode needs a name here; write one like cni0.",
        ),
        (
            "healthzBindAddress: nowhere",
            "FILE: healthzBindAddress=nowhere: is not an IP address and port; write it like 0.0.0.0:10256, or leave it empty for nowhere.",
        ),
        (
            "nodePortAddresses: [primary, 10.0.0.0/8]",
            "FILE: nodePortAddresses=primary,10.0.0.0/8: mixes primary with prefixes; use one of the two, with or without localhost.",
        ),
        ("logging: {format: xml}", "FILE: logging.format=xml: no such value; use one of text, json."),
        (
            "clientConnection: {burst: -1}",
            "FILE: clientConnection.burst=-1: must be more than 0; kube-proxy's default is 10.",
        ),
        ("conntrack: {min: many}", "--config=FILE: conntrack.min: invalid type: string \"many\", expected i64."),
        ("ipvs: {tcpTimeout: 15}", "--config=FILE: ipvs.tcpTimeout: invalid type: integer `15`, expected a string."),
        (
            "ipvs: {tcpTimeout: -15s}",
            "--config=FILE: ipvs.tcpTimeout: \"-15s\" is negative; write a duration like 30s, 1m30s or 1h.",
        ),
        ("iptables: [1]", "--config=FILE: iptables: is a list; write its fields by their names."),
    ];
    for (fields, wanted) in cases {
        let error = command(&document(fields), &[]).expect_err(fields);
        let reason = wanted.trim_end_matches('.');
        assert!(error.starts_with(reason), "{fields}: {error}");
        assert!(!error.contains('\n'), "{error}");
    }
}

#[test]
fn a_file_that_is_no_configuration_is_refused() {
    let cases = [
        ("", "holds no configuration"),
        ("a: [", "line 1: "),
        ("kind: KubeProxyConfiguration\n", "apiVersion or kind is missing"),
        ("apiVersion: v1\nkind: ConfigMap\n", "v1 ConfigMap is no configuration that fairlead reads"),
        (
            "apiVersion: kubeproxy.config.k8s.io/v1alpha2\nkind: KubeProxyConfiguration\n",
            "v1alpha2 KubeProxyConfiguration is no",
        ),
    ];
    for (text, words) in cases {
        let error = command(text, &[]).expect_err(words);
        assert!(error.starts_with("--config=FILE: ") && error.contains(words), "{error}");
    }
    let two = format!("{0}---\n{0}", document("mode: ipvs"));
    assert!(command(&two, &[]).expect_err("two").contains("line 4: there is a second document of this kind"));
    let host = Host { name: Ok("host".to_owned()), families: vec![] };
    let missing = parse(["fairlead", "--config=/no/such/file"], host).expect_err("no file").to_string();
    assert!(missing.starts_with("--config=/no/such/file: cannot be read"), "{missing}");
}

#[test]
fn beside_the_file_only_kube_proxys_exceptions_and_our_own_flags_count() {
    let flags = [
        "--cluster-cidr=10.9.0.0/16",
        "--proxy-mode=ipvs",
        "--masquerade-all",
        "--hostname-override=n",
        "-v=2",
        "--master=http://m",
        "--public-ip=192.0.2.9",
    ];
    let got = settings(&document("clusterCIDR: 10.8.0.0/16\nhostnameOverride: other\nlogging: {verbosity: 9}"), &flags);
    assert_eq!(got.traffic.detect, DetectMode::ClusterCidr(vec!["10.8.0.0/16".parse().unwrap()]));
    assert_eq!(
        (got.mode, got.traffic.masquerade_all, got.traffic.node_name.as_str(), got.log.verbosity),
        (Mode::Nft, false, "n", 2)
    );
    let ApiSource::Api(api) = got.source else { panic!("an API server") };
    assert_eq!(api.master.as_deref(), Some("http://m"));
    assert_eq!(got.overlay.underlay.public.v4, "192.0.2.9".parse().ok());
    assert_eq!(
        got.said,
        [
            "--mode, --cluster-cidr, --masquerade-all do not count because --config is given, as in kube-proxy; write them in the file"
        ]
    );
}

#[test]
fn the_second_document_has_our_own_settings_and_the_command_line_is_stronger() {
    let own =
        "---\napiVersion: fairlead.io/v1alpha1\nkind: FairleadConfiguration\nmode: iptables\niptablesVariant: legacy
overlay: {backend: vxlan, interfaces: [eth7], publicIP: 192.0.2.7, masquerade: false, tunnel: x}\nserviceCounters: true\n";
    let text = document("mode: nftables\nclusterCIDR: 10.244.0.0/16") + own;
    let got = settings(&text, &["--overlay-backend=host-gw"]);
    assert_eq!(got.mode, Mode::Iptables(Some(fairlead_iptables::Variant::Legacy)));
    assert_eq!((got.overlay.backend, got.overlay.masquerade), (Backend::HostGw, false));
    assert!(got.service_counters && !settings(&text, &["--service-counters=false"]).service_counters);
    assert_eq!(got.overlay.underlay.interfaces, ["eth7"]);
    assert_eq!(got.overlay.underlay.public.v4, "192.0.2.7".parse().ok());
    assert!(got.said[0].contains("overlay.tunnel is unknown to fairlead"), "{:?}", got.said);
    assert_eq!(got.files.len(), 1, "the file is watched");
    let alone = settings(&own.replace(", tunnel: x", ""), &[]);
    assert_eq!((alone.overlay.backend, alone.said), (Backend::Vxlan, vec![]));
}

#[test]
fn what_is_written_reads_as_the_same_settings() {
    let flags = [
        "--cluster-cidr=10.244.0.0/16,fd00::/8",
        "--masquerade-all",
        "--iptables-sync-period=1m30s",
        "--nodeport-addresses=192.0.2.0/24",
        "--overlay-backend=vxlan",
        "--conntrack-min=7",
        "--hostname-override=n",
        "--ipvs-scheduler=lc",
        "--service-counters",
        "--feature-gates=AllowServiceExternalIPs=false",
    ];
    let host = || Host { name: Ok("host".to_owned()), families: Family::BOTH.to_vec() };
    let line = || ["fairlead"].into_iter().chain(flags);
    let Ok(Command::Run(by_flags)) = parse(line(), host()) else { panic!("good flags") };
    let Ok(Command::WriteConfig(path, text)) = parse(line().chain(["--write-config-to=/tmp/x"]), host()) else {
        panic!("a file to write")
    };
    assert_eq!(path, Path::new("/tmp/x"));
    let mut by_file = settings(&text, &[]);
    assert_eq!(by_file.configuration, by_flags.configuration, "{text}");
    by_file.files.clear();
    assert_eq!(by_file, *by_flags);
    let Ok(Command::WriteConfig(_, again)) = command(&text, &["--write-config-to=/tmp/x"]) else { panic!("again") };
    assert_eq!(again, text);
}

#[test]
fn cleanup_and_init_only_need_no_more_than_their_flag() {
    assert!(matches!(command(KUBEADM, &["--cleanup"]), Ok(Command::Cleanup(_))));
    assert!(matches!(command(KUBEADM, &["--init-only=true"]), Ok(Command::Init(_))));
}
