//! The table of kube-proxy's nftables mode.

use std::fmt::Write;

use fairlead_lab::Lab;
use fairlead_plan::Family;

use super::{Past, services};

/// What `nft -f` loads: the table as kube-proxy makes it with `--masquerade-all`.
pub fn ruleset(lab: &Lab, family: Family, pods: &[&str]) -> String {
    let (table, ip) = match family {
        Family::V4 => ("ip", "ipv4_addr"),
        Family::V6 => ("ip6", "ipv6_addr"),
    };
    let (mut chains, mut cluster_ips, mut service_ips) = (String::new(), Vec::new(), Vec::new());
    for (number, Past { key, to, endpoints }) in services(lab, family, pods).into_iter().enumerate() {
        let protocol = key.protocol;
        let chain = format!("service-{number:08}-{}/{}/{protocol}/{}", key.namespace, key.name, key.port_name);
        let choices: Vec<String> =
            (0..).zip(&endpoints).map(|(at, to)| format!("{at} : {} . {}", to.ip(), to.port())).collect();
        let (count, choices) = (choices.len(), choices.join(", "));
        let pick = format!("numgen random mod {count} map {{ {choices} }}");
        writeln!(chains, "  chain {chain} {{\n    meta l4proto {protocol} dnat {table} to {pick}\n  }}").unwrap();
        service_ips.push(format!("{} . {protocol} . {} : goto {chain}", to.ip(), to.port()));
        cluster_ips.push(to.ip().to_string());
    }
    cluster_ips.dedup();
    let (cluster_ips, service_ips) = (cluster_ips.join(", "), service_ips.join(", "));
    format!(
        "table {table} kube-proxy {{
  comment \"rules for kube-proxy\"
{chains}
  set cluster-ips {{ type {ip}; elements = {{ {cluster_ips} }} }}
  map service-ips {{ type {ip} . inet_proto . inet_service : verdict; elements = {{ {service_ips} }} }}
  map service-nodeports {{ type inet_proto . inet_service : verdict; }}
  map no-endpoint-services {{ type {ip} . inet_proto . inet_service : verdict; }}
  chain services {{
    {table} daddr @cluster-ips meta mark set meta mark or 0x4000
    {table} daddr . meta l4proto . th dport vmap @service-ips
    fib daddr type local meta l4proto . th dport vmap @service-nodeports
  }}
  chain masquerading {{ meta mark & 0x4000 != 0 meta mark set meta mark ^ 0x4000 masquerade fully-random; }}
  chain cluster-ips-check {{ {table} daddr @cluster-ips reject; }}
  chain service-endpoints-check {{ {table} daddr . meta l4proto . th dport vmap @no-endpoint-services; }}
  chain nat-prerouting {{ type nat hook prerouting priority -100; jump services; }}
  chain nat-output {{ type nat hook output priority -100; jump services; }}
  chain nat-postrouting {{ type nat hook postrouting priority 100; jump masquerading; }}
  chain filter-input {{ type filter hook input priority 0; ct state new jump service-endpoints-check; }}
  chain filter-forward {{
    type filter hook forward priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
  chain filter-output {{
    type filter hook output priority 0;
    ct state new jump service-endpoints-check
    ct state new jump cluster-ips-check
  }}
}}
"
    )
}
