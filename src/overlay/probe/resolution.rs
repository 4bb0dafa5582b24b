//! Asks a tunnel's other end for the Ethernet address of its device, without trusting anything that this node believes about it:
//! a question to everybody (ARP, RFC 826; neighbour discovery, RFC 4861) is packed as VXLAN by hand and sent to the other end.
//! And reads the answers. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use fairlead_kernel::ask::checksum;
use fairlead_kernel::route::Mac;

/// Numbers of the protocols' RFCs.
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
const ARP_REQUEST: u8 = 1;
const ARP_REPLY: u8 = 2;
const ICMP: u8 = 1;
const ICMPV6: u8 = 58;
const ECHO_REPLY: u8 = 0;
const ECHO_REPLY_V6: u8 = 129;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
const SOURCE_LINK_ADDRESS: u8 = 1;
const TARGET_LINK_ADDRESS: u8 = 2;
/// In units of 8 bytes: type, length and an Ethernet address.
const LINK_ADDRESS_LENGTH: u8 = 1;
const BROADCAST: [u8; 6] = [0xff; 6];
/// `I`: the network's number is there (RFC 7348).
const VXLAN_FLAGS: u8 = 0x08;
const ETHERNET_HEADER: usize = 14;
const IPV6_HEADER: usize = 40;

/// What a frame on our device tells about its sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Overheard {
    /// This address is at that Ethernet address.
    Resolved(IpAddr, Mac),
    /// This machine answers an echo, but to an Ethernet address that is not our device's.
    Misaddressed(IpAddr, Mac),
}

/// A UDP payload that asks whoever has the address `target` in this network to tell its Ethernet address to `ours`. `None` if the
/// two are of different families.
#[must_use]
pub fn question(vni: u32, (mac, addr): (Mac, IpAddr), target: IpAddr) -> Option<Vec<u8>> {
    let [_, a, b, c] = vni.to_be_bytes();
    let vxlan = [VXLAN_FLAGS, 0, 0, 0, a, b, c, 0];
    let frame = match (addr, target) {
        (IpAddr::V4(addr), IpAddr::V4(target)) => arp(mac, addr, target),
        (IpAddr::V6(addr), IpAddr::V6(target)) => solicitation(mac, addr, target),
        _ => return None,
    };
    Some([vxlan.to_vec(), frame].concat())
}

fn arp(mac: Mac, addr: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    // Ethernet and IPv4, addresses of 6 and 4 bytes.
    let kinds = [0, 1, 8, 0, 6, 4, 0, ARP_REQUEST];
    [&BROADCAST[..], &mac.0, &ARP, &kinds, &mac.0, &addr.octets(), &[0; 6], &target.octets()].concat()
}

fn solicitation(mac: Mac, addr: Ipv6Addr, target: Ipv6Addr) -> Vec<u8> {
    let [.., x, y, z] = target.octets();
    // The solicited-node multicast address, and Ethernet's group for it (RFC 4291 2.7.1, RFC 2464 7).
    let mut group = [0; 16];
    (group[0], group[1], group[11], group[12]) = (0xff, 2, 1, 0xff);
    group[13..].copy_from_slice(&[x, y, z]);
    let mut message = [&[SOLICITATION, 0, 0, 0, 0, 0, 0, 0][..], &target.octets()].concat();
    message.extend([SOURCE_LINK_ADDRESS, LINK_ADDRESS_LENGTH]);
    message.extend(mac.0);
    let [high, low] = u16::try_from(message.len()).unwrap_or_default().to_be_bytes();
    let pseudo = [&addr.octets()[..], &group, &[0, 0, high, low, 0, 0, 0, ICMPV6]].concat();
    let sum = checksum(&[&pseudo, &message]);
    message[2..4].copy_from_slice(&sum);
    // Nobody may have passed it on: the largest number of hops says so.
    let header = [&[0x60, 0, 0, 0, high, low, ICMPV6, u8::MAX][..], &addr.octets(), &group].concat();
    [&[0x33, 0x33, 0xff, x, y, z][..], &mac.0, &IPV6, &header, &message].concat()
}

/// What a frame tells; `ours` is our device's Ethernet address.
#[must_use]
pub fn overheard(frame: &[u8], ours: Mac) -> Option<Overheard> {
    let (to, from) = (mac_at(frame, 0)?, mac_at(frame, 6)?);
    if from == ours {
        return None;
    }
    let inside = frame.get(ETHERNET_HEADER..)?;
    let misaddressed = |source: IpAddr| (to != ours).then_some(Overheard::Misaddressed(source, to));
    match [frame[12], frame[13]] {
        ARP if *inside.get(7)? == ARP_REPLY => {
            Some(Overheard::Resolved(ipv4_at(inside, 14)?.into(), mac_at(inside, 8)?))
        }
        IPV4 if *inside.get(9)? == ICMP => {
            let length = usize::from(inside[0] & 0xf) * 4;
            (*inside.get(length)? == ECHO_REPLY).then_some(())?;
            misaddressed(ipv4_at(inside, 12)?.into())
        }
        IPV6 if *inside.get(6)? == ICMPV6 => {
            let message = inside.get(IPV6_HEADER..)?;
            match *message.first()? {
                ECHO_REPLY_V6 => misaddressed(ipv6_at(inside, 8)?.into()),
                ADVERTISEMENT if message.get(24..26)? == [TARGET_LINK_ADDRESS, LINK_ADDRESS_LENGTH] => {
                    Some(Overheard::Resolved(ipv6_at(message, 8)?.into(), mac_at(message, 26)?))
                }
                _ => None,
            }
        }
        _ => None,
    }
}

