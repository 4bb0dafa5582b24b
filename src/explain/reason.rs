//! Sentences: what becomes of a packet, why its source is hidden, and how the kernel differs from the plan. Pure but for what the
//! kernel was asked already.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use fairlead_plan::{Followed, Packet, Verdict};

use super::{Decision, Kernel};

/// What stands in the steps of every mode when a source is outside of the ranges that a load balancer allows.
const RANGES: [&str; 4] = ["@allowed", "KUBE-FW-", "KUBE-PROXY-FIREWALL ", "LOAD-BALANCER-SOURCE-CID"];

/// Why endpoints see an address of this node; `None` if none does.
pub fn masquerade(packet: &Packet, verdict: &Verdict) -> Option<String> {
    let Verdict::Forward { endpoints, masqueraded } = verdict else { return None };
    let itself = |endpoint: &&SocketAddr| endpoint.ip() == packet.source;
    if masqueraded.is_empty() {
        return None;
    }
    if masqueraded.len() < endpoints.len() && masqueraded.iter().all(|endpoint| itself(&endpoint)) {
        return Some(format!(
            "where it goes back to {} itself, which would else answer itself without this node",
            packet.source
        ));
    }
    Some(if packet.source_is_local {
        "the packet is this node's own, and its answers must come back here whichever address it was sent from"
            .to_owned()
    } else {
        "answers must come back through this node, which put the endpoint's address in the place of the one asked for"
            .to_owned()
    })
}

/// What becomes of the packet.
pub fn end(kernel: &Kernel, packet: &Packet, rules: Option<&Followed>, plan: Option<&Decision>) -> String {
    let Some(followed) = rules else {
        return "No mode of fairlead has rules in this kernel: the packet goes on as it came.".to_owned();
    };
    // What the plan says explains the kernel only if the two agree.
    let told = plan.filter(|plan| plan.verdict == followed.verdict).and_then(|plan| plan.reason.clone());
    let because = told.or_else(|| guess(kernel, packet, followed)).map(|reason| format!(": {reason}"));
    let because = because.unwrap_or_default();
    match &followed.verdict {
        Verdict::Forward { endpoints, masqueraded } => forwarded(endpoints, masqueraded),
        Verdict::Reject => format!("The sender is told that nobody is there{because}."),
        Verdict::Drop => format!("The packet is dropped without an answer{because}."),
        Verdict::Pass => format!("The packet goes on as it came{because}."),
    }
}

fn forwarded(endpoints: &BTreeSet<SocketAddr>, masqueraded: &BTreeSet<SocketAddr>) -> String {
    let to = match endpoints.first() {
        Some(only) if endpoints.len() == 1 => format!("The packet goes to {only}"),
        _ => format!("The packet goes to one of {} endpoints, by chance", endpoints.len()),
    };
    let source = match masqueraded.len() {
        0 => "keeps its source",
        some if some == endpoints.len() => "is seen there with an address of this node",
        _ => "keeps its source but where it goes back to its sender",
    };
    format!("{to}, and {source}.")
}

/// The reason as far as the kernel itself shows it.
fn guess(kernel: &Kernel, packet: &Packet, followed: &Followed) -> Option<String> {
    let (to, ports) = (packet.destination, kernel.ports(packet.destination.ip()));
    if let Verdict::Forward { .. } = followed.verdict {
        return None;
    }
    if ports.contains(&(packet.protocol, to.port())) {
        let by_range = followed.steps.iter().any(|step| RANGES.iter().any(|mark| step.contains(mark)));
        return Some(match followed.verdict {
            Verdict::Drop if by_range => {
                format!("{} is in none of the source ranges that the load balancer allows", packet.source)
            }
            Verdict::Drop => "the policy is Local and no endpoint on this node is ready".to_owned(),
            _ => "no endpoint is ready".to_owned(),
        });
    }
    let wanted = format!("{} port {}", packet.protocol.name().to_uppercase(), to.port());
    if !ports.is_empty() {
        let all: Vec<String> = ports.iter().map(|(protocol, port)| format!("{port}/{protocol}")).collect();
        return Some(format!("no Service has {wanted} at {}; what is there: {}", to.ip(), all.join(", ")));
    }
    Some(match followed.verdict {
        Verdict::Drop => format!("{} is in the network of ClusterIPs and belongs to no Service", to.ip()),
        _ if packet.destination_is_local => {
            format!("{} is an address of this node, and {wanted} no node port with endpoints", to.ip())
        }
        _ => format!("{} is no address of a Service", to.ip()),
    })
}

