//! Virtual servers, addresses, sets and rules of kube-proxy's ipvs mode.

use std::fmt::Write;
use std::net::SocketAddr;

use fairlead_lab::{Lab, Place};
use fairlead_plan::{Family, Protocol};

use super::{Past, services};
use crate::laws::holdings::shell;

/// What the kernel takes as the name of a set.
const NAME_MAX: usize = 31;
/// A node port of SCTP that nobody asks for.
const SCTP_NODE_PORT: u16 = 30_132;
/// Sets that are empty, without the beginning of their names. The last one is of older versions of fairlead.
const UNUSED: [(&str, &str); 9] = [
    ("LOAD-BALANCER", "hash:ip,port"),
    ("LOAD-BALANCER-LOCAL", "hash:ip,port"),
    ("LOAD-BALANCER-SOURCE-IP", "hash:ip,port,ip"),
    ("EXTERNAL-IP-LOCAL", "hash:ip,port"),
    ("NODE-PORT-TCP", "bitmap:port range 0-65535"),
    ("NODE-PORT-LOCAL-TCP", "bitmap:port range 0-65535"),
    ("NODE-PORT-LOCAL-SCTP-HASH", "hash:ip,port"),
    ("HEALTH-CHECK-NODE-PORT", "bitmap:port range 0-65535"),
    ("NODE-PORT-SCTP", "bitmap:port range 0-65535"),
];

