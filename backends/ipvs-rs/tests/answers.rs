//! What comes back: refusals by message, dumps, kernels without IPVS, and answers that nobody should send.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::VecDeque;
use std::io;

use ipvs_rs::{Client, Error, Family, Message, Refusal, ServiceId, Transport};

/// Plays prepared answers; the sequence numbers of a datagram's messages are filled in by their place.
struct Script {
    answers: VecDeque<Vec<(Kind, u32)>>,
    sequence: u32,
}

#[derive(Clone)]
enum Kind {
    Error(i32),
    Done,
    Inner(Vec<u8>),
}

impl Transport for Script {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.sequence = u32::from_ne_bytes(datagram[8..12].try_into().unwrap());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let Some(answers) = self.answers.pop_front() else {
            return Err(io::Error::from(io::ErrorKind::WouldBlock));
        };
        buffer.clear();
        for (kind, place) in answers {
            let (number, payload) = match kind {
                Kind::Error(code) => (2u16, [&code.to_ne_bytes()[..], &[0; 16]].concat()),
                Kind::Done => (3, vec![0; 4]),
                Kind::Inner(payload) => (0x21, payload),
            };
            buffer.extend((16 + payload.len() as u32).to_ne_bytes());
            buffer.extend(number.to_ne_bytes());
            buffer.extend([0, 0]);
            buffer.extend((self.sequence + place).to_ne_bytes());
            buffer.extend([0; 4]);
            buffer.extend(payload);
        }
        Ok(())
    }
}

/// The answer to the question for the family.
fn family() -> Vec<(Kind, u32)> {
    let mut payload = vec![1, 2, 0, 0];
    payload.extend(attribute(1, &0x21u16.to_ne_bytes()));
    vec![(Kind::Inner(payload), 0), (Kind::Error(0), 0)]
}

fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::from((payload.len() as u16 + 4).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn open(answers: impl IntoIterator<Item = Vec<(Kind, u32)>>) -> Result<Client<Script>, Error> {
    Client::open(Script { answers: answers.into_iter().collect(), sequence: 0 })
}

/// A service by mark, with attributes that this library does not know, at both levels.
fn service(mark: u32) -> Vec<u8> {
    let mut inner = attribute(1, &2u16.to_ne_bytes());
    inner.extend(attribute(5, &mark.to_ne_bytes()));
    inner.extend(attribute(6, b"mine\0"));
    inner.extend(attribute(7, &[3, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
    inner.extend(attribute(8, &60u32.to_ne_bytes()));
    inner.extend(attribute(9, &[255, 255, 255, 0]));
    inner.extend(attribute(77, &[1, 2, 3]));
    inner.extend(attribute(10, &attribute(1, &9u32.to_ne_bytes())));
    inner.extend(attribute(12, &[attribute(1, &(1u64 << 40).to_ne_bytes()), attribute(99, &[1])].concat()));
    [vec![1, 1, 0, 0], attribute(1, &inner), attribute(55, &[7])].concat()
}

#[test]
fn a_kernel_without_ipvs_is_told_from_other_failures() {
    assert!(matches!(open([vec![(Kind::Error(-2), 0)]]), Err(Error::NoIpvs)));
    assert!(matches!(open([vec![(Kind::Error(-1), 0)]]), Err(Error::Refused { errno: 1, .. })));
    assert!(matches!(open([]), Err(Error::Socket(_))));
}

#[test]
fn refusals_name_the_message_and_what_is_left_of_older_exchanges_is_passed_by() {
    let stale = (Kind::Error(-22), u32::MAX - 5);
    let answers = vec![stale, (Kind::Error(-17), 0), (Kind::Error(-2), 2)];
    let mut client = open([family(), answers, vec![(Kind::Error(0), 3)]]).unwrap();
    let id = ServiceId::Fwmark { family: Family::V4, mark: 7 };
    let batch = vec![Message::del_service(&id); 4];
    let refused = client.apply(&batch).unwrap();
    assert_eq!(refused, [Refusal { index: 0, errno: 17 }, Refusal { index: 2, errno: 2 }]);
}

#[test]
fn a_batch_whose_last_message_is_refused_ends_too() {
    let mut client = open([family(), vec![(Kind::Error(-17), 0)]]).unwrap();
    let id = ServiceId::Fwmark { family: Family::V4, mark: 7 };
    assert_eq!(client.apply(&[Message::del_service(&id)]).unwrap(), [Refusal { index: 0, errno: 17 }]);
    assert_eq!(client.apply::<Message>([]).unwrap(), []);
}

#[test]
fn a_dump_reads_services_by_mark_unknown_schedulers_and_unknown_attributes() {
    let parts = [vec![(Kind::Inner(service(7)), 0), (Kind::Inner(service(8)), 0)], vec![(Kind::Done, 0)]];
    let mut client = open([family()].into_iter().chain(parts)).unwrap();
    let services = client.services().unwrap();
    let marks: Vec<_> = services.iter().map(|service| service.id).collect();
    assert_eq!(marks, [7, 8].map(|mark| ServiceId::Fwmark { family: Family::V4, mark }));
    let first = &services[0];
    assert_eq!((first.scheduler.name(), first.flags.0, first.timeout, first.prefix), ("mine", 1, 60, 24));
    assert_eq!(first.statistics.connections, 1 << 40, "of two widths the one that does not wrap");
}

#[test]
fn answers_that_are_cut_short_or_senseless_are_errors_and_never_panics() {
    let whole = service(7);
    for length in 0..whole.len() {
        let mut client = open([family(), vec![(Kind::Inner(whole[..length].to_vec()), 0)]]).unwrap();
        assert!(client.services().is_err(), "{length} bytes of {}", whole.len());
    }
    for place in 4..whole.len() {
        let mut bytes = whole.clone();
        bytes[place] ^= 0xff;
        let mut client = open([family(), vec![(Kind::Inner(bytes), 0), (Kind::Done, 0)]]).unwrap();
        // Whatever it makes of it, it goes on.
        let _ = client.services();
    }
}

#[test]
fn a_name_that_does_not_fit_is_never_sent() {
    let mut service = ipvs_rs::Service::new(ServiceId::Fwmark { family: Family::V4, mark: 7 });
    service.engine = Some("x".repeat(70_000));
    let mut client = open([family()]).unwrap();
    assert!(matches!(client.apply(&[Message::new_service(&service)]), Err(Error::TooLong(0))));
}
