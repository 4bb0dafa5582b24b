//! What the kernel holds, read back and followed, in network namespaces of its own.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use fairlead_nft::{NftBackend, Tracer};
use fairlead_plan::{Backend, Family, Verdict};

use namespace::{alone, nft};
use sample::packets::{packet, packets};
use sample::{cluster_ip, endpoint, everything, plans};

fn held() -> Tracer {
    Tracer::held().expect("the kernel can be read")
}

#[test]
fn what_is_read_back_is_followed_as_what_was_rendered() {
    for plan in plans() {
        alone(|| {
            NftBackend::new().sync(None, &plan).expect("the kernel takes it");
            let (held, rendered) = (held(), Tracer::new(&plan).expect("the kernel took it"));
            for packet in packets(&plan) {
                let followed = held.follow(&packet).expect("it can be followed");
                assert_eq!(followed, rendered.follow(&packet).expect("it can be followed"), "{packet:?}");
                assert_eq!(followed.verdict, plan.decide(&packet), "{packet:?}");
            }
        });
    }
}

#[test]
fn shares_add_up_and_belong_to_the_endpoints_of_the_verdict() {
    alone(|| {
        let plan = everything();
        NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        let held = held();
        for packet in packets(&plan) {
            let followed = held.follow(&packet).expect("it can be followed");
            let whole: f64 = followed.branches.iter().map(|branch| branch.share).sum();
            assert!((whole - 1.0).abs() < 1e-9, "{whole}: {packet:?}");
            if let Verdict::Forward { endpoints, masqueraded } = &followed.verdict {
                assert!(followed.shares().iter().map(|(endpoint, _)| endpoint).eq(endpoints));
                let seen = followed.branches.iter().filter(|branch| branch.masqueraded);
                assert!(seen.filter_map(|branch| branch.endpoint).all(|endpoint| masqueraded.contains(&endpoint)));
            }
        }
    });
}

#[test]
fn without_a_table_packets_pass_and_it_is_said() {
    alone(|| {
        let held = held();
        for family in Family::BOTH {
            assert!(!held.is_there(family));
            let followed = held.follow(&packet(family, cluster_ip(family, 1, 80))).expect("it can be followed");
            assert_eq!((followed.verdict, followed.steps), (Verdict::Pass, Vec::new()));
        }
    });
}

#[test]
fn an_element_that_somebody_deletes_is_missing_from_the_way() {
    alone(|| {
        let plan = everything();
        NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        for (family, ip) in [(Family::V4, "ip"), (Family::V6, "ip6")] {
            let to = cluster_ip(family, 1, 80);
            let packet = packet(family, to);
            assert!(matches!(plan.decide(&packet), Verdict::Forward { .. }));
            let element = format!("{{ tcp . {} . 80 }}", to.ip());
            nft(&["delete", "element", ip, "fairlead", "frontends", &element]);
            let followed = held().follow(&packet).expect("it can be followed");
            assert_eq!(followed.verdict, Verdict::Reject, "{followed:#?}");
            assert!(followed.steps.iter().any(|step| step.contains("@cluster-ips")), "{followed:#?}");
        }
    });
}

#[test]
fn clients_that_the_kernel_remembers_are_read_too() {
    alone(|| {
        let plan = everything();
        NftBackend::new().sync(None, &plan).expect("the kernel takes it");
        let family = Family::V4;
        let packet = packet(family, cluster_ip(family, 5, 80));
        let listed = nft(&["list", "table", "ip", "fairlead"]);
        let line = |wanted: &str| {
            let mut lines = listed.lines().map(str::trim).filter_map(|line| line.strip_prefix("map "));
            let found = lines.find(|line| line.starts_with(wanted)).expect("a service of the sample has affinity");
            found.trim_end_matches(" {").to_owned()
        };
        let (memory, endpoints) = (line("affinity-"), line("endpoints-cluster-"));
        let wanted = endpoint(family, 2, false).addr();
        let map = nft(&["list", "map", "ip", "fairlead", &endpoints]);
        let number = map.split([',', '{', '}', '\n', '=']).map(str::trim).find_map(|element| {
            let (number, to) = element.split_once(" : ")?;
            (to == format!("{} . {}", wanted.ip(), wanted.port())).then(|| number.to_owned())
        });
        let (major, minor) =
            number.as_deref().and_then(|text| text.split_once(':')).expect("the endpoint is in the map");
        // `nft` takes this map's values to be in network order; rules write them in the host's.
        let number = u32::from_str_radix(&format!("{major}{minor:0>4}"), 16);
        let number = u32::from_be_bytes(number.expect("it is hexadecimal").to_ne_bytes());
        let number = format!("{:x}:{:x}", number >> 16, number & 0xffff);
        nft(&["add", "element", "ip", "fairlead", &memory, &format!("{{ {} timeout 60s : {number} }}", packet.source)]);
        let followed = held().follow(&packet).expect("it can be followed");
        assert_eq!(followed.shares(), [(wanted, 1.0)], "{followed:#?}");
    });
}

#[test]
fn a_rule_that_fairlead_never_writes_is_named() {
    alone(|| {
        NftBackend::new().sync(None, &everything()).expect("the kernel takes it");
        nft(&["insert", "rule", "ip6", "fairlead", "services", "tcp", "dport", "80", "counter", "accept"]);
        let error = Tracer::held().expect_err("it cannot be followed").to_string();
        assert_eq!(error, "table ip6 fairlead: rule 1 of the chain services is none that fairlead writes");
    });
}
