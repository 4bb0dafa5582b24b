//! What happens when something changes, breaks or dies, timed.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use fairlead_lab::objects::NAMESPACE;
use fairlead_lab::{Conversation, Hammer, Options, Outcome, Place, probe};
use fairlead_plan::{Family, Protocol};

use crate::ask::{self, Watch};
use crate::cluster::{Cluster, title};
use crate::ledger::{Cell, Row};
use crate::manifests::{AFTER, BEFORE, DNS, MOVING, PORT, SOLO, STREAM, UDP_PORT, WEB, WEB_NODE_PORT, cluster as to};
use crate::screen::time;
use crate::{interrupt, reach};

/// The pod whose connections are watched, on the node to which things happen.
const CLIENT: &str = "a2";
const NODE: &str = "a";
/// How often an endpoint is replaced.
const REPLACEMENTS: usize = 20;
/// How often fairlead is killed.
const KILLS: usize = 3;
/// Connections that each kind of client makes before, between and after.
const BETWEEN: u64 = 60;
/// "Heals in under a second".
const SOON: Duration = Duration::from_secs(1);

/// Something that happens.
pub(crate) struct Event {
    /// For a person.
    pub(crate) what: &'static str,
    expected: &'static str,
    pub(crate) run: fn(&mut Cluster, &Event) -> Result<Row>,
}

/// All of them, in the order in which they are shown.
pub(crate) const EVENTS: &[Event] = &[
    Event { what: "Endpoint replaced, 20 times", expected: "the new pod answers", run: replaced },
    Event { what: "UDP Service re-pointed under a client", expected: "it follows", run: repointed },
    Event { what: "fairlead killed (-9) and started, 3 times", expected: "no failure", run: killed },
    Event { what: "Endpoint replaced while fairlead is dead", expected: "right when ready", run: missed },
    Event { what: "Somebody runs `nft flush ruleset`", expected: "answers within 1 s", run: flushed },
    Event { what: "Service deleted", expected: "silence", run: deleted },
    Event { what: "fairlead cleanup, after a kill", expected: "nothing is left", run: cleaned },
];

impl Event {
    fn row(&self, cluster: &Cluster, from: &str, seen: [Cell; 2]) -> Row {
        let from = title(cluster.lab.place(from));
        Row { from, expected: self.expected.to_owned(), seen, remark: None }
    }
}

/// One family after the other: these are measured, so nothing else goes on.
fn in_turn(mut work: impl FnMut(Family) -> Result<Cell>) -> [Cell; 2] {
    Family::BOTH.map(|family| work(family).unwrap_or_else(|error| Cell::failed(&error)))
}

fn replaced(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    let cluster = &*cluster;
    let before = cluster.agent(NODE)?.metrics()?;
    let seen = in_turn(|family| {
        let (pod, target) = (cluster.lab.place(CLIENT), to(MOVING, PORT, family));
        let mut times = Vec::new();
        for round in 0..REPLACEMENTS {
            let next = if round % 2 == 0 { AFTER } else { BEFORE };
            let change = || cluster.point("moving", Protocol::Tcp, next, family);
            times.push(ask::until(pod, target, change, |answer| answer.is_ok_and(|who| who == next))?);
            let counts = ask::count(pod, target, 10);
            ensure!(counts.len() == 1 && counts.contains_key(next), "then {counts:?} answered");
        }
        times.sort_unstable();
        let (median, worst) = (times[times.len() / 2], times[times.len() - 1]);
        let good = worst < SOON;
        let line = format!("median {}, worst {}", time(median), time(worst));
        Ok(Cell::new(good, format!("median {}", time(median))).line(line))
    });
    let after = cluster.agent(NODE)?.metrics()?;
    let more = |name: &str| after.sum(name, "") - before.sum(name, "");
    let syncs = more("fairlead_sync_duration_seconds_count");
    let each = more("fairlead_writes_total") / syncs;
    let sync = Duration::try_from_secs_f64(more("fairlead_sync_duration_seconds_sum") / syncs)?;
    let mut row = event.row(cluster, CLIENT, seen);
    row.remark = Some(format!(
        "from the change in the API to the first connection that reaches the new pod; fairlead wrote {each:.1} objects \
         to the kernel each time, in {}",
        time(sync)
    ));
    Ok(row)
}

