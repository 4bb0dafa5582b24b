//! What the expression builder writes, held against what the `nft` program makes of the same rule.

use std::io::Write;
use std::process::{Command, Stdio};

use fairlead_kernel::netns::Netns;
use fairlead_kernel::nft::{Batch, ChainSpec, Exprs, HookSpec, Nfproto, Nft, RuleInfo};

const NFT: &str = "nft-made";
const OURS: &str = "our-made";

/// What differs between the families: nft's words and the header offsets.
struct Family {
    proto: Nfproto,
    word: &'static str,
    address_type: &'static str,
    address_len: u32,
    saddr: u32,
    daddr: u32,
    /// `NFT_CT_DST_IP` or `NFT_CT_DST_IP6`.
    ct_dst: u32,
    unreachable: &'static str,
    unreachable_code: u8,
}

const FAMILIES: [Family; 2] = [
    Family {
        proto: Nfproto::Ipv4,
        word: "ip",
        address_type: "ipv4_addr",
        address_len: 4,
        saddr: 12,
        daddr: 16,
        ct_dst: 20,
        unreachable: "icmp type port-unreachable",
        unreachable_code: 3,
    },
    Family {
        proto: Nfproto::Ipv6,
        word: "ip6",
        address_type: "ipv6_addr",
        address_len: 16,
        saddr: 8,
        daddr: 24,
        ct_dst: 22,
        unreachable: "icmpv6 type port-unreachable",
        unreachable_code: 4,
    },
];

const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const META_MARK: u32 = 3;
const META_OIFNAME: u32 = 7;
const META_L4PROTO: u32 = 16;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
const CT_PROTO_DST: u32 = 12;
const FIRST_SMALL: u32 = 8;

type Case = (String, Exprs);

fn built(build: &dyn Fn(&mut Exprs)) -> Exprs {
    let mut exprs = Exprs::new();
    build(&mut exprs);
    exprs
}

fn tcp(exprs: &mut Exprs) {
    exprs.meta_load(META_L4PROTO, 1).cmp(0, 1, &[6]);
}

impl Family {
    /// The register after an address and a 4-byte value, counted from the first.
    fn after(&self, fours: u32) -> u32 {
        FIRST_SMALL + self.address_len / 4 + fours
    }

    /// Rules of a filter chain.
    fn filter_rules(&self) -> Vec<Case> {
        let groups = [self.mark_rules(), self.match_rules(), self.set_rules(), self.flow_rules()];
        groups.into_iter().flatten().collect()
    }

    /// Marks from constants, arithmetic, hashes and chance.
    fn mark_rules(&self) -> Vec<Case> {
        let ip = self.word;
        vec![
            ("meta mark set 0x4000".into(), built(&|e| _ = e.immediate(1, &0x4000u32.to_ne_bytes()).meta_set(3, 1))),
            (
                "meta mark set meta mark and 0xffffbfff xor 0x1".into(),
                built(&|e| {
                    let (mask, xor) = (0xffff_bfffu32.to_ne_bytes(), 1u32.to_ne_bytes());
                    e.meta_load(META_MARK, 1).bitwise(1, 1, 4, &mask, &xor).meta_set(META_MARK, 1);
                }),
            ),
            (
                "meta mark and 0x4000 == 0x4000 return".into(),
                built(&|e| {
                    let bit = 0x4000u32.to_ne_bytes();
                    e.meta_load(META_MARK, 1).bitwise(1, 1, 4, &bit, &[0; 4]).cmp(0, 1, &bit).verdict(-5, None);
                }),
            ),
            (
                format!("meta mark set jhash {ip} saddr mod 7 seed 0x1234 offset 3"),
                built(&|e| {
                    e.payload(NETWORK, self.saddr, self.address_len, 2);
                    e.jhash(2, self.address_len, 1, 7, Some(0x1234), 3).meta_set(META_MARK, 1);
                }),
            ),
            (
                "meta mark set numgen random mod 5 offset 100".into(),
                built(&|e| _ = e.numgen_random(1, 5, 100).meta_set(META_MARK, 1)),
            ),
        ]
    }