/// How the kernel differs from the plan; `None` if it does not. With affinity the kernel may know which of the plan's endpoints
/// it will be.
pub fn difference(rules: Option<&Followed>, plan: &Decision) -> Option<String> {
    let held = rules.map_or(&Verdict::Pass, |followed| &followed.verdict);
    if *held == plan.verdict {
        return None;
    }
    let (Verdict::Forward { endpoints, masqueraded }, Verdict::Forward { endpoints: wanted, masqueraded: hidden }) =
        (held, &plan.verdict)
    else {
        return Some(format!("the kernel {}, the plan {}", does(held), does(&plan.verdict)));
    };
    let as_wanted = |endpoint: &SocketAddr| masqueraded.contains(endpoint) == hidden.contains(endpoint);
    if plan.sticky && endpoints.is_subset(wanted) && endpoints.iter().all(as_wanted) {
        return None;
    }
    let list = |of: Vec<&SocketAddr>| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let missing: Vec<_> = wanted.difference(endpoints).collect();
    let stray: Vec<_> = endpoints.difference(wanted).collect();
    let mut parts = Vec::new();
    if !missing.is_empty() {
        parts.push(format!("the kernel lacks {}", list(missing)));
    }
    if !stray.is_empty() {
        parts.push(format!("the kernel still has {}", list(stray)));
    }
    let both: Vec<_> = endpoints.intersection(wanted).collect();
    let (more, fewer): (Vec<_>, Vec<_>) =
        both.into_iter().filter(|endpoint| !as_wanted(endpoint)).partition(|endpoint| masqueraded.contains(endpoint));
    for (of, word) in [(more, "hides"), (fewer, "does not hide")] {
        if !of.is_empty() {
            parts.push(format!("the kernel {word} the source from {}", list(of)));
        }
    }
    Some(parts.join("; "))
}

fn does(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Forward { endpoints, .. } => {
            let endpoints: Vec<String> = endpoints.iter().map(ToString::to_string).collect();
            format!("sends it to {}", endpoints.join(" or "))
        }
        Verdict::Reject => "rejects it".to_owned(),
        Verdict::Drop => "drops it".to_owned(),
        Verdict::Pass => "leaves it alone".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use fairlead_plan::Origin;

    use super::*;

    fn set(hosts: &[u8]) -> BTreeSet<SocketAddr> {
        hosts.iter().map(|host| SocketAddr::from(([10, 244, 1, *host], 80))).collect()
    }

    fn forward(endpoints: &[u8], masqueraded: &[u8]) -> Verdict {
        Verdict::Forward { endpoints: set(endpoints), masqueraded: set(masqueraded) }
    }

    fn told(held: Verdict, verdict: Verdict, sticky: bool) -> Option<String> {
        let origin = Origin::Pod;
        let plan = Decision { origin, service: None, frontend: None, sticky, verdict, reason: None };
        difference(Some(&Followed { steps: Vec::new(), branches: Vec::new(), verdict: held }), &plan)
    }

    #[test]
    fn differences_are_named_one_by_one() {
        assert_eq!(told(forward(&[1, 2], &[]), forward(&[1, 2], &[]), false), None);
        let lacks = told(forward(&[1, 3], &[1]), forward(&[1, 2], &[]), false).expect("they differ");
        assert_eq!(
            lacks,
            "the kernel lacks 10.244.1.2:80; the kernel still has 10.244.1.3:80; the kernel hides the source from \
             10.244.1.1:80"
        );
        let other = told(Verdict::Reject, forward(&[1, 2], &[]), true).expect("they differ");
        assert_eq!(other, "the kernel rejects it, the plan sends it to 10.244.1.1:80 or 10.244.1.2:80");
        let open = told(forward(&[1], &[]), forward(&[1], &[1]), true).expect("they differ");
        assert_eq!(open, "the kernel does not hide the source from 10.244.1.1:80");
    }

    #[test]
    fn a_remembered_client_is_no_difference_but_a_stranger_is() {
        assert_eq!(told(forward(&[2], &[2]), forward(&[1, 2], &[1, 2]), true), None);
        assert!(told(forward(&[2], &[2]), forward(&[1, 2], &[1, 2]), false).is_some());
        assert!(told(forward(&[3], &[]), forward(&[1, 2], &[]), true).is_some());
    }

    #[test]
    fn a_packet_that_may_come_back_to_its_sender_says_so() {
        let packet = Packet {
            protocol: fairlead_plan::Protocol::Tcp,
            source: [10, 244, 1, 1].into(),
            destination: ([10, 96, 0, 1], 80).into(),
            interface: Some("cni0".to_owned()),
            source_is_local: false,
            destination_is_local: false,
        };
        assert_eq!(masquerade(&packet, &forward(&[1, 2], &[])), None);
        let sentence = masquerade(&packet, &forward(&[1, 2], &[1])).expect("one is");
        assert!(sentence.starts_with("where it goes back to 10.244.1.1 itself"), "{sentence}");
        let sentence = masquerade(&packet, &forward(&[1, 2], &[1, 2])).expect("all are");
        assert!(sentence.starts_with("answers must come back through this node"), "{sentence}");
    }
}
