//! The cluster: namespaces, the API server, a fairlead on each node. Dropping it removes every trace.

use std::fmt::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use anyhow::{Context, Result};
use fairlead_lab::api::ApiServer;
use fairlead_lab::{Kind, Lab, Place, Size};
use fairlead_plan::{Family, Protocol};

use crate::agent::Agent;
use crate::screen::{Screen, time};
use crate::{ask, interrupt, manifests};

/// The port of Kubernetes' API server.
const API_PORT: u16 = 6443;
/// How the names of our folders begin; the process id follows.
pub(crate) const FOLDER: &str = "fairlead-demo-";
/// The machine in whose namespace the API server listens.
const CONTROL: &str = "control";
/// A client from which nothing is allowed that has to be allowed.
pub(crate) const STRANGER: &str = "stranger";
/// How much of a log is shown after a failure.
const LAST_LINES: usize = 12;

const PICTURE: &str = "
               pod a1   pod a2         pod b1   pod b2
                    \\   /                   \\   /
                   node a                   node b        one fairlead on each node
                      │                        │
              ────────┴──┬──────────┬──────────┴──┬────
                         │          │             │
                      outside    stranger    API server
";

/// Everything. The order of the fields is the order in which things go away.
pub(crate) struct Cluster {
    agents: Vec<Agent>,
    pub(crate) api: ApiServer,
    pub(crate) lab: Lab,
    folder: Folder,
    binary: PathBuf,
}

impl Cluster {
    /// Namespaces and the API server.
    pub(crate) fn build(binary: PathBuf, screen: &Screen) -> Result<Self> {
        screen.doing("making network namespaces");
        let started = Instant::now();
        let clients = ["outside", STRANGER, CONTROL];
        let lab = Lab::of_size(&Size { nodes: &[("a", 2), ("b", 2)], clients: &clients })?;
        let control = lab.place(CONTROL);
        let address = SocketAddr::new(control.addr(Family::V4), API_PORT);
        let listener = control.run(|| TcpListener::bind(address));
        let api = ApiServer::start(listener.with_context(|| format!("cannot listen on {address}"))?)?;
        let folder = Folder::make()?;
        api.kubeconfig(&folder.kubeconfig())?;
        let took = time(started.elapsed());
        let count = lab.places().len();
        screen.step("Cluster", &format!("{count} machines and pods as network namespaces, IPv4 and IPv6, in {took}"));
        screen.line(&screen.accent(PICTURE));
        Ok(Self { agents: Vec::new(), api, lab, folder, binary })
    }

    /// Starts fairlead and applies the manifests.
    pub(crate) fn start(&mut self, screen: &Screen) -> Result<()> {
        interrupt::check()?;
        self.lab.cluster_manifests().into_iter().try_for_each(|object| self.api.apply(object).map(drop))?;
        screen.doing("starting fairlead");
        let mut words = Vec::new();
        for node in self.lab.nodes() {
            let started = Instant::now();
            let agent = Agent::start(node, &self.binary, &self.folder.kubeconfig(), &self.folder.0)?;
            self.agents.push(agent);
            let agent = self.agents.last_mut().context("it was just put there")?;
            agent.wait_ready()?;
            words.push(format!(
                "node {}: process {}, ready after {}",
                node.name(),
                agent.pid(),
                time(started.elapsed())
            ));
        }
        screen.step("fairlead", &words.join("; "));
        let all = manifests::all(&self.lab);
        let services = all.iter().filter(|object| object["kind"] == "Service").count();
        let (slices, nodes) = (all.len() - services, self.agents.len());
        let pod = self.lab.place("a2").clone();
        let last = manifests::cluster(manifests::MOVING, manifests::PORT, Family::V6);
        let api = &self.api;
        let apply = move || all.into_iter().try_for_each(|object| api.apply(object).map(drop));
        let took = ask::until(&pod, last, apply, |answer| answer.is_ok()).context("no Service is answered")?;
        screen.step(
            "Manifests",
            &format!(
                "{nodes} Nodes, 1 ServiceCIDR, then {services} Services with {slices} EndpointSlices; \
                 the last one is reached {} after the first was applied",
                time(took)
            ),
        );
        Ok(())
    }