    /// Comparisons and what ends a rule.
    fn match_rules(&self) -> Vec<Case> {
        vec![
            (
                "tcp dport >= 80 counter accept".into(),
                built(&|e| {
                    tcp(e);
                    e.payload(TRANSPORT, 2, 2, 1).cmp(5, 1, &80u16.to_be_bytes()).counter().verdict(1, None);
                }),
            ),
            (
                "oifname != \"eth0\" drop".into(),
                built(&|e| {
                    let mut name = [0; 16];
                    name[..4].copy_from_slice(b"eth0");
                    e.meta_load(META_OIFNAME, 1).cmp(1, 1, &name).verdict(0, None);
                }),
            ),
            (format!("reject with {}", self.unreachable), built(&|e| _ = e.reject(0, self.unreachable_code))),
            (
                "meta l4proto tcp reject with tcp reset".into(),
                built(&|e| {
                    tcp(e);
                    e.reject(1, 0);
                }),
            ),
            (
                "fib daddr type local accept".into(),
                built(&|e| {
                    e.fib(3, 2, 1).cmp(0, 1, &2u32.to_ne_bytes()).verdict(1, None);
                }),
            ),
        ]
    }

    /// Sets and maps, read and written.
    fn set_rules(&self) -> Vec<Case> {
        let ip = self.word;
        vec![
            (
                format!("{ip} saddr @known jump other"),
                built(&|e| {
                    e.payload(NETWORK, self.saddr, self.address_len, 1);
                    e.lookup("known", None, 1, None, false).verdict(-3, Some("other"));
                }),
            ),
            (
                format!("{ip} daddr != @known goto other"),
                built(&|e| {
                    e.payload(NETWORK, self.daddr, self.address_len, 1);
                    e.lookup("known", None, 1, None, true).verdict(-4, Some("other"));
                }),
            ),
            (
                format!("meta l4proto . {ip} daddr . th dport vmap @services"),
                built(&|e| {
                    e.meta_load(META_L4PROTO, 1).payload(NETWORK, self.daddr, self.address_len, 9);
                    e.payload(TRANSPORT, 2, 2, self.after(1)).lookup("services", None, 1, Some(0), false);
                }),
            ),
            (
                format!("add @members {{ {ip} saddr }}"),
                built(&|e| {
                    e.payload(NETWORK, self.saddr, self.address_len, 1).dynset("members", 0, 1, None, None);
                }),
            ),
            (
                format!("delete @members {{ {ip} saddr }}"),
                built(&|e| {
                    e.payload(NETWORK, self.saddr, self.address_len, 1).dynset("members", 2, 1, None, None);
                }),
            ),
        ]
    }

    /// Connection tracking.
    fn flow_rules(&self) -> Vec<Case> {
        let ip = self.word;
        vec![
            (
                "ct state new ct status dnat jump other".into(),
                built(&|e| {
                    let (new, dnat) = (8u32.to_ne_bytes(), 0x20u32.to_ne_bytes());
                    e.ct_load(CT_STATE, 1, None).bitwise(1, 1, 4, &new, &[0; 4]).cmp(1, 1, &[0; 4]);
                    e.ct_load(CT_STATUS, 1, None).bitwise(1, 1, 4, &dnat, &[0; 4]).cmp(1, 1, &[0; 4]);
                    e.verdict(-3, Some("other"));
                }),
            ),
            (
                "meta l4proto tcp ct original proto-dst 80 return".into(),
                built(&|e| {
                    tcp(e);
                    e.ct_load(CT_PROTO_DST, 1, Some(0)).cmp(0, 1, &80u16.to_be_bytes()).verdict(-5, None);
                }),
            ),
            (
                // A longer key and value in IPv6 makes nft 1.0.6 run out of registers and abort.
                format!("update @recent {{ ct original {ip} daddr timeout 3h : {ip} daddr }}"),
                built(&|e| {
                    e.ct_load(self.ct_dst, 1, Some(0)).payload(NETWORK, self.daddr, self.address_len, 2);
                    e.dynset("recent", 1, 1, Some(2), Some(3 * 3_600_000));
                }),
            ),
        ]
    }

