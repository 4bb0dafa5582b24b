//! What becomes of a connection whose source goes from its interface, with and without a route that keeps it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{self, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::time::{Duration, Instant};

use fairlead_kernel::netns;
use fairlead_kernel::route::{PROTOCOL_OURS, Rtnl, Write};
use ipnet::IpNet;

/// The node's own addresses, and those of a service.
const OWN: [&str; 2] = ["192.168.205.4", "fd00:205::4"];
const SERVICE: [&str; 2] = ["10.96.0.1", "fd00:10:96::1"];
/// After so long, on one machine, nothing more comes.
const SILENCE: Duration = Duration::from_millis(500);
/// So long what does come may take, on a busy one.
const PATIENCE: Duration = Duration::from_secs(20);
/// More than one datagram carries.
const MANY: u32 = 2_000;

fn ip(args: &str) -> String {
    let output = Command::new("ip").args(args.split_whitespace()).output().unwrap();
    assert!(output.status.success(), "ip {args}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The kernel makes the route of an IPv6 address some time after it has acknowledged the address.
fn wait_for_own_routes() {
    const GLANCE: Duration = Duration::from_millis(5);
    let has_all = || {
        let table = ip("-4 route show table local") + &ip("-6 route show table local");
        [OWN, SERVICE].concat().iter().all(|address| table.contains(&format!("local {address} ")))
    };
    let began = Instant::now();
    while !has_all() {
        assert!(began.elapsed() < PATIENCE, "the kernel makes no routes for its addresses");
        std::thread::sleep(GLANCE);
    }
}

/// A fresh namespace with an interface that has the addresses above.
fn in_namespace(work: impl FnOnce(&mut Rtnl, u32) + Send) {
    std::thread::scope(|scope| {
        let inside = || {
            netns::unshare().unwrap();
            ip("link set lo up");
            ip("link add eth0 type veth peer name far");
            ip("link set far up");
            ip("link set eth0 up");
            ip(&format!("addr add {}/24 dev eth0", OWN[0]));
            ip(&format!("addr add {}/64 dev eth0 nodad", OWN[1]));
            ip(&format!("addr add {}/32 dev eth0", SERVICE[0]));
            ip(&format!("addr add {}/128 dev eth0 nodad", SERVICE[1]));
            wait_for_own_routes();
            let mut rtnl = Rtnl::open().unwrap();
            let eth0 = rtnl.links().unwrap().into_iter().find(|link| link.name == "eth0").unwrap().index;
            work(&mut rtnl, eth0);
        };
        scope.spawn(inside).join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    });
}

fn addresses(texts: [&str; 2]) -> [IpAddr; 2] {
    texts.map(|text| text.parse().unwrap())
}

fn all(rtnl: &mut Rtnl, writes: &[Write]) {
    assert_eq!(rtnl.write(writes).unwrap(), []);
}

/// Both ends of a connection to an address of this machine, and whose source the kernel has chosen.
fn connection(to: IpAddr, patience: Duration) -> io::Result<(TcpStream, TcpStream, IpAddr)> {
    let any: IpAddr = if to.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let listener = TcpListener::bind(SocketAddr::new(any, 0))?;
    let client = TcpStream::connect_timeout(&SocketAddr::new(to, listener.local_addr()?.port()), patience)?;
    let (server, _) = listener.accept()?;
    let source = client.local_addr()?.ip();
    Ok((client, server, source))
}

fn carries(client: &mut TcpStream, server: &mut TcpStream, patience: Duration) -> bool {
    let mut byte = [0];
    server.set_read_timeout(Some(patience)).unwrap();
    client.write_all(b"x").and_then(|()| server.read_exact(&mut byte)).is_ok()
}

#[test]
fn a_connection_to_an_own_address_ends_when_that_goes() {
    in_namespace(|rtnl, eth0| {
        for service in addresses(SERVICE) {
            let (mut client, mut server, source) = connection(service, PATIENCE).unwrap();
            assert_eq!(source, service);
            assert!(carries(&mut client, &mut server, PATIENCE));
            all(rtnl, &[Write::DeleteAddress(eth0, IpNet::from(service))]);
            assert!(!carries(&mut client, &mut server, SILENCE), "{service} is not needed");
        }
    });
}

#[test]
fn it_goes_on_where_a_route_keeps_the_address_which_nobody_new_has_as_a_source() {
    in_namespace(|rtnl, eth0| {
        for (service, own) in addresses(SERVICE).into_iter().zip(addresses(OWN)) {
            let (mut client, mut server, _) = connection(service, PATIENCE).unwrap();
            let keep = Write::AddLocal(service, Some(own), PROTOCOL_OURS);
            all(rtnl, &[keep.clone(), keep]);
            if service.is_ipv4() {
                assert_eq!(
                    connection(service, PATIENCE).unwrap().2,
                    own,
                    "the new route does not count beside the kernel's"
                );
            }
            all(rtnl, &[Write::DeleteAddress(eth0, IpNet::from(service))]);
            assert!(carries(&mut client, &mut server, PATIENCE) && carries(&mut server, &mut client, PATIENCE));
            let (mut later, mut end, source) = connection(service, PATIENCE).unwrap();
            assert_eq!(source, own);
            assert!(carries(&mut later, &mut end, PATIENCE));
            assert_eq!(rtnl.locals(PROTOCOL_OURS).unwrap(), [service]);
            assert_eq!(rtnl.locals(PROTOCOL_OURS + 1).unwrap(), Vec::<IpAddr>::new());
            let go = Write::DeleteLocal(service, PROTOCOL_OURS);
            all(rtnl, &[go.clone(), go]);
            assert_eq!(rtnl.locals(PROTOCOL_OURS).unwrap(), Vec::<IpAddr>::new());
            assert!(connection(service, SILENCE).is_err() && !carries(&mut client, &mut server, SILENCE));
        }
    });
}

#[test]
fn the_kernels_own_route_stays_when_ours_goes() {
    in_namespace(|rtnl, _| {
        for (service, own) in addresses(SERVICE).into_iter().zip(addresses(OWN)) {
            all(
                rtnl,
                &[Write::AddLocal(service, Some(own), PROTOCOL_OURS), Write::DeleteLocal(service, PROTOCOL_OURS)],
            );
            all(rtnl, &[Write::DeleteLocal(service, PROTOCOL_OURS)]);
            assert_eq!(connection(service, PATIENCE).unwrap().2, service);
        }
    });
}

#[test]
fn many_are_kept_listed_and_let_go() {
    in_namespace(|rtnl, _| {
        let addresses: Vec<IpAddr> = (0..MANY)
            .flat_map(|number| {
                let v6 = Ipv6Addr::from((0xfd00_0097_u128 << 96) + u128::from(number));
                [IpAddr::from(Ipv4Addr::from(0x0a61_0000 + number)), v6.into()]
            })
            .collect();
        let own = self::addresses(OWN);
        let keep = addresses
            .iter()
            .map(|address| Write::AddLocal(*address, Some(own[usize::from(address.is_ipv6())]), PROTOCOL_OURS));
        all(rtnl, &keep.collect::<Vec<_>>());
        let mut held = rtnl.locals(PROTOCOL_OURS).unwrap();
        let mut wanted = addresses.clone();
        held.sort_unstable();
        wanted.sort_unstable();
        assert_eq!(held, wanted);
        all(rtnl, &addresses.iter().map(|address| Write::DeleteLocal(*address, PROTOCOL_OURS)).collect::<Vec<_>>());
        assert_eq!(rtnl.locals(PROTOCOL_OURS).unwrap(), Vec::<IpAddr>::new());
    });
}
