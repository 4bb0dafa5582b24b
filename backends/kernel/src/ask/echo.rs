use std::io;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use super::{raw_socket, set};

/// Types of RFC 792 and RFC 4443.
const V4: Types = Types { request: 8, reply: 0, unreachable: 3, too_far: 11, too_big: None };
const V6: Types = Types { request: 128, reply: 129, unreachable: 1, too_far: 3, too_big: Some(2) };
/// `struct icmphdr`: type, code, checksum, identifier, sequence number.
const HEADER: usize = 8;
/// Without options.
const IPV4_HEADER: usize = 20;
const IPV6_HEADER: usize = 40;
/// `IP_PMTUDISC_PROBE` and `IPV6_PMTUDISC_PROBE`: never cut in pieces, whatever was learnt about the path.
const PROBE: libc::c_int = 3;
/// The largest packet that is looked at.
const LARGEST: usize = 1 << 16;

struct Types {
    request: u8,
    reply: u8,
    unreachable: u8,
    too_far: u8,
    too_big: Option<u8>,
}

/// One question.
#[derive(Debug, Clone, Copy)]
pub struct Question {
    /// To whom.
    pub to: IpAddr,
    /// A number that the answer bears.
    pub number: u16,
    /// The whole IP packet, bytes.
    pub size: u32,
    /// So many routers may pass it on, less one.
    pub hops: u8,
}

/// What came back to one question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heard {
    /// Who says so.
    pub from: IpAddr,
    /// The number of the question.
    pub number: u16,
    /// What is said.
    pub answer: Answer,
}

/// What a machine says to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// Here I am.
    Reply,
    /// A router: it has come too far.
    TooFar,
    /// It cannot be delivered.
    Unreachable,
    /// It does not fit.
    TooBig,
}

/// Asks other machines for an echo (ICMP, ICMPv6), with packets that nobody on the way may cut in pieces. Needs `CAP_NET_RAW`.
#[derive(Debug)]
pub struct Echo {
    socket: UdpSocket,
    v6: bool,
    identifier: u16,
}

impl Echo {
    /// Of one family. Answers to others' questions are told from ours by the identifier.
    ///
    /// # Errors
    /// If the process may not.
    pub fn open(v6: bool, identifier: u16) -> io::Result<Self> {
        let (domain, protocol) =
            if v6 { (libc::AF_INET6, libc::IPPROTO_ICMPV6) } else { (libc::AF_INET, libc::IPPROTO_ICMP) };
        let socket = raw_socket(domain, libc::SOCK_RAW, protocol)?;
        let (level, option) =
            if v6 { (libc::IPPROTO_IPV6, libc::IPV6_MTU_DISCOVER) } else { (libc::IPPROTO_IP, libc::IP_MTU_DISCOVER) };
        set(&socket, level, option, PROBE)?;
        Ok(Self { socket, v6, identifier })
    }

    /// Asks.
    ///
    /// # Errors
    /// What the system says: no route, or larger than the interface takes.
    pub fn ask(&self, question: &Question) -> io::Result<()> {
        let (level, option) =
            if self.v6 { (libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS) } else { (libc::IPPROTO_IP, libc::IP_TTL) };
        set(&self.socket, level, option, question.hops.into())?;
        let packet = request(self.v6, self.identifier, question);
        self.socket.send_to(&packet, SocketAddr::new(question.to, 0)).map(drop)
    }

