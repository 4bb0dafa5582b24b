//! One packet on its way through one table, as the kernel would take it.

use std::borrow::Cow;
use std::net::SocketAddr;

use fairlead_plan::Packet;

use super::choices::Choices;
use super::table::Table;
use super::{End, Fault, Memory, Path};
use crate::rules::{Chain, Name};
use crate::text;

/// What a statement means for the rule it stands in.
pub enum Flow {
    /// On to the next statement.
    Next,
    /// On to the next rule.
    Miss,
    /// Into a chain, and later back.
    Jump(Name),
    /// Into a chain for good.
    Goto(Name),
    /// Back to the caller.
    Return,
    /// Out of the hook.
    Stop(Stop),
}

/// What ends a hook.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Whatever stands behind goes on.
    Accept,
    /// Nobody answers.
    Drop,
    /// The sender is told.
    Reject,
}

/// A packet under way.
pub struct Machine<'a> {
    pub(super) table: &'a Table,
    pub(super) packet: &'a Packet,
    pub(super) memory: Cow<'a, Memory>,
    pub(super) choices: &'a mut Choices,
    pub(super) destination: SocketAddr,
    pub(super) translated: bool,
    pub(super) masqueraded: bool,
    pub(super) mark: u32,
    pub(super) priority: u32,
    /// Steps, if they are wanted.
    pub(super) steps: Option<Vec<String>>,
    /// How many of them came before the first random number.
    certain: usize,
    /// Elements found for the rule under way.
    pub(super) found: Vec<String>,
}

impl<'a> Machine<'a> {
    /// A packet that has just arrived.
    pub fn new(
        table: &'a Table,
        packet: &'a Packet,
        memory: &'a Memory,
        choices: &'a mut Choices,
        record: bool,
    ) -> Self {
        Self {
            table,
            packet,
            memory: Cow::Borrowed(memory),
            choices,
            destination: packet.destination,
            translated: false,
            masqueraded: false,
            mark: 0,
            priority: 0,
            steps: record.then(Vec::new),
            certain: 0,
            found: Vec::new(),
        }
    }

    /// Takes it through the hooks.
    pub fn run(mut self) -> Result<Path, Fault> {
        let first = if self.packet.interface.is_some() { "prerouting" } else { "output" };
        let end = match self.hook(first)? {
            Stop::Drop => End::Drop,
            Stop::Reject => End::Reject,
            Stop::Accept => match self.hook("postrouting")? {
                Stop::Drop | Stop::Reject => return Err(self.fault("a packet is lost in postrouting")),
                Stop::Accept if self.translated => {
                    End::Forward { endpoint: self.destination, masqueraded: self.masqueraded }
                }
                Stop::Accept if self.masqueraded => {
                    return Err(self.fault("a packet is masqueraded that is for no endpoint"));
                }
                Stop::Accept => End::Pass,
            },
        };
        let (mark, priority, one_in) = (self.mark, self.priority, self.choices.one_in());
        Ok(Path { steps: self.steps.unwrap_or_default(), end, mark, priority, one_in, certain: self.certain })
    }

    /// A sentence about the table.
    pub(super) fn fault(&self, sentence: &str) -> Fault {
        self.table.fault(sentence)
    }

    fn hook(&mut self, name: &str) -> Result<Stop, Fault> {
        for chain in self.table.hook(name) {
            let stop = self.base(chain)?;
            if stop != Stop::Accept {
                return Ok(stop);
            }
        }
        Ok(Stop::Accept)
    }

    fn base(&mut self, chain: &'a Chain) -> Result<Stop, Fault> {
        let mut callers: Vec<(&Chain, usize)> = Vec::new();
        let (mut chain, mut next) = (chain, 0);
        loop {
            let flow = match chain.rules.get(next) {
                Some(_) => self.rule(chain, next)?,
                None => Flow::Return,
            };
            next += 1;
            match flow {
                Flow::Next | Flow::Miss => {}
                Flow::Jump(to) => {
                    callers.push((chain, next));
                    (chain, next) = (self.table.chain(&to)?, 0);
                }
                Flow::Goto(to) => (chain, next) = (self.table.chain(&to)?, 0),
                Flow::Return => match callers.pop() {
                    Some(caller) => (chain, next) = caller,
                    None => return Ok(Stop::Accept),
                },
                Flow::Stop(stop) => return Ok(stop),
            }
        }
    }

    fn rule(&mut self, chain: &'a Chain, number: usize) -> Result<Flow, Fault> {
        let rule = &chain.rules[number];
        self.found.clear();
        let mut flow = Flow::Next;
        for stmt in rule {
            flow = self.stmt(stmt)?;
            if !matches!(flow, Flow::Next) {
                break;
            }
        }
        if let Some(steps) = self.steps.as_mut().filter(|_| !matches!(flow, Flow::Miss)) {
            let words: Vec<String> = rule.iter().map(|stmt| text::stmt(self.table.family, stmt)).collect();
            steps.push(format!("{} {}: {}", chain.name, number + 1, words.join(" ")));
            steps.append(&mut self.found);
            if !self.choices.has_drawn() {
                self.certain = steps.len();
            }
        }
        Ok(flow)
    }
}