    /// Rules of a NAT chain.
    fn nat_rules(&self, hook: &str) -> Vec<Case> {
        let ip = self.word;
        let len = self.address_len;
        let port_register = FIRST_SMALL + len / 4;
        let mut dnat = Exprs::new();
        dnat.meta_load(META_L4PROTO, 1).payload(NETWORK, self.daddr, len, 9).payload(TRANSPORT, 2, 2, self.after(1));
        dnat.numgen_random(self.after(2), 3, 0).lookup("endpoints", None, 1, Some(1), false);
        let family = if self.proto == Nfproto::Ipv4 { libc::AF_INET } else { libc::AF_INET6 }.cast_unsigned();
        dnat.nat(1, family, 1, None, Some(port_register), None, None);
        let mut masq = Exprs::new();
        masq.masq(None);
        let mut random = Exprs::new();
        random.masq(Some(0x10));
        let mut snat = Exprs::new();
        let address = if len == 4 { vec![192, 0, 2, 1] } else { [vec![0; 15], vec![1]].concat() };
        snat.immediate(1, &address).nat(0, family, 1, None, None, None, Some(0x10));
        match hook {
            "prerouting" => vec![(
                format!("dnat {ip} to meta l4proto . {ip} daddr . th dport . numgen random mod 3 map @endpoints"),
                dnat,
            )],
            _ => vec![
                ("masquerade".into(), masq),
                ("masquerade fully-random".into(), random),
                (format!("snat to {} fully-random", if len == 4 { "192.0.2.1" } else { "::1" }), snat),
            ],
        }
    }

    /// Sets, maps and chains that the rules name.
    fn surroundings(&self, table: &str) -> String {
        let (ip, address) = (self.word, self.address_type);
        format!(
            "table {ip} {table} {{
            set known {{ type {address}; }}
            set members {{ type {address}; flags dynamic; size 100; }}
            map services {{ typeof meta l4proto . {ip} daddr . th dport : verdict; }}
            map endpoints {{ typeof meta l4proto . {ip} daddr . th dport . numgen random mod 65536 : {ip} daddr . th dport; }}
            map recent {{ type {address} : {address}; flags dynamic, timeout; size 100; }}
            chain other {{ }}
            chain filter {{ type filter hook input priority 0; }}
            chain prerouting {{ type nat hook prerouting priority -100; }}
            chain postrouting {{ type nat hook postrouting priority 100; }}
            }}\n"
        )
    }
}

fn nft_program(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().expect("nft is installed");
    child.stdin.take().expect("piped").write_all(script.as_bytes()).expect("nft reads its input");
    assert!(child.wait().expect("nft ran").success(), "nft refused:\n{script}");
}

fn names(exprs: &[u8]) -> String {
    fairlead_kernel::netlink::attributes(exprs).map(|item| format!("\n  {:02x?}", item.payload)).collect()
}

fn rules_of(nft: &mut Nft, family: &Family, table: &str, chain: &str) -> Vec<RuleInfo> {
    let mut rules = nft.rules(family.proto, table).expect("the table is there");
    rules.retain(|rule| rule.chain == chain);
    rules
}