fn mac_at(bytes: &[u8], at: usize) -> Option<Mac> {
    bytes.get(at..)?.first_chunk().copied().map(Mac)
}

fn ipv4_at(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    bytes.get(at..)?.first_chunk::<4>().copied().map(Ipv4Addr::from)
}

fn ipv6_at(bytes: &[u8], at: usize) -> Option<Ipv6Addr> {
    bytes.get(at..)?.first_chunk::<16>().copied().map(Ipv6Addr::from)
}

#[cfg(test)]
mod tests {
    use fairlead_kernel::ask::sum;

    use super::*;

    const OURS: Mac = Mac([2, 0, 0, 0, 0, 1]);
    const THEIRS: Mac = Mac([2, 0, 0, 0, 0, 2]);

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn questions_are_the_bytes_of_the_standards() {
        let v4 = question(0x0001_0203, (OURS, ip("10.244.1.0")), ip("10.244.2.0")).unwrap();
        let (vxlan, frame) = v4.split_at(8);
        assert_eq!(vxlan, [8, 0, 0, 0, 1, 2, 3, 0]);
        assert_eq!(frame.len(), 42, "an ARP packet over Ethernet");
        assert_eq!(frame[..14], [255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6]);
        assert_eq!(frame[14..22], [0, 1, 8, 0, 6, 4, 0, 1]);
        assert_eq!(frame[28..], [10, 244, 1, 0, 0, 0, 0, 0, 0, 0, 10, 244, 2, 0]);
        let v6 = question(1, (OURS, ip("fd00:244:0:1::")), ip("fd00:244:0:2::12:3456")).unwrap();
        let frame = &v6[8..];
        assert_eq!(frame[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
        assert_eq!(frame[14..22], [0x60, 0, 0, 0, 0, 32, 58, 255]);
        assert_eq!(
            Ipv6Addr::from(<[u8; 16]>::try_from(&frame[38..54]).unwrap()),
            "ff02::1:ff12:3456".parse::<Ipv6Addr>().unwrap()
        );
        let pseudo = [&frame[22..54], &[0, 0, 0, 32, 0, 0, 0, 58]].concat();
        assert_eq!(sum(&[&pseudo, &frame[54..]]), 0xffff);
        assert_eq!(question(1, (OURS, ip("10.244.1.0")), ip("fd00::")), None);
    }

    #[test]
    fn answers_tell_whose_address_it_is_and_nothing_else_does() {
        let addr = Ipv4Addr::new(10, 244, 2, 0);
        let mut reply =
            [&OURS.0[..], &THEIRS.0, &ARP, &[0, 1, 8, 0, 6, 4, 0, ARP_REPLY], &THEIRS.0, &addr.octets()].concat();
        reply.extend([0; 10]);
        assert_eq!(overheard(&reply, OURS), Some(Overheard::Resolved(addr.into(), THEIRS)));
        assert_eq!(overheard(&reply, THEIRS), None, "what we have sent ourselves");
        reply[21] = ARP_REQUEST;
        assert_eq!(overheard(&reply, OURS), None);
        for length in 0..reply.len() {
            let _ = overheard(&reply[..length], OURS);
        }
    }

    #[test]
    fn an_echo_for_us_that_is_sent_to_another_ethernet_address_is_overheard() {
        let stranger = Mac([2, 0, 0, 0, 0, 9]);
        let header = [0x45, 0, 0, 84, 0, 0, 0, 0, 64, ICMP, 0, 0, 10, 244, 2, 0, 10, 244, 1, 0];
        let frame = |to: Mac| [&to.0[..], &THEIRS.0, &IPV4, &header, &[ECHO_REPLY, 0, 0, 0]].concat();
        assert_eq!(overheard(&frame(stranger), OURS), Some(Overheard::Misaddressed(ip("10.244.2.0"), stranger)));
        assert_eq!(overheard(&frame(OURS), OURS), None);
        let source: Ipv6Addr = "fd00:244:0:2::".parse().unwrap();
        let header = [&[0x60, 0, 0, 0, 0, 8, ICMPV6, 64][..], &source.octets(), &[0; 16]].concat();
        let frame = [&stranger.0[..], &THEIRS.0, &IPV6, &header, &[ECHO_REPLY_V6, 0, 0, 0]].concat();
        assert_eq!(overheard(&frame, OURS), Some(Overheard::Misaddressed(source.into(), stranger)));
    }
}
