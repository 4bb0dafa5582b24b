//! The lists of `-m recent`, which belong to the network namespace.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// The addresses in a list; none if there is no such list. When each came is told in ticks that no other file explains, so one
/// that is too old for a rule is told of until the rule itself takes it out.
#[must_use]
pub fn remembered(list: &str) -> BTreeSet<IpAddr> {
    // A list is a file name, so it cannot lead out of the directory.
    let text = std::fs::read_to_string(format!("/proc/thread-self/net/xt_recent/{list}"));
    text.unwrap_or_default().lines().filter_map(source).collect()
}

fn source(line: &str) -> Option<IpAddr> {
    line.strip_prefix("src=")?.split(' ').next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_both_families_are_read() {
        let lines = [
            "src=10.244.1.5 ttl: 64 last_seen: 4295111111 oldest_pkt: 1 4295111111",
            "src=fd00:0244:0000:0000:0000:0000:0000:0005 ttl: 64 last_seen: 4295111111 oldest_pkt: 1 4295111111",
            "",
        ];
        let found: Vec<_> = lines.into_iter().filter_map(source).collect();
        let wanted: [IpAddr; 2] = [[10, 244, 1, 5].into(), [0xfd00, 0x244, 0, 0, 0, 0, 0, 5].into()];
        assert_eq!(found, wanted);
    }
}