#[test]
fn every_rule_is_byte_for_byte_the_one_that_nft_makes_and_that_the_kernel_shows() {
    for family in &FAMILIES {
        let namespace = Netns::create().expect("the tests run as root");
        let compare = || {
            let mut nft = Nft::open().expect("nf_tables");
            let cases = [
                ("filter", family.filter_rules()),
                ("prerouting", family.nat_rules("prerouting")),
                ("postrouting", family.nat_rules("postrouting")),
            ];
            let mut script = family.surroundings(NFT) + &family.surroundings(OURS);
            for (chain, cases) in &cases {
                let line = |text: &String| format!("add rule {} {NFT} {chain} {text}\n", family.word);
                script.extend(cases.iter().map(|(text, _)| line(text)));
            }
            nft_program(&script);
            for (chain, cases) in cases {
                let mut batch = Batch::new();
                for (text, exprs) in &cases {
                    batch.add_rule(family.proto, OURS, chain, &exprs.0, Some(text.as_bytes()));
                }
                let theirs = rules_of(&mut nft, family, NFT, chain);
                for ((text, exprs), theirs) in cases.iter().zip(&theirs) {
                    let (a, b) = (names(&exprs.0), names(&theirs.expressions));
                    assert!(exprs.matches(&theirs.expressions), "{text}\nours {a}\nnft's {b}");
                }
                nft.commit(&batch).expect("the kernel takes our rules");
                let ours = rules_of(&mut nft, family, OURS, chain);
                assert_eq!((theirs.len(), ours.len()), (cases.len(), cases.len()));
                for ((text, _), (theirs, ours)) in cases.iter().zip(theirs.iter().zip(&ours)) {
                    assert!(ours.expressions == theirs.expressions, "{text}");
                    assert_eq!(ours.userdata, text.as_bytes());
                }
            }
        };
        namespace.run(compare).expect("the namespace was just made");
    }
}

#[test]
fn chains_come_back_with_their_hooks_and_can_be_emptied_and_deleted() {
    for family in &FAMILIES {
        let namespace = Netns::create().expect("the tests run as root");
        let work = || {
            let mut nft = Nft::open().expect("nf_tables");
            let mut batch = Batch::new();
            batch.add_table(family.proto, OURS, None);
            let hook = Some(HookSpec { kind: "nat", hook: 0, priority: -110 });
            let base = ChainSpec { name: "base", hook, userdata: Some(b"v1".to_vec()) };
            batch.add_chain(family.proto, OURS, &base);
            batch.add_chain(family.proto, OURS, &ChainSpec { name: "plain", ..ChainSpec::default() });
            let mut jump = Exprs::new();
            jump.verdict(-3, Some("plain"));
            batch.add_rule(family.proto, OURS, "base", &jump.0, None);
            batch.add_rule(family.proto, OURS, "base", &jump.0, None);
            nft.commit(&batch).expect("a good batch");
            let chains = nft.chains(family.proto, OURS).expect("the table is there");
            let found = &chains[0];
            let hook = found.hook.expect("a base chain");
            assert_eq!((found.name.as_str(), hook.num, hook.priority, found.policy), ("base", 0, -110, Some(1)));
            assert_eq!((found.kind.as_deref(), found.userdata.as_slice()), (Some("nat"), &b"v1"[..]));
            assert_eq!((chains[1].name.as_str(), chains[1].hook), ("plain", None));

            let rules = nft.rules(family.proto, OURS).expect("the table is there");
            let mut batch = Batch::new();
            batch.del_rule(family.proto, OURS, "base", rules[0].handle);
            nft.commit(&batch).expect("the handle is right");
            assert_eq!(nft.rules(family.proto, OURS).expect("the table is there"), rules[1..]);
            let mut batch = Batch::new();
            batch.del_chain(family.proto, OURS, "plain");
            let error = nft.commit(&batch).expect_err("a rule still jumps there");
            assert_eq!(error.errno(), Some(libc::EBUSY));
            assert!(error.to_string().contains("delete chain plain of table"), "{error}");
            let mut batch = Batch::new();
            batch.flush_chain(family.proto, OURS, "base");
            batch.del_chain(family.proto, OURS, "plain");
            batch.flush_table(family.proto, OURS);
            nft.commit(&batch).expect("nothing jumps there any more");
            assert_eq!(nft.chains(family.proto, OURS).expect("the table is there").len(), 1);
        };
        namespace.run(work).expect("the namespace was just made");
    }
}
