//! A packet's way through the tables that the kernel holds.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use fairlead_kernel::nft::Nft;
use fairlead_plan::{Branch, Family, Followed, Origin, Packet, Protocol};

use super::table::Table;
use super::{End, Fault, Memory, Path, Tracer};
use crate::element::Part;
use crate::held::{self, Held, HeldError};
use crate::layout::{Keyspace, NAMES};

impl Tracer {
    /// Reads what the kernel holds in this network namespace, with the clients that it remembers. Where there is no table of
    /// ours, packets pass.
    ///
    /// # Errors
    /// If the kernel cannot be read, or if somebody has put something into our tables that fairlead never writes.
    pub fn held() -> Result<Self, HeldError> {
        let mut nft = Nft::open()?;
        let mut read = |family| -> Result<(Table, Memory), HeldError> {
            let Held { sets, chains, elements, memory } = held::read(&mut nft, family)?.unwrap_or_default();
            Ok((Table::of(family, sets, chains, &elements)?, memory))
        };
        let ((v4, remembered_v4), (v6, remembered_v6)) = (read(Family::V4)?, read(Family::V6)?);
        Ok(Self { tables: [v4, v6], memory: [remembered_v4, remembered_v6] })
    }

    /// Whether there is a table of this family.
    #[must_use]
    pub fn is_there(&self, family: Family) -> bool {
        !self.tables[family as usize].chains.is_empty()
    }

    /// The ports that frontends have at an address, without node ports.
    #[must_use]
    pub fn ports(&self, addr: IpAddr) -> BTreeSet<(Protocol, u16)> {
        let family = Family::of(addr);
        let mut ports = BTreeSet::new();
        let each = Origin::ALL.map(|origin| NAMES.from(Keyspace::Address, origin));
        for map in each.into_iter().chain([NAMES.frontends(Keyspace::Address)]) {
            let Ok(contents) = self.tables[family as usize].contents(map) else {
                continue;
            };
            for key in contents.keys() {
                let [Part::Proto(number), Part::Addr(found), Part::Port(port)] =
                    key.parts(family, contents.set.key)[..]
                else {
                    continue;
                };
                let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == number);
                ports.extend(protocol.filter(|_| found == addr).map(|protocol| (protocol, port)));
            }
        }
        ports
    }

    /// Where a packet goes, by which rules and elements, and how probably.
    ///
    /// # Errors
    /// As [`Tracer::verdict`].
    pub fn follow(&self, packet: &Packet) -> Result<Followed, Fault> {
        let verdict = self.verdict(packet)?;
        let paths = self.steps(packet)?;
        // All ways are the same up to the first random number.
        let certain = paths.iter().map(|path| path.certain).min().unwrap_or_default();
        let steps = paths.first().map(|path| path.steps[..certain].to_vec()).unwrap_or_default();
        Ok(Followed { steps, branches: paths.into_iter().map(|path| branch(path, certain)).collect(), verdict })
    }
}

fn branch(mut path: Path, certain: usize) -> Branch {
    let (endpoint, masqueraded): (Option<SocketAddr>, bool) = match path.end {
        End::Forward { endpoint, masqueraded } => (Some(endpoint), masqueraded),
        End::Reject | End::Drop | End::Pass => (None, false),
    };
    #[expect(clippy::cast_precision_loss, reason = "a share is for people; pools are far smaller than a mantissa")]
    let share = 1.0 / path.one_in as f64;
    Branch { endpoint, share, masqueraded, steps: path.steps.split_off(certain) }
}
