//! A lab whose node `a` carries out plans.

use fairlead::object::{Event, Kind, Object};
use fairlead::resolve::{DetectMode, Settings};
use fairlead::world::{Planned, World};
use fairlead_kernel::sysctl;
use fairlead_lab::objects::{node, service_cidr};
use fairlead_lab::{Lab, POD_NETS, SERVICE_NETS, Size};
use fairlead_plan::{Family, Plan};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::programs::{self, Mode};
use super::scenario::{Objects, Stack};
use super::tunnels::{self, Tunnels};

/// Whether rules see IPv6 packets that a bridge carries.
const BRIDGED_IPV6: &str = "net/bridge/bridge-nf-call-ip6tables";

/// Makes the kernel of node `a` carry out a plan: the thing under test.
pub type Program = Box<dyn FnMut(&Lab, &Plan) + Send>;

/// A lab for one family with a program on node `a`.
pub struct Stage {
    pub lab: Lab,
    pub mode: Mode,
    pub family: Family,
    program: Program,
    /// Carries out manifests in place of `program`, which carries out plans.
    tunnels: Option<Tunnels>,
    world: World,
    plan: Plan,
}

impl Stage {
    /// Three endpoints' worth of nodes and pods, and two clients.
    pub fn new(mode: Mode, family: Family) -> Self {
        let size = Size { nodes: &[("a", 3), ("b", 2)], clients: &["outside", "stranger"] };
        let lab = Lab::of_size(&size).expect("this machine can hold a lab");
        Self::in_lab(lab, mode, family)
    }

    fn in_lab(lab: Lab, mode: Mode, family: Family) -> Self {
        if !mode.carries_fragments_from_bridges() {
            // A kernel without bridges' own hooks has no such setting.
            let _ = lab.node("a").run(|| sysctl::set(BRIDGED_IPV6, "0"));
        }
        let (program, world) = (programs::of(mode), World::new(settings()));
        Self { lab, mode, family, program, tunnels: None, world, plan: Plan::default() }
    }

    /// The real program on each node, and a tunnel between them.
    pub fn over_tunnels(family: Family) -> Self {
        Self { tunnels: Some(Tunnels::new(family)), ..Self::in_lab(tunnels::lab(family), Mode::Nft, family) }
    }

    /// Whether packets between pods of different nodes go through tunnels.
    pub const fn has_tunnels(&self) -> bool {
        self.tunnels.is_some()
    }

    /// Starts over with an empty world, as a program that has just been started.
    pub fn begin(&mut self, change: fn(&mut Settings)) {
        let mut settings = settings();
        change(&mut settings);
        if let Some(tunnels) = &mut self.tunnels {
            tunnels.begin(&settings);
        }
        self.world = World::new(settings);
        self.plan = Plan::default();
    }

    /// Makes these objects all there is, and the kernel do as they say.
    pub fn apply(&mut self, objects: &Objects, stack: Stack) -> Planned {
        let manifests = self.manifests(objects, stack);
        for event in events(&manifests) {
            self.world.apply(event);
        }
        assert!(self.world.complete());
        let planned = self.world.plan(&self.plan);
        self.plan = planned.plan.clone();
        match &mut self.tunnels {
            Some(tunnels) => tunnels.carry_out(&self.lab, &manifests),
            None => (self.program)(&self.lab, &self.plan),
        }
        planned
    }

    /// Another program takes over, which knows nothing of what the first one did.
    pub fn restart(&mut self, program: Program) {
        self.program = program;
        (self.program)(&self.lab, &self.plan);
    }

    fn manifests(&self, objects: &Objects, stack: Stack) -> Vec<Value> {
        let other = if self.family == Family::V4 { Family::V6 } else { Family::V4 };
        let families = match stack {
            Stack::Single => vec![self.family],
            Stack::Secondary => vec![other, self.family],
        };
        let mut all = vec![node(self.lab.node("a"), objects.zone), node(self.lab.node("b"), None)];
        all.push(service_cidr("kubernetes", &SERVICE_NETS));
        all.extend(objects.services.iter().map(|service| service.manifest(&self.lab, &families)));
        all.extend(objects.slices.iter().flat_map(|slice| slice.manifests(&self.lab, &families)));
        all.extend(objects.more.iter().cloned());
        all
    }
}

/// What all scenarios share: node `a` with the default detector.
pub fn settings() -> Settings {
    let pods = POD_NETS.iter().map(|net| net.parse().expect("a prefix of the lab")).collect();
    Settings { node_name: "a".to_owned(), detect: DetectMode::ClusterCidr(pods), ..Settings::default() }
}

/// A complete list of every kind, as a source of objects tells it. Of Nodes a source tells our own only.
fn events(manifests: &[Value]) -> Vec<Event> {
    let mut events = Vec::new();
    for kind in Kind::ALL {
        events.push(Event::ListBegin(kind));
        let of_kind = manifests.iter().map(object).filter(|object| object.kind() == kind);
        let ours = of_kind.filter(|object| kind != Kind::Node || object.meta().name == "a");
        events.extend(ours.map(|object| Event::Apply(Box::new(object))));
        events.push(Event::ListEnd(kind));
    }
    events
}

fn object(manifest: &Value) -> Object {
    fn read<T: DeserializeOwned>(manifest: &Value) -> T {
        serde_json::from_value(manifest.clone()).unwrap_or_else(|error| panic!("{error}: {manifest}"))
    }
    match manifest["kind"].as_str() {
        Some("Service") => Object::Service(read(manifest)),
        Some("EndpointSlice") => Object::EndpointSlice(read(manifest)),
        Some("Node") => Object::Node(read(manifest)),
        Some("ServiceCIDR") => Object::ServiceCidr(read(manifest)),
        kind => panic!("unknown kind {kind:?}"),
    }
}