    /// The next answer to one of our questions; `None` if none comes until then.
    ///
    /// # Errors
    /// What the system says.
    pub fn next(&self, until: Instant) -> io::Result<Option<Heard>> {
        let mut buffer = vec![0; LARGEST];
        loop {
            let left = until.saturating_duration_since(Instant::now());
            // A limit of zero would mean none.
            self.socket.set_read_timeout(Some(left.max(Duration::from_micros(1))))?;
            match self.socket.recv_from(&mut buffer) {
                Ok((read, from)) => {
                    if let Some(heard) = heard(self.v6, self.identifier, from.ip(), &buffer[..read]) {
                        return Ok(Some(heard));
                    }
                }
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    if left.is_zero() {
                        return Ok(None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn request(v6: bool, identifier: u16, question: &Question) -> Vec<u8> {
    let around = if v6 { IPV6_HEADER } else { IPV4_HEADER };
    let size = usize::try_from(question.size).unwrap_or(LARGEST).min(LARGEST);
    let mut packet = vec![0; size.saturating_sub(around).max(HEADER)];
    packet[0] = if v6 { V6.request } else { V4.request };
    packet[4..6].copy_from_slice(&identifier.to_be_bytes());
    packet[6..8].copy_from_slice(&question.number.to_be_bytes());
    if !v6 {
        // Of ICMPv6 the kernel makes it, with the addresses.
        let sum = checksum(&[&packet]);
        packet[2..4].copy_from_slice(&sum);
    }
    packet
}

/// What a packet from the socket says; IPv4 has its header before it. `None` if it is not about us.
fn heard(v6: bool, identifier: u16, from: IpAddr, packet: &[u8]) -> Option<Heard> {
    let types = if v6 { V6 } else { V4 };
    let message = if v6 { packet } else { inside_ipv4(packet)? };
    let (kind, rest) = (*message.first()?, message.get(HEADER..)?);
    let (question, answer) = if kind == types.reply {
        (message, Answer::Reply)
    } else {
        let answer = match kind {
            _ if kind == types.too_far => Answer::TooFar,
            // Of IPv4 a code of its own (RFC 1191).
            _ if types.too_big == Some(kind) || (!v6 && kind == types.unreachable && message[1] == 4) => Answer::TooBig,
            _ if kind == types.unreachable => Answer::Unreachable,
            _ => return None,
        };
        let quoted = if v6 { rest.get(IPV6_HEADER..)? } else { inside_ipv4(rest)? };
        (Some(quoted).filter(|quoted| quoted.first() == Some(&types.request))?, answer)
    };
    let number = |at: usize| question.get(at..)?.first_chunk().map(|bytes| u16::from_be_bytes(*bytes));
    (number(4)? == identifier).then_some(Heard { from, number: number(6)?, answer })
}

fn inside_ipv4(packet: &[u8]) -> Option<&[u8]> {
    packet.get(usize::from(packet.first()? & 0xf) * 4..)
}

/// The Internet checksum (RFC 1071) over these parts, of which all but the last have an even number of bytes.
#[must_use]
pub fn checksum(parts: &[&[u8]]) -> [u8; 2] {
    (!sum(parts)).to_be_bytes()
}

/// The sum of which [`checksum`] is the complement: 0xffff where the checksum inside is right.
#[must_use]
pub fn sum(parts: &[&[u8]]) -> u16 {
    let words = parts.iter().flat_map(|part| part.chunks(2));
    let total: u64 = words.map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |byte| u64::from(*byte))).sum();
    let mut sum = total;
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    u16::try_from(sum).unwrap_or(u16::MAX)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    const OURS: u16 = 77;

    fn question(to: IpAddr, size: u32) -> Question {
        Question { to, number: 5, size, hops: 1 }
    }

    /// An error of type `kind` about a request, as a router quotes it.
    fn error(v6: bool, kind: u8, code: u8, request: &[u8]) -> Vec<u8> {
        let header = |len: usize| if v6 { vec![0x60; len] } else { vec![0x45; len] };
        let len = if v6 { IPV6_HEADER } else { IPV4_HEADER };
        let outer = if v6 { Vec::new() } else { header(len) };
        [outer, vec![kind, code, 0, 0, 0, 0, 0, 0], header(len), request[..HEADER].to_vec()].concat()
    }

    #[test]
    fn a_packet_is_as_large_as_asked_and_its_checksum_is_right() {
        let to = Ipv4Addr::LOCALHOST.into();
        for size in [28, 64, 1449, 1450] {
            let packet = request(false, OURS, &question(to, size));
            assert_eq!(packet.len() + IPV4_HEADER, size as usize);
            assert_eq!(sum(&[&packet]), 0xffff);
        }
        assert_eq!(request(true, OURS, &question(Ipv6Addr::LOCALHOST.into(), 1430)).len() + IPV6_HEADER, 1430);
        assert_eq!(request(false, OURS, &question(to, 0)).len(), HEADER, "never less than its header");
    }

    #[test]
    fn errors_are_told_by_the_question_that_they_quote() {
        for (v6, from) in [(false, IpAddr::from(Ipv4Addr::LOCALHOST)), (true, Ipv6Addr::LOCALHOST.into())] {
            let request = request(v6, OURS, &question(from, 64));
            let types = if v6 { V6 } else { V4 };
            let too_big = types.too_big.unwrap_or(types.unreachable);
            for (kind, code, answer) in [
                (types.too_far, 0, Answer::TooFar),
                (types.unreachable, 1, Answer::Unreachable),
                (too_big, if v6 { 0 } else { 4 }, Answer::TooBig),
            ] {
                let said = heard(v6, OURS, from, &error(v6, kind, code, &request));
                assert_eq!(said, Some(Heard { from, number: 5, answer }));
                assert_eq!(heard(v6, OURS + 1, from, &error(v6, kind, code, &request)), None, "another's");
            }
            assert_eq!(heard(v6, OURS, from, &[]), None);
            assert_eq!(heard(v6, OURS, from, &error(v6, types.too_far, 0, &[0; HEADER])), None, "not about an echo");
        }
    }

    #[test]
    fn loopback_answers() {
        for (v6, to) in [(false, IpAddr::from(Ipv4Addr::LOCALHOST)), (true, Ipv6Addr::LOCALHOST.into())] {
            let Ok(echo) = Echo::open(v6, OURS) else {
                eprintln!("skipped: this test needs CAP_NET_RAW");
                return;
            };
            echo.ask(&question(to, 1400)).unwrap();
            let until = Instant::now() + Duration::from_secs(5);
            assert_eq!(echo.next(until).unwrap(), Some(Heard { from: to, number: 5, answer: Answer::Reply }));
        }
    }
}
