use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU16, Ordering};

use fairlead_plan::{Action, Endpoint, Pool, Pools, Priority, Route, ServiceKey, Services};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const LIMITS: Limits = Limits { retry: Duration::from_millis(10), connections: 64 };
const CLUSTER: Action = Action::Forward { to: Pool::Cluster, masquerade: true };
const LARGE: usize = 8 << 20;

fn loopback(family: Family, port: u16) -> SocketAddr {
    match family {
        Family::V4 => (Ipv4Addr::LOCALHOST, port).into(),
        Family::V6 => (Ipv6Addr::LOCALHOST, port).into(),
    }
}

/// A port that is free in both families and below those that the kernel gives out, so that it stays free.
fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = 20_000 + u16::try_from(std::process::id() % 100).unwrap() * 100;
    loop {
        let port = first + NEXT.fetch_add(1, Ordering::Relaxed) % 10_000;
        let free = |family| std::net::TcpListener::bind(loopback(family, port)).is_ok();
        if Family::BOTH.into_iter().all(free) {
            return port;
        }
    }
}

fn service(name: &str, family: Family, protocol: Protocol, port: u16, endpoints: &[SocketAddr]) -> Service {
    let key = ServiceKey { namespace: "test".into(), name: name.into(), port_name: "".into(), protocol, family };
    Service {
        key: Arc::new(key),
        frontends: vec![Frontend::ClusterIp(loopback(family, 9)), Frontend::NodePort(port)],
        internal: Route::all(Action::Drop),
        // Only what the node itself may do counts.
        external: Route { from_node: CLUSTER, ..Route::all(Action::Drop) },
        pools: Pools { cluster: endpoints.iter().map(|addr| Endpoint::new(*addr, false)).collect(), local: vec![] },
        affinity: None,
        serving: vec![],
        scheduler: None,
        priority: Priority::Other,
    }
}

fn tcp(family: Family, port: u16, endpoints: &[SocketAddr]) -> Service {
    service("web", family, Protocol::Tcp, port, endpoints)
}

fn plan(services: impl IntoIterator<Item = Service>) -> Plan {
    Plan { services: services.into_iter().collect::<Services>(), ..Plan::default() }
}

/// The proxy in the runtime of the test.
struct Proxy {
    plans: watch::Sender<Plan>,
    metrics: Arc<Metrics>,
}

impl Proxy {
    fn start(plan: Plan, limits: Limits) -> Self {
        let (plans, wanted) = watch::channel(plan);
        let metrics = Arc::new(Metrics::new("1", "nft"));
        tokio::spawn(serve(wanted, Arc::clone(&metrics), limits));
        Self { plans, metrics }
    }

    fn program(&self, services: impl IntoIterator<Item = Service>) {
        self.plans.send_replace(plan(services));
    }
}

/// An endpoint that says its own port, two bytes, and then everything that it hears.
async fn endpoint(family: Family) -> SocketAddr {
    let listener = TcpListener::bind(loopback(family, 0)).await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut heard, mut said) = stream.into_split();
                said.write_all(&addr.port().to_be_bytes()).await?;
                tokio::io::copy(&mut heard, &mut said).await
            });
        }
    });
    addr
}

