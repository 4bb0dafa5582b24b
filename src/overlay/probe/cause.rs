//! Why a peer does not answer, as far as this node can tell. Pure.

use std::net::IpAddr;

use fairlead_kernel::route::Mac;

use crate::overlay::ways::Way;

/// What was found out about a peer that does not answer through the tunnel.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Whether the other node answers outside of the tunnel.
    pub underlay_answers: bool,
    /// What the other device's Ethernet address is, as it says itself.
    pub resolved: Option<Mac>,
    /// The Ethernet address to which it sends its answers, if it is not our device's.
    pub misaddressed: Option<Mac>,
    /// Whether the other node says that nobody listens on the tunnel's port.
    pub port_is_closed: bool,
    /// UDP port of the tunnel.
    pub port: u16,
    /// Our device's Ethernet address.
    pub ours: Option<Mac>,
}

/// Why a peer does not answer: a word for programs and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    /// One of those in [`words`].
    pub word: &'static str,
    /// What is wrong and what to do.
    pub sentence: String,
}

/// The words for programs.
pub mod words {
    /// This node's kernel does not hold what it should.
    pub const DRIFT: &str = "drift";
    /// Packets take another route.
    pub const ROUTE: &str = "route";
    /// An Ethernet address is believed that no device has.
    pub const WRONG_MAC: &str = "wrong-mac";
    /// Tunnelled packets are lost on the way.
    pub const UDP_BLOCKED: &str = "udp-blocked";
    /// No overlay runs there.
    pub const NOBODY_LISTENS: &str = "nobody-listens";
    /// The tunnel works but the node does not answer.
    pub const ICMP_BLOCKED: &str = "icmp-blocked";
    /// It does not forward packets.
    pub const NOT_FORWARDED: &str = "not-forwarded";
    /// The node does not answer at all.
    pub const UNREACHABLE: &str = "unreachable";
    /// Large packets are lost.
    pub const MTU: &str = "mtu";
    /// Nothing is known.
    pub const UNKNOWN: &str = "unknown";
}

impl Cause {
    fn new(word: &'static str, sentence: String) -> Self {
        Self { word, sentence }
    }

    /// What `overlay list` says too.
    #[must_use]
    pub fn drift(way: &Way) -> Self {
        Self::new(words::DRIFT, way.drift.join("; "))
    }

    /// Packets to the peer do not take its route.
    #[must_use]
    pub fn route(taken: &str) -> Self {
        Self::new(words::ROUTE, format!("packets do not take this route but {taken}"))
    }

    /// Only packets up to `fits` bytes of `size` come through and back.
    #[must_use]
    pub fn mtu(way: &Way, fits: u32, size: u32) -> Self {
        let lost = size - fits;
        let repair = match way.device.as_deref() {
            Some(device) => format!(
                "the way is {lost} bytes narrower than {device} here takes it to be: correct the MTU of the interface or \
                 switch on the way, or lower Backend.MTU by {lost}"
            ),
            None => "correct the MTU on the way".to_owned(),
        };
        Self::new(words::MTU, format!("packets up to {fits} bytes arrive, of {size} none: {repair}"))
    }

    /// Why nothing comes back at all.
    #[must_use]
    pub fn silence(way: &Way, evidence: &Evidence, tunnelled: bool) -> Self {
        let Some(underlay) = way.underlay else {
            return Self::new(words::UNKNOWN, "where the tunnel ends is not known here".to_owned());
        };
        if tunnelled && let Some(found) = in_tunnel(way, underlay, evidence) {
            return found;
        }
        if !evidence.underlay_answers {
            let sentence = format!(
                "{underlay} itself does not answer either: the node is down, or packets between the nodes are blocked"
            );
            return Self::new(words::UNREACHABLE, sentence);
        }
        if !tunnelled {
            let sentence = format!(
                "{underlay} answers, but passes nothing on: look there at ip_forward and at filters for forwarded packets"
            );
            return Self::new(words::NOT_FORWARDED, sentence);
        }
        let (port, vni) = (evidence.port, way.vni.unwrap_or_default());
        let sentence = format!(
            "{underlay} answers, but nothing comes through the tunnel: UDP port {port} is blocked in one of the two \
             directions, or there is no device of network {vni} there"
        );
        Self::new(words::UDP_BLOCKED, sentence)
    }
}

