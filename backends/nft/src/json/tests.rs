use std::collections::BTreeMap;

use fairlead_plan::{Family, Plan};
use nftables::schema::{NfCmd, NfListObject, NfObject, Nftables, SetFlag};
use serde_json::Value as Json;

use super::{json, nf_family};
use crate::diff::Tables;
use crate::namespace::{alone, load, nft};
use crate::rules::Value;
use crate::sample;
use crate::whole::Whole;

/// How many objects of each kind.
#[derive(Debug, Default, PartialEq, Eq)]
struct Counts {
    tables: usize,
    chains: usize,
    rules: usize,
    sets: usize,
    maps: usize,
    elements: usize,
}

fn added(text: &str) -> Vec<NfListObject<'static>> {
    let document: Nftables<'static> = serde_json::from_str(text).expect("the crate reads its own types");
    let add = |object| match object {
        NfObject::CmdObject(NfCmd::Add(object)) => object,
        other => panic!("{other:?} is not added"),
    };
    document.objects.into_owned().into_iter().map(add).collect()
}

fn listed(plan: &Plan) -> Vec<NfListObject<'static>> {
    let text = alone(|| {
        load(&crate::text(plan));
        nft(&["-j", "list", "ruleset"])
    });
    let mut document: Json = serde_json::from_str(&text).expect("nft prints JSON");
    readable(&mut document);
    let document: Nftables<'static> = serde_json::from_value(document).expect("the crate reads what is left");
    let list = |object| match object {
        NfObject::ListObject(object) => object,
        other => panic!("{other:?} is not listed"),
    };
    document.objects.into_owned().into_iter().map(list).collect()
}

/// What `nft` 1.0.6 prints and the crate cannot read: types that it does not know, types in one string, single flags
/// of a translation, and statements as text.
fn readable(json: &mut Json) {
    let known = |kind: &str| Json::from(if ["classid", "integer", "verdict"].contains(&kind) { "mark" } else { kind });
    match json {
        Json::Array(values) => {
            values.retain(|value| !value.as_str().is_some_and(|text| text.contains(" @affinity-")));
            values.iter_mut().for_each(readable);
        }
        Json::Object(fields) if fields.contains_key("type") && fields.contains_key("table") => {
            for (_, kinds) in fields.iter_mut().filter(|(name, _)| ["type", "map"].contains(&name.as_str())) {
                *kinds = match &*kinds {
                    Json::Array(kinds) => kinds.iter().filter_map(Json::as_str).map(known).collect(),
                    Json::String(kinds) if kinds.contains(" . ") => kinds.split(" . ").map(known).collect(),
                    kind => known(kind.as_str().unwrap_or_default()),
                };
            }
            fields.values_mut().for_each(readable);
        }
        Json::Object(fields) => {
            if let Some(flags) = fields.get_mut("masquerade").and_then(|masquerade| masquerade.get_mut("flags"))
                && flags.is_string()
            {
                *flags = Json::Array(vec![flags.take()]);
            }
            fields.values_mut().for_each(readable);
        }
        _ => {}
    }
}

