use std::net::IpAddr;
use std::str::FromStr;

use fairlead_plan::{Family, Protocol};
use ipnet::IpNet;

/// Reads an address the way Kubernetes has always stored them: leading zeros in IPv4 are decimal, and an IPv4 address
/// in IPv6 clothes is an IPv4 address.
pub(super) fn ip(text: &str) -> Option<IpAddr> {
    let parsed = text.parse().ok().or_else(|| IpAddr::from_str(&plain_decimal(text)?).ok())?;
    Some(parsed.to_canonical())
}

/// An address that packets of a service can carry.
pub(super) fn usable_ip(text: &str) -> Option<IpAddr> {
    ip(text).filter(|ip| !ip.is_unspecified() && !ip.is_loopback() && !ip.is_multicast())
}

/// Reads a prefix as leniently; bits behind the prefix are cleared.
pub(super) fn cidr(text: &str) -> Option<IpNet> {
    let (addr, bits) = text.split_once('/')?;
    let is_number = !bits.is_empty() && bits.bytes().all(|byte| byte.is_ascii_digit());
    let bits = bits.parse().ok().filter(|_| is_number)?;
    let addr = match ip(addr)? {
        // `::ffff:10.0.0.0/104` counts its bits from the IPv6 start, as the text says.
        IpAddr::V4(_) if addr.contains(':') => addr.parse().ok()?,
        addr => addr,
    };
    IpNet::new(addr, bits).ok().map(|net| net.trunc())
}

/// A port number of a Service or slice, 1 to 65535.
pub(super) fn port(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|port| *port != 0)
}

/// A protocol; absent means TCP.
pub(super) fn protocol(text: Option<&str>) -> Option<Protocol> {
    match text {
        None | Some("" | "TCP") => Some(Protocol::Tcp),
        Some("UDP") => Some(Protocol::Udp),
        Some("SCTP") => Some(Protocol::Sctp),
        Some(_) => None,
    }
}

/// The family of a prefix.
pub(super) const fn family(net: &IpNet) -> Family {
    match net {
        IpNet::V4(_) => Family::V4,
        IpNet::V6(_) => Family::V6,
    }
}

/// The same IPv4 address without leading zeros, also at the end of an IPv6 address. `None` if there are none.
fn plain_decimal(text: &str) -> Option<String> {
    let start = text.rfind(':').map_or(0, |colon| colon + 1);
    let (head, dotted) = text.split_at(start);
    let octet = |octet: &str| -> Option<String> {
        let digits = !octet.is_empty() && octet.bytes().all(|byte| byte.is_ascii_digit());
        let short = octet.trim_start_matches('0');
        digits.then(|| if short.is_empty() { "0".to_owned() } else { short.to_owned() })
    };
    let octets: Option<Vec<_>> = dotted.split('.').map(octet).collect();
    octets.filter(|octets| octets.len() == 4).map(|octets| format!("{head}{}", octets.join(".")))
}
