use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::sync::Arc;

use ipnet::IpNet;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::spawn_blocking;

use super::*;
use crate::config::Mode;
use crate::local;
use crate::metrics::Metrics;
use crate::page::Known;
use crate::world::HealthCheck;

const LOOPBACKS: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
const PERIOD: Duration = Duration::from_secs(30);

fn healthy_node() -> Health {
    let health = Health::new(PERIOD, &Family::BOTH);
    health.eligible(true);
    health
}

fn metrics() -> Arc<Metrics> {
    Arc::new(Metrics::new("1", "nft"))
}

fn known(health: &Arc<Health>, metrics: &Arc<Metrics>) -> Arc<Known> {
    let facts = Arc::new(local::Facts::new("nftables"));
    let (health, metrics) = (Arc::clone(health), Arc::clone(metrics));
    Arc::new(Known { node: "node-a".to_owned(), facts, health, metrics })
}

/// A port that is free on both loopback addresses at this moment.
async fn free_port() -> u16 {
    loop {
        let v6 = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
        let port = v6.local_addr().unwrap().port();
        if TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await.is_ok() {
            return port;
        }
    }
}

/// The whole answer to one request on this connection, as text; `None` if the other side is gone.
fn converse(mut stream: TcpStream, method: &str, path: &str) -> Option<String> {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).ok()?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).ok()?;
    Some(answer)
}

/// The same on a connection of its own; `None` if nobody answers.
async fn ask(address: SocketAddr, method: &'static str, path: &str) -> Option<String> {
    let path = path.to_owned();
    let asked = spawn_blocking(move || converse(TcpStream::connect(address).ok()?, method, &path));
    asked.await.unwrap()
}