fn counts(objects: &[NfListObject<'_>]) -> Counts {
    let mut counts = Counts::default();
    for object in objects {
        match object {
            NfListObject::Table(_) => counts.tables += 1,
            NfListObject::Chain(_) => counts.chains += 1,
            NfListObject::Rule(_) => counts.rules += 1,
            NfListObject::Set(set) => {
                counts.sets += 1;
                counts.elements += set.elem.as_ref().map_or(0, |all| all.len());
            }
            NfListObject::Map(map) => {
                counts.maps += 1;
                counts.elements += map.elem.as_ref().map_or(0, |all| all.len());
            }
            NfListObject::Element(element) => counts.elements += element.elem.len(),
            NfListObject::MetainfoObject(_) => {}
            other => panic!("{other:?} is not ours"),
        }
    }
    counts
}

fn planned(plan: &Plan) -> Counts {
    let mut counts = Counts { tables: Family::BOTH.len(), ..Counts::default() };
    for family in Family::BOTH {
        let mut tables = Tables::default();
        let whole = Whole::new(family, plan, &mut tables);
        let sets = whole.sets.iter().filter(|set| set.value == Value::None).count();
        counts.sets += sets;
        counts.maps += whole.sets.len() - sets;
        counts.chains += whole.chains.len();
        counts.rules += whole.chains.iter().map(|chain| chain.rules.len()).sum::<usize>();
        // A plain range is two elements for the kernel and one for people.
        counts.elements +=
            whole.sorted_elements(family, plan, &tables).iter().filter(|element| !element.range_end).count();
    }
    counts
}

/// Rules by chain, declarations and elements by set, without what only the kernel knows.
#[derive(Debug, Default, PartialEq)]
struct Described {
    chains: BTreeMap<String, String>,
    rules: BTreeMap<String, Vec<String>>,
    sets: BTreeMap<String, String>,
    elements: BTreeMap<String, Vec<String>>,
}

fn described(objects: Vec<NfListObject<'_>>) -> Described {
    let mut all = Described::default();
    for object in objects {
        match object {
            NfListObject::Chain(mut chain) => {
                chain.handle = None;
                all.chains.insert(format!("{:?} {}", chain.family, chain.name), format!("{chain:?}"));
            }
            NfListObject::Rule(rule) => {
                let rules = all.rules.entry(format!("{:?} {}", rule.family, rule.chain)).or_default();
                // nft leaves out what the next statement implies, and prints how a client is remembered as text.
                let alike =
                    !rule.chain.starts_with("sticky-") && !["filter-prerouting", "refuse"].contains(&&*rule.chain);
                rules.push(if alike { format!("{:?}", rule.expr) } else { String::new() });
            }
            NfListObject::Set(set) => {
                let name = format!("{:?} {}", set.family, set.name);
                all.elements
                    .entry(name.clone())
                    .or_default()
                    .extend(set.elem.as_deref().map(elements).unwrap_or_default());
                all.sets.insert(name, format!("{:?} {:?} {:?}", set.set_type, set.flags, set.size));
            }
            NfListObject::Map(map) => {
                let name = format!("{:?} {}", map.family, map.name);
                all.elements
                    .entry(name.clone())
                    .or_default()
                    .extend(map.elem.as_deref().map(elements).unwrap_or_default());
                // nft does not print that packets fill a map.
                let flags = map.flags.map(|mut flags| {
                    flags.remove(&SetFlag::Dynamic);
                    flags
                });
                all.sets.insert(name, format!("{:?} {:?} {flags:?} {:?}", map.set_type, map.map, map.size));
            }
            NfListObject::Element(element) => {
                let name = format!("{:?} {}", element.family, element.name);
                all.elements.entry(name).or_default().extend(elements(&element.elem));
            }
            _ => {}
        }
    }
    all.elements.values_mut().for_each(|elements| elements.sort());
    all
}

fn elements(elements: &[nftables::expr::Expression<'_>]) -> Vec<String> {
    let text = |element| serde_json::to_string(element).expect("an expression has a JSON form");
    elements.iter().map(text).collect()
}

fn few() -> Plan {
    let all = sample::everything();
    let few = all.services.iter().filter(|service| service.affinity.is_none()).map(|service| (**service).clone());
    Plan { node: all.node.clone(), services: few.collect() }
}

#[test]
fn the_crate_reads_every_object_of_a_plan() {
    for plan in [Plan::default(), few(), sample::everything()] {
        let objects = added(&json(&plan).expect("it has a JSON form"));
        assert_eq!(counts(&objects), planned(&plan));
    }
}

#[test]
fn what_nft_lists_after_loading_the_text_is_what_the_json_says() {
    for plan in [Plan::default(), few(), sample::everything()] {
        let (ours, theirs) = (added(&json(&plan).expect("it has a JSON form")), listed(&plan));
        assert_eq!(counts(&ours), counts(&theirs));
        let (ours, theirs) = (described(ours), described(theirs));
        for (name, rules) in &theirs.rules {
            assert_eq!(ours.rules.get(name), Some(rules), "{name}");
        }
        for (name, elements) in &theirs.elements {
            assert_eq!(ours.elements.get(name), Some(elements), "{name}");
        }
        assert_eq!(ours, theirs);
    }
}

#[test]
fn what_the_types_cannot_say_stands_in_a_comment() {
    let objects = added(&json(&sample::everything()).expect("it has a JSON form"));
    let comment = |wanted: &str| {
        objects.iter().find_map(|object| match object {
            NfListObject::Map(map) if map.name == wanted && map.family == nf_family(Family::V6) => map.comment.clone(),
            _ => None,
        })
    };
    assert_eq!(comment("actions").as_deref(), Some("type classid : verdict"));
    assert_eq!(comment("from-pod").as_deref(), Some("type inet_proto . ipv6_addr . inet_service : classid"));
    let endpoints = "typeof meta l4proto . ip6 daddr . th dport . numgen random mod 65536 : ip6 daddr . th dport";
    assert_eq!(comment("endpoints").as_deref(), Some(endpoints));
    let mut comments = objects.iter().filter_map(|object| match object {
        NfListObject::Rule(rule) if rule.family == nf_family(Family::V6) => rule.comment.as_deref(),
        _ => None,
    });
    assert!(comments.any(|text| text == "delete @affinity-default/sticky/tcp/http { ip6 saddr : meta priority }"));
}

#[test]
fn the_same_plan_is_the_same_text() {
    let [first, second] = [json(&sample::everything()), json(&sample::everything())];
    assert_eq!(first.expect("it has a JSON form"), second.expect("it has a JSON form"));
}
