//! What a standing cluster does with connections.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use anyhow::Result;
use fairlead_lab::{Options, Outcome, Seen, probe, probe_set};
use fairlead_plan::{Family, Protocol};

use crate::ask;
use crate::cluster::{Cluster, STRANGER, title};
use crate::ledger::{Cell, Row};
use crate::manifests::{
    DNS, EDGE_NODE_PORT, EMPTY, LOGIN, NOBODY, PORT, SOLO, THREE, TWO, UDP_PORT, UNUSED_PORT, WEB, WEB_NODE_PORT,
    cluster, shop,
};
use crate::screen::bar;

/// Connections for the bars.
const MANY: usize = 300;
/// How far from its fair share an endpoint may be: five standard deviations of [`MANY`] throws with three sides, which
/// happens once in a million.
const UNFAIR: usize = 41;
/// Connections for session affinity; three endpoints would all be met.
const STICKY: usize = 40;

/// One thing to try, in both families at once.
pub(crate) struct Check {
    /// For a person.
    pub(crate) what: &'static str,
    /// The name of the place where connections begin.
    from: &'static str,
    expected: &'static str,
    to: fn(&Cluster, Family) -> SocketAddr,
    verdict: Verdict,
}

/// What must come of it.
enum Verdict {
    /// Many connections, evenly spread over [`THREE`].
    Spread,
    /// Exactly these endpoints answer.
    Answered(Protocol, &'static [&'static str]),
    /// All answered by one endpoint.
    Sticks,
    /// Answered by the first endpoint, which sees this place as the source.
    Sees(&'static str, &'static str),
    Refused,
    Silent,
}

/// All of them, in the order in which they are shown.
pub(crate) const CHECKS: &[Check] = &[
    Check {
        what: "ClusterIP, 300 connections",
        from: "a2",
        expected: "three pods, evenly",
        to: |_, family| cluster(WEB, PORT, family),
        verdict: Verdict::Spread,
    },
    Check {
        what: "ClusterIP from a node itself",
        from: "a",
        expected: "all three pods",
        to: |_, family| cluster(WEB, PORT, family),
        verdict: Verdict::Answered(Protocol::Tcp, &THREE),
    },
    Check {
        what: "ClusterIP over UDP, from the other node",
        from: "b2",
        expected: "both pods",
        to: |_, family| cluster(DNS, UDP_PORT, family),
        verdict: Verdict::Answered(Protocol::Udp, &TWO),
    },
    Check {
        what: "NodePort on node a",
        from: "outside",
        expected: "all three pods",
        to: |cluster, family| SocketAddr::new(cluster.lab.node("a").addr(family), WEB_NODE_PORT),
        verdict: Verdict::Answered(Protocol::Tcp, &THREE),
    },
    Check {
        what: "NodePort on node b",
        from: "outside",
        expected: "all three pods",
        to: |cluster, family| SocketAddr::new(cluster.lab.node("b").addr(family), WEB_NODE_PORT),
        verdict: Verdict::Answered(Protocol::Tcp, &THREE),
    },
    Check {
        what: "LoadBalancer, allowed source",
        from: "outside",
        expected: "both pods",
        to: |_, family| shop(family),
        verdict: Verdict::Answered(Protocol::Tcp, &TWO),
    },
    Check {
        what: "LoadBalancer, other source",
        from: STRANGER,
        expected: "silence",
        to: |_, family| shop(family),
        verdict: Verdict::Silent,
    },
    Check {
        what: "Endpoint that meets itself (hairpin)",
        from: "a1",
        expected: "itself, via node a",
        to: |_, family| cluster(SOLO, PORT, family),
        verdict: Verdict::Sees("a1", "a"),
    },
    Check {
        what: "Session affinity, 40 connections",
        from: "a2",
        expected: "always the same",
        to: |_, family| cluster(LOGIN, PORT, family),
        verdict: Verdict::Sticks,
    },
    Check {
        what: "externalTrafficPolicy Local, pod there",
        from: "outside",
        expected: "client's own source",
        to: |cluster, family| SocketAddr::new(cluster.lab.node("a").addr(family), EDGE_NODE_PORT),
        verdict: Verdict::Sees("a1", "outside"),
    },
    Check {
        what: "externalTrafficPolicy Local, no pod there",
        from: "outside",
        expected: "silence",
        to: |cluster, family| SocketAddr::new(cluster.lab.node("b").addr(family), EDGE_NODE_PORT),
        verdict: Verdict::Silent,
    },
    Check {
        what: "Unused port of a ClusterIP",
        from: "a2",
        expected: "refused",
        to: |_, family| cluster(WEB, UNUSED_PORT, family),
        verdict: Verdict::Refused,
    },
    Check {
        what: "Service without endpoints",
        from: "a2",
        expected: "refused",
        to: |_, family| cluster(EMPTY, PORT, family),
        verdict: Verdict::Refused,
    },
    Check {
        what: "ClusterIP that no Service has",
        from: "a2",
        expected: "silence",
        to: |_, family| cluster(NOBODY, PORT, family),
        verdict: Verdict::Silent,
    },
];

