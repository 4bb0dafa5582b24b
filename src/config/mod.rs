//! The command line, read once into settings that are complete and valid.
//!
//! Nothing behind this module sees a flag: [`parse`] gives a [`Command`] whose fields have their final types, or one
//! sentence that says what is wrong. Names and defaults are kube-proxy's where fairlead means the same.

mod address;
mod duration;
mod flags;
mod ipvs;
mod net_conf;
mod overlay;
mod settings;
mod traffic;
mod usage;

use std::ffi::OsString;
use std::path::Path;
use std::{fs, io};

use clap::Parser;
use clap::error::ErrorKind;
use fairlead_plan::Family;

pub use flags::{LogFormat, RenderOutput};
pub use ipvs::IpvsSettings;
pub use settings::{
    ApiSettings, ApiSource, Cleanup, LogSettings, Mode, OverlayList, OverlayProbe, OverlayTrace, Render, Settings,
    Status,
};
pub use usage::{EXIT_USAGE, UsageError};

use crate::sysctls::ConntrackSettings;

/// What the command line asks for.
#[derive(Debug, Clone, PartialEq)]
pub enum Command {
    /// Do the job until told to stop.
    Run(Box<Settings>),
    /// Take everything of fairlead out of the kernel.
    Cleanup(Cleanup),
    /// Show what would be programmed.
    Render(Box<Render>),
    /// Show the overlay of this node.
    OverlayList(OverlayList),
    /// Ask all peers through the overlay.
    OverlayProbe(OverlayProbe),
    /// Follow a packet through the overlay.
    OverlayTrace(OverlayTrace),
    /// Show how the running program does.
    Status(Status),
    /// Print this text (help, version) to standard output and exit with 0.
    Print(String),
}

/// What the command line needs to know about the host.
#[derive(Debug)]
pub struct Host {
    /// Its name, as `uname -n` says it.
    pub name: io::Result<String>,
    /// The families that its kernel carries.
    pub families: Vec<Family>,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn read() -> Self {
        let disabled = fs::read_to_string("/proc/sys/net/ipv6/conf/all/disable_ipv6");
        let ipv6 = Path::new("/proc/net/if_inet6").exists() && disabled.is_ok_and(|text| text.trim() == "0");
        let families = if ipv6 { Family::BOTH.to_vec() } else { vec![Family::V4] };
        Self { name: fs::read_to_string("/proc/sys/kernel/hostname"), families }
    }
}

/// Reads a command line, program name first.
///
/// # Errors
/// One sentence: what is wrong, where, and what to do. The program then exits with [`EXIT_USAGE`].
pub fn parse<I, T>(arguments: I, host: Host) -> Result<Command, UsageError>
where
    I: IntoIterator<Item = T>,
    T: Into<OsString> + Clone,
{
    let line = match flags::CommandLine::try_parse_from(arguments) {
        Ok(line) => line,
        Err(said) => match said.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(Command::Print(said.to_string())),
            _ => return Err(usage::from_clap(&said)),
        },
    };
    match line.command {
        None => Ok(Command::Run(Box::new(settings::run(&line.run, host)?))),
        Some(flags::Subcommands::Cleanup(flags)) => Ok(Command::Cleanup(Cleanup { log: LogSettings::new(&flags.log) })),
        Some(flags::Subcommands::Status(flags)) => Ok(Command::Status(Status {
            json: flags.json,
            health: flags.healthz_address,
            metrics: flags.metrics_address,
            timeout: flags.timeout,
        })),
        Some(flags::Subcommands::Overlay { command }) => Ok(overlay_command(command)),
        Some(flags::Subcommands::Render(flags)) => Ok(Command::Render(Box::new(settings::render(*flags, host)?))),
    }
}

fn overlay_command(command: flags::OverlayCommands) -> Command {
    match command {
        flags::OverlayCommands::List(flags) => Command::OverlayList(OverlayList {
            json: flags.json,
            files: flags.files,
            annotation_prefix: flags.kube_annotation_prefix,
        }),
        flags::OverlayCommands::Trace(flags::OverlayTraceFlags { to, json }) => {
            Command::OverlayTrace(OverlayTrace { to, json })
        }
        flags::OverlayCommands::Probe(flags::OverlayProbeFlags { list, timeout }) => {
            Command::OverlayProbe(OverlayProbe {
                json: list.json,
                files: list.files,
                annotation_prefix: list.kube_annotation_prefix,
                timeout,
            })
        }
    }
}

#[cfg(test)]
mod tests;
