//! The command itself: asks once, or again and again.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::thread;
use std::time::Duration;

use anyhow::bail;
use fairlead_plan::{Packet, Protocol};

use super::{Explanation, Kernel, Style, packet, text};
use crate::local;
use crate::{colour, config};

/// Between two looks with `--watch`.
const GLANCE: Duration = Duration::from_secs(1);

/// Explains a packet, or with `--watch` every change of the explanation until it is stopped.
///
/// # Errors
/// If the kernel cannot be read; and, after printing, if the kernel differs from the plan.
pub fn explain(settings: &config::Explain) -> anyhow::Result<()> {
    let mut shown = None;
    loop {
        let found = all(settings)?;
        if shown.as_ref() != Some(&found) {
            print(settings, &found, shown.is_some())?;
        }
        if !settings.watch {
            return match found.iter().filter(|explanation| explanation.difference.is_some()).count() {
                0 => Ok(()),
                _ => bail!("the kernel does not do what the plan says; see above"),
            };
        }
        shown = Some(found);
        thread::sleep(GLANCE);
    }
}

/// One explanation, or one for each port that Services have at the address.
fn all(settings: &config::Explain) -> anyhow::Result<Vec<Explanation>> {
    let kernel = Kernel::read()?;
    let packets = packets(settings, &kernel)?;
    let explain = |packet: &Packet| {
        let plan = local::decision(settings.socket.as_deref(), packet)?;
        Explanation::of(&kernel, packet, plan)
    };
    packets.iter().map(explain).collect()
}

fn packets(settings: &config::Explain, kernel: &Kernel) -> anyhow::Result<Vec<Packet>> {
    let to = &settings.to;
    let one =
        |protocol, port| packet(settings.from, settings.interface.as_deref(), SocketAddr::new(to.addr, port), protocol);
    match (to.port, to.protocol) {
        (Some(port), Some(protocol)) => Ok(vec![one(protocol, port)?]),
        (Some(port), None) => {
            // TCP, unless the port is there for others alone. What the kernel lacks must be explained too.
            let held = kernel.ports(to.addr);
            for protocol in Protocol::ALL {
                let packet = one(protocol, port)?;
                if held.contains(&(protocol, port)) || is_planned(settings, &packet)? {
                    return Ok(vec![packet]);
                }
            }
            Ok(vec![one(Protocol::Tcp, port)?])
        }
        (None, _) => {
            let mut ports = kernel.ports(to.addr);
            ports.extend(planned_ports(settings.socket.as_deref(), to.addr)?);
            if ports.is_empty() {
                // Of an address without Services only the way counts, which no port changes.
                ports.insert((Protocol::Tcp, 0));
            }
            ports.into_iter().map(|(protocol, port)| one(protocol, port)).collect()
        }
    }
}

/// Whether the running program has a Service for the packet.
fn is_planned(settings: &config::Explain, packet: &Packet) -> anyhow::Result<bool> {
    let decision = local::decision(settings.socket.as_deref(), packet)?;
    Ok(decision.is_some_and(|decision| decision.service.is_some()))
}

/// The ports that the Services of the running program have at the address.
fn planned_ports(socket: Option<&Path>, addr: IpAddr) -> anyhow::Result<BTreeSet<(Protocol, u16)>> {
    let mut ports = BTreeSet::new();
    for service in local::services(socket)?.unwrap_or_default() {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.name() == service.protocol);
        // A node port stands there without an address.
        let at = service.frontends.iter().filter_map(|frontend| frontend.address.parse::<SocketAddr>().ok());
        let here = at.filter(|at| at.ip() == addr).map(|at| at.port());
        ports.extend(here.flat_map(|port| protocol.map(|protocol| (protocol, port))));
    }
    Ok(ports)
}

fn print(settings: &config::Explain, found: &[Explanation], again: bool) -> anyhow::Result<()> {
    if settings.json {
        // A list in one line while it is watched, for programs that read lines.
        let list = if settings.watch { serde_json::to_string(found)? } else { serde_json::to_string_pretty(found)? };
        println!("{list}");
        return Ok(());
    }
    let colours = colour::is_wanted(&std::io::stdout());
    let pages: Vec<String> = found.iter().map(|one| text(one, Style::new(colours))).collect();
    let rule = if again { "\n" } else { "" };
    print!("{rule}{}", pages.join("\n"));
    Ok(())
}
