//! `fairlead explain`: the journey of one packet, step by step, read from the kernel, with what the plan says beside it.
//!
//! ```text
//!  question ─> packet as this node sees it        (addresses, routes: which interface, whose address)
//!  kernel   ─> rules, elements, endpoints         (the tables of the mode, read back and interpreted)
//!  way      ─> connection tracking, route, neighbour, forwarding entry, tunnel, for each endpoint
//!  decision ─> what the plan says, and why        (asked of the running program; pure)
//! ```

mod command;
mod decision;
mod kernel;
mod question;
mod reason;
mod text;
mod way;

use fairlead_kernel::route::Rtnl;
use fairlead_plan::{Followed, Packet, Verdict};
use serde::Serialize;

pub use command::explain;
pub use decision::{Decision, kind, name};
pub use kernel::Kernel;
pub use question::{From, NotThat, To, packet};
pub use text::{Style, text};
pub use way::{Tracked, Way};

/// Endpoints whose ways are followed; more are told by their number.
const WAYS: usize = 8;

/// Everything about one packet.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The packet.
    pub packet: Packet,
    /// The mode that has its rules in the kernel.
    pub held: &'static str,
    /// What these rules do; `None` if there are none.
    pub rules: Option<Followed>,
    /// Why endpoints see an address of this node; one sentence, where some do.
    pub masquerade: Option<String>,
    /// What connection tracking remembers of this client and destination. Such connections go on as they began.
    pub tracked: Vec<Tracked>,
    /// From here to each endpoint, or to the destination itself if it is not translated.
    pub ways: Vec<Way>,
    /// What the plan says; `None` if no program of ours runs here.
    pub plan: Option<Decision>,
    /// How the kernel differs from the plan.
    pub difference: Option<String>,
    /// What becomes of the packet, as a sentence.
    pub end: String,
}

impl Explanation {
    /// Follows a packet through what the kernel holds in the network namespace of the caller.
    ///
    /// # Errors
    /// If the kernel cannot be read, or its rules not be followed.
    pub fn of(kernel: &Kernel, packet: &Packet, plan: Option<Decision>) -> anyhow::Result<Self> {
        let rules = kernel.follow(packet)?;
        let tracked = way::tracked(packet)?;
        let mut routes = Rtnl::open()?;
        let destinations: Vec<_> = match rules.as_ref().map(|followed| &followed.verdict) {
            Some(Verdict::Forward { endpoints, .. }) => endpoints.iter().copied().take(WAYS).collect(),
            Some(Verdict::Reject | Verdict::Drop) => Vec::new(),
            Some(Verdict::Pass) | None => vec![packet.destination],
        };
        let ways = destinations.into_iter().map(|to| Way::to(&mut routes, to)).collect::<anyhow::Result<_>>()?;
        let held = rules.as_ref();
        let masquerade = held.and_then(|followed| reason::masquerade(packet, &followed.verdict));
        let difference = plan.as_ref().and_then(|plan| reason::difference(held, plan));
        let end = reason::end(kernel, packet, held, plan.as_ref());
        let packet = packet.clone();
        Ok(Self { packet, held: kernel.name(), rules, masquerade, tracked, ways, plan, difference, end })
    }
}