/// What the tunnel itself has told.
fn in_tunnel(way: &Way, underlay: IpAddr, evidence: &Evidence) -> Option<Cause> {
    if let Some(mac) = evidence.resolved
        && way.mac != Some(mac)
    {
        let believed = way.mac.map_or_else(|| "nothing".to_owned(), |mac| mac.to_string());
        let sentence = format!(
            "its device has the Ethernet address {mac}, but here {believed} is believed: correct the annotation of its Node, \
             or restart the overlay there so that it writes it again"
        );
        return Some(Cause::new(words::WRONG_MAC, sentence));
    }
    if let (Some(mac), Some(ours)) = (evidence.misaddressed, evidence.ours) {
        let sentence = format!(
            "its answers are addressed to {mac}, but the device here has {ours}: the neighbour entry for this node is wrong \
             there; look at the annotation of this node's Node"
        );
        return Some(Cause::new(words::WRONG_MAC, sentence));
    }
    if evidence.resolved.is_some() {
        let sentence = "the tunnel works in both directions, but echo requests are not answered: a filter there drops ICMP \
                        from the tunnel";
        return Some(Cause::new(words::ICMP_BLOCKED, sentence.to_owned()));
    }
    if evidence.port_is_closed {
        let sentence = format!(
            "{underlay} says that nobody listens on UDP port {}: no overlay runs there, or with another port",
            evidence.port
        );
        return Some(Cause::new(words::NOBODY_LISTENS, sentence));
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);
    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 9]);

    fn way() -> Way {
        Way { underlay: Some("192.168.50.2".parse().unwrap()), mac: Some(THEIRS), vni: Some(1), ..Way::default() }
    }

    fn evidence() -> Evidence {
        Evidence { underlay_answers: true, port: 8472, ours: Some(Mac([2, 0, 0, 0, 0, 1])), ..Evidence::default() }
    }

    fn word(evidence: &Evidence) -> &'static str {
        Cause::silence(&way(), evidence, true).word
    }

    #[test]
    fn what_is_known_best_is_said_first() {
        assert_eq!(word(&evidence()), words::UDP_BLOCKED);
        assert_eq!(word(&Evidence { underlay_answers: false, ..evidence() }), words::UNREACHABLE);
        assert_eq!(word(&Evidence { port_is_closed: true, ..evidence() }), words::NOBODY_LISTENS);
        let resolved = Evidence { resolved: Some(THEIRS), ..evidence() };
        assert_eq!(word(&resolved), words::ICMP_BLOCKED);
        // A node that drops echo requests on the underlay too.
        assert_eq!(word(&Evidence { underlay_answers: false, ..resolved.clone() }), words::ICMP_BLOCKED);
        assert_eq!(word(&Evidence { misaddressed: Some(OTHER), ..resolved.clone() }), words::WRONG_MAC);
        assert_eq!(word(&Evidence { resolved: Some(OTHER), ..resolved }), words::WRONG_MAC);
    }

    #[test]
    fn without_a_tunnel_only_the_node_can_be_asked() {
        assert_eq!(Cause::silence(&way(), &evidence(), false).word, words::NOT_FORWARDED);
        let nowhere = Way { underlay: None, ..way() };
        assert_eq!(Cause::silence(&nowhere, &evidence(), true).word, words::UNKNOWN);
    }

    #[test]
    fn a_narrow_way_is_told_in_bytes() {
        let way = Way { device: Some("flannel.1".to_owned()), ..way() };
        let cause = Cause::mtu(&way, 1350, 1450);
        assert!(cause.sentence.contains("up to 1350 bytes") && cause.sentence.contains("100 bytes narrower"));
    }
}