impl Check {
    /// Tries it.
    pub(crate) fn run(&self, cluster: &Cluster) -> Row {
        let seen = both(|family| Ok(self.see(cluster, family)));
        Row { from: title(cluster.lab.place(self.from)), expected: self.expected.to_owned(), seen, remark: None }
    }

    fn see(&self, cluster: &Cluster, family: Family) -> Cell {
        let (from, to) = (cluster.lab.place(self.from), (self.to)(cluster, family));
        match self.verdict {
            Verdict::Spread => spread(to, &ask::count(from, to, MANY)),
            Verdict::Answered(protocol, endpoints) => {
                let seen = probe_set(from, protocol, to, &Options::default());
                let all = seen.endpoints().into_iter().eq(endpoints.iter().copied());
                let good = all && seen.refused == 0 && seen.silence == 0 && seen.failed.is_empty();
                let sources: BTreeSet<_> = seen.sources().into_iter().map(|source| cluster.whose(source)).collect();
                let text = words(&seen);
                let line = format!("{to}: {text} see {}", Vec::from_iter(sources).join(" and "));
                Cell::new(good, text).line(line)
            }
            Verdict::Sticks => {
                let counts = ask::count(from, to, STICKY);
                let text = list(&counts);
                let good = counts.len() == 1 && THREE.iter().any(|name| counts.contains_key(*name));
                Cell::new(good, &text).line(format!("{to}: {text}"))
            }
            Verdict::Sees(endpoint, source) => {
                let outcome = probe(from, Protocol::Tcp, to);
                let expected = cluster.lab.place(source).all_addresses();
                let good = matches!(&outcome, Outcome::Reached { endpoint: who, source }
                    if who == endpoint && expected.iter().any(|own| own.contains(source.ip())));
                told(cluster, to, good, &outcome)
            }
            Verdict::Refused => {
                let outcome = probe(from, Protocol::Tcp, to);
                told(cluster, to, outcome == Outcome::Refused, &outcome)
            }
            Verdict::Silent => {
                let outcome = probe(from, Protocol::Tcp, to);
                told(cluster, to, outcome == Outcome::Silence, &outcome)
            }
        }
    }
}

fn told(cluster: &Cluster, to: SocketAddr, good: bool, outcome: &Outcome) -> Cell {
    let text = match outcome {
        Outcome::Reached { endpoint, source } => format!("{endpoint} sees {}", cluster.whose(source.ip())),
        Outcome::Refused => "refused".to_owned(),
        Outcome::Silence => "silence".to_owned(),
        Outcome::Failed(error) => error.clone(),
    };
    Cell::new(good, &text).line(format!("{to}: {text}"))
}

fn spread(to: SocketAddr, counts: &BTreeMap<String, usize>) -> Cell {
    let fair = MANY / THREE.len();
    let near = |name: &&str| counts.get(*name).is_some_and(|count| count.abs_diff(fair) <= UNFAIR);
    let good = counts.len() == THREE.len() && THREE.iter().all(near);
    let full = counts.values().copied().max().unwrap_or_default();
    let bars = counts.iter().map(|(name, count)| format!("{name} {} {count}", bar(*count, full)));
    let shares: Vec<_> = counts.values().map(usize::to_string).collect();
    let seen = if good { shares.join(" + ") } else { list(counts) };
    Cell::new(good, seen).lines([to.to_string()].into_iter().chain(bars).collect())
}

/// `a1 98, b1 101`
pub(crate) fn list(counts: &BTreeMap<String, usize>) -> String {
    let parts: Vec<_> = counts.iter().map(|(name, count)| format!("{name} {count}")).collect();
    parts.join(", ")
}

fn words(seen: &Seen) -> String {
    let mut parts: Vec<_> = seen.endpoints().into_iter().map(str::to_owned).collect();
    if seen.refused > 0 {
        parts.push(format!("refused {}", seen.refused));
    }
    if seen.silence > 0 {
        parts.push(format!("silence {}", seen.silence));
    }
    parts.extend(seen.failed.first().cloned());
    parts.join(", ")
}

/// Does the same in both families at once.
pub(crate) fn both(work: impl Fn(Family) -> Result<Cell> + Sync) -> [Cell; 2] {
    let work = &work;
    std::thread::scope(|scope| {
        let threads = Family::BOTH.map(|family| scope.spawn(move || work(family)));
        threads.map(|thread| {
            let seen = thread.join().unwrap_or_else(|payload| std::panic::resume_unwind(payload));
            seen.unwrap_or_else(|error| Cell::failed(&error))
        })
    })
}
