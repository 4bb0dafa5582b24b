use std::process::Command;
use std::sync::Arc;
use std::thread;

use anyhow::{Context, Result};

use crate::addresses::{pod_address, switch_address};
use crate::echo::Servers;
use crate::{Addresses, Kind, Place, build};

/// Host numbers on the switch: nodes from 1, their second addresses from 101, clients from 201.
const FIRST_SECOND: u8 = 100;
const FIRST_CLIENT: u8 = 201;

/// Host numbers of pods begin here; 1 is the gateway.
const FIRST_POD: u8 = 11;

/// What a lab is made of.
#[derive(Debug, Clone)]
pub struct Size<'a> {
    /// The name of each node and the number of its pods, which are called `a1`, `a2`, ...
    pub nodes: &'a [(&'a str, u8)],
    /// The names of outside clients.
    pub clients: &'a [&'a str],
}

impl Default for Size<'_> {
    fn default() -> Self {
        Self { nodes: &[("a", 2), ("b", 2)], clients: &["outside"] }
    }
}

/// A cluster's network. Dropping it removes every trace.
#[derive(Debug)]
pub struct Lab {
    pub(crate) tag: String,
    places: Vec<Place>,
    servers: Option<Servers>,
}

impl Lab {
    /// Nodes `a` and `b` with two pods each (`a1`, `a2`, `b1`, `b2`) and the client `outside`.
    ///
    /// # Errors
    /// If the caller is not root or the program `ip` is missing.
    pub fn new() -> Result<Self> {
        Self::of_size(&Size::default())
    }

    /// A lab of this size. In every node and pod servers answer on [`crate::PORTS`].
    ///
    /// # Errors
    /// If the caller is not root, the program `ip` is missing, or a name is too long or taken twice.
    pub fn of_size(size: &Size<'_>) -> Result<Self> {
        build::remove_leftovers()?;
        let tag = build::new_tag();
        let places = places(&tag, size);
        build::check_names(&places)?;
        let switch = format!("{tag}-switch");
        // Dropping a half-made lab removes the half.
        let mut lab = Self { tag, places, servers: None };
        build::make(&switch, &lab.places).context("cannot build the lab")?;
        lab.servers = Some(Servers::start(lab.places.iter().filter(|place| place.kind != Kind::Client))?);
        Ok(lab)
    }

    /// The place of this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn place(&self, name: &str) -> &Place {
        let found = self.places.iter().find(|place| place.name == name);
        found.unwrap_or_else(|| panic!("the lab has no place {name}"))
    }

    /// The node of this name.
    ///
    /// # Panics
    /// If there is none.
    #[must_use]
    pub fn node(&self, name: &str) -> &Place {
        let place = self.place(name);
        assert!(matches!(place.kind, Kind::Node { .. }), "{name} is no node");
        place
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Place> {
        self.places.iter().filter(|place| matches!(place.kind, Kind::Node { .. }))
    }

    /// All places.
    #[must_use]
    pub fn places(&self) -> &[Place] {
        &self.places
    }

    /// What the nodes hold, for a person: rules, routes, connections. Needs no program to be there.
    #[must_use]
    pub fn state(&self) -> String {
        let questions = ["nft list ruleset", "ip address", "ip route", "ip -6 route", "conntrack -L"];
        let mut text = String::new();
        for node in self.nodes() {
            for question in questions {
                let mut words = question.split(' ');
                let mut command = node.command(words.next().unwrap_or_default());
                text += &format!("--- node {}: {question}\n{}", node.name, answer(command.args(words)));
            }
        }
        text
    }
}

fn answer(command: &mut Command) -> String {
    match command.output() {
        Ok(output) if output.status.success() => String::from_utf8_lossy(&output.stdout).into_owned(),
        Ok(output) => format!("{}\n", String::from_utf8_lossy(&output.stderr).trim()),
        Err(error) => format!("cannot run it: {error}\n"),
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("{}", self.state());
        }
        self.servers = None;
        if let Err(error) = build::remove(&self.tag) {
            eprintln!("cannot remove the lab {}: {error:#}", self.tag);
        }
    }
}

fn places(tag: &str, size: &Size<'_>) -> Vec<Place> {
    let place = |name: &str, addresses: Addresses, kind: Kind| {
        let namespace = format!("{tag}-{name}");
        Place { name: name.to_owned(), namespace, addresses, kind, next_port: Arc::default() }
    };
    let mut places = Vec::new();
    for ((node, pods), number) in size.nodes.iter().zip(1..) {
        let second = switch_address(FIRST_SECOND + number);
        let kind = Kind::Node { number, second, gateway: pod_address(number, 1) };
        places.push(place(node, switch_address(number), kind));
        for pod in 1..=*pods {
            let kind = Kind::Pod { node: (*node).to_owned() };
            places.push(place(&format!("{node}{pod}"), pod_address(number, FIRST_POD + pod - 1), kind));
        }
    }
    for (client, host) in size.clients.iter().zip(FIRST_CLIENT..) {
        places.push(place(client, switch_address(host), Kind::Client));
    }
    places
}
