use std::fmt;

use crate::object::{Kind, Meta, ObjectName};

/// Which object a [`Note`] is about; enough for an Event's `regarding`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectRef {
    /// Its kind.
    pub kind: Kind,
    /// `metadata.namespace`, empty for objects of the cluster.
    pub namespace: Box<str>,
    /// `metadata.name`
    pub name: Box<str>,
    /// `metadata.uid`, if the source of objects knows one.
    pub uid: Option<Box<str>>,
}

impl ObjectRef {
    /// Refers to the object with this metadata.
    #[must_use]
    pub fn new(kind: Kind, meta: &Meta) -> Self {
        Self {
            kind,
            namespace: meta.namespace.as_str().into(),
            name: meta.name.as_str().into(),
            uid: meta.uid.as_deref().map(Into::into),
        }
    }

    /// `namespace/name`.
    #[must_use]
    pub fn object_name(&self) -> ObjectName {
        ObjectName { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

impl fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind.name(), self.object_name())
    }
}

/// Something in an object that fairlead cannot do as it says. Everything else in the object still counts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Note {
    /// Where it stands.
    pub object: ObjectRef,
    /// What kind of thing it is, in CamelCase: the reason of an Event and the value of a metric label. One of the
    /// constants of this type.
    pub reason: &'static str,
    /// One sentence: what, where, what to do.
    pub message: String,
}

impl Note {
    /// A ClusterIP, external IP or load-balancer IP that is no usable address.
    pub const INVALID_ADDRESS: &'static str = "InvalidAddress";
    /// A Service without ClusterIP that is not headless on purpose.
    pub const NO_CLUSTER_IP: &'static str = "NoClusterIP";
    /// A port, node port or protocol that does not exist.
    pub const INVALID_PORT: &'static str = "InvalidPort";
    /// An entry of `loadBalancerSourceRanges` that is no prefix.
    pub const INVALID_SOURCE_RANGE: &'static str = "InvalidSourceRange";
    /// Source ranges that leave one of the Service's families open to everybody.
    pub const UNRESTRICTED_FAMILY: &'static str = "UnrestrictedFamily";
    /// An affinity timeout outside 1 to 86,400 seconds.
    pub const INVALID_AFFINITY: &'static str = "InvalidAffinity";
    /// An annotation that asks for a scheduler and names none.
    pub const INVALID_SCHEDULER: &'static str = "InvalidScheduler";
    /// A load balancer with `externalTrafficPolicy: Local` and no health-check port.
    pub const NO_HEALTH_CHECK_PORT: &'static str = "NoHealthCheckNodePort";
    /// An address and port that another Service owns.
    pub const FRONTEND_CONFLICT: &'static str = "FrontendConflict";
    /// An EndpointSlice that names no Service.
    pub const NO_SERVICE_NAME: &'static str = "NoServiceName";
    /// An EndpointSlice of an address type that has no packets.
    pub const UNSUPPORTED_ADDRESS_TYPE: &'static str = "UnsupportedAddressType";
    /// An endpoint without usable address.
    pub const INVALID_ENDPOINT: &'static str = "InvalidEndpoint";
    /// A prefix of a Node or ServiceCIDR that cannot be read.
    pub const INVALID_CIDR: &'static str = "InvalidCIDR";
    /// An annotation of a Node that cannot be read.
    pub const INVALID_ANNOTATION: &'static str = "InvalidAnnotation";
    /// Two nodes want what only one can have: a prefix of pods, or the address of a tunnel device.
    pub const OVERLAY_CONFLICT: &'static str = "OverlayConflict";
    /// A node that this one cannot reach with the overlay as it is set up.
    pub const OVERLAY_MISMATCH: &'static str = "OverlayMismatch";
    /// The kernel refuses the way to a node.
    pub const OVERLAY_REFUSED: &'static str = "OverlayRefused";
    /// A family in which the node has no address, and therefore no node ports.
    pub const NO_NODE_ADDRESS: &'static str = "NoNodeAddress";
}

/// Collects the notes about one object.
#[derive(Debug)]
pub(super) struct Notes {
    object: ObjectRef,
    list: Vec<Note>,
}

impl Notes {
    pub(super) fn about(object: ObjectRef) -> Self {
        Self { object, list: Vec::new() }
    }

    /// Adds a note; the same sentence is kept once.
    pub(super) fn add(&mut self, reason: &'static str, message: String) {
        if !self.list.iter().any(|note| note.message == message) {
            self.list.push(Note { object: self.object.clone(), reason, message });
        }
    }

    pub(super) fn into_list(self) -> Vec<Note> {
        self.list
    }
}
