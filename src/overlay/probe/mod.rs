//! `fairlead overlay probe`: sends to every peer through the tunnel and says which do not answer, and why where it can tell.
//!
//! Nothing is needed on the other side but what any node of the overlay has: the base address of its pods' prefix on its tunnel's
//! device, which answers an echo. Without a tunnel the packet may pass one machine only: that node says that it has come too far.
//! Every peer is asked with a small packet, and then with one of the device's whole MTU that nobody may cut in pieces. Who does
//! not answer is asked outside of the tunnel, and by hand-made tunnelled packets that trust none of this node's entries.

mod cause;
mod question;
mod resolution;
mod rounds;

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, bail};
use fairlead_kernel::route::{NextHop, Route, Rtnl};
use fairlead_plan::Family;
use ipnet::IpNet;
use serde::Serialize;

pub use self::cause::{Cause, Evidence, words};
use self::question::Subject;
use self::rounds::{Ask, Rounds};
use super::facts::Facts;
use super::list;
use super::ways::{self, Held, Pieces, Way};
use crate::colour;
use crate::config::OverlayProbe;

/// The small packet, bytes: an IPv6 header, that of ICMP, and some content.
const SMALL: u32 = 64;
/// How often who does not answer is asked.
const TRIES: u32 = 3;
/// When it is found out how large packets may be, an answer may take so much longer than the one to the small packet.
const SLACK: u32 = 20;
/// But at least so long.
const SHORTEST: Duration = Duration::from_millis(100);
/// So many ways are asked about at a time by who must stay small.
const PORTION: usize = 512;

/// What became of one peer and family.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    /// The prefix of its pods; `None` for a piece that no route leads to.
    pub prefix: Option<IpNet>,
    /// The node; known only if its Node object was given.
    pub node: Option<String>,
    /// Where the tunnel ends, or the next router.
    pub underlay: Option<IpAddr>,
    /// How packets travel, as after `--overlay-backend`.
    pub mode: &'static str,
    /// The interface by which they leave.
    pub device: Option<String>,
    /// How long the answer to the small packet took, milliseconds; `None` if there was none.
    pub milliseconds: Option<f64>,
    /// The largest packet that this node sends there, bytes.
    pub mtu: u32,
    /// The largest packet that came through and back, bytes; `None` if none did.
    pub arrives: Option<u32>,
    /// What is wrong, as a word for programs: one of [`words`]; `None` if nothing is.
    pub cause: Option<&'static str>,
    /// The same as a sentence.
    pub problem: Option<String>,
}

impl Finding {
    /// Whether the peer answers, to small and large packets.
    #[must_use]
    pub const fn is_well(&self) -> bool {
        self.cause.is_none()
    }

    fn blame(&mut self, cause: Cause) {
        self.cause = Some(cause.word);
        self.problem = Some(cause.sentence);
    }
}

/// Probes all peers and prints what became of each.
///
/// # Errors
/// If the kernel, a file or a socket fails; and, after printing, if a peer does not answer, so that scripts can tell.
pub fn probe(settings: &OverlayProbe) -> anyhow::Result<()> {
    let nodes = list::nodes(&settings.files, &settings.annotation_prefix)?;
    let findings = findings(&nodes, settings.timeout)?;
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&findings)?);
    } else if findings.is_empty() {
        println!("There is no way to pods of other nodes.");
    } else {
        let colours = colour::is_wanted(&std::io::stdout());
        let rows = findings.iter().map(|finding| (row(finding), !finding.is_well())).collect::<Vec<_>>();
        print!("{}", list::table(&HEADS, &rows, colours));
    }
    match findings.iter().filter(|finding| !finding.is_well()).count() {
        0 => Ok(()),
        wrong => bail!("{wrong} of {} ways do not carry packets as they should; see the last column", findings.len()),
    }
}

const HEADS: [&str; 8] = ["PREFIX", "NODE", "UNDERLAY", "MODE", "DEVICE", "TIME", "ARRIVES", "PROBLEM"];

fn row(finding: &Finding) -> [String; 8] {
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    [
        or_dash(finding.prefix),
        or_dash(finding.node.as_ref()),
        or_dash(finding.underlay),
        or_dash(Some(finding.mode).filter(|mode| !mode.is_empty())),
        or_dash(finding.device.as_ref()),
        or_dash(finding.milliseconds.map(|time| format!("{time:.2}ms"))),
        or_dash(finding.arrives),
        finding.problem.clone().unwrap_or_else(|| "none".to_owned()),
    ]
}

/// Probes all peers, from the network namespace of the caller; an answer may take up to `patience`. What is wrong is told also
/// for what is not probed because a piece of it is missing here.
///
/// # Errors
/// If the kernel cannot be read, or the process may not open raw sockets.
pub fn findings(nodes: &[Facts], patience: Duration) -> anyhow::Result<Vec<Finding>> {
    let mut kernel = Rtnl::open()?;
    let held = list::read(&mut kernel, &Family::BOTH).context("reading the kernel")?;
    ask(&mut kernel, &mut Rounds::new(), &held, &ways::ways(&held, nodes), patience)
}

/// Probes all peers to which there are routes, some at a time, so that thousands of them need no more memory, and passes on
/// what became of each.
///
/// # Errors
/// As [`findings`].
pub fn in_portions(patience: Duration, mut tell: impl FnMut(Vec<Finding>)) -> anyhow::Result<()> {
    let (mut kernel, mut rounds) = (Rtnl::open()?, Rounds::new());
    for family in Family::BOTH {
        let held = list::read(&mut kernel, &[family]).context("reading the kernel")?;
        let found = Pieces::of(&held);
        for routes in held.routes.chunks(PORTION) {
            tell(ask(&mut kernel, &mut rounds, &held, &found.ways(routes), patience)?);
        }
    }
    Ok(())
}

