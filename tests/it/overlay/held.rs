//! The rules around the overlay as a node's kernel holds them, in each mode.

use std::path::Path;

use fairlead_lab::Place;
use fairlead_plan::Family;

use super::stage::output;
use crate::listing::{ip, of_table};
use crate::packets::programs::Mode;
use crate::program::nft_output;

const TABLE: &str = "fairlead-overlay";

/// What each mode calls the sets of a family.
const fn sets(family: Family) -> [&'static str; 2] {
    match family {
        Family::V4 => ["FAIRLEAD-CLUSTER", "FAIRLEAD-PEERS"],
        Family::V6 => ["FAIRLEAD-6-CLUSTER", "FAIRLEAD-6-PEERS"],
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Everything that is ours, in a form in which equal content is equal; empty if there is nothing.
pub fn shown(node: &Place, mode: Mode, family: Family) -> String {
    if mode == Mode::Nft {
        let table = format!("{} {TABLE}", ip(family));
        let there = nft_output(node, &format!("list table {table}")).status.success();
        return if there { format!("{:#?}", of_table(node, &table)) } else { String::new() };
    }
    let lines = saved(node, mode, family);
    let mut sorted: Vec<&str> = lines.lines().filter(|line| line.contains("FAIRLEAD-")).collect();
    // Sets show their entries in no order; rules of a chain stay in theirs.
    sorted.sort_by_key(|line| if line.starts_with("add ") { *line } else { "" });
    sorted.join("\n")
}

/// The same as the programs save it.
pub fn saved(node: &Place, mode: Mode, family: Family) -> String {
    let Some(tool) = mode.tool(family) else {
        return text(&nft_output(node, &format!("list table {} {TABLE}", ip(family))).stdout);
    };
    let sets = sets(family).map(|set| text(&output(node, &format!("ipset save {set}")).stdout)).concat();
    let sets: String = sets.lines().map(|line| line.split(" bucketsize").next().unwrap().to_owned() + "\n").collect();
    let rules = ["nat", "filter"].map(|table| {
        let saved = text(&output(node, &format!("{tool}-save -t {table}")).stdout);
        let ours = saved.lines().filter(|line| line.contains("FAIRLEAD-"));
        let ours: String = ours.map(|line| line.split(" [").next().unwrap().to_owned() + "\n").collect();
        // A chain is declared with its counters.
        let ours: String =
            ours.lines().map(|line| line.to_owned() + if line.starts_with(':') { " [0:0]\n" } else { "\n" }).collect();
        if ours.is_empty() { ours } else { format!("*{table}\n{ours}COMMIT\n") }
    });
    let rules = rules.concat();
    // Both variants name the same sets.
    if rules.is_empty() { rules } else { sets + &rules }
}

/// The command that loads what was saved.
pub fn load(mode: Mode, family: Family, file: &Path) -> String {
    let file = file.display();
    match mode.tool(family) {
        None => format!("nft -f {file}"),
        Some(tool) => {
            format!(
                "grep -E '^(create|add)' {file} | ipset restore && grep -vE '^(create|add)' {file} | {tool}-restore"
            )
        }
    }
}

/// The peers from which tunnelled packets are taken, as text.
pub fn peers(node: &Place, mode: Mode, family: Family) -> String {
    let line = match mode {
        Mode::Nft => format!("nft list set {} {TABLE} peers", ip(family)),
        _ => format!("ipset list {}", sets(family)[1]),
    };
    text(&output(node, &line).stdout)
}

/// How many tunnelled packets of strangers were dropped; `None` if there is no filter.
pub fn dropped(node: &Place, mode: Mode, family: Family) -> Option<u64> {
    if mode == Mode::Nft {
        let chain = text(&nft_output(node, &format!("list chain {} {TABLE} input", ip(family))).stdout);
        return chain.split_once("packets ")?.1.split(' ').next()?.parse().ok();
    }
    let list = text(&output(node, &format!("{} -L FAIRLEAD-PEERS -v -n -x", mode.tool(family)?)).stdout);
    list.lines().find(|line| line.contains("DROP"))?.split_whitespace().next()?.parse().ok()
}

/// What others may do to the rules of a family.
pub fn faults(mode: Mode, family: Family) -> Vec<String> {
    let (peer, stranger) = match family {
        Family::V4 => ("192.168.50.2", "192.168.50.66"),
        Family::V6 => ("fd00:50::2", "fd00:50::66"),
    };
    let family_name = ip(family);
    let Some(tool) = mode.tool(family) else {
        return [
            format!("delete table {family_name} {TABLE}"),
            format!("flush chain {family_name} {TABLE} postrouting"),
            format!("insert rule {family_name} {TABLE} input accept"),
            format!("delete element {family_name} {TABLE} peers {{ {peer} }}"),
            format!("add element {family_name} {TABLE} peers {{ {stranger} }}"),
            format!("flush set {family_name} {TABLE} cluster"),
            format!("add chain {family_name} {TABLE} foreign"),
        ]
        .map(|fault| format!("nft '{fault}'"))
        .into();
    };
    let [cluster, peers] = sets(family);
    // Some commands come too late, when the first of a line is put right already.
    vec![
        format!("{tool} -F FAIRLEAD-FWD"),
        format!("{tool} -t nat -F POSTROUTING"),
        format!("{tool} -F FORWARD"),
        format!("{tool} -F INPUT; {tool} -F FAIRLEAD-PEERS; {tool} -X FAIRLEAD-PEERS; true"),
        format!("{tool} -t nat -F; {tool} -t nat -X; true"),
        format!("{tool} -t nat -I FAIRLEAD-POSTRTG -j ACCEPT"),
        format!("{tool} -I FAIRLEAD-PEERS -j RETURN"),
        format!("{tool} -N FAIRLEAD-OTHER"),
        format!("{tool} -I INPUT -j FAIRLEAD-PEERS"),
        format!("ipset del {peers} {peer}"),
        format!("ipset add {peers} {stranger}"),
        format!("ipset del {peers} {peer} && ipset add {peers} {stranger}"),
        format!("ipset flush {cluster}"),
        format!("{tool} -F; {tool} -t nat -F; {tool} -X FAIRLEAD-PEERS; ipset destroy {peers}; true"),
    ]
}
