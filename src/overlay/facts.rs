//! What a Node object says about its part in the overlay.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_plan::Family;
use ipnet::IpNet;

use super::annotation::{self, MANAGED, Prefix, Vtep};
use crate::object::{Kind, NodeObject};
use crate::resolve::{Note, ObjectRef, PerFamily};

/// A node of the cluster, this one or another, as far as the overlay is concerned.
#[derive(Debug, Clone, PartialEq)]
pub struct Facts {
    /// Its name.
    pub name: Arc<str>,
    /// Who of several nodes gets what only one can have.
    pub rank: Rank,
    /// Whether an overlay agent runs there.
    pub managed: bool,
    /// `backend-type`: how it tunnels.
    pub backend: Box<str>,
    /// The prefix of its pods, the first of each family in `spec.podCIDRs`.
    pub pods: PerFamily<Option<IpNet>>,
    /// Where tunnels to it end.
    pub public: PerFamily<Option<IpAddr>>,
    /// Its device.
    pub vtep: PerFamily<Option<Vtep>>,
}

/// The order of nodes that want the same: a node that is Ready first, then the older one, then by uid and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rank {
    not_ready: bool,
    ageless: bool,
    created: Box<str>,
    uid: Box<str>,
    name: Arc<str>,
}

impl Rank {
    /// A place before every node's, for what the operator has written by hand.
    #[must_use]
    pub fn first(name: &str) -> Self {
        Self { not_ready: false, ageless: false, created: "".into(), uid: "".into(), name: name.into() }
    }

    /// Whose it is.
    #[must_use]
    pub const fn name(&self) -> &Arc<str> {
        &self.name
    }
}

/// What only this node's own Node says.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Own {
    /// `node-public-ip`: the address that the operator wants used.
    pub wanted: PerFamily<Option<IpAddr>>,
    /// `public-ip-overwrite`: what the operator wants peers to be told.
    pub overwrite: PerFamily<Option<IpAddr>>,
    /// All annotations, to find out what must be written.
    pub annotations: BTreeMap<String, String>,
    /// Whether the condition `NetworkUnavailable` is there and not `False`.
    pub network_unavailable: bool,
}

impl Facts {
    /// Reads a Node. What cannot be read is left out and said; everything else counts.
    #[must_use]
    pub fn parse(object: &NodeObject, prefix: &Prefix) -> (Self, Vec<Note>) {
        let mut reader = Reader::new(object, prefix);
        let pods = reader.pods();
        let public = PerFamily {
            v4: reader.address(Family::V4, annotation::public_ip(Family::V4)),
            v6: reader.address(Family::V6, annotation::public_ip(Family::V6)),
        };
        let vtep = PerFamily { v4: reader.vtep(Family::V4), v6: reader.vtep(Family::V6) };
        let meta = &object.metadata;
        let name: Arc<str> = meta.name.as_str().into();
        let ready = object.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        let rank = Rank {
            not_ready: !ready,
            ageless: meta.creation_timestamp.is_none(),
            created: meta.creation_timestamp.as_deref().unwrap_or_default().into(),
            uid: meta.uid.as_deref().unwrap_or_default().into(),
            name: Arc::clone(&name),
        };
        let facts = Self {
            name,
            rank,
            managed: prefix.get(&meta.annotations, MANAGED) == Some("true"),
            backend: prefix.get(&meta.annotations, annotation::BACKEND_TYPE).unwrap_or_default().into(),
            pods,
            public,
            vtep,
        };
        (facts, reader.notes)
    }

    /// An Event or log line about it.
    #[must_use]
    pub fn note(&self, reason: &'static str, message: String) -> Note {
        let uid = Some(self.rank.uid.clone()).filter(|uid| !uid.is_empty());
        let object = ObjectRef { kind: Kind::Node, namespace: "".into(), name: (*self.name).into(), uid };
        Note { object, reason, message }
    }
}

impl Own {
    /// Reads the Node of this node.
    #[must_use]
    pub fn parse(object: &NodeObject, prefix: &Prefix) -> (Self, Vec<Note>) {
        let mut reader = Reader::new(object, prefix);
        let mut both = |name: fn(Family) -> &'static str| PerFamily {
            v4: reader.address(Family::V4, name(Family::V4)),
            v6: reader.address(Family::V6, name(Family::V6)),
        };
        let (wanted, overwrite) = (both(annotation::node_public_ip), both(annotation::public_ip_overwrite));
        let unavailable = |c: &crate::object::NodeCondition| c.type_ == NETWORK_UNAVAILABLE && c.status != "False";
        let own = Self {
            wanted,
            overwrite,
            annotations: object.metadata.annotations.clone(),
            network_unavailable: object.status.conditions.iter().any(unavailable),
        };
        (own, reader.notes)
    }
}

/// The condition that keeps pods away from a node whose network is not set up.
pub const NETWORK_UNAVAILABLE: &str = "NetworkUnavailable";

struct Reader<'a> {
    object: &'a NodeObject,
    prefix: &'a Prefix,
    notes: Vec<Note>,
}

impl<'a> Reader<'a> {
    fn new(object: &'a NodeObject, prefix: &'a Prefix) -> Self {
        Self { object, prefix, notes: Vec::new() }
    }

    fn note(&mut self, reason: &'static str, message: String) {
        let object = ObjectRef::new(Kind::Node, &self.object.metadata);
        self.notes.push(Note { object, reason, message });
    }

    fn pods(&mut self) -> PerFamily<Option<IpNet>> {
        let mut pods = PerFamily::default();
        let spec = &self.object.spec;
        // The singular field is the first of the others; only API servers before 1.16 have it alone.
        let single = spec.pod_cidr.iter().filter(|_| spec.pod_cidrs.is_empty());
        for text in spec.pod_cidrs.iter().chain(single) {
            match text.parse::<IpNet>() {
                Ok(net) => {
                    let first: &mut Option<IpNet> = &mut pods[Family::of(net.addr())];
                    first.get_or_insert(net.trunc());
                }
                Err(_) => self.note(
                    Note::INVALID_CIDR,
                    format!("spec.podCIDRs: {text:?} is not a prefix like 10.244.1.0/24; it is left out"),
                ),
            }
        }
        pods
    }

    fn address(&mut self, family: Family, name: &str) -> Option<IpAddr> {
        let text = self.prefix.get(&self.object.metadata.annotations, name).filter(|text| !text.is_empty())?;
        match text.parse::<IpAddr>() {
            Ok(addr) if Family::of(addr) == family && is_usable(addr) => Some(addr),
            _ => {
                let (key, label) = (self.prefix.key(name), family.label());
                let message = format!("annotation {key}: {text:?} is no {label} address of a node; it is left out");
                self.note(Note::INVALID_ANNOTATION, message);
                None
            }
        }
    }

    fn vtep(&mut self, family: Family) -> Option<Vtep> {
        let name = annotation::backend_data(family);
        let text = self.prefix.get(&self.object.metadata.annotations, name).filter(|text| !text.is_empty())?;
        annotation::read_backend_data(text).unwrap_or_else(|why| {
            let message = format!("annotation {}: {text:?} {why}; it is left out", self.prefix.key(name));
            self.note(Note::INVALID_ANNOTATION, message);
            None
        })
    }
}

fn is_usable(addr: IpAddr) -> bool {
    !addr.is_unspecified() && !addr.is_loopback() && !addr.is_multicast()
}
