use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;
use std::time::SystemTime;

use fairlead_plan::Family;
use k8s_openapi::jiff::Timestamp;

use super::model::{EndpointModel, Hints, SliceModel, SlicePortModel};
use super::note::{Note, Notes, ObjectRef};
use super::{Settings, address};
use crate::object::{EndpointHints, Kind, Named, SliceEndpoint, SliceObject, SlicePort};

const LABEL_SERVICE: &str = "kubernetes.io/service-name";
/// Its presence, with any value, means that nobody shall program the slice.
const LABEL_HEADLESS: &str = "service.kubernetes.io/headless";
const ANNOTATION_TRIGGER: &str = "endpoints.kubernetes.io/last-change-trigger-time";

/// The names and lists that many slices have in common, each kept once.
#[derive(Debug, Default)]
pub struct Names {
    words: HashSet<Arc<str>>,
    hints: BTreeSet<Arc<Hints>>,
    ports: BTreeSet<Arc<[SlicePortModel]>>,
    sweep_at: usize,
}

/// Below this many names nothing is swept.
const SMALLEST_SWEEP: usize = 1024;

impl Names {
    fn word(&mut self, text: &str) -> Arc<str> {
        if let Some(word) = self.words.get(text) {
            return Arc::clone(word);
        }
        let word: Arc<str> = text.into();
        self.words.insert(Arc::clone(&word));
        word
    }

    fn hints(&mut self, hints: &EndpointHints) -> Option<Arc<Hints>> {
        let mut words =
            |names: &[Named]| -> Box<[Arc<str>]> { names.iter().map(|named| self.word(&named.name)).collect() };
        let hints = Hints { zones: words(&hints.for_zones), nodes: words(&hints.for_nodes) };
        if hints == Hints::default() {
            return None;
        }
        if let Some(known) = self.hints.get(&hints) {
            return Some(Arc::clone(known));
        }
        let hints = Arc::new(hints);
        self.hints.insert(Arc::clone(&hints));
        Some(hints)
    }

    fn ports(&mut self, ports: Vec<SlicePortModel>) -> Arc<[SlicePortModel]> {
        if let Some(known) = self.ports.get(ports.as_slice()) {
            return Arc::clone(known);
        }
        let ports: Arc<[SlicePortModel]> = ports.into();
        self.ports.insert(Arc::clone(&ports));
        ports
    }

    /// Forgets what nobody uses any more, each time that as much has come as there was after the last time.
    fn sweep(&mut self) {
        let len = |names: &Self| names.words.len() + names.hints.len() + names.ports.len();
        if len(self) < self.sweep_at.max(SMALLEST_SWEEP) {
            return;
        }
        self.hints.retain(|hints| Arc::strong_count(hints) > 1);
        self.ports.retain(|ports| Arc::strong_count(ports) > 1);
        self.words.retain(|word| Arc::strong_count(word) > 1);
        self.sweep_at = 2 * len(self);
    }
}

/// The name of the Service that a slice belongs to; the namespace is the slice's.
#[must_use]
pub fn owner(object: &SliceObject) -> Option<&str> {
    object.metadata.labels.get(LABEL_SERVICE).map(String::as_str).filter(|name| !name.is_empty())
}

/// Reads an EndpointSlice. `None` if it has nothing for this proxy: headless, without Service, of type `FQDN`, or of a
/// family that the node does not have.
#[must_use]
pub fn parse_slice(object: &SliceObject, settings: &Settings, names: &mut Names) -> (Option<SliceModel>, Vec<Note>) {
    let mut notes = Notes::about(ObjectRef::new(Kind::EndpointSlice, &object.metadata));
    names.sweep();
    let model = family(object, &mut notes).filter(|family| settings.families.contains(family)).map(|family| {
        let ports = object.ports.iter().filter_map(|entry| port(entry, &mut notes)).collect();
        SliceModel {
            family,
            ports: names.ports(ports),
            endpoints: endpoints(object, (family, &settings.node_name), names, &mut notes),
            trigger: trigger(object),
        }
    });
    (model, notes.into_list())
}

fn family(object: &SliceObject, notes: &mut Notes) -> Option<Family> {
    if object.metadata.labels.contains_key(LABEL_HEADLESS) {
        return None;
    }
    if owner(object).is_none() {
        let message = format!("the label {LABEL_SERVICE} is missing, so the slice belongs to no Service; set it");
        notes.add(Note::NO_SERVICE_NAME, message);
        return None;
    }
    match object.address_type.as_str() {
        "IPv4" => Some(Family::V4),
        "IPv6" => Some(Family::V6),
        other => {
            let message = format!("addressType {other:?} cannot be served, only IPv4 and IPv6; the slice is left out");
            notes.add(Note::UNSUPPORTED_ADDRESS_TYPE, message);
            None
        }
    }
}

fn port(entry: &SlicePort, notes: &mut Notes) -> Option<SlicePortModel> {
    let number = entry.port.unwrap_or_default();
    let (Some(name), Some(protocol), Some(port)) =
        (&entry.name, address::protocol(entry.protocol.as_deref()), address::port(number))
    else {
        let name = entry.name.as_deref().unwrap_or_default();
        let message = format!("ports {name:?}: name, number and protocol must be given and exist; it is left out");
        notes.add(Note::INVALID_PORT, message);
        return None;
    };
    Some(SlicePortModel { name: name.as_str().into(), protocol, port })
}

fn endpoints(object: &SliceObject, own: (Family, &str), names: &mut Names, notes: &mut Notes) -> Box<[EndpointModel]> {
    // Nearly all are good, and room for all is asked for once.
    let mut models = Vec::with_capacity(object.endpoints.len());
    models.extend(object.endpoints.iter().filter_map(|entry| endpoint(entry, own, names, notes)));
    models.into_boxed_slice()
}

fn endpoint(
    entry: &SliceEndpoint,
    (family, own_node): (Family, &str),
    names: &mut Names,
    notes: &mut Notes,
) -> Option<EndpointModel> {
    let text = entry.addresses.first().map(String::as_str).unwrap_or_default();
    let Some(addr) = address::usable_ip(text).filter(|addr| Family::of(*addr) == family) else {
        let family = family.label();
        let message =
            format!("endpoints: {text:?} is not an {family} address that an endpoint can have; it is left out");
        notes.add(Note::INVALID_ENDPOINT, message);
        return None;
    };
    Some(EndpointModel {
        addr,
        ready: entry.conditions.ready.unwrap_or(true),
        serving: entry.conditions.serving.unwrap_or(true),
        terminating: entry.conditions.terminating.unwrap_or(false),
        local: entry.node_name.as_deref() == Some(own_node),
        hints: entry.hints.as_ref().and_then(|hints| names.hints(hints)),
    })
}

fn trigger(object: &SliceObject) -> Option<SystemTime> {
    let text = object.metadata.annotations.get(ANNOTATION_TRIGGER)?;
    text.parse::<Timestamp>().ok().map(SystemTime::from)
}
