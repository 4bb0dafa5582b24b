//! What the kernel holds, read back and followed, in network namespaces of its own, in both variants.

mod namespace;
#[path = "../../plan/tests/sample/mod.rs"]
mod sample;

use fairlead_iptables::{IptablesBackend, Tracer, Variant, held_variant};
use fairlead_plan::{Backend, Family, Plan, Verdict};

use namespace::{alone, program, run};
use sample::packets::{packet, packets};
use sample::{cluster_ip, everything, plans};

const VARIANTS: [Variant; 2] = [Variant::Legacy, Variant::Nft];

/// In a namespace whose kernel carries out this plan.
fn carried_out(variant: Variant, plan: &Plan, then: impl FnOnce() + Send) {
    alone(|| {
        IptablesBackend::new(Some(variant)).sync(None, plan).expect("the kernel takes it");
        then();
    });
}

fn held(variant: Variant) -> Tracer {
    Tracer::held(variant).expect("the kernel can be read")
}

#[test]
fn what_is_read_back_is_followed_as_the_plan_says() {
    for (variant, plan) in VARIANTS.into_iter().flat_map(|variant| plans().into_iter().map(move |plan| (variant, plan)))
    {
        carried_out(variant, &plan, || {
            let (held, rendered) = (held(variant), Tracer::new(&plan));
            for packet in packets(&plan) {
                let followed = held.follow(&packet).expect("it can be followed");
                assert_eq!(followed.verdict, plan.decide(&packet), "{packet:?}: {followed:#?}");
                assert_eq!(followed.verdict, rendered.verdict(&packet).expect("it can be followed"));
                let whole: f64 = followed.branches.iter().map(|branch| branch.share).sum();
                assert!((whole - 1.0).abs() < 1e-6, "{whole}: {packet:?}: {followed:#?}");
                if let Verdict::Forward { endpoints, .. } = &followed.verdict {
                    assert!(followed.shares().iter().map(|(endpoint, _)| endpoint).eq(endpoints));
                }
            }
        });
    }
}

#[test]
fn the_endpoints_of_a_service_are_equally_probable() {
    for variant in VARIANTS {
        let plan = everything();
        carried_out(variant, &plan, || {
            for family in Family::BOTH {
                let followed = held(variant).follow(&packet(family, cluster_ip(family, 1, 80))).expect("followed");
                let shares = followed.shares();
                assert!(shares.len() > 1, "{followed:#?}");
                #[expect(clippy::cast_precision_loss, reason = "a few endpoints")]
                let fair = 1.0 / shares.len() as f64;
                assert!(shares.iter().all(|(_, share)| (share - fair).abs() < 1e-6), "{shares:?}");
            }
        });
    }
}

#[test]
fn the_variant_in_use_is_found_and_none_where_there_is_nothing() {
    alone(|| assert_eq!(held_variant().expect("the kernel can be read"), None));
    for variant in VARIANTS {
        let plan = everything();
        carried_out(variant, &plan, || {
            assert_eq!(held_variant().expect("the kernel can be read"), Some(variant));
            let other = if variant == Variant::Nft { Variant::Legacy } else { Variant::Nft };
            assert!(held(variant).is_there(Family::V6));
            assert!(!held(other).is_there(Family::V6));
        });
    }
}

#[test]
fn a_jump_that_somebody_deletes_is_missing_from_the_way() {
    for variant in VARIANTS {
        let plan = everything();
        carried_out(variant, &plan, || {
            for family in Family::BOTH {
                let packet = packet(family, cluster_ip(family, 1, 80));
                run(&program(variant, family, ""), &["-t", "nat", "-F", "PREROUTING"]);
                let followed = held(variant).follow(&packet).expect("it can be followed");
                assert_eq!(followed.verdict, Verdict::Reject, "{followed:#?}");
                assert!(followed.steps.iter().all(|step| step.starts_with("filter ")), "{followed:#?}");
            }
        });
    }
}

#[test]
fn rules_of_others_are_passed_over_in_the_kernels_chains_and_named_in_ours() {
    for variant in VARIANTS {
        let plan = everything();
        carried_out(variant, &plan, || {
            let family = Family::V6;
            let iptables = |args: &[&str]| run(&program(variant, family, ""), args);
            iptables(&["-I", "FORWARD", "-p", "tcp", "--sport", "1", "-j", "DROP"]);
            let packet = packet(family, cluster_ip(family, 1, 80));
            let followed = held(variant).follow(&packet).expect("it can be followed");
            assert_eq!(followed.verdict, plan.decide(&packet));
            iptables(&["-t", "nat", "-I", "KUBE-SERVICES", "2", "-p", "tcp", "--sport", "1", "-j", "ACCEPT"]);
            let error = Tracer::held(variant).expect_err("it cannot be followed").to_string();
            let wanted = "rule 2 of the chain KUBE-SERVICES in the ip6tables table nat is none that fairlead writes";
            assert_eq!(error, wanted);
        });
    }
}