/// Makes what kube-proxy makes with `--masquerade-all`. `write` writes a file and gives its path.
pub fn program(node: &Place, lab: &Lab, family: Family, pods: &[&str], write: impl Fn(&str) -> String) {
    let (ip, bits, names, tool) = match family {
        Family::V4 => ("-4", 32, ["KUBE-CLUSTER-IP", "KUBE-IPVS-IPS", "inet"], "iptables"),
        Family::V6 => ("-6", 128, ["KUBE-6-CLUSTER-IP", "KUBE-6-IPVS-IPS", "inet6"], "ip6tables"),
    };
    let (mut servers, mut addresses, mut sets) = (String::new(), String::new(), String::new());
    let [cluster_ips, addresses_set, inet] = names;
    writeln!(sets, "create {cluster_ips} hash:ip,port family {inet} hashsize 1024 maxelem 65536").unwrap();
    writeln!(sets, "create {addresses_set} hash:ip family {inet} hashsize 1024 maxelem 65536").unwrap();
    // Nothing here has use for these; kube-proxy makes them, and asks for them, all the same.
    let six = if family == Family::V6 { "6-" } else { "" };
    for (set, kind) in UNUSED {
        let name: String = format!("KUBE-{six}{set}").chars().take(NAME_MAX).collect();
        let inet = if kind == "bitmap:port range 0-65535" { String::new() } else { format!(" family {inet}") };
        writeln!(sets, "create {name} {kind}{inet}").unwrap();
    }
    for Past { key, to, endpoints } in services(lab, family, pods) {
        let flag = if key.protocol == Protocol::Udp { "-u" } else { "-t" };
        writeln!(servers, "-A {flag} {to} -s rr").unwrap();
        for endpoint in endpoints {
            writeln!(servers, "-a {flag} {to} -r {endpoint} -m -w 1").unwrap();
        }
        writeln!(addresses, "address replace {}/{bits} dev kube-ipvs0 nodad", to.ip()).unwrap();
        writeln!(sets, "add {cluster_ips} {},{}:{} -exist", to.ip(), key.protocol, to.port()).unwrap();
        writeln!(sets, "add {addresses_set} {} -exist", to.ip()).unwrap();
    }
    let at_node = SocketAddr::new(node.addr(family), SCTP_NODE_PORT);
    let endpoint = SocketAddr::new(lab.place(pods[0]).addr(family), SCTP_NODE_PORT);
    writeln!(servers, "-A --sctp-service {at_node} -s rr").unwrap();
    writeln!(servers, "-a --sctp-service {at_node} -r {endpoint} -m -w 1").unwrap();
    writeln!(sets, "create KUBE-{six}NODE-PORT-SCTP-HASH hash:ip,port family {inet}").unwrap();
    writeln!(sets, "add KUBE-{six}NODE-PORT-SCTP-HASH {},sctp:{SCTP_NODE_PORT}", at_node.ip()).unwrap();
    let no_dad = if family == Family::V4 { addresses.replace(" nodad", "") } else { addresses };
    shell(node, "sysctl -qw net.ipv4.vs.conntrack=1 net.ipv4.ip_forward=1");
    shell(node, "ip link show kube-ipvs0 || ip link add kube-ipvs0 type dummy");
    shell(node, &format!("ipset restore < {}", write(&sets)));
    let rules = format!(
        "*nat
:KUBE-SERVICES - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-LOAD-BALANCER - [0:0]
-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-SERVICES -m comment --comment \"Kubernetes service lb portal\" -m set --match-set KUBE-{six}LOAD-BALANCER dst,dst -j KUBE-LOAD-BALANCER
-A KUBE-LOAD-BALANCER -m comment --comment \"Kubernetes service load balancer ip + port with externalTrafficPolicy=local\" -m set --match-set KUBE-{six}LOAD-BALANCER-LOCAL dst,dst -j RETURN
-A KUBE-LOAD-BALANCER -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m addrtype --dst-type LOCAL -j KUBE-NODE-PORT
-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port with externalTrafficPolicy=local\" -m set --match-set KUBE-{six}NODE-PORT-LOCAL-TCP dst -j RETURN
-A KUBE-NODE-PORT -p tcp -m comment --comment \"Kubernetes nodeport TCP port for masquerade purpose\" -m set --match-set KUBE-{six}NODE-PORT-TCP dst -j KUBE-MARK-MASQ
-A KUBE-NODE-PORT -p sctp -m comment --comment \"Kubernetes nodeport SCTP port for masquerade purpose with type 'hash ip:port'\" -m set --match-set KUBE-{six}NODE-PORT-SCTP-HASH dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m comment --comment \"Kubernetes service cluster ip + port for masquerade purpose\" -m set --match-set {cluster_ips} dst,dst -j KUBE-MARK-MASQ
-A KUBE-SERVICES -m set --match-set {cluster_ips} dst,dst -j ACCEPT
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
*filter
:KUBE-IPVS-FILTER - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-NODE-PORT - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-SOURCE-RANGES-FIREWALL - [0:0]
:KUBE-IPVS-OUT-FILTER - [0:0]
-A INPUT -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kube-proxy firewall rules\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check rules\" -j KUBE-NODE-PORT
-A OUTPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-OUT-FILTER
-A KUBE-NODE-PORT -m comment --comment \"Kubernetes health check node port\" -m set --match-set KUBE-{six}HEALTH-CHECK-NODE-PORT dst -j ACCEPT
-A KUBE-PROXY-FIREWALL -m comment --comment \"Kubernetes service load balancer ip + port for load balancer with sourceRange\" -m set --match-set KUBE-{six}LOAD-BALANCER dst,dst -j KUBE-SOURCE-RANGES-FIREWALL
-A KUBE-SOURCE-RANGES-FIREWALL -j DROP
-A INPUT -m comment --comment \"kubernetes ipvs access filter\" -j KUBE-IPVS-FILTER
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A KUBE-IPVS-FILTER -m set --match-set {cluster_ips} dst,dst -j RETURN
-A KUBE-IPVS-FILTER -m conntrack --ctstate NEW -m set --match-set {addresses_set} dst -j REJECT
-A KUBE-FORWARD -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"
    );
    shell(node, &format!("{tool}-restore < {}", write(&rules)));
    shell(node, &format!("ipvsadm -R < {}", write(&servers)));
    // The last step, as packets to an address that is not here yet go elsewhere. Not by a shell: some have an `ip` of their own.
    let status = node.command("ip").args([ip, "-batch", &write(&no_dad)]).status().expect("ip runs");
    assert!(status.success(), "kube-ipvs0 takes no addresses");
}