    /// The fairlead of a node.
    pub(crate) fn agent(&self, node: &str) -> Result<&Agent> {
        self.agents.iter().find(|agent| agent.node().name() == node).context("no fairlead was started there")
    }

    /// The fairlead of a node, to do something to it.
    pub(crate) fn agent_mut(&mut self, node: &str) -> Result<&mut Agent> {
        self.agents.iter_mut().find(|agent| agent.node().name() == node).context("no fairlead was started there")
    }

    pub(crate) fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// Lets a Service lead to this pod alone.
    pub(crate) fn point(&self, service: &str, protocol: Protocol, pod: &str, family: Family) -> Result<()> {
        let slices = manifests::slices(&self.lab, service, protocol, &[pod], &[family]);
        slices.into_iter().try_for_each(|slice| self.api.apply(slice).map(drop))
    }

    /// Whose address this is, in words.
    pub(crate) fn whose(&self, addr: IpAddr) -> String {
        let has = |place: &&Place| place.all_addresses().iter().any(|addresses| addresses.contains(addr));
        self.lab.places().iter().find(has).map_or_else(|| addr.to_string(), title)
    }

    /// The ends of all logs, for a person who looks for the reason of a failure.
    pub(crate) fn last_words(&self) -> String {
        let mut text = String::new();
        for agent in &self.agents {
            let log = agent.log();
            let lines: Vec<_> = log.lines().collect();
            let _ = writeln!(text, "--- the end of the log of fairlead on node {}:", agent.node().name());
            for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
                let _ = writeln!(text, "{line}");
            }
        }
        text
    }

    /// Says how to look around and waits for Ctrl-C.
    pub(crate) fn keep(&self, screen: &Screen) {
        let namespace = |name: &str| self.lab.place(name).namespace().to_owned();
        let web = manifests::cluster(manifests::WEB, manifests::PORT, Family::V4);
        let (node, pod) = (namespace("a"), namespace("a2"));
        let command =
            |text: String, why: &str| screen.line(&format!("  {}\n      {}", screen.bold(&text), screen.dim(why)));
        screen.line("The cluster stands until you press Ctrl-C. To look around, from another terminal:\n");
        command(format!("ip netns exec {node} nft list ruleset"), "what the kernel of node a holds");
        command(format!("ip netns exec {node} conntrack -L"), "the connections that it knows");
        command(
            format!(
                "ip netns exec {pod} bash -c 'exec 3<>/dev/tcp/{}/{}; echo >&3; head -1 <&3'",
                web.ip(),
                web.port()
            ),
            "one connection from pod a2 to the Service web: who answers, and which source it saw",
        );
        command(format!("ip netns exec {pod} bash"), "a shell in pod a2");
        command(
            format!("less {}", self.folder.0.display()),
            "logs of both fairleads, and the kubeconfig that they use",
        );
        screen.line("");
        while !interrupt::requested() {
            thread::sleep(Duration::from_millis(100));
        }
    }
}

/// `pod a1`, `node a`, `outside`.
pub(crate) fn title(place: &Place) -> String {
    match place.kind() {
        Kind::Node { .. } => format!("node {}", place.name()),
        Kind::Pod { .. } => format!("pod {}", place.name()),
        Kind::Client => place.name().to_owned(),
    }
}

/// A folder for logs and the kubeconfig, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn make() -> Result<Self> {
        let path = env::temp_dir().join(format!("{FOLDER}{}", process::id()));
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        Ok(Self(path))
    }

    fn kubeconfig(&self) -> PathBuf {
        Path::new(&self.0).join("kubeconfig")
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("cannot remove {}: {error}", self.0.display());
        }
    }
}
