//! What a node's kernel holds, of ours and of others, in each mode.

use std::collections::BTreeMap;

use fairlead_iptables::is_ours;
use fairlead_lab::Place;
use fairlead_plan::Family;

use crate::listing::listing;
use crate::packets::programs::Mode;
use crate::program::{Directory, nft};

/// A table of somebody else with everything that a table can have.
const FOREIGN_TABLES: &str = "table ip other {
    set clients { type ipv4_addr . inet_service; elements = { 192.0.2.1 . 80, 192.0.2.2 . 443 }; }
    set nets { type ipv4_addr; flags interval; elements = { 198.51.100.0/24 }; }
    map ports { type inet_service : verdict; elements = { 2222 : jump reached }; }
    map names { type ipv4_addr : mark; elements = { 192.0.2.7 : 0x00000007 }; }
    chain reached { ip saddr @nets accept; }
    chain before { type nat hook prerouting priority dstnat - 5; policy accept; tcp dport vmap @ports; }
    chain after { type nat hook postrouting priority srcnat; policy accept; ip saddr . tcp dport @clients masquerade; }
    chain cluster { type filter hook forward priority filter; policy accept; }
}
table inet fairlead { set cluster-ips { type ipv4_addr; elements = { 192.0.2.9 }; }; }
table ip6 kube-router { chain services { ip6 daddr fd00::9 drop; }; }";

/// What the kubelet, docker, firewalld and the CNI plugin for host ports put beside our chains.
const FOREIGN_CHAINS: &str = "*nat
:CNI-HOSTPORT-DNAT - [0:0]
:CNI-HOSTPORT-MASQ - [0:0]
:CNI-DN-1234 - [0:0]
:DOCKER - [0:0]
:PREROUTING_direct - [0:0]
-A PREROUTING -j PREROUTING_direct
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
-A OUTPUT -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A POSTROUTING -m comment --comment \"CNI portfwd requiring masquerade\" -j CNI-HOSTPORT-MASQ
-A CNI-HOSTPORT-DNAT -p tcp -m multiport --dports 2222 -j CNI-DN-1234
-A CNI-HOSTPORT-MASQ -m mark --mark 0x2000/0x2000 -j MASQUERADE
-A CNI-DN-1234 -p tcp -m tcp --dport 2222 -m recent --set --name OTHER --mask MASK --rsource
COMMIT
*filter
:KUBE-FIREWALL - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
:DOCKER-USER - [0:0]
:FORWARD_direct - [0:0]
-A INPUT -j KUBE-FIREWALL
-A FORWARD -j DOCKER-USER
-A FORWARD -j FORWARD_direct
-A OUTPUT -j KUBE-FIREWALL
-A KUBE-FIREWALL -m mark --mark 0x8000/0x8000 -j DROP
-A DOCKER-USER -j RETURN
COMMIT
*mangle
:KUBE-IPTABLES-HINT - [0:0]
:KUBE-KUBELET-CANARY - [0:0]
COMMIT
";

/// Puts in what somebody else might have.
pub fn load_foreign(node: &Place, mode: Mode) {
    let directory = Directory::new();
    let Some(_) = mode.tool(Family::V4) else {
        let file = directory.write("foreign.nft", FOREIGN_TABLES);
        nft(node, &format!("-f {}", file.display()));
        return;
    };
    for (family, mask) in [(Family::V4, "255.255.255.255"), (Family::V6, "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff")] {
        let file = directory.write("foreign.rules", &FOREIGN_CHAINS.replace("MASK", mask));
        let tool = mode.tool(family).unwrap();
        shell(node, &format!("{tool}-restore < {}", file.display()));
    }
}

/// What others have, so exactly that what was made again differs.
pub fn foreign(node: &Place, mode: Mode) -> String {
    if mode.tool(Family::V4).is_none() {
        let tables = ["ip other", "inet fairlead", "ip6 kube-router"];
        return tables.map(|table| nft(node, &format!("-j -a list table {table}"))).concat();
    }
    let saved = ruleset(node, mode);
    let ours = |name: &str| if mode == Mode::Ipvs { name.starts_with("KUBE-IPVS-") } else { is_ours(name) };
    let is_foreign = |line: &&str| !line.split([' ', ':']).any(ours);
    saved.lines().filter(is_foreign).collect::<Vec<_>>().join("\n")
}

/// Everything that the kernel holds in tables of the mode.
pub fn ruleset(node: &Place, mode: Mode) -> String {
    if mode.tool(Family::V4).is_none() {
        return nft(node, "-j list ruleset");
    }
    let tables = Family::BOTH.into_iter().flat_map(|family| ["nat", "filter", "mangle"].map(|table| (family, table)));
    let saved = tables.map(|(family, table)| {
        let text = shell(node, &format!("{}-save -t {table}", mode.tool(family).unwrap()));
        // Chains without rules of the kernel's own come and go with the table that we made.
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        lines.map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect::<String>()
    });
    saved.collect()
}

/// What we hold, in a form in which equal content is equal: for each family.
pub fn held(node: &Place, mode: Mode) -> [String; 2] {
    Family::BOTH.map(|family| {
        let Some(tool) = mode.tool(family) else { return format!("{:#?}", listing(node, family)) };
        if mode == Mode::Ipvs {
            return services_and_sets(node, family);
        }
        let mut chains: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for table in ["nat", "filter"] {
            for line in shell(node, &format!("{tool}-save -t {table}")).lines() {
                if let Some(rule) = line.strip_prefix("-A ") {
                    let chain = rule.split(' ').next().unwrap();
                    chains.entry(format!("{table} {chain}")).or_default().push(rule.to_owned());
                } else if let Some(chain) = line.strip_prefix(':') {
                    chains.entry(format!("{table} {}", chain.split(' ').next().unwrap())).or_default();
                }
            }
        }
        format!("{chains:#?}")
    })
}

/// Entries of frontends that are gone and whose connections have not ended carry this, with the default masquerade bit.
const LEAVING: &str = "skbmark 0x88000000";

/// Mode ipvs, without what only waits for connections to end .
fn services_and_sets(node: &Place, family: Family) -> String {
    let v6 = family == Family::V6;
    let mut services: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for line in shell(node, "ipvsadm -Sn").lines().filter(|line| v6 == (line.contains('[') || line.contains(" -6"))) {
        let words: Vec<&str> = line.split(' ').collect();
        let id = words[1..3].join(" ");
        match words[0] {
            "-A" => services.entry(id).or_default().insert(0, line.to_owned()),
            _ if line.ends_with("-w 0") => {}
            _ => services.entry(id).or_default().push(line.to_owned()),
        }
    }
    services.retain(|_, lines| {
        lines[1..].sort();
        lines.len() > 1
    });
    let mut entries: Vec<String> = shell(node, "ipset save").lines().map(str::to_owned).collect();
    entries.retain(|line| v6 == line.contains("KUBE-6-") && line.contains(" KUBE-") && !line.contains(LEAVING));
    // Sizes of tables grow and do not shrink, and their seeds are random.
    entries
        .iter_mut()
        .filter(|line| line.starts_with("create"))
        .for_each(|line| line.truncate(line.find(" family").unwrap_or(line.len())));
    // The address of a frontend that is leaving stays too.
    entries.retain(|line| !line.contains("skbmark 0x80000000"));
    entries.sort();
    format!("{services:#?} {entries:#?}")
}

/// Runs a line of shell in a node and gives back what it prints.
pub fn shell(node: &Place, line: &str) -> String {
    let output = node.command("sh").args(["-c", line]).output().unwrap();
    assert!(output.status.success(), "{line}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}