async fn connect(addr: SocketAddr) -> TcpStream {
    loop {
        if let Ok(stream) = TcpStream::connect(addr).await {
            return stream;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Which endpoint this connection leads to.
async fn name(stream: &mut TcpStream) -> io::Result<u16> {
    stream.read_u16().await
}

/// Asks with new connections until the answer is this one; `None` stands for a connection that ends without a word.
async fn until(addr: SocketAddr, wanted: Option<u16>) {
    while name(&mut connect(addr).await).await.ok() != wanted {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn until_refused(addr: SocketAddr) {
    while TcpStream::connect(addr).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

async fn echoes(stream: &mut TcpStream) {
    stream.write_all(b"still there?").await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"still there?");
}

#[tokio::test]
async fn connections_spread_over_all_endpoints_in_both_families() {
    let port = free_port();
    let mut services = Vec::new();
    let mut expected = Vec::new();
    for family in Family::BOTH {
        let endpoints = [endpoint(family).await, endpoint(family).await, endpoint(family).await];
        services.push(tcp(family, port, &endpoints));
        expected.push((family, endpoints.map(|addr| addr.port()).into_iter().collect::<BTreeSet<_>>()));
    }
    let _proxy = Proxy::start(plan(services), LIMITS);
    for (family, ports) in expected {
        let mut seen = BTreeSet::new();
        // That one of three is never chosen in 100 happens once in 10^17.
        for _ in 0..100 {
            seen.insert(name(&mut connect(loopback(family, port)).await).await.unwrap());
        }
        assert_eq!(seen, ports);
    }
}

#[tokio::test]
async fn a_port_follows_the_plan_and_established_connections_outlive_it() {
    for family in Family::BOTH {
        let (port, other) = (free_port(), free_port());
        let (first, second) = (endpoint(family).await, endpoint(family).await);
        let stays = service("stays", family, Protocol::Tcp, other, &[first]);
        let proxy = Proxy::start(plan([tcp(family, port, &[first]), stays.clone()]), LIMITS);
        let addr = loopback(family, port);
        let mut established = connect(addr).await;
        assert_eq!(name(&mut established).await.unwrap(), first.port());
        proxy.program([tcp(family, port, &[second]), stays.clone()]);
        until(addr, Some(second.port())).await;
        echoes(&mut established).await;
        proxy.program([stays]);
        until_refused(addr).await;
        echoes(&mut established).await;
        assert_eq!(name(&mut connect(loopback(family, other)).await).await.unwrap(), first.port());
        proxy.program([tcp(family, port, &[second])]);
        until(addr, Some(second.port())).await;
        until_refused(loopback(family, other)).await;
    }
}

#[tokio::test]
async fn a_service_that_forwards_nowhere_ends_connections_at_once() {
    for family in Family::BOTH {
        let port = free_port();
        let target = endpoint(family).await;
        let forwards = tcp(family, port, &[target]);
        let proxy = Proxy::start(plan([forwards.clone()]), LIMITS);
        let addr = loopback(family, port);
        for action in [Action::Reject, Action::Drop] {
            until(addr, Some(target.port())).await;
            proxy.program([Service {
                external: Route { from_node: action, ..Route::all(CLUSTER) },
                ..forwards.clone()
            }]);
            until(addr, None).await;
            let said = name(&mut connect(addr).await).await.unwrap_err();
            assert_eq!(said.kind(), io::ErrorKind::ConnectionReset);
            proxy.program([forwards.clone()]);
        }
    }
}

#[tokio::test]
async fn the_pool_is_the_one_that_the_node_itself_may_use() {
    for family in Family::BOTH {
        let port = free_port();
        let (far, near) = (endpoint(family).await, endpoint(family).await);
        let mut local = tcp(family, port, &[far]);
        local.pools.local = vec![Endpoint::new(near, true)];
        local.external =
            Route { from_node: Action::Forward { to: Pool::Local, masquerade: false }, ..Route::all(CLUSTER) };
        let _proxy = Proxy::start(plan([local]), LIMITS);
        for _ in 0..20 {
            assert_eq!(name(&mut connect(loopback(family, port)).await).await.unwrap(), near.port());
        }
    }
}

#[tokio::test]
async fn only_tcp_node_ports_are_offered_and_only_in_their_family() {
    for (family, other) in [(Family::V4, Family::V6), (Family::V6, Family::V4)] {
        let [carried, udp, sctp, cluster] = [(); 4].map(|()| free_port());
        let target = endpoint(family).await;
        let mut inner = service("inner", family, Protocol::Tcp, cluster, &[target]);
        inner.frontends =
            vec![Frontend::ClusterIp(loopback(family, cluster)), Frontend::ExternalIp(loopback(family, cluster))];
        let services = [
            tcp(family, carried, &[target]),
            service("udp", family, Protocol::Udp, udp, &[target]),
            service("sctp", family, Protocol::Sctp, sctp, &[target]),
            inner,
        ];
        let mut ports = Ports::new(Arc::new(Metrics::new("1", "nft")), 1);
        ports.follow(plan(services)).await;
        assert_eq!(ports.open.keys().copied().collect::<Vec<_>>(), [loopback(family, carried)]);
        assert!(TcpStream::connect(loopback(other, carried)).await.is_err());
    }
}

#[tokio::test]
async fn a_large_payload_arrives_whole_and_each_direction_ends_by_itself() {
    for family in Family::BOTH {
        let port = free_port();
        let target = endpoint(family).await;
        let _proxy = Proxy::start(plan([tcp(family, port, &[target])]), LIMITS);
        let mut stream = connect(loopback(family, port)).await;
        assert_eq!(name(&mut stream).await.unwrap(), target.port());
        let payload: Vec<u8> = (0..LARGE).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let (mut heard, mut said) = stream.into_split();
        let sent = payload.clone();
        let sending = tokio::spawn(async move {
            said.write_all(&sent).await.unwrap();
            // The endpoint ends its own direction only when it has heard the end of this one.
            said.shutdown().await.unwrap();
            said
        });
        let mut echoed = Vec::new();
        heard.read_to_end(&mut echoed).await.unwrap();
        assert!(echoed == payload, "{} of {} bytes came back as they were sent", echoed.len(), payload.len());
        sending.await.unwrap();
    }
}

#[tokio::test]
async fn an_endpoint_that_may_speak_last_is_heard_to_the_end() {
    for family in Family::BOTH {
        let port = free_port();
        let listener = TcpListener::bind(loopback(family, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let _proxy = Proxy::start(plan([tcp(family, port, &[target])]), LIMITS);
        let mut client = connect(loopback(family, port)).await;
        let (mut server, _) = listener.accept().await.unwrap();
        // The endpoint ends first; the client goes on speaking.
        server.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 0);
        client.write_all(b"last words").await.unwrap();
        client.shutdown().await.unwrap();
        let mut heard = String::new();
        server.read_to_string(&mut heard).await.unwrap();
        assert_eq!(heard, "last words");
    }
}

#[tokio::test]
async fn a_broken_connection_reaches_the_other_side_as_a_reset() {
    for family in Family::BOTH {
        let port = free_port();
        let listener = TcpListener::bind(loopback(family, 0)).await.unwrap();
        let target = listener.local_addr().unwrap();
        let _proxy = Proxy::start(plan([tcp(family, port, &[target])]), LIMITS);
        let mut client = connect(loopback(family, port)).await;
        let (mut server, _) = listener.accept().await.unwrap();
        server.write_all(b"half of").await.unwrap();
        let mut heard = [0; 7];
        client.read_exact(&mut heard).await.unwrap();
        server.set_zero_linger().unwrap();
        drop(server);
        assert_eq!(client.read(&mut heard).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over() {
    for family in Family::BOTH {
        let port = free_port();
        let good = endpoint(family).await;
        // Nobody listens there.
        let bad = [(); 2].map(|()| loopback(family, free_port()));
        let proxy = Proxy::start(plan([tcp(family, port, &[bad[0], good, bad[1]])]), LIMITS);
        let addr = loopback(family, port);
        for _ in 0..30 {
            assert_eq!(name(&mut connect(addr).await).await.unwrap(), good.port());
        }
        proxy.program([tcp(family, port, &bad)]);
        until(addr, None).await;
        assert_eq!(name(&mut connect(addr).await).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }
}

#[tokio::test]
async fn a_port_that_somebody_else_has_is_counted_and_taken_when_it_is_free() {
    for family in Family::BOTH {
        let (port, free) = (free_port(), free_port());
        let target = endpoint(family).await;
        let holder = TcpListener::bind(loopback(family, port)).await.unwrap();
        let other = service("other", family, Protocol::Tcp, free, &[target]);
        let proxy = Proxy::start(plan([tcp(family, port, &[target]), other]), LIMITS);
        until(loopback(family, free), Some(target.port())).await;
        let counted = || {
            let text = proxy.metrics.scrape().unwrap();
            let line = text.lines().find_map(|line| line.strip_prefix("fairlead_failures_total{cause=\"listen\"} "));
            line.unwrap().parse::<u64>().unwrap()
        };
        while counted() < 2 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        drop(holder);
        until(loopback(family, port), Some(target.port())).await;
    }
}

#[tokio::test]
async fn a_port_goes_from_one_service_to_another_without_closing() {
    for family in Family::BOTH {
        let port = free_port();
        let addr = loopback(family, port);
        let (first, second) = (endpoint(family).await, endpoint(family).await);
        let mut ports = Ports::new(Arc::new(Metrics::new("1", "nft")), 8);
        // Both orders of the names, since changes come in no order.
        for (old, new) in [("a", "b"), ("b", "a")] {
            ports.follow(plan([service(old, family, Protocol::Tcp, port, &[first])])).await;
            let listener = ports.open[&addr].listener.id();
            ports.follow(plan([service(new, family, Protocol::Tcp, port, &[second])])).await;
            assert_eq!(ports.open[&addr].listener.id(), listener);
            assert_eq!(name(&mut connect(addr).await).await.unwrap(), second.port());
        }
        ports.follow(plan([])).await;
        assert!(TcpStream::connect(addr).await.is_err());
        ports.follow(plan([tcp(family, port, &[first])])).await;
        assert!(ports.taken.is_empty() && ports.open.contains_key(&addr));
    }
}

#[tokio::test]
async fn a_plan_that_changes_other_services_touches_no_port() {
    let port = free_port();
    let mut ports = Ports::new(Arc::new(Metrics::new("1", "nft")), 8);
    let web = tcp(Family::V6, port, &[loopback(Family::V6, 1)]);
    let udp = service("udp", Family::V6, Protocol::Udp, port, &[loopback(Family::V6, 1)]);
    assert_eq!(ports.differing(plan([web.clone()])), BTreeSet::from([loopback(Family::V6, port)]));
    assert_eq!(ports.differing(plan([web.clone(), udp])), BTreeSet::new());
    assert_eq!(ports.differing(plan([web])), BTreeSet::new());
}

#[tokio::test]
async fn more_connections_than_allowed_wait_for_others_to_end() {
    for family in Family::BOTH {
        let port = free_port();
        let target = endpoint(family).await;
        let _proxy = Proxy::start(plan([tcp(family, port, &[target])]), Limits { connections: 1, ..LIMITS });
        let addr = loopback(family, port);
        let mut first = connect(addr).await;
        assert_eq!(name(&mut first).await.unwrap(), target.port());
        let mut second = connect(addr).await;
        let early = tokio::time::timeout(Duration::from_millis(50), name(&mut second)).await;
        assert!(early.is_err(), "{early:?}");
        echoes(&mut first).await;
        drop(first);
        assert_eq!(name(&mut second).await.unwrap(), target.port());
    }
}

#[test]
fn the_thread_carries_connections_until_its_handle_is_gone() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for family in Family::BOTH {
            let port = free_port();
            let target = endpoint(family).await;
            let proxy = Loopback::start(Arc::new(Metrics::new("1", "nft"))).unwrap();
            proxy.programmed(plan([tcp(family, port, &[target])]));
            until(loopback(family, port), Some(target.port())).await;
            drop(proxy);
            until_refused(loopback(family, port)).await;
        }
    });
}
