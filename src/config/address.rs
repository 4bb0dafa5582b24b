//! Addresses on which fairlead answers HTTP.

use std::net::{IpAddr, SocketAddr};

use super::UsageError;

/// Where `/healthz` answers unless a flag says otherwise.
const HEALTHZ_PORT: u16 = 10_256;
/// Where `/metrics` answers unless a flag says otherwise.
const METRICS_PORT: u16 = 10_249;

/// `--bind-address`.
pub(super) fn bind_address(text: &str) -> Result<IpAddr, UsageError> {
    let why = "is not an IP address; write one like 192.0.2.1 or 2001:db8::1, or 0.0.0.0 or :: for any";
    text.trim().parse().map_err(|_| UsageError::value("--bind-address", text, why))
}

/// `--healthz-bind-address`: all addresses of the family of `--bind-address` by default.
pub(super) fn healthz(text: Option<&str>, bind: IpAddr) -> Result<Option<SocketAddr>, UsageError> {
    let any: IpAddr = if bind.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
    listener("--healthz-bind-address", text, SocketAddr::new(any, HEALTHZ_PORT))
}

/// `--metrics-bind-address`: loopback of the family of `--bind-address` by default.
pub(super) fn metrics(text: Option<&str>, bind: IpAddr) -> Result<Option<SocketAddr>, UsageError> {
    let loopback: IpAddr =
        if bind.is_ipv6() { std::net::Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() };
    listener("--metrics-bind-address", text, SocketAddr::new(loopback, METRICS_PORT))
}

/// An address alone gets the default port; an empty text switches the listener off.
fn listener(flag: &str, text: Option<&str>, default: SocketAddr) -> Result<Option<SocketAddr>, UsageError> {
    let Some(text) = text else { return Ok(Some(default)) };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let bare = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
    if let Ok(addr) = bare.parse() {
        return Ok(Some(SocketAddr::new(addr, default.port())));
    }
    match trimmed.parse::<SocketAddr>() {
        Ok(addr) if addr.port() != 0 => Ok(Some(addr)),
        Ok(_) => Err(UsageError::value(flag, text, "port 0 names no port; use 1 to 65535")),
        Err(_) => {
            let why = format!("is not an IP address and port; write it like {default}, or leave it empty for nowhere");
            Err(UsageError::value(flag, text, why))
        }
    }
}
