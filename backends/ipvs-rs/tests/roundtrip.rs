//! Whatever is written is read back the same.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::net::{IpAddr, SocketAddr};

use ipvs_rs::{
    Change, Command, Destination, Family, Flags, Forward, Message, Protocol, Request as _, Scheduler, Service,
    ServiceId, Tunnel,
};
use netlink_packet_core::{Emitable, ParseableParametrized};
use netlink_packet_generic::GenlHeader;
use proptest::prelude::*;

fn address() -> impl Strategy<Value = SocketAddr> {
    (any::<IpAddr>(), any::<u16>()).prop_map(SocketAddr::from)
}

fn id() -> impl Strategy<Value = ServiceId> {
    let protocol = any::<u8>().prop_map(Protocol::from);
    prop_oneof![
        (protocol, address()).prop_map(|(protocol, address)| ServiceId::Address { protocol, address }),
        (any::<bool>(), 1..=u32::MAX)
            .prop_map(|(six, mark)| { ServiceId::Fwmark { family: if six { Family::V6 } else { Family::V4 }, mark } }),
    ]
}

fn scheduler() -> impl Strategy<Value = Scheduler> {
    prop_oneof![proptest::sample::select(Scheduler::KNOWN), "[a-z]{1,15}".prop_map(|name| name.parse().unwrap())]
}

prop_compose! {
    fn service()(
        id in id(), scheduler in scheduler(), flags in 0u32..64, timeout: u32, prefix in 1u8..=128,
        engine in proptest::option::of("[a-z]{1,15}"),
    ) -> Service {
        let mut service = Service::new(id).scheduler(scheduler).flags(Flags(flags).configured());
        service.timeout = timeout;
        service.prefix = prefix.min(id.family().bits());
        service.engine = engine;
        service
    }
}

fn forward() -> impl Strategy<Value = Forward> {
    prop_oneof![
        Just(Forward::Masquerade),
        Just(Forward::Local),
        Just(Forward::DirectRoute),
        Just(Forward::Bypass),
        Just(Forward::Tunnel(Tunnel::Ipip)),
        (any::<u16>(), any::<u16>()).prop_map(|(port, flags)| Forward::Tunnel(Tunnel::Gue { port, flags })),
        any::<u16>().prop_map(|flags| Forward::Tunnel(Tunnel::Gre { flags })),
    ]
}

prop_compose! {
    fn destination()(
        address in address(), forward in forward(), weight in 0..=i32::MAX as u32, upper: u32, lower: u32,
    ) -> Destination {
        let mut destination = Destination::new(address).forward(forward).weight(weight);
        (destination.upper_threshold, destination.lower_threshold) = (upper, lower);
        destination
    }
}

/// Through bytes.
fn through(message: &Message) -> Message {
    let mut bytes = vec![0xaa; message.buffer_len()];
    message.emit(&mut bytes);
    let header = GenlHeader { cmd: message.command.into(), version: 1 };
    Message::parse_with_param(&bytes, header).unwrap()
}

proptest! {
    #[test]
    fn a_change_is_laid_out_as_the_message_that_says_the_same(
        service in service(), destination in destination(), id in id(),
    ) {
        let changes = [
            Change::NewService(service.clone()),
            Change::SetService(service),
            Change::DelService(id),
            Change::NewDestination(id, destination.clone()),
            Change::SetDestination(id, destination.clone()),
            Change::DelDestination(id, destination.address),
        ];
        for change in changes {
            let (message, mut bytes) = (Message::from(&change), Vec::new());
            change.append(&mut bytes);
            let mut wanted = vec![0xaa; message.buffer_len()];
            message.emit(&mut wanted);
            prop_assert_eq!(bytes, wanted);
            prop_assert_eq!(change.command(), message.command);
        }
    }

    #[test]
    fn services_survive_the_wire(service in service()) {
        for message in [Message::new_service(&service), Message::set_service(&service)] {
            let read = through(&message);
            prop_assert_eq!(&read, &message);
            prop_assert_eq!(&Service::from_attributes(read.service().unwrap()).unwrap(), &service);
        }
    }

    #[test]
    fn destinations_survive_the_wire(id in id(), destination in destination()) {
        for message in [Message::new_destination(&id, &destination), Message::set_destination(&id, &destination)] {
            let read = through(&message);
            prop_assert_eq!(&read, &message);
            prop_assert_eq!(ServiceId::from_attributes(read.service().unwrap()).unwrap(), id);
            let family = id.family();
            let back = Destination::from_attributes(family, read.destination().unwrap()).unwrap();
            prop_assert_eq!(&back, &destination);
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes: Vec<u8>, command: u8) {
        let read = Message::parse_with_param(&bytes[..], GenlHeader { cmd: command, version: 1 });
        if let Ok(message) = read {
            if let Some(list) = message.service() {
                let _ = Service::from_attributes(list);
            }
            if let Some(list) = message.destination() {
                let _ = Destination::from_attributes(Family::V6, list);
            }
        }
    }

    #[test]
    fn commands_keep_their_numbers(number: u8) {
        prop_assert_eq!(u8::from(Command::from(number)), number);
    }
}

#[test]
fn schedulers_are_known_by_the_names_of_their_modules() {
    for scheduler in Scheduler::KNOWN {
        assert_eq!(scheduler.name().parse::<Scheduler>().as_ref(), Ok(scheduler));
    }
    assert_eq!("mine".parse(), Ok(Scheduler::Other("mine".into())));
    for wrong in ["", "abcdefghijklmnop", "r r", "rr\0", "é"] {
        assert!(wrong.parse::<Scheduler>().is_err(), "{wrong:?}");
    }
}
