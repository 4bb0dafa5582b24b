//! The packet mark: what an entry of a set says about a frontend, and what a packet carries from there to IPVS.
//!
//! ```text
//!  bit    30 29   28 27        26 .. 18               17 16      15 .. 0
//!         tag     destination  pod | node | outside   kind       number
//! ```
//!
//! The 31 bits lie around the bit that says "masquerade" (`masqueradeBit`). An entry says for each origin what to do: three
//! bits, "masquerade" and which server. The rules turn the row of the packet's origin into the masquerade bit and the
//! destination bits and clear the rows, so that what is left names one server by mark, or none: then the server is the one
//! by address.

use fairlead_plan::{Origin, Protocol};

const TAG_AT: u32 = 29;
const DESTINATION_AT: u32 = 27;
const ROWS_AT: u32 = 18;
const ROW_BITS: u32 = 3;
const KIND_AT: u32 = 16;
const TWO_BITS: u32 = 0b11;
/// Of a row: masquerade.
const MASQUERADE: u32 = 0b100;

/// To which of a frontend's servers a row or a packet leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Destination {
    /// The first server: of an address the one by address.
    First = 0,
    /// The second server, by mark.
    Second = 1,
    /// The third server, by mark.
    Third = 2,
    /// None: the packet is dropped, or refused where the row says "masquerade".
    None = 3,
}

impl Destination {
    /// Those that are servers.
    pub const SERVERS: [Self; 3] = [Self::First, Self::Second, Self::Third];
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Tag {
    /// Refused: a port of a `ClusterIP` that no service has, or one without endpoints.
    Refuse = 1,
    /// Its address is a virtual one, and nothing else is known.
    OtherVip = 2,
    /// It goes to IPVS.
    Frontend = 3,
}

/// What to do with packets of one origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Row {
    /// Where to.
    pub to: Destination,
    /// Whether the endpoint shall see an address of this node.
    pub masquerade: bool,
}

impl Row {
    /// Dropped.
    pub const DROP: Self = Self { to: Destination::None, masquerade: false };
    /// Refused.
    pub const REFUSE: Self = Self { to: Destination::None, masquerade: true };

    const fn bits(self) -> u32 {
        self.to as u32 | if self.masquerade { MASQUERADE } else { 0 }
    }
}

/// Which frontend a mark is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Number {
    /// A node port.
    NodePort(Protocol, u16),
    /// An address that has several servers, by the number that was given to it; 0 for one that has not.
    Given(u16),
}

impl Number {
    const fn bits(self) -> u32 {
        let (kind, number) = match self {
            Self::NodePort(Protocol::Tcp, port) => (0, port),
            Self::NodePort(Protocol::Udp, port) => (1, port),
            Self::NodePort(Protocol::Sctp, port) => (2, port),
            Self::Given(number) => (3, number),
        };
        (kind << KIND_AT) | number as u32
    }
}

/// The marks of a node: all bits but the one that says "masquerade".
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// The bit that says "masquerade".
    pub masquerade: u32,
}

impl Marks {
    /// Around this bit.
    pub const fn new(masquerade: u32) -> Self {
        Self { masquerade }
    }

    /// Puts 31 bits around the masquerade bit.
    pub const fn spread(self, word: u32) -> u32 {
        let below = self.masquerade.wrapping_sub(1);
        (word & below) | ((word & !below) << 1)
    }

    /// The reverse.
    const fn gather(self, mark: u32) -> u32 {
        let below = self.masquerade.wrapping_sub(1);
        (mark & below) | ((mark & !below & !self.masquerade) >> 1)
    }

    /// A tag, and the bits that are compared.
    pub const fn tag(self, tag: Tag) -> (u32, u32) {
        (self.spread((tag as u32) << TAG_AT), self.tag_mask())
    }

    /// The bits of the tag.
    pub const fn tag_mask(self) -> u32 {
        self.spread(TWO_BITS << TAG_AT)
    }

    /// The destination bits.
    pub const fn destination(self, to: Destination) -> (u32, u32) {
        (self.spread((to as u32) << DESTINATION_AT), self.spread(TWO_BITS << DESTINATION_AT))
    }

    /// The row of an origin that leads there.
    pub const fn row_to(self, origin: Origin, to: Destination) -> (u32, u32) {
        (self.spread((to as u32) << Self::row_at(origin)), self.spread(TWO_BITS << Self::row_at(origin)))
    }

    /// The row of an origin that says exactly this.
    pub const fn row(self, origin: Origin, row: Row) -> (u32, u32) {
        (self.spread(row.bits() << Self::row_at(origin)), self.spread(((1 << ROW_BITS) - 1) << Self::row_at(origin)))
    }

    /// The row of an origin that says "masquerade".
    pub const fn row_masquerade(self, origin: Origin) -> u32 {
        self.spread(MASQUERADE << Self::row_at(origin))
    }

