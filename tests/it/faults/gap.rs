//! Connections that begin while our tables are gone.

use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use fairlead_kernel::conntrack::Conntrack;
use fairlead_lab::{Place, cluster_ip};
use fairlead_plan::{Family, Protocol};

use super::{PORT, can_run, until_answered_by};
use crate::program::{Cluster, eventually, nft};

/// Long enough for several retries of a SYN.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connection tracking works only where some rule asks for it; on a real node there always is one.
const SOMEBODY_ELSE: &str = "add table inet other; add chain inet other c { type filter hook prerouting priority 0; }; add rule inet other c ct state new accept";

#[test]
fn a_connection_that_began_while_the_tables_were_gone_is_made_after_the_repair() {
    if !can_run() {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1"]);
    let program = cluster.start();
    for family in Family::BOTH {
        until_answered_by(cluster.lab.place("a2"), 1, &["a1"]);
        program.signal("STOP");
        nft(cluster.node(), "flush ruleset");
        nft(cluster.node(), SOMEBODY_ELSE);
        let to = SocketAddr::new(cluster_ip(1).of(family), PORT);
        let client = cluster.lab.place("a2").clone();
        let attempt = thread::spawn(move || client.run(|| TcpStream::connect_timeout(&to, PATIENCE).map(drop)));
        eventually("an entry without translation", || has_begun(cluster.node(), family, to));
        program.signal("CONT");
        attempt.join().unwrap().unwrap_or_else(|error| panic!("{to}: {error}"));
    }
}

fn has_begun(node: &Place, family: Family, to: SocketAddr) -> bool {
    node.run(|| {
        let mut begun = false;
        let found = |flow: &fairlead_kernel::conntrack::Flow| {
            begun |= flow.original.dst == to.ip() && flow.reply.src == to.ip();
        };
        Conntrack::open().unwrap().flows(family == Family::V6, Protocol::Tcp.number(), &mut { found }).unwrap();
        begun
    })
}
