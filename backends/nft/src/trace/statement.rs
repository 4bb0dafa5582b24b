//! What each statement does to a packet under way.

use std::net::SocketAddr;

use fairlead_plan::{Family, Protocol};

use super::Fault;
use super::machine::{Flow, Machine, Stop};
use crate::element::{Bytes, Part};
use crate::layout::ENDPOINT;
use crate::rules::{Datum, Field, Kind, Name, Stmt, Value};
use crate::text;

impl<'a> Machine<'a> {
    /// One statement.
    pub(super) fn stmt(&mut self, stmt: &'a Stmt) -> Result<Flow, Fault> {
        let goes_on = |condition| if condition { Flow::Next } else { Flow::Miss };
        Ok(match stmt {
            Stmt::InSet { key, set, negated } => goes_on(self.find(key, set)?.is_some() != *negated),
            Stmt::SourceBlockIn { set } => {
                let block = Bytes::EMPTY.block(self.packet.source);
                goes_on(self.found(block, set)?.is_some())
            }
            Stmt::PriorityIs { mask, value } => goes_on(self.priority & mask == *value),
            Stmt::MarkHas(bits) => goes_on(self.mark & bits == *bits),
            // Conntrack understands the first packet of every connection.
            Stmt::CtInvalid => Flow::Miss,
            Stmt::CtDnat => goes_on(self.translated),
            Stmt::L4Is(protocol) => goes_on(self.packet.protocol == *protocol),
            Stmt::DaddrIn(net) => goes_on(net.contains(&self.destination.ip())),
            Stmt::Iif { name, prefix } => {
                let iif = self.packet.interface.as_deref().unwrap_or_default();
                goes_on(if *prefix { iif.starts_with(name.as_str()) } else { iif == name })
            }
            Stmt::IsLocal(field) => goes_on(self.is_local(*field)?),
            Stmt::Jump(chain) => Flow::Jump(Name::clone(chain)),
            Stmt::Goto(chain) => Flow::Goto(Name::clone(chain)),
            Stmt::Return => Flow::Return,
            Stmt::Drop => Flow::Stop(Stop::Drop),
            Stmt::RejectPort => Flow::Stop(Stop::Reject),
            // The kernel resets nothing but TCP and drops the rest.
            Stmt::RejectReset if self.packet.protocol == Protocol::Tcp => Flow::Stop(Stop::Reject),
            Stmt::RejectReset => Flow::Stop(Stop::Drop),
            Stmt::SetPriority { .. }
            | Stmt::ClearPriority
            | Stmt::MarkSet(_)
            | Stmt::MarkFlip(_)
            | Stmt::Remember { .. }
            | Stmt::Forget { .. }
            | Stmt::Dnat { .. }
            | Stmt::Masquerade
            | Stmt::Dispatch { .. } => self.action(stmt)?,
        })
    }

    /// Statements that change the packet or look up what becomes of it.
    fn action(&mut self, stmt: &'a Stmt) -> Result<Flow, Fault> {
        match stmt {
            Stmt::SetPriority { key, map } => {
                let Some(datum) = self.find(key, map)? else { return Ok(Flow::Miss) };
                self.priority = self.number(map, datum)?;
            }
            Stmt::ClearPriority => self.priority = 0,
            Stmt::MarkSet(bits) => self.mark |= bits,
            Stmt::MarkFlip(bits) => self.mark ^= bits,
            Stmt::Remember { map, .. } => {
                let client = (Name::clone(map), Bytes::EMPTY.addr(self.packet.source));
                let number = self.priority;
                // A client that is known keeps its endpoint; only its time begins anew.
                self.memory.to_mut().entry(client).or_insert(number);
            }
            Stmt::Forget { map } => {
                self.memory.to_mut().remove(&(Name::clone(map), Bytes::EMPTY.addr(self.packet.source)));
            }
            Stmt::Dnat { key, map } => {
                let Some(datum) = self.find(key, map)? else { return Ok(Flow::Miss) };
                self.destination = self.endpoint(map, &datum)?;
                self.translated = true;
                return Ok(Flow::Stop(Stop::Accept));
            }
            Stmt::Masquerade => {
                self.masqueraded = true;
                return Ok(Flow::Stop(Stop::Accept));
            }
            Stmt::Dispatch { mask, map } => return self.dispatch(*mask, map),
            _ => return Err(self.fault("a statement is taken for an action")),
        }
        Ok(Flow::Next)
    }