fn ask(
    kernel: &mut Rtnl,
    rounds: &mut Rounds,
    held: &Held,
    ways: &[Way],
    patience: Duration,
) -> anyhow::Result<Vec<Finding>> {
    let subjects: Vec<Option<Subject<'_>>> = ways.iter().map(|way| Subject::new(held, way)).collect();
    let mut findings: Vec<Finding> = ways.iter().map(finding).collect();
    let asked: Vec<(usize, &Subject<'_>)> =
        subjects.iter().enumerate().filter_map(|(at, subject)| Some((at, subject.as_ref()?))).collect();
    let asks: Vec<Ask> = asked.iter().map(|(_, subject)| subject.ask(SMALL)).collect();
    let answers = rounds.ask(&asks, TRIES, patience).context("asking, which needs CAP_NET_RAW")?;
    let mut silent = Vec::new();
    for ((at, subject), answer) in asked.iter().zip(&answers) {
        findings[*at].milliseconds = answer.map(|time| time.as_secs_f64() * 1e3);
        findings[*at].arrives = answer.map(|_| SMALL);
        findings[*at].mtu = subject.mtu;
        if !subject.way.drift.is_empty() {
            findings[*at].blame(Cause::drift(subject.way));
        } else if let Some(taken) = other_route(kernel, held, subject)? {
            findings[*at].blame(Cause::route(&taken));
        } else if answer.is_none() {
            silent.push((*at, *subject));
        }
    }
    for ((at, _), cause) in silent.iter().zip(question::causes(held, rounds, &silent, patience)?) {
        findings[*at].blame(cause);
    }
    let answered = asked.iter().zip(&answers).filter_map(|((at, subject), time)| Some((*at, *subject, (*time)?)));
    largest(rounds, &answered.collect::<Vec<_>>(), patience, &mut findings)?;
    Ok(findings)
}

fn finding(way: &Way) -> Finding {
    let drift = (!way.drift.is_empty()).then(|| Cause::drift(way));
    Finding {
        prefix: way.prefix,
        node: way.node.clone(),
        underlay: way.underlay,
        mode: way.mode,
        device: way.device.clone(),
        milliseconds: None,
        mtu: 0,
        arrives: None,
        cause: drift.as_ref().map(|cause| cause.word),
        problem: drift.map(|cause| cause.sentence),
    }
}

/// The route that packets to a peer take, in words, if it is not the one that was read.
fn other_route(kernel: &mut Rtnl, held: &Held, subject: &Subject<'_>) -> anyhow::Result<Option<String>> {
    let Some(Route { destination, protocol, hop, .. }) = kernel.route_towards(subject.probe_address())? else {
        return Ok(Some("none at all".to_owned()));
    };
    let hop = kernel.resolve(hop)?;
    let through = |hop| matches!(hop, NextHop::Unicast { index, .. } if index == subject.link.index);
    if Some(destination) == subject.way.prefix && through(hop) {
        return Ok(None);
    }
    let device = match hop {
        NextHop::Unicast { index, .. } => held.links.iter().find(|link| link.index == index),
        NextHop::Object(_) | NextHop::Blackhole | NextHop::Other => None,
    };
    let device = device.map_or_else(|| "elsewhere".to_owned(), |link| format!("through {}", link.name));
    Ok(Some(format!("one to {destination} {device}, of protocol {protocol}")))
}

/// Finds out how large packets may be that come through and back.
fn largest(
    rounds: &mut Rounds,
    answered: &[(usize, &Subject<'_>, Duration)],
    patience: Duration,
    findings: &mut [Finding],
) -> anyhow::Result<()> {
    let whole: Vec<_> = answered.iter().filter(|(_, subject, _)| subject.mtu > SMALL).collect();
    let asks: Vec<Ask> = whole.iter().map(|(_, subject, _)| subject.ask(subject.mtu)).collect();
    let mut narrow = Vec::new();
    for (one, answer) in whole.iter().zip(rounds.ask(&asks, TRIES, patience)?) {
        match answer {
            Some(_) => findings[one.0].arrives = Some(one.1.mtu),
            None => narrow.push((*one, SMALL, one.1.mtu)),
        }
    }
    // The first size arrives, the second does not.
    while narrow.iter().any(|(_, low, high)| high - low > 1) {
        let open = narrow.iter_mut().filter(|(_, low, high)| high - low > 1).collect::<Vec<_>>();
        let asks: Vec<Ask> = open.iter().map(|((_, subject, _), low, high)| subject.ask(low.midpoint(*high))).collect();
        let slowest = open.iter().map(|((_, _, time), ..)| *time).max().unwrap_or_default();
        let patience = slowest.saturating_mul(SLACK).max(SHORTEST).min(patience);
        for ((_, low, high), answer) in open.into_iter().zip(rounds.ask(&asks, 2, patience)?) {
            *(if answer.is_some() { low } else { high }) = low.midpoint(*high);
        }
    }
    for ((at, subject, _), low, _) in narrow {
        findings[*at].arrives = Some(low);
        if findings[*at].is_well() {
            findings[*at].blame(Cause::mtu(subject.way, low, subject.mtu));
        }
    }
    Ok(())
}
