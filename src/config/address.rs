//! Addresses on which fairlead answers HTTP.

use std::net::{IpAddr, SocketAddr};

use super::UsageError;
use super::accepted::AcceptedFlags;
use super::flags::HttpFlags;

/// `--bind-address`.
pub(super) fn bind_address(text: &str) -> Result<IpAddr, UsageError> {
    let why = "is not an IP address; write one like 192.0.2.1 or 2001:db8::1, or 0.0.0.0 or :: for any";
    text.trim().parse().map_err(|_| UsageError::value("--bind-address", text, why))
}

/// `--healthz-bind-address`: all addresses of the family of `--bind-address` by default.
pub(super) fn healthz(
    http: &HttpFlags,
    accepted: &AcceptedFlags,
    bind: IpAddr,
) -> Result<Option<SocketAddr>, UsageError> {
    let any: IpAddr = if bind.is_ipv6() { [0; 16].into() } else { [0; 4].into() };
    let default = SocketAddr::new(any, accepted.healthz_port);
    listener("--healthz-bind-address", http.healthz_bind_address.as_deref(), default)
}

/// `--metrics-bind-address`: loopback of the family of `--bind-address` by default.
pub(super) fn metrics(
    http: &HttpFlags,
    accepted: &AcceptedFlags,
    bind: IpAddr,
) -> Result<Option<SocketAddr>, UsageError> {
    let loopback: IpAddr =
        if bind.is_ipv6() { std::net::Ipv6Addr::LOCALHOST.into() } else { std::net::Ipv4Addr::LOCALHOST.into() };
    let default = SocketAddr::new(loopback, accepted.metrics_port);
    listener("--metrics-bind-address", http.metrics_bind_address.as_deref(), default)
}

/// An address alone gets the default port; an empty text, or 0 for the default port, switches the listener off.
fn listener(flag: &str, text: Option<&str>, default: SocketAddr) -> Result<Option<SocketAddr>, UsageError> {
    let on = Some(default).filter(|default| default.port() != 0);
    let Some(text) = text else { return Ok(on) };
    let trimmed = text.trim();
    if trimmed.is_empty() {
        return Ok(None);
    }
    let bare = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(trimmed);
    if let Ok(addr) = bare.parse() {
        return Ok(on.map(|default| SocketAddr::new(addr, default.port())));
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
