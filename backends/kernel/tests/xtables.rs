//! Tables of the legacy variant, and rules of `nft_compat`, that a kernel refuses.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{Batch, ChainSpec, Nfproto, Nft};
use fairlead_kernel::xtables::{Edit, EncodedChain, Extension, Ip, Rule, Target, Xtables, expressions};

const CHAIN: &str = "KUBE-TEST";
const PATIENCE: Duration = Duration::from_secs(60);

fn rule(matches: Vec<Extension>, target: Target) -> Rule {
    Rule { source: None, destination: None, interface: None, protocol: None, matches, target }
}

/// Rules of which the kernel knows some parts, and how it shall call the part that it does not know.
fn rules() -> [(Rule, &'static str); 3] {
    let known = || Extension::mark_is(1, 1, false);
    let nobody_has = |name, revision| Extension { name, revision, data: vec![0; 8] };
    [
        (
            rule(vec![known(), nobody_has("nosuchmatch", 3)], Target::Accept),
            "the match nosuchmatch (revision 3; module xt_nosuchmatch)",
        ),
        (
            rule(vec![known()], Target::Extension(nobody_has("NOSUCHTARGET", 0))),
            "the target NOSUCHTARGET (revision 0; module xt_NOSUCHTARGET)",
        ),
        // A newer layout of a match that the kernel has.
        (rule(vec![nobody_has("mark", 77), known()], Target::Accept), "the match mark (revision 77; module xt_mark)"),
    ]
}

#[test]
fn a_legacy_table_with_an_unknown_match_or_target_is_refused_and_says_which_and_where() {
    Netns::create()
        .unwrap()
        .run(|| {
            for (ip, program) in [(Ip::V4, "iptables"), (Ip::V6, "ip6tables")] {
                for table in ["nat", "filter"] {
                    for (rule, words) in rules() {
                        let mut chain = EncodedChain::default();
                        chain.push(ip, &rule);
                        let edit =
                            Edit { put: BTreeMap::from([(CHAIN.to_owned(), Arc::new(chain))]), ..Edit::default() };
                        let tables = Xtables::open(ip).unwrap();
                        let error = tables.change(table, PATIENCE, |_| edit.clone()).unwrap_err();
                        assert!(error.is_missing(), "{error:?}");
                        let wanted = format!("{table} of {program}: the kernel lacks {words}; load it");
                        assert_eq!(error.to_string(), wanted);
                        let there = tables.read(table, |view| view.chain(CHAIN).is_some()).unwrap().1;
                        assert!(!there, "a part of it was written");
                    }
                }
            }
        })
        .unwrap();
}

#[test]
fn a_rule_of_nf_tables_with_an_unknown_match_or_target_is_refused_and_says_which_and_where() {
    Netns::create()
        .unwrap()
        .run(|| {
            let mut nft = Nft::open().unwrap();
            for (ip, proto, family) in [(Ip::V4, Nfproto::Ipv4, "ip"), (Ip::V6, Nfproto::Ipv6, "ip6")] {
                for table in ["nat", "filter"] {
                    for (rule, words) in rules() {
                        let mut batch = Batch::new();
                        batch.add_table(proto, table, None);
                        batch.add_chain(proto, table, &ChainSpec { name: CHAIN, ..ChainSpec::default() });
                        batch.add_xtables_rule(proto, table, CHAIN, &expressions(ip, &rule).0, None, false);
                        let error = nft.commit(&batch).unwrap_err();
                        let wanted = format!("cannot add rule with {words} to chain {CHAIN} of table {family} {table}");
                        assert!(error.to_string().contains(&wanted), "{error}");
                        assert!(nft.table(proto, table).unwrap().is_none(), "a part of it was written");
                    }
                }
            }
        })
        .unwrap();
}
