use std::collections::BTreeSet;

use fairlead_plan::FamilyCounts;

use super::*;
use crate::counters::Counters;
use crate::resolve::PerFamily;

/// Names of kube-proxy that no convention would allow today.
const UPSTREAM_QUIRKS: [&str; 2] =
    ["kubeproxy_sync_proxy_rules_no_local_endpoints_total", "kubeproxy_sync_proxy_rules_iptables_total"];

fn metrics() -> Metrics {
    Metrics::new("1.2.3", "nft")
}

/// The value of one series as a scrape shows it.
fn series(metrics: &Metrics, name: &str) -> Option<String> {
    let text = metrics.scrape().expect("a scrape works");
    text.lines().find_map(|line| Some(line.strip_prefix(name)?.strip_prefix(' ')?.to_owned()))
}

#[test]
fn every_metric_is_declared_once_with_help_and_a_name_that_follows_the_convention() {
    let mut names = BTreeSet::new();
    for Declared { name, help, kind, labels } in DECLARED {
        assert!(names.insert(name), "{name} is declared twice");
        assert!(help.ends_with('.') && help.len() > 15 && help.is_ascii(), "{name}: {help}");
        let prefix = ["kubeproxy_", "fairlead_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(prefix && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'), "{name}");
        assert!(labels.iter().all(|label| label.bytes().all(|b| b.is_ascii_lowercase() || b == b'_')), "{name}");
        if UPSTREAM_QUIRKS.contains(name) {
            continue;
        }
        let counter = kind.contains("Counter");
        assert_eq!(name.ends_with("_total"), counter, "{name} is a {kind}");
        assert!(!kind.starts_with("Histogram") || name.ends_with("_seconds"), "{name}: a histogram names its unit");
    }
}

#[test]
fn every_declared_metric_is_in_the_registry_and_appears_once_it_is_used() {
    let metrics = metrics();
    metrics.queued(SystemTime::now());
    let report = Report { repaired: vec!["the map services had lost 3 elements".into()], ..Report::default() };
    for full in [true, false] {
        metrics.synced(&Synced {
            report: &report,
            took: Duration::from_micros(70),
            full,
            waited: &[Duration::from_micros(120)],
            triggers: &[UNIX_EPOCH],
            at: SystemTime::now(),
        });
    }
    metrics.programmed(&Tally::default());
    for family in Family::BOTH {
        metrics.conntrack(family, Duration::from_millis(1), 2);
    }
    metrics.answered(Question::Healthz, 200);
    metrics.answered(Question::Livez, 503);
    metrics.rejected(Kind::EndpointSlice, "InvalidEndpoint");
    metrics.has_overlay();
    metrics.has_iptables(Arc::default());
    metrics.has_counters(Arc::new(Counters::sample("web", 1)));
    metrics.overlay_info([(Family::V4, ["vxlan", "eth0", "192.168.50.1", "10.244.1.0/24", "true"])].into_iter());
    let text = metrics.scrape().unwrap();
    for declared in DECLARED {
        let help = format!("# HELP {} {}\n", declared.name, declared.help);
        assert_eq!(text.matches(&help).count(), 1, "{}", declared.name);
        let series =
            |line: &str| line.strip_prefix(declared.name).is_some_and(|rest| rest.starts_with(['{', ' ', '_']));
        assert!(text.lines().any(series), "{} has no series", declared.name);
    }
    assert_eq!(text.matches("# HELP").count(), DECLARED.len(), "nothing is exposed that is not in the list");
}

#[test]
fn a_sync_is_counted_for_both_families_and_in_fine_buckets() {
    let metrics = metrics();
    let held = [FamilyCounts { rules: 40, elements: 900 }, FamilyCounts { rules: 41, elements: 30 }];
    let report = Report { writes: 7, transactions: 2, held, ..Report::default() };
    let at = UNIX_EPOCH + Duration::from_secs(1_000);
    let trigger = UNIX_EPOCH + Duration::from_secs(998);
    let took = Duration::from_micros(90);
    metrics.synced(&Synced { report: &report, took, full: false, waited: &[took], triggers: &[trigger], at });
    let wanted = [
        ("fairlead_rules{ip_family=\"IPv4\"}", "40"),
        ("fairlead_elements{ip_family=\"IPv6\"}", "30"),
        ("fairlead_writes_total", "7"),
        ("fairlead_transactions_total", "2"),
        ("fairlead_sync_duration_seconds_bucket{le=\"0.00005\"}", "0"),
        ("fairlead_sync_duration_seconds_bucket{le=\"0.0001\"}", "1"),
        ("fairlead_event_to_kernel_seconds_count", "1"),
        ("kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}", "1"),
        ("kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family=\"IPv6\"}", "1"),
        ("kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family=\"IPv6\"}", "1000"),
        ("kubeproxy_network_programming_duration_seconds_bucket{ip_family=\"IPv6\",le=\"2\"}", "1"),
        ("fairlead_build_info{mode=\"nft\",version=\"1.2.3\"}", "1"),
    ];
    for (name, value) in wanted {
        assert_eq!(series(&metrics, name).as_deref(), Some(value), "{name}");
    }
    assert_eq!(series(&metrics, "kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family=\"IPv4\"}"), None);
}

#[test]
fn failures_are_counted_by_cause_and_repairs_by_what_was_lost() {
    let metrics = metrics();
    metrics.sync_failed(&SyncError::Unsupported("no nf_tables".into()));
    metrics.sync_failed(&SyncError::Failed("busy".into()));
    metrics.failed(Cause::Conntrack);
    for cause in ["unsupported", "sync", "conntrack"] {
        assert_eq!(series(&metrics, &format!("fairlead_failures_total{{cause=\"{cause}\"}}")).as_deref(), Some("1"));
    }
    let failures = "kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family=\"IPv6\"}";
    assert_eq!(series(&metrics, failures).as_deref(), Some("2"));
    assert_eq!(repaired("the table fairlead (ip) was gone with all chains"), "table");
    assert_eq!(repaired("2 rules of the chain services were gone"), "rule");
    assert_eq!(repaired("3 elements of the map endpoints"), "element");
    assert_eq!(repaired("the weather"), "other");
}

#[test]
fn a_scrape_shows_what_the_plan_comes_to_by_family() {
    let metrics = metrics();
    assert_eq!(series(&metrics, "fairlead_ready").as_deref(), Some("0"));
    metrics.programmed(&Tally {
        services: 3,
        service_ports: PerFamily { v4: 2, v6: 1 },
        endpoints: PerFamily { v4: 5, v6: 4 },
        no_local_internal: PerFamily { v4: 1, v6: 0 },
        no_local_external: PerFamily { v4: 0, v6: 1 },
        node_ports: PerFamily::default(),
        frontend_conflicts: 7,
    });
    let wanted = [
        ("fairlead_ready", "1"),
        ("fairlead_frontend_conflicts", "7"),
        ("fairlead_service_ports{ip_family=\"IPv4\"}", "2"),
        ("fairlead_service_ports{ip_family=\"IPv6\"}", "1"),
        ("fairlead_endpoints{ip_family=\"IPv4\"}", "5"),
        ("fairlead_endpoints{ip_family=\"IPv6\"}", "4"),
    ];
    for (name, value) in wanted {
        assert_eq!(series(&metrics, name).as_deref(), Some(value), "{name}");
    }
    for (family, policy, value) in
        [("IPv4", "internal", "1"), ("IPv4", "external", "0"), ("IPv6", "internal", "0"), ("IPv6", "external", "1")]
    {
        let labels = format!("{{ip_family=\"{family}\",traffic_policy=\"{policy}\"}}");
        let name = format!("kubeproxy_sync_proxy_rules_no_local_endpoints_total{labels}");
        assert_eq!(series(&metrics, &name).as_deref(), Some(value), "{name}");
    }
}

#[test]
fn connections_on_loopback_are_counted_in_mode_iptables_alone() {
    let metrics = metrics();
    let accepted = "kubeproxy_iptables_localhost_nodeports_accepted_packets_total";
    metrics.accepted_on_loopback();
    assert_eq!(series(&metrics, accepted), None);
    metrics.has_iptables(Arc::default());
    assert_eq!(series(&metrics, accepted).as_deref(), Some("0"));
    metrics.accepted_on_loopback();
    assert_eq!(series(&metrics, accepted).as_deref(), Some("1"));
}

#[test]
fn buckets_are_kube_proxys_where_the_name_is() {
    let slow = declared::SLOW();
    assert_eq!((slow.len(), slow[0], slow[14]), (15, 0.001, 16.384));
    let programming = declared::PROGRAMMING();
    assert_eq!(programming.len(), 2 + 59 + 12 + 7);
    assert!(programming.is_sorted() && programming.last() == Some(&300.0));
    let fast = declared::FAST();
    assert!((fast[0] - 50e-6).abs() < 1e-12 && fast.len() == 18);
}
