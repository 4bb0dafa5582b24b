//! The commands that look at this node: `fairlead explain`, `fairlead services` and `fairlead status`.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;

use super::duration;
use crate::explain::{From, To};
use crate::local::DEFAULT_SOCKET;

/// Settings of `fairlead explain`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Explain {
    /// Who sends.
    pub from: From,
    /// Where to.
    pub to: To,
    /// By which interface the packet comes in; `None` for the one towards the sender.
    pub interface: Option<String>,
    /// Whether JSON is printed.
    pub json: bool,
    /// Whether every change is printed until the command is stopped.
    pub watch: bool,
    /// Where the running program answers.
    pub socket: Option<PathBuf>,
}

/// Settings of `fairlead services`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Services {
    /// What the names of Services must hold.
    pub name: Option<String>,
    /// Whether JSON is printed.
    pub json: bool,
    /// Where the running program answers.
    pub socket: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ExplainFlags {
    /// The address of the sender, such as a pod's, or node for this node itself
    #[arg(value_name = "FROM")]
    from: From,
    /// The address of a Service or of anything else, with a port or without; udp, tcp or sctp
    #[arg(value_name = "TO[:PORT[/PROTO]]")]
    to: To,
    /// The interface by which the packet comes in. Without it: the one by which this node sends to FROM
    #[arg(long, value_name = "NAME")]
    interface: Option<String>,
    /// Print JSON: a list with one explanation for each port
    #[arg(long)]
    json: bool,
    /// Look again every second and print what has changed, until stopped
    #[arg(long)]
    watch: bool,
    /// The socket of the running fairlead, which knows the plan; empty for none
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: String,
}

#[derive(Debug, Args)]
pub(super) struct ServicesFlags {
    /// Only Services with this in their names, which are written namespace/name:port
    #[arg(value_name = "NAME")]
    name: Option<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// The socket of the running fairlead
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    socket: String,
}

#[derive(Debug, Args)]
pub(super) struct StatusFlags {
    /// Print JSON
    #[arg(long)]
    pub(super) json: bool,
    /// Where /healthz and /readyz of the running fairlead answer
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10256")]
    pub(super) healthz_address: SocketAddr,
    /// Where its /metrics and /proxyMode answer
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:10249")]
    pub(super) metrics_address: SocketAddr,
    /// How long an answer of a peer may take
    #[arg(long, value_name = "DURATION", value_parser = duration::parse, default_value = "1s")]
    pub(super) timeout: Duration,
    /// The socket of the running fairlead; empty for none
    #[arg(long, value_name = "PATH", default_value = DEFAULT_SOCKET)]
    pub(super) socket: String,
}

/// A path, or none if it is empty.
pub(super) fn path(text: &str) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

pub(super) fn explain(flags: ExplainFlags) -> Explain {
    let ExplainFlags { from, to, interface, json, watch, socket } = flags;
    Explain { from, to, interface, json, watch, socket: path(&socket) }
}

pub(super) fn services(flags: ServicesFlags) -> Services {
    Services { name: flags.name, json: flags.json, socket: path(&flags.socket) }
}
