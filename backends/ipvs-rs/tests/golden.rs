//! The bytes that leave, compared with what `ipvsadm` sends for the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![cfg(target_endian = "little")]

use std::io;

use ipvs_rs::{
    Client, Destination, Family, Flags, Forward, Message, Protocol, Scheduler, Service, ServiceId, Transport,
};
use ipvs_rs::{Timeouts, Tunnel};

const FAMILY: u16 = 0x21;

/// Answers the question for the family, acknowledges the rest, and keeps what was sent.
#[derive(Default)]
struct Recorder {
    sent: Vec<Vec<u8>>,
}

impl Transport for Recorder {
    fn send(&mut self, datagram: &[u8]) -> io::Result<()> {
        self.sent.push(datagram.to_vec());
        Ok(())
    }

    fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<()> {
        let last = self.sent.last().unwrap();
        buffer.clear();
        if self.sent.len() == 1 {
            let mut family = vec![28, 0, 0, 0, 16, 0, 0, 0];
            family.extend(&last[8..12]);
            family.extend([0, 0, 0, 0, 1, 2, 0, 0, 6, 0, 1, 0, FAMILY as u8, 0, 0, 0]);
            let length = family.len() as u8;
            family[0] = length;
            buffer.extend(family);
        }
        buffer.extend(acknowledgement(last));
        Ok(())
    }
}

/// For the last message of a datagram.
fn acknowledgement(datagram: &[u8]) -> Vec<u8> {
    let mut at = 0;
    let mut last = 0;
    while at < datagram.len() {
        last = at;
        at += (u32::from_le_bytes(datagram[at..at + 4].try_into().unwrap()) as usize).next_multiple_of(4);
    }
    let header = &datagram[last..last + 16];
    let mut reply = vec![36, 0, 0, 0, 2, 0, 0, 1];
    reply.extend(&header[8..12]);
    reply.extend([0; 4]);
    reply.extend([0; 4]);
    reply.extend(header);
    reply
}

/// What a batch of one message looks like, without the netlink header and as hexadecimal words.
fn sent(message: Message) -> String {
    let mut client = Client::open(Recorder::default()).unwrap();
    assert_eq!(client.apply(&[message]).unwrap(), []);
    let bytes = client.transport().sent.last().unwrap().clone();
    assert_eq!(bytes.len(), u32::from_le_bytes(bytes[..4].try_into().unwrap()) as usize);
    assert_eq!(u16::from_le_bytes(bytes[4..6].try_into().unwrap()), FAMILY);
    assert_eq!(bytes[6..8], [5, 0], "a request that asks for an acknowledgement");
    bytes[16..]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect::<Vec<_>>()
        .chunks(4)
        .map(<[_]>::concat)
        .collect::<Vec<_>>()
        .join(" ")
}

fn tcp(address: &str) -> ServiceId {
    ServiceId::Address { protocol: Protocol::Tcp, address: address.parse().unwrap() }
}

#[test]
fn a_persistent_ipv4_service() {
    let service = Service::new(tcp("10.96.0.1:443")).persistent(10_800);
    let wanted = "01010000 54000180 06000100 02000000 06000200 06000000 14000300 0a600001 00000000 00000000 00000000 \
                  06000400 01bb0000 07000600 72720000 0c000700 01000000 ffffffff 08000800 302a0000 08000900 ffffffff";
    assert_eq!(sent(Message::new_service(&service)), wanted);
}

#[test]
fn an_ipv6_service_with_maglev_and_a_flag() {
    let service = Service::new(tcp("[fd00::1]:53")).scheduler(Scheduler::MaglevHash).flags(Flags::HASH_FALLBACK);
    let wanted = "02010000 54000180 06000100 0a000000 06000200 06000000 14000300 fd000000 00000000 00000000 00000001 \
                  06000400 00350000 07000600 6d680000 0c000700 08000000 ffffffff 08000800 00000000 08000900 80000000";
    assert_eq!(sent(Message::set_service(&service)), wanted);
}

#[test]
fn a_service_by_mark_is_named_by_family_and_mark() {
    let id = ServiceId::Fwmark { family: Family::V6, mark: 0x6000_4001 };
    assert_eq!(sent(Message::del_service(&id)), "03010000 14000180 06000100 0a000000 08000500 01400060");
}

#[test]
fn a_destination_names_its_own_family() {
    let id = ServiceId::Fwmark { family: Family::V4, mark: 7 };
    let destination = Destination::new("10.0.0.9:8080".parse().unwrap()).weight(0);
    let wanted = "06010000 14000180 06000100 02000000 08000500 07000000 \
                  48000280 06000b00 02000000 14000100 0a000009 00000000 00000000 00000000 06000200 1f900000 \
                  08000300 00000000 08000400 00000000 08000500 00000000 08000600 00000000";
    assert_eq!(sent(Message::set_destination(&id, &destination)), wanted);
}

#[test]
fn a_destination_behind_a_tunnel() {
    let tunnel = Forward::Tunnel(Tunnel::Gue { port: 6080, flags: 1 });
    let destination = Destination::new("[fd00::9]:0".parse().unwrap()).forward(tunnel);
    let id = ServiceId::Fwmark { family: Family::V4, mark: 7 };
    let text = sent(Message::new_destination(&id, &destination));
    assert!(text.ends_with("05000d00 01000000 06000e00 17c00000 06000f00 01000000"), "{text}");
}

#[test]
fn timeouts_counters_and_flush() {
    let timeouts = Timeouts { tcp: 900, tcp_fin: 0, udp: 300 };
    assert_eq!(sent(Message::set_timeouts(timeouts)), "0c010000 08000400 84030000 08000500 00000000 08000600 2c010000");
    assert_eq!(sent(Message::zero(None)), "10010000");
    assert_eq!(sent(Message::flush()), "11010000");
}

#[test]
fn many_messages_leave_in_few_datagrams_and_only_the_last_of_each_is_answered() {
    let mut client = Client::open(Recorder::default()).unwrap();
    let id = ServiceId::Fwmark { family: Family::V4, mark: 7 };
    let batch: Vec<Message> = (0..2_500).map(|_| Message::del_service(&id)).collect();
    assert_eq!(client.apply(&batch).unwrap(), []);
    let sent = &client.transport().sent[1..];
    assert_eq!(sent.len(), 3);
    let flags = |datagram: &[u8]| datagram.chunks(40).map(|message| message[6]).collect::<Vec<_>>();
    for datagram in sent {
        let flags = flags(datagram);
        assert_eq!(flags.iter().filter(|flags| **flags == 5).count(), 1);
        assert_eq!(*flags.last().unwrap(), 5);
    }
}
