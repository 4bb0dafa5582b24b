//! Everything that the kernel would hold for a plan, for people: rules as `iptables-save`, sets as `ipset save`, virtual
//! services as `ipvsadm -Sn` would print them.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::net::IpAddr;

use fairlead_kernel::ipset::SetEntry;
use fairlead_plan::{Family, Plan};
use ipvs_rs::{Flags, ServiceId};

use crate::entry::protocol;
use crate::layout::Set;
use crate::render::Server;
use crate::tables::Tables;
use crate::{Settings, structure};

/// See above. Sorted, so that equal plans give equal text.
#[must_use]
pub fn text(plan: &Plan, settings: &Settings) -> String {
    let mut tables = Tables::new(settings.context(&plan.node));
    let wanted = tables.wanted(plan.services.sorted().into_iter().map(|service| &**service));
    let mut out = String::new();
    // Writing to a string cannot fail.
    for family in Family::BOTH {
        let _ = writeln!(out, "# {}: iptables-restore --noflush", family.label());
        for table in structure::TABLES {
            rules(&mut out, family, table, plan);
        }
        let _ = writeln!(out, "# {}: ipset restore", family.label());
        let ways = wanted.ways.values().map(|way| (way.entry, SetEntry { mark: Some(way.mark), ..way.entry.key }));
        let limits = wanted.limits.iter().map(|limit| (*limit, limit.key));
        let entries: BTreeSet<_> = ways.chain(limits).chain(tables.all_shared()).collect();
        for (entry, held) in entries.into_iter().filter(|(entry, _)| entry.family == family) {
            let _ = writeln!(out, "add {} {}", entry.set.name(family), shown(entry.set, &held));
        }
    }
    let _ = writeln!(out, "# ipvsadm -R");
    wanted.servers.values().for_each(|one| server(&mut out, one));
    out
}

fn rules(out: &mut String, family: Family, table: &str, plan: &Plan) {
    let chains = structure::chains(family, &plan.node);
    let _ = writeln!(out, "*{table}");
    for chain in chains.iter().filter(|chain| chain.table == table) {
        let _ = writeln!(out, ":{} - [0:0]", chain.name);
    }
    for chain in chains.iter().filter(|chain| chain.table == table) {
        for hook in chain.hooks {
            let _ = writeln!(out, "-I {hook} 1 -j {}", chain.name);
        }
        for rule in &chain.rules {
            let _ = writeln!(out, "-A {}{}", chain.name, rule.text(family));
        }
    }
    let _ = writeln!(out, "COMMIT");
}

fn shown(set: Set, entry: &SetEntry) -> String {
    let protocol = entry.protocol.and_then(protocol).map(|protocol| format!("{protocol}:")).unwrap_or_default();
    let port = entry.port.map(|port| format!("{protocol}{port}"));
    // The last address is the one that may be a network.
    let last = |ip: IpAddr| entry.prefix.map_or(ip.to_string(), |prefix| format!("{ip}/{prefix}"));
    let first = entry.ip.map(|ip| if entry.second.is_some() { ip.to_string() } else { last(ip) });
    let parts = [first, port, entry.second.map(last)];
    let key = parts.into_iter().flatten().collect::<Vec<_>>().join(",");
    match entry.mark.filter(|_| set.marks()) {
        Some(mark) => format!("{key} skbmark {mark:#x}"),
        None => key,
    }
}

fn server(out: &mut String, server: &Server) {
    let id = match server.id {
        ServiceId::Address { protocol, address } => {
            let letter = match protocol {
                ipvs_rs::Protocol::Udp => "-u",
                ipvs_rs::Protocol::Sctp => "--sctp-service",
                _ => "-t",
            };
            format!("{letter} {address}")
        }
        ServiceId::Fwmark { family, mark } => {
            format!("-f {mark}{}", if family == ipvs_rs::Family::V6 { " -6" } else { "" })
        }
    };
    let style = &server.style;
    let persistent =
        if style.flags.contains(Flags::PERSISTENT) { format!(" -p {}", style.timeout) } else { String::new() };
    let fallback = if style.flags.contains(Flags::HASH_FALLBACK) { " -b mh-fallback" } else { "" };
    let _ = writeln!(out, "-A {id} -s {}{persistent}{fallback}", style.scheduler);
    for endpoint in &server.endpoints {
        let _ = writeln!(out, "-a {id} -r {endpoint} -m -w 1");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample;

    #[test]
    fn entries_are_shown_as_ipset_reads_them() {
        let text = text(&sample::everything(), &Settings::default());
        let marked = [
            "KUBE-6-NODE-PORT-TCP 30004",
            "KUBE-NODE-PORT-SCTP-NET 0.0.0.0/1,sctp:30006",
            "KUBE-NODE-PORT-SCTP-NET 128.0.0.0/1,sctp:30006",
            "KUBE-6-NODE-PORT-SCTP-NET ::/1,sctp:30006",
            "KUBE-6-NODE-PORT-SCTP-NET 8000::/1,sctp:30006",
        ];
        for entry in marked {
            assert!(text.contains(&format!("add {entry} skbmark 0x")), "{entry} is not in {text}");
        }
        assert!(text.contains("-p sctp -j SET --map-set KUBE-NODE-PORT-SCTP-NET dst,dst --map-mark\n"), "{text}");
        assert!(text.contains("203.0.113.5,tcp:80,192.168.50.0/25\n"), "{text}");
    }
}