fn repointed(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    let cluster = &*cluster;
    let seen = in_turn(|family| {
        let target = to(STREAM, UDP_PORT, family);
        let options = Options { patience: Duration::from_millis(100), ..Options::default() };
        let mut talk = Conversation::open(cluster.lab.place(CLIENT), Protocol::Udp, target, &options)?;
        let (before, port) = answered(&talk.ask())?;
        ensure!(before == BEFORE, "{before} answered at first");
        let started = Instant::now();
        cluster.point("stream", Protocol::Udp, AFTER, family)?;
        let (mut sent, mut lost) = (0, 0);
        while started.elapsed() < SOON * 3 {
            sent += 1;
            match talk.ask() {
                Outcome::Reached { endpoint, source } if endpoint == AFTER => {
                    let took = time(started.elapsed());
                    ensure!(source.port() == port, "the client's port became {}", source.port());
                    let line = format!("port {port}: {BEFORE}, after {took} {AFTER}; {lost} of {sent} lost");
                    return Ok(Cell::new(true, format!("after {took}")).line(line));
                }
                Outcome::Reached { .. } => {}
                _ => lost += 1,
            }
        }
        bail!("still at {BEFORE} after {}, {lost} of {sent} datagrams lost", time(started.elapsed()))
    });
    Ok(event.row(cluster, CLIENT, seen))
}

fn answered(outcome: &Outcome) -> Result<(String, u16)> {
    match outcome {
        Outcome::Reached { endpoint, source } => Ok((endpoint.clone(), source.port())),
        other => bail!("before any change: {other:?}"),
    }
}

fn flushed(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    const SETTLE: Duration = Duration::from_millis(150);
    let cluster = &*cluster;
    let agent = cluster.agent(NODE)?;
    // Nothing else asks for this Service: a connection that began without rules stays untranslated, and so would a later
    // one from the same port.
    let (before, log) = (agent.metrics()?.sum("fairlead_repairs_total", ""), agent.log().len());
    let watches = Family::BOTH.map(|family| Watch::start(cluster.lab.place(CLIENT), to(SOLO, PORT, family)));
    std::thread::sleep(SETTLE);
    let status = agent.node().command("nft").args(["flush", "ruleset"]).status().context("cannot run nft")?;
    ensure!(status.success(), "nft flush ruleset: {status}");
    std::thread::sleep(SOON + SETTLE);
    let repairs = agent.metrics()?.sum("fairlead_repairs_total", "") - before;
    let seen = watches.map(|watch| {
        let watched = watch.stop();
        let gap = time(watched.gap);
        let good = watched.gap < SOON && repairs > 0.0;
        let line = format!(
            "at most {gap} without an answer; {} of {} connections lost",
            watched.lost,
            watched.lost + watched.answered
        );
        Cell::new(good, format!("after {gap}")).line(line)
    });
    let mut row = event.row(cluster, CLIENT, seen);
    let log = agent.log().split_off(log);
    let told = log.lines().find_map(|line| line.split_once("repaired: ")).map(|(_, told)| told.to_owned());
    row.remark = Some(format!("fairlead says: {}", told.as_deref().unwrap_or("nothing about it")));
    Ok(row)
}

fn killed(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    let node = cluster.lab.node(NODE).clone();
    let hammers = Family::BOTH.map(|family| {
        let inside = [(Protocol::Tcp, to(WEB, PORT, family)), (Protocol::Udp, to(DNS, UDP_PORT, family))];
        let outside = [(Protocol::Tcp, SocketAddr::new(node.addr(family), WEB_NODE_PORT))];
        let start = |from: &str, targets: &[_]| Hammer::start(cluster.lab.place(from), targets);
        Ok([start(CLIENT, &inside)?, start("outside", &outside)?])
    });
    let hammers = hammers.into_iter().collect::<Result<Vec<_>>>()?;
    let wait = || hammers.iter().flatten().for_each(|hammer| hammer.wait_for(BETWEEN));
    let mut ready = Vec::new();
    for _ in 0..KILLS {
        wait();
        interrupt::check()?;
        let agent = cluster.agent_mut(NODE)?;
        agent.kill()?;
        wait();
        let started = Instant::now();
        agent.restart()?;
        agent.wait_ready()?;
        ready.push(started.elapsed());
        wait();
    }
    let mut seen = Vec::new();
    for pair in hammers {
        let tallies = pair.map(Hammer::stop);
        let failures: Vec<_> = tallies.iter().flat_map(|tally| &tally.failures).collect();
        let answered: u64 = tallies.iter().map(|tally| tally.successes).sum();
        let slowest = tallies.iter().map(|tally| tally.slowest).max().unwrap_or_default();
        let all = answered + failures.len() as u64;
        let mut line = format!("{answered} of {all} connections answered, slowest {}", time(slowest));
        if let Some(first) = failures.first() {
            line += &format!("; first failure: {} to {}: {}", first.protocol, first.to, first.error);
        }
        seen.push(Cell::new(failures.is_empty() && answered > 0, format!("{answered} of {all}")).line(line));
    }
    let seen = <[Cell; 2]>::try_from(seen).ok().context("there are two families")?;
    let mut row = event.row(cluster, CLIENT, seen);
    row.from = "pod, outside".to_owned();
    let ready: Vec<_> = ready.into_iter().map(time).collect();
    row.remark = Some(format!("TCP and UDP to ClusterIPs, TCP to a NodePort; ready again after {}", ready.join(", ")));
    Ok(row)
}

