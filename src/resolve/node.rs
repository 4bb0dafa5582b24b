use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use fairlead_plan::{Family, LocalTraffic, Node};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use super::note::{Note, Notes, ObjectRef};
use super::{DetectMode, NodePortAddresses, PerFamily, Settings, address};
use crate::object::{Kind, NodeObject, ServiceCidrObject};

const LABEL_ZONE: &str = "topology.kubernetes.io/zone";
/// The cluster autoscaler puts it on a node that it is about to remove.
const TAINT_AUTOSCALER: &str = "ToBeDeletedByClusterAutoscaler";

/// This node's Node object, parsed.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeModel {
    /// The object.
    pub object: ObjectRef,
    /// The first address of each family, internal ones before external ones.
    pub addresses: PerFamily<Option<IpAddr>>,
    /// `spec.podCIDRs`
    pub pod_cidrs: Vec<IpNet>,
    /// The label `topology.kubernetes.io/zone`.
    pub zone: Option<Arc<str>>,
    /// Whether cloud load balancers may send traffic here: not being deleted, by anybody.
    pub eligible: bool,
}

impl NodeModel {
    /// Reads a Node.
    #[must_use]
    pub fn parse(object: &NodeObject) -> (Self, Vec<Note>) {
        let meta = &object.metadata;
        let about = ObjectRef::new(Kind::Node, meta);
        let mut notes = Notes::about(about.clone());
        let mut addresses = PerFamily::default();
        for type_ in ["InternalIP", "ExternalIP"] {
            for entry in object.status.addresses.iter().filter(|entry| entry.type_ == type_) {
                match address::ip(&entry.address) {
                    Some(ip) => {
                        let first: &mut Option<IpAddr> = &mut addresses[Family::of(ip)];
                        first.get_or_insert(ip);
                    }
                    None => notes.add(
                        Note::INVALID_ADDRESS,
                        format!("status.addresses: {:?} is not an address; it is left out", entry.address),
                    ),
                }
            }
        }
        let mut cidr = |text: &String| parse_cidr("spec.podCIDRs", text, &mut notes);
        let model = Self {
            object: about,
            addresses,
            pod_cidrs: object.spec.pod_cidrs.iter().filter_map(&mut cidr).collect(),
            zone: meta.labels.get(LABEL_ZONE).filter(|zone| !zone.is_empty()).map(|zone| zone.as_str().into()),
            eligible: meta.deletion_timestamp.is_none()
                && object.spec.taints.iter().all(|taint| taint.key != TAINT_AUTOSCALER),
        };
        (model, notes.into_list())
    }
}

/// Reads one prefix of an object's field.
fn parse_cidr(field: &str, text: &str, notes: &mut Notes) -> Option<IpNet> {
    let net = address::cidr(text.trim());
    if net.is_none() {
        let message = format!("{field}: {text:?} is not a prefix like 10.0.0.0/16 or fd00::/108; it is left out");
        notes.add(Note::INVALID_CIDR, message);
    }
    net
}

/// What services must know about this node. A change concerns all of them.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct NodeFacts {
    /// The node's own address of each family: `bindAddress`, else the Node object's first. Never loopback.
    pub addresses: PerFamily<Option<IpAddr>>,
    /// Its zone.
    pub zone: Option<Arc<str>>,
    /// Whether traffic of pods is recognised in this family.
    pub detector: PerFamily<bool>,
}

/// Puts together what is known about this node. `node` is `None` until the API has named it, `service_cidrs` are the
/// prefixes of all ServiceCIDR objects, in any order and number.
#[must_use]
pub fn facts(settings: &Settings, node: Option<&NodeModel>, service_cidrs: &BTreeSet<IpNet>) -> (NodeFacts, Node) {
    let addresses = addresses(settings, node);
    let local_traffic = local_traffic(settings, node);
    let mut detector = PerFamily::default();
    for family in Family::BOTH {
        detector[family] = match &local_traffic {
            LocalTraffic::Unknown => false,
            LocalTraffic::Sources(nets) => nets.iter().any(|net| address::family(net) == family),
            LocalTraffic::Interface(_) | LocalTraffic::InterfacePrefix(_) => true,
        };
    }
    let of_ours = |net: &&IpNet| settings.families.contains(&address::family(net));
    let service_cidrs: Vec<IpNet> = service_cidrs.iter().filter(of_ours).copied().collect();
    let plan_node = Node {
        local_traffic,
        node_port_addresses: node_port_addresses(settings, &addresses),
        service_cidrs: IpNet::aggregate(&service_cidrs),
        masquerade_mark: 1_u32.checked_shl(settings.masquerade_bit.into()).unwrap_or_default(),
    };
    let zone = node.and_then(|node| node.zone.clone());
    (NodeFacts { addresses, zone, detector }, plan_node)
}