    fn dispatch(&mut self, mask: u32, map: &Name) -> Result<Flow, Fault> {
        let key = Bytes::EMPTY.number(self.priority & mask);
        match self.found(key, map)? {
            None => Ok(Flow::Miss),
            Some(Datum::Goto(chain)) => Ok(Flow::Goto(chain)),
            Some(Datum::Drop) => Ok(Flow::Stop(Stop::Drop)),
            Some(Datum::None | Datum::Bytes(_)) => Err(self.fault(&format!("{map} leads to no verdict"))),
        }
    }

    fn is_local(&self, field: Field) -> Result<bool, Fault> {
        match field {
            Field::Saddr => Ok(self.packet.source_is_local),
            Field::Daddr if !self.translated => Ok(self.packet.destination_is_local),
            field => Err(self.fault(&format!("nobody knows whether {field:?} is local"))),
        }
    }

    fn key(&mut self, fields: &[Field]) -> Result<Bytes, Fault> {
        fields.iter().try_fold(Bytes::EMPTY, |key, field| {
            Ok(match field {
                Field::L4Proto => key.proto(self.packet.protocol.number()),
                Field::Saddr => key.addr(self.packet.source),
                Field::Daddr => key.addr(self.destination.ip()),
                Field::Dport => key.port(self.destination.port()),
                Field::Priority => key.number(self.priority),
                Field::Random { modulus, offset } => key.number(offset + self.choices.draw(*modulus)),
                Field::Sport => return Err(self.fault("a rule asks for the source port, which nobody told")),
            })
        })
    }

    fn find(&mut self, fields: &[Field], set: &Name) -> Result<Option<Datum>, Fault> {
        let key = self.key(fields)?;
        self.found(key, set)
    }

    fn found(&mut self, key: Bytes, set: &Name) -> Result<Option<Datum>, Fault> {
        let contents = self.table.contents(set)?;
        let datum = if contents.set.dynamic {
            let number = self.memory.get(&(Name::clone(set), key));
            number.map(|number| Datum::Bytes(Bytes::EMPTY.number(*number)))
        } else {
            contents.find(&key).cloned()
        };
        if self.steps.is_some()
            && let Some(datum) = &datum
        {
            let family = self.table.family;
            let key = text::value(family, &key, contents.set.key);
            self.found.push(format!("  {set}: {key}{}", described(family, datum, &contents.set.value)));
        }
        Ok(datum)
    }

    fn number(&self, map: &Name, datum: Datum) -> Result<u32, Fault> {
        let Datum::Bytes(bytes) = datum else { return Err(self.fault(&format!("{map} leads to no number"))) };
        number(&bytes).ok_or_else(|| self.fault(&format!("{map} leads to {bytes:?}, which is no number")))
    }

    fn endpoint(&self, map: &Name, datum: &Datum) -> Result<SocketAddr, Fault> {
        let Datum::Bytes(bytes) = datum else { return Err(self.fault(&format!("{map} leads to no endpoint"))) };
        match bytes.parts(self.table.family, ENDPOINT)[..] {
            [Part::Addr(addr), Part::Port(port)] => Ok(SocketAddr::new(addr, port)),
            _ => Err(self.fault(&format!("{map} leads to {bytes:?}, which is no endpoint"))),
        }
    }
}

/// The number that a datum is.
pub fn number(bytes: &Bytes) -> Option<u32> {
    match bytes.parts(Family::V4, &[Kind::Number])[..] {
        [Part::Number(number)] if bytes.as_slice().len() == 4 => Some(number),
        _ => None,
    }
}

fn described(family: Family, datum: &Datum, value: &Value) -> String {
    match (datum, value) {
        (Datum::Bytes(bytes), Value::Data(kinds)) => format!(" : {}", text::value(family, bytes, kinds)),
        (Datum::Goto(chain), _) => format!(" : goto {chain}"),
        (Datum::Drop, _) => " : drop".to_owned(),
        (Datum::None | Datum::Bytes(_), _) => String::new(),
    }
}