fn missed(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    cluster.agent_mut(NODE)?.kill()?;
    for family in Family::BOTH {
        cluster.point("moving", Protocol::Tcp, AFTER, family)?;
    }
    let answers = |cluster: &Cluster, family| ask::count(cluster.lab.place(CLIENT), to(MOVING, PORT, family), 10);
    let dead = Family::BOTH.map(|family| answers(cluster, family));
    let agent = cluster.agent_mut(NODE)?;
    agent.restart()?;
    agent.wait_ready()?;
    let mut dead = dead.into_iter();
    let seen = in_turn(|family| {
        let (was, now) = (dead.next().unwrap_or_default(), answers(cluster, family));
        let (was, now) = (reach::list(&was), reach::list(&now));
        let good = now == format!("{AFTER} 10") && was == format!("{BEFORE} 10");
        Ok(Cell::new(good, format!("then {now}")).line(format!("without fairlead {was}, with it {now}")))
    });
    Ok(event.row(cluster, CLIENT, seen))
}

fn deleted(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    let pod = cluster.lab.place(CLIENT);
    // Both families end with one object, so the second one is only looked at.
    let delete = || cluster.api.delete("Service", NAMESPACE, "moving").map(drop);
    let took = ask::until(pod, to(MOVING, PORT, Family::V4), delete, |answer| answer.is_err())?;
    let seen = reach::both(|family| {
        let target = to(MOVING, PORT, family);
        Ok(match probe(pod, Protocol::Tcp, target) {
            Outcome::Silence => Cell::new(true, "silence").line(format!("{target}: silence")),
            other => Cell::new(false, "not silent").line(format!("{target}: {other:?}")),
        })
    });
    for slice in ["moving-1-ipv4", "moving-1-ipv6"] {
        cluster.api.delete("EndpointSlice", NAMESPACE, slice)?;
    }
    let mut row = event.row(cluster, CLIENT, seen);
    row.remark = Some(format!("the last answered connection ended within {} of the deletion in the API", time(took)));
    Ok(row)
}

/// On the node that is not watched, so that everything else goes on.
fn cleaned(cluster: &mut Cluster, event: &Event) -> Result<Row> {
    const OTHER: &str = "b";
    let agent = cluster.agent_mut(OTHER)?;
    agent.kill()?;
    let before = tables(agent.node())?;
    agent.cleanup()?;
    let after = tables(agent.node())?;
    agent.restart()?;
    agent.wait_ready()?;
    let again = tables(agent.node())?;
    let good = !before.is_empty() && after.is_empty() && again == before;
    let list = |tables: &[String]| if tables.is_empty() { "nothing".to_owned() } else { tables.join(", ") };
    let line = format!("before: {}; then: {}; restarted: {}", list(&before), list(&after), list(&again));
    let cell = Cell::new(good, format!("{} left", list(&after)));
    let mut row = event.row(cluster, OTHER, [cell.clone(), cell]);
    row.remark = Some(line);
    Ok(row)
}

/// The tables of nf_tables.
fn tables(node: &Place) -> Result<Vec<String>> {
    let output = node.command("nft").args(["list", "tables"]).output().context("cannot run nft")?;
    ensure!(output.status.success(), "nft list tables: {}", String::from_utf8_lossy(&output.stderr).trim());
    Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
}
