//! An explanation for people.

use std::fmt::Write;

use fairlead_plan::{Followed, Origin, Packet, Verdict};

use super::{Decision, Explanation, Tracked, Way};

/// The width of the first column.
const HEAD: usize = 12;
const PERCENT: f64 = 100.0;

/// How parts are made to stand out; nothing where the output is no terminal.
#[derive(Debug, Clone, Copy, Default)]
pub struct Style {
    colours: bool,
}

impl Style {
    /// With escape sequences of terminals (ECMA-48, SGR), or without.
    #[must_use]
    pub const fn new(colours: bool) -> Self {
        Self { colours }
    }

    fn put(self, sequence: &str, text: &str) -> String {
        if self.colours { format!("\x1b[{sequence}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn strong(self, text: &str) -> String {
        self.put("1", text)
    }

    fn good(self, text: &str) -> String {
        self.put("32", text)
    }

    fn bad(self, text: &str) -> String {
        self.put("1;31", text)
    }

    fn faint(self, text: &str) -> String {
        self.put("2", text)
    }
}

/// Lines under heads.
struct Page {
    out: String,
    style: Style,
}

impl Page {
    fn line(&mut self, head: &str, text: &str) {
        let head = self.style.strong(&format!("{head:<HEAD$}"));
        // Writing to a string does not fail.
        let _ = writeln!(self.out, "{head} {text}");
    }

    fn lines(&mut self, head: &str, lines: &[String]) {
        for (line, number) in lines.iter().zip(0..) {
            self.line(if number == 0 { head } else { "" }, line);
        }
    }
}

/// All of it, the sentence that says how it ends at the end.
#[must_use]
pub fn text(explanation: &Explanation, style: Style) -> String {
    let mut page = Page { out: String::new(), style };
    let Explanation { packet, held, rules, masquerade, tracked, ways, plan, difference, end } = explanation;
    page.line("packet", &said(packet));
    if let Some(Decision { origin, service, frontend, .. }) = plan {
        page.line("from", origin_words(*origin));
        if let Some((service, frontend)) = service.as_ref().zip(frontend.as_ref()) {
            page.line("service", &format!("{service}, by its {frontend}"));
        }
    }
    page.line("mode", held);
    if let Some(followed) = rules {
        self::rules(&mut page, followed);
    }
    if let Some(reason) = masquerade {
        page.line("source", &format!("masqueraded: {reason}"));
    }
    self::tracked(&mut page, tracked);
    ways.iter().for_each(|way| self::way(&mut page, way));
    if let Some(Verdict::Forward { endpoints, .. }) = rules.as_ref().map(|followed| &followed.verdict)
        && endpoints.len() > ways.len()
    {
        page.line("", &format!("and to {} more endpoints", endpoints.len() - ways.len()));
    }
    match (plan, difference) {
        (_, Some(difference)) => page.line("plan", &style.bad(&format!("DIFFERS: {difference}"))),
        (Some(_), None) => page.line("plan", &style.good("says the same")),
        (None, _) => {
            page.line("plan", &style.faint("not known: no running fairlead answers, so this is the kernel alone"))
        }
    }
    page.line("end", &style.strong(end));
    page.out
}

fn said(packet: &Packet) -> String {
    let Packet { protocol, source, destination, interface, source_is_local, .. } = packet;
    let place = match interface {
        Some(interface) => format!("in by {interface}"),
        None if *source_is_local => "sent by this node".to_owned(),
        None => "sent by this node with an address of another".to_owned(),
    };
    format!("{protocol} from {source} to {destination}, {place}")
}

const fn origin_words(origin: Origin) -> &'static str {
    match origin {
        Origin::Pod => "a pod, by the way in which this node knows pods",
        Origin::Node => "this node",
        Origin::Outside => "outside",
    }
}

fn rules(page: &mut Page, followed: &Followed) {
    if followed.steps.is_empty() {
        page.line("rules", "none applied");
    }
    page.lines("rules", &followed.steps);
    let masqueraded = |endpoint| {
        let mut branches = followed.branches.iter().filter(|branch| branch.endpoint == Some(endpoint));
        branches.any(|branch| branch.masqueraded)
    };
    let endpoints = followed.shares().into_iter().map(|(endpoint, share)| {
        let source = if masqueraded(endpoint) { "source masqueraded" } else { "source kept" };
        format!("{:6.2} %  {endpoint}, {source}", share * PERCENT)
    });
    let endpoints: Vec<String> = endpoints.collect();
    page.lines("endpoints", &endpoints);
    // What applies on one of the ways alone is told for the first: the others differ in the endpoint.
    if let Some(first) = followed.branches.iter().find(|branch| branch.endpoint.is_some()) {
        page.lines("then", &first.steps);
    }
}

fn tracked(page: &mut Page, tracked: &[Tracked]) {
    if tracked.is_empty() {
        page.line("tracking", "no connection is remembered: the first packet decides, by the rules above");
    }
    let line = |Tracked { source_port, to, seen_as, answered }: &Tracked| {
        let answered = if *answered { "" } else { ", no answer yet" };
        format!("from port {source_port} to {to}, seen there as {seen_as}{answered}; goes on whatever the rules say")
    };
    let lines: Vec<String> = tracked.iter().map(line).collect();
    page.lines("tracking", &lines);
}

fn way(page: &mut Page, way: &Way) {
    let mut lines = vec![format!("{}", way.to)];
    for hop in &way.hops {
        let text = format!("  {}: {}", hop.step, hop.decision);
        lines.push(if hop.ends { page.style.bad(&format!("{text} (the packet is lost here)")) } else { text });
    }
    lines.extend(way.mtu.map(|mtu| format!("  MTU: packets up to {mtu} bytes")));
    lines.extend(way.unpacked_at.map(|node| format!("  unpacked: at the node with the address {node}")));
    page.lines("way to", &lines);
}