fn addresses(settings: &Settings, node: Option<&NodeModel>) -> PerFamily<Option<IpAddr>> {
    let mut addresses = node.map(|node| node.addresses).unwrap_or_default();
    if let Some(bind) = settings.bind_address.filter(|bind| !bind.is_unspecified()) {
        addresses[Family::of(bind)] = Some(bind);
    }
    for family in Family::BOTH {
        addresses[family] = addresses[family].filter(|ip| !ip.is_loopback() && !ip.is_unspecified());
    }
    addresses
}

/// The first prefix of each family counts, as in kube-proxy.
fn local_traffic(settings: &Settings, node: Option<&NodeModel>) -> LocalTraffic {
    let first = |nets: &[IpNet]| {
        let of = |family| nets.iter().find(|net| address::family(net) == family).copied();
        let nets: Vec<_> = settings.families.iter().copied().filter_map(of).collect();
        if nets.is_empty() { LocalTraffic::Unknown } else { LocalTraffic::Sources(nets) }
    };
    match &settings.detect {
        DetectMode::ClusterCidr(nets) => first(nets),
        DetectMode::NodeCidr => first(node.map(|node| node.pod_cidrs.as_slice()).unwrap_or_default()),
        DetectMode::BridgeInterface(name) => LocalTraffic::Interface(name.clone()),
        DetectMode::InterfaceNamePrefix(prefix) => LocalTraffic::InterfacePrefix(prefix.clone()),
    }
}

fn node_port_addresses(settings: &Settings, addresses: &PerFamily<Option<IpAddr>>) -> Vec<IpNet> {
    let of_family = |nets: &[IpNet], family| -> Vec<IpNet> {
        let nets: Vec<_> = nets.iter().filter(|net| address::family(net) == family).copied().collect();
        IpNet::aggregate(&nets)
    };
    let wanted = |family: Family| -> Vec<IpNet> {
        let everything = match family {
            Family::V4 => IpNet::V4(Ipv4Net::default()),
            Family::V6 => IpNet::V6(Ipv6Net::default()),
        };
        match &settings.node_port_addresses {
            NodePortAddresses::Primary => addresses[family].map(IpNet::from).into_iter().collect(),
            NodePortAddresses::All => vec![everything],
            NodePortAddresses::Cidrs(nets) => {
                let nets = of_family(nets, family);
                if nets.is_empty() { vec![everything] } else { nets }
            }
            NodePortAddresses::Only(nets) => of_family(nets, family),
        }
    };
    settings.families.iter().copied().flat_map(wanted).collect()
}

/// Says for which families node ports are asked for and the node has no address to answer them on.
#[must_use]
pub fn missing_addresses(
    settings: &Settings,
    node: &NodeModel,
    facts: &NodeFacts,
    node_ports: PerFamily<usize>,
) -> Vec<Note> {
    let mut notes = Notes::about(node.object.clone());
    if settings.node_port_addresses == NodePortAddresses::Primary {
        let missing = |family: &&Family| facts.addresses[**family].is_none() && node_ports[**family] > 0;
        for family in settings.families.iter().filter(missing) {
            let family = family.label();
            let message = format!(
                "status.addresses has no {family} address, so node ports do not answer on {family}; give the kubelet \
                 one with --node-ip, or set nodePortAddresses"
            );
            notes.add(Note::NO_NODE_ADDRESS, message);
        }
    }
    notes.into_list()
}

/// Reads a ServiceCIDR.
#[must_use]
pub fn parse_service_cidr(object: &ServiceCidrObject) -> (Vec<IpNet>, Vec<Note>) {
    let mut notes = Notes::about(ObjectRef::new(Kind::ServiceCidr, &object.metadata));
    let read = |text: &String| parse_cidr("spec.cidrs", text, &mut notes);
    let nets = object.spec.cidrs.iter().filter_map(read).collect();
    (nets, notes.into_list())
}