/// Asks until somebody answers and the answer holds this text.
async fn ask_until(address: SocketAddr, path: &str, text: &str) -> String {
    loop {
        if let Some(answer) = ask(address, "GET", path).await.filter(|answer| answer.contains(text)) {
            return answer;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_change_that_waits_for_two_periods_makes_the_node_unhealthy_until_it_is_carried() {
    let health = healthy_node();
    let start = Instant::now();
    assert!(health.verdict(start).healthy, "a node that starts is healthy");
    health.queued(start);
    health.queued(start + PERIOD);
    let (just, late) = (start + PERIOD * 2 - Duration::from_millis(1), start + PERIOD * 2);
    assert!(health.verdict(just).healthy);
    assert!(!health.verdict(late).healthy);
    health.synced(Some(start + PERIOD), SystemTime::now());
    assert!(health.verdict(late).healthy, "the change that the sync did not carry has not waited so long");
    assert!(!health.verdict(start + PERIOD * 3).healthy);
    health.synced(None, SystemTime::now());
    assert!(health.verdict(start + PERIOD * 99).healthy, "without changes there is nothing to wait for");
}

#[test]
fn ready_means_that_the_first_sync_is_in_the_kernel() {
    let health = healthy_node();
    health.queued(Instant::now());
    assert!(!health.verdict(Instant::now()).ready);
    health.synced(None, SystemTime::now());
    assert!(health.verdict(Instant::now()).ready);
}

#[test]
fn checks_answer_where_node_ports_do() {
    let ips = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();
    let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpNet>>();
    let local = ips(&["127.0.0.1", "::1", "192.0.2.5", "198.51.100.5", "2001:db8::5"]);
    let cases: &[(&[&str], &[&str])] = &[
        (&["0.0.0.0/0", "::/0"], &["0.0.0.0", "::"]),
        (&["0.0.0.0/0", "2001:db8::/64"], &["0.0.0.0", "2001:db8::5"]),
        (&["192.0.2.0/24"], &["192.0.2.5"]),
        (&["192.0.2.77/32", "2001:db8::77/128"], &["192.0.2.77", "2001:db8::77"]),
        (&["127.0.0.0/8", "::1/128"], &[]),
        (&["203.0.113.0/24"], &[]),
    ];
    for (prefixes, wanted) in cases {
        assert_eq!(check_addresses(&nets(prefixes), &local), ips(wanted), "{prefixes:?}");
    }
}

#[tokio::test]
async fn health_is_answered_in_both_families_and_to_every_method() {
    for ip in LOOPBACKS {
        let (health, metrics) = (Arc::new(healthy_node()), metrics());
        let (notes, _kept) = mpsc::unbounded_channel();
        let address = SocketAddr::new(ip, free_port().await);
        let server = tokio::spawn(serve_health(address, false, known(&health, &metrics), notes));
        let first = ask_until(address, "/readyz", "HTTP/1.1").await;
        assert!(first.starts_with("HTTP/1.1 503") && first.contains("\"ready\":false"), "{first}");
        let starting = ask(address, "GET", "/livez").await.unwrap();
        assert!(starting.starts_with("HTTP/1.1 200") && !starting.contains("\"status\""), "{starting}");
        health.synced(None, SystemTime::now());
        let good = ask(address, "GET", "/healthz?verbose").await.unwrap();
        for part in ["HTTP/1.1 200", "content-type: application/json", "x-content-type-options: nosniff"] {
            assert!(good.contains(part), "{part} in {good}");
        }
        for part in ["\"lastUpdated\":\"20", "\"nodeEligible\":true,\"healthy\":true", "\"IPv4\":{", "\"IPv6\":{"] {
            assert!(good.contains(part), "{part} in {good}");
        }
        let head = ask(address, "HEAD", "/healthz").await.unwrap();
        assert!(head.starts_with("HTTP/1.1 200") && head.ends_with("\r\n\r\n"), "{head}");
        assert!(ask(address, "POST", "/readyz").await.unwrap().starts_with("HTTP/1.1 200"));
        assert!(ask(address, "GET", "/healthz/").await.unwrap().starts_with("HTTP/1.1 404"));
        health.queued(Instant::now() - PERIOD * 2);
        let bad = ask(address, "GET", "/livez").await.unwrap();
        assert!(bad.starts_with("HTTP/1.1 503") && bad.contains("\"healthy\":false"), "{bad}");
        assert!(!bad.contains("nodeEligible"), "{bad}");
        let text = metrics.scrape().unwrap();
        for line in ["healthz_total{code=\"200\"} 2", "livez_total{code=\"200\"} 1", "livez_total{code=\"503\"} 1"] {
            assert!(text.contains(line), "{line} in {text}");
        }
        server.abort();
    }
}

#[tokio::test]
async fn a_node_that_leaves_fails_healthz_and_not_livez() {
    let health = Arc::new(Health::new(PERIOD, &[Family::V4]));
    let (notes, _kept) = mpsc::unbounded_channel();
    let address = SocketAddr::new(LOOPBACKS[0], free_port().await);
    let server = tokio::spawn(serve_health(address, false, known(&health, &metrics()), notes));
    let answer = ask_until(address, "/healthz", "HTTP/1.1 503").await;
    assert!(answer.contains("\"nodeEligible\":false,\"healthy\":true") && answer.contains("0001-01-01"), "{answer}");
    assert!(ask(address, "GET", "/livez").await.unwrap().starts_with("HTTP/1.1 200"));
    server.abort();
}

#[tokio::test]
async fn metrics_and_mode_are_answered_in_both_families() {
    for ip in LOOPBACKS {
        let (notes, _kept) = mpsc::unbounded_channel();
        let address = SocketAddr::new(ip, free_port().await);
        let facts = Facts { mode: Mode::Nft, configuration: r#"{"fairlead.io":{}}"#.to_owned() };
        let server =
            tokio::spawn(serve_metrics(address, false, facts, known(&Arc::new(healthy_node()), &metrics()), notes));
        let mode = ask_until(address, "/proxyMode", "HTTP/1.1 200").await;
        assert!(mode.contains("text/plain; charset=utf-8") && mode.ends_with("\r\n\r\nnftables"), "{mode}");
        let text = ask(address, "GET", "/metrics").await.unwrap();
        assert!(text.contains("text/plain; version=0.0.4") && text.contains("# HELP fairlead_build_info"), "{text}");
        assert!(ask(address, "GET", "/healthz").await.unwrap().ends_with("ok"));
        let configuration = ask(address, "GET", "/configz").await.unwrap();
        assert!(configuration.contains("application/json") && configuration.ends_with(r#"{"fairlead.io":{}}"#));
        assert!(ask(address, "GET", "/debug/pprof/").await.unwrap().starts_with("HTTP/1.1 404"));
        server.abort();
    }
}

#[tokio::test]
async fn a_taken_address_is_an_error_or_a_note_as_the_flag_says() {
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let (notes, mut said) = mpsc::unbounded_channel();
    let (health, metrics) = (Arc::new(healthy_node()), metrics());
    let refused = serve_health(address, true, known(&health, &metrics), notes.clone()).await;
    let text = refused.expect_err("the address is taken").to_string();
    assert!(text.contains(&address.to_string()) && text.contains("--healthz-bind-address"), "{text}");
    let server = tokio::spawn(serve_health(address, false, known(&health, &metrics), notes));
    let note = said.recv().await.unwrap();
    assert_eq!((note.about, note.reason), (None, "FailedToStartProxierHealthcheck"));
    assert!(metrics.scrape().unwrap().contains("fairlead_failures_total{cause=\"listen\"} 2"));
    server.abort();
}

fn name(text: &str) -> ObjectName {
    ObjectName { namespace: "ns".into(), name: text.into() }
}

fn wanted(checks: &[(&str, u16, usize)]) -> WantedChecks {
    let check = |(service, port, local_ready): &(&str, u16, usize)| {
        (name(service), HealthCheck { port: *port, local_ready: *local_ready })
    };
    WantedChecks { checks: Arc::new(checks.iter().map(check).collect()), addresses: LOOPBACKS.to_vec() }
}

#[tokio::test]
async fn checks_follow_counts_ports_and_health() {
    let (first, second) = (free_port().await, free_port().await);
    let (sender, receiver) = watch::channel(wanted(&[("web", first, 2)]));
    let (notes, mut said) = mpsc::unbounded_channel();
    let health = Arc::new(healthy_node());
    let server = tokio::spawn(serve_checks(receiver, Arc::clone(&health), metrics(), notes));
    let body = "{\n\t\"service\": {\n\t\t\"namespace\": \"ns\",\n\t\t\"name\": \"web\"\n\t},\n\t\"localEndpoints\": 2,\n\t\"serviceProxyHealthy\": true\n}";
    for ip in LOOPBACKS {
        let answer = ask_until(SocketAddr::new(ip, first), "/any/path", "HTTP/1.1 200").await;
        assert!(answer.contains("x-load-balancing-endpoint-weight: 2") && answer.ends_with(body), "{answer}");
    }
    // An open connection shows that the listener is kept when only the count changes.
    let address = SocketAddr::new(LOOPBACKS[1], first);
    let kept = TcpStream::connect(address).unwrap();
    sender.send_replace(wanted(&[("web", first, 0)]));
    ask_until(address, "/", "HTTP/1.1 503").await;
    let answer = spawn_blocking(|| converse(kept, "GET", "/").unwrap()).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    // The port moves, and the old one goes to another Service in the same step.
    sender.send_replace(wanted(&[("web", second, 1), ("other", first, 1)]));
    for ip in LOOPBACKS {
        ask_until(SocketAddr::new(ip, second), "/", "\"name\": \"web\"").await;
        ask_until(SocketAddr::new(ip, first), "/", "\"name\": \"other\"").await;
    }
    health.queued(Instant::now() - PERIOD * 2);
    ask_until(SocketAddr::new(LOOPBACKS[0], second), "/", "\"serviceProxyHealthy\": false").await;
    sender.send_replace(wanted(&[("web", second, 1)]));
    while ask(address, "GET", "/").await.is_some() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    drop(sender);
    server.await.unwrap();
    assert_eq!(said.try_recv().ok(), None, "nothing went wrong");
    assert_eq!(ask(SocketAddr::new(LOOPBACKS[0], second), "GET", "/").await, None, "the end closes everything");
}

#[tokio::test]
async fn a_check_whose_port_is_taken_is_said_once_and_opens_when_the_port_is_free() {
    let taken = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).await.unwrap();
    let address = taken.local_addr().unwrap();
    let mut first = wanted(&[("web", address.port(), 1)]);
    first.addresses = vec![address.ip()];
    let (_sender, receiver) = watch::channel(first);
    let (notes, mut said) = mpsc::unbounded_channel();
    let (health, metrics) = (Arc::new(healthy_node()), metrics());
    let often = Duration::from_millis(20);
    let server = tokio::spawn(checks::serve_checks_with(often, receiver, health, Arc::clone(&metrics), notes));
    let note = said.recv().await.unwrap();
    assert_eq!((note.about, note.reason), (Some(name("web")), "FailedToStartServiceHealthcheck"));
    assert!(note.text.contains("ns/web") && note.text.contains(&address.to_string()), "{}", note.text);
    while !metrics.scrape().unwrap().contains("fairlead_failures_total{cause=\"listen\"} 4") {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(said.try_recv().ok(), None, "further attempts are counted and not said");
    drop(taken);
    ask_until(address, "/", "HTTP/1.1 200").await;
    server.abort();
}
