//! Asks many machines for an echo at once.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use fairlead_kernel::ask::{Answer, Echo, Question};
use fairlead_plan::Family;

use crate::resolve::PerFamily;

/// So many are asked at once: their answers fit into the socket's queue.
const AT_ONCE: usize = 128;

/// One machine to ask.
#[derive(Debug, Clone, Copy)]
pub struct Ask {
    /// Whom.
    pub to: IpAddr,
    /// The whole packet, bytes.
    pub size: u32,
    /// How many machines may see it: 1 for the next one alone.
    pub hops: u8,
    /// Whether the word of the next router counts, whoever was asked: that the packet has come too far, or an answer in its own
    /// name, as for the anycast address of a prefix of which it is a router (RFC 4291 2.6.1).
    pub router_counts: bool,
}

/// Asks.
#[derive(Debug)]
pub struct Rounds {
    echo: PerFamily<Option<Echo>>,
    number: u16,
}

impl Rounds {
    /// Nobody has been asked yet.
    pub fn new() -> Self {
        Self { echo: PerFamily::default(), number: 0 }
    }

    /// The socket of a family, opened when it is first needed.
    fn echo(&mut self, family: Family) -> io::Result<&Echo> {
        let slot: &mut Option<Echo> = &mut self.echo[family];
        if slot.is_none() {
            // The answers to two processes that ask at the same time differ.
            let identifier = (std::process::id() & 0xffff) as u16;
            *slot = Some(Echo::open(family == Family::V6, identifier)?);
        }
        Ok(slot.as_ref().expect("it was opened just now"))
    }

    /// Asks each up to `tries` times, and waits for each answer at most so long. Gives back how long the answer took, in the order
    /// of the questions.
    ///
    /// # Errors
    /// If the process may not open raw sockets, or one fails. That a single question cannot be sent is no answer.
    pub fn ask(&mut self, asks: &[Ask], tries: u32, patience: Duration) -> io::Result<Vec<Option<Duration>>> {
        let mut answers = vec![None; asks.len()];
        for family in Family::BOTH {
            let of_family: Vec<usize> = (0..asks.len()).filter(|at| Family::of(asks[*at].to) == family).collect();
            for chunk in of_family.chunks(AT_ONCE) {
                for _ in 0..tries {
                    let silent: Vec<usize> = chunk.iter().copied().filter(|at| answers[*at].is_none()).collect();
                    if silent.is_empty() {
                        break;
                    }
                    self.once(family, asks, &silent, patience, &mut answers)?;
                }
            }
        }
        Ok(answers)
    }

    fn once(
        &mut self,
        family: Family,
        asks: &[Ask],
        silent: &[usize],
        patience: Duration,
        answers: &mut [Option<Duration>],
    ) -> io::Result<()> {
        let mut waiting: BTreeMap<u16, (usize, Instant)> = BTreeMap::new();
        let mut number = self.number;
        let echo = self.echo(family)?;
        for at in silent {
            number = number.wrapping_add(1);
            let Ask { to, size, hops, .. } = asks[*at];
            if echo.ask(&Question { to, number, size, hops }).is_ok() {
                waiting.insert(number, (*at, Instant::now()));
            }
        }
        let until = Instant::now() + patience;
        while !waiting.is_empty() {
            let Some(heard) = echo.next(until)? else { break };
            let Some((at, sent)) = waiting.get(&heard.number).copied() else { continue };
            let counts = match heard.answer {
                Answer::Reply => heard.from == asks[at].to || asks[at].router_counts,
                Answer::TooFar => asks[at].router_counts,
                Answer::Unreachable | Answer::TooBig => false,
            };
            if counts {
                answers[at] = Some(sent.elapsed());
                waiting.remove(&heard.number);
            }
        }
        self.number = number;
        Ok(())
    }
}