    /// All rows.
    pub const fn rows(self) -> u32 {
        self.spread(((1 << (3 * ROW_BITS)) - 1) << ROWS_AT)
    }

    const fn row_at(origin: Origin) -> u32 {
        ROWS_AT
            + ROW_BITS
                * match origin {
                    Origin::Outside => 0,
                    Origin::Node => 1,
                    Origin::Pod => 2,
                }
    }

    /// What the entry of a frontend says that is gone but for its open connections, and the bits that tell it.
    pub const fn leaving(self) -> (u32, u32) {
        let bit = self.row_masquerade(Origin::Pod);
        (self.tag(Tag::OtherVip).0 | bit, self.tag_mask() | bit)
    }

    /// What the entry of a frontend says.
    pub fn entry(self, number: Number, row: impl Fn(Origin) -> Row) -> u32 {
        let rows: u32 = Origin::ALL.into_iter().map(|origin| row(origin).bits() << Self::row_at(origin)).sum();
        self.spread(((Tag::Frontend as u32) << TAG_AT) | rows | number.bits())
    }

    /// The mark by which IPVS knows a server.
    pub const fn server(self, number: Number, row: Row) -> u32 {
        let word = ((Tag::Frontend as u32) << TAG_AT) | ((row.to as u32) << DESTINATION_AT) | number.bits();
        self.spread(word) | if row.masquerade { self.masquerade } else { 0 }
    }

    /// Whether this could be the mark of a server of ours.
    pub const fn is_ours(self, mark: u32) -> bool {
        mark & self.tag_mask() == self.spread((Tag::Frontend as u32) << TAG_AT)
    }

    /// The bits that say which frontend a mark is of.
    pub const fn number(self, mark: u32) -> u32 {
        self.gather(mark) & ((1 << ROWS_AT) - 1)
    }

    /// The protocol of the node port that a mark is of, if it is of one.
    pub const fn node_port_protocol(self, mark: u32) -> Option<Protocol> {
        match self.number(mark) >> KIND_AT {
            0 => Some(Protocol::Tcp),
            1 => Some(Protocol::Udp),
            2 => Some(Protocol::Sctp),
            _ => None,
        }
    }

    /// The number that was given to the frontend of an entry, if it has one.
    pub const fn given(self, entry: u32) -> Option<u16> {
        let word = self.gather(entry);
        let given = (word >> KIND_AT) & TWO_BITS == 3;
        match (word & 0xffff) as u16 {
            number @ 1.. if given => Some(number),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_leave_the_masquerade_bit_alone_wherever_it_is() {
        for bit in 0..32 {
            let marks = Marks::new(1 << bit);
            for word in [0, 1, 0x7fff_ffff, 0x5555_5555, 0x2aaa_aaaa, 3 << 29] {
                let mark = marks.spread(word);
                assert_eq!(mark & marks.masquerade, 0, "bit {bit}, word {word:#x}");
                assert_eq!(marks.gather(mark), word, "bit {bit}");
            }
        }
    }

    #[test]
    fn the_fields_do_not_overlap_and_fill_the_mark() {
        let marks = Marks::new(1 << 14);
        let fields = [marks.tag_mask(), marks.destination(Destination::None).1, marks.rows(), marks.spread(0x3_ffff)];
        assert_eq!(fields.iter().fold(marks.masquerade, |all, field| all ^ field), u32::MAX);
    }

    #[test]
    fn a_mark_tells_the_protocols_of_one_node_port_from_each_other_and_from_given_numbers() {
        let marks = Marks::new(1 << 14);
        let row = Row { to: Destination::First, masquerade: true };
        let numbers = Protocol::ALL.map(|protocol| Number::NodePort(protocol, 30_000));
        let servers: std::collections::BTreeSet<u32> =
            numbers.into_iter().chain([Number::Given(30_000)]).map(|number| marks.server(number, row)).collect();
        assert_eq!(servers.len(), 4);
        for (number, protocol) in numbers.into_iter().zip(Protocol::ALL) {
            assert_eq!(marks.node_port_protocol(marks.server(number, row)), Some(protocol));
            assert_eq!(marks.number(marks.entry(number, |_| row)), marks.number(marks.server(number, row)));
        }
    }

    #[test]
    fn given_numbers_are_read_back_and_node_ports_have_none() {
        let marks = Marks::new(1 << 14);
        let entry = |number| marks.entry(number, |_| Row::DROP);
        assert_eq!(marks.given(entry(Number::Given(65_535))), Some(65_535));
        assert_eq!(marks.given(entry(Number::Given(0))), None);
        assert_eq!(marks.given(entry(Number::NodePort(Protocol::Sctp, 30_080))), None);
    }
}
