//! The rules of kube-proxy's iptables mode.

use std::fmt::Write;
use std::net::SocketAddr;

use fairlead_iptables::chains_of;
use fairlead_lab::Lab;
use fairlead_plan::{Family, ServiceKey};

use super::{Past, services};

/// What `iptables-restore` loads: Service `web` on the first ClusterIP with these pods, and the others.
pub fn ruleset(lab: &Lab, family: Family, pods: &[&str]) -> String {
    let mut nat = Nat::default();
    for Past { key, to, endpoints } in services(lab, family, pods) {
        nat.service(&key, to, endpoints);
    }
    nat.finish()
}

#[derive(Default)]
struct Nat {
    chains: String,
    services: String,
    rules: String,
}

impl Nat {
    fn service(&mut self, key: &ServiceKey, to: SocketAddr, endpoints: Vec<SocketAddr>) {
        let (protocol, name) = (key.protocol, format!("{}/{}:{}", key.namespace, key.name, key.port_name));
        let count = endpoints.len();
        for (number, endpoint) in endpoints.into_iter().enumerate() {
            let [service, chain] = chains_of(key, endpoint);
            let find = format!(
                "-m comment --comment \"{name} cluster IP\" -m {protocol} -p {protocol} -d {} --dport {}",
                to.ip(),
                to.port()
            );
            if number == 0 {
                writeln!(self.chains, ":{service} - [0:0]").unwrap();
                writeln!(self.services, "-A KUBE-SERVICES {find} -j {service}").unwrap();
                // As with --masquerade-all; who is asked for does not matter here.
                writeln!(self.rules, "-A {service} {find} -j KUBE-MARK-MASQ").unwrap();
            }
            writeln!(self.chains, ":{chain} - [0:0]").unwrap();
            let left = count - number;
            let pick = if left > 1 {
                format!("-m statistic --mode random --probability {:.10} ", 1.0 / left as f64)
            } else {
                String::new()
            };
            writeln!(self.rules, "-A {service} -m comment --comment \"{name} -> {endpoint}\" {pick}-j {chain}")
                .unwrap();
            writeln!(self.rules, "-A {chain} -m comment --comment {name} -s {} -j KUBE-MARK-MASQ", endpoint.ip())
                .unwrap();
            writeln!(
                self.rules,
                "-A {chain} -m comment --comment {name} -m {protocol} -p {protocol} -j DNAT --to-destination {endpoint}"
            )
            .unwrap();
        }
    }

    fn finish(self) -> String {
        let Self { chains, services, rules } = self;
        format!(
            "*nat
:KUBE-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-POSTROUTING - [0:0]
:KUBE-MARK-MASQ - [0:0]
:KUBE-PROXY-CANARY - [0:0]
{chains}-A PREROUTING -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A OUTPUT -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A POSTROUTING -m comment --comment \"kubernetes postrouting rules\" -j KUBE-POSTROUTING
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --xor-mark 0x4000
-A KUBE-POSTROUTING -m comment --comment \"kubernetes service traffic requiring SNAT\" -j MASQUERADE --random-fully
-A KUBE-MARK-MASQ -j MARK --or-mark 0x4000
{services}-A KUBE-SERVICES -m comment --comment \"kubernetes service nodeports; NOTE: this must be the last rule in this chain\" -m addrtype --dst-type LOCAL -j KUBE-NODEPORTS
{rules}COMMIT
*filter
:KUBE-SERVICES - [0:0]
:KUBE-EXTERNAL-SERVICES - [0:0]
:KUBE-NODEPORTS - [0:0]
:KUBE-FORWARD - [0:0]
:KUBE-PROXY-FIREWALL - [0:0]
:KUBE-PROXY-CANARY - [0:0]
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A INPUT -m comment --comment \"kubernetes health check service ports\" -j KUBE-NODEPORTS
-A INPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A FORWARD -m comment --comment \"kubernetes forwarding rules\" -j KUBE-FORWARD
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A FORWARD -m conntrack --ctstate NEW -m comment --comment \"kubernetes externally-visible service portals\" -j KUBE-EXTERNAL-SERVICES
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes load balancer firewall\" -j KUBE-PROXY-FIREWALL
-A OUTPUT -m conntrack --ctstate NEW -m comment --comment \"kubernetes service portals\" -j KUBE-SERVICES
-A KUBE-FORWARD -m conntrack --ctstate INVALID -j DROP
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding rules\" -m mark --mark 0x4000/0x4000 -j ACCEPT
-A KUBE-FORWARD -m comment --comment \"kubernetes forwarding conntrack rule\" -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
COMMIT
"
        )
    }
}
