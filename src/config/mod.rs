//! The command line, read once into settings that are complete and valid.
//!
//! Nothing behind this module sees a flag: [`parse`] gives a [`Command`] whose fields have their final types, or one
//! sentence that says what is wrong. Names and defaults are kube-proxy's where fairlead means the same.

mod accepted;
mod address;
mod duration;
mod file;
mod flags;
mod ipvs;
mod look;
mod net_conf;
mod overlay;
mod reference;
mod reload;
mod settings;
mod traffic;
mod usage;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory, FromArgMatches, Parser};
use fairlead_kernel::link;
use fairlead_kernel::sysctl::{self, SysctlError};
use fairlead_plan::Family;

pub use duration::GoDuration;
pub use file::{
    ClientConnection, Configuration, Conntrack, DetectLocal, FairleadConfiguration, Iptables, Ipvs,
    KubeProxyConfiguration, Logging, Nftables, OverlayConfiguration, Winkernel,
};
pub use flags::{LogFormat, Part, RenderOutput};
pub use ipvs::IpvsSettings;
pub use look::{Explain, Services};
pub use reload::{Reload, follow};
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
    /// Set what needs more privilege than the job itself, and exit (`--init-only`).
    Init(Box<Settings>),
    /// Put this text, all settings as YAML, into this file, and exit (`--write-config-to`).
    WriteConfig(PathBuf, String),
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
    /// Show the Services that the running program knows.
    Services(Services),
    /// Follow a packet through everything.
    Explain(Explain),
    /// Print this text (help, version) to standard output and exit with 0.
    Print(String),
}

/// What the command line needs to know about the host.
#[derive(Debug)]
pub struct Host {
    /// Its name, as `uname -n` says it.
    pub name: Result<String, SysctlError>,
    /// The families that its kernel carries.
    pub families: Vec<Family>,
}

impl Host {
    /// This host.
    #[must_use]
    pub fn read() -> Self {
        let enabled = sysctl::read("net/ipv6/conf/all/disable_ipv6").is_ok_and(|disabled| disabled == "0");
        let ipv6 = enabled && link::has_ipv6();
        let families = if ipv6 { Family::BOTH.to_vec() } else { vec![Family::V4] };
        Self { name: sysctl::read("kernel/hostname"), families }
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
    let arguments: Vec<OsString> = arguments.into_iter().map(Into::into).filter_map(version).collect();
    let matches = match flags::CommandLine::command().try_get_matches_from(arguments) {
        Ok(matches) => matches,
        Err(said) => match said.kind() {
            ErrorKind::DisplayHelp | ErrorKind::DisplayVersion => return Ok(Command::Print(said.to_string())),
            _ => return Err(usage::from_clap(&said)),
        },
    };
    let line = flags::CommandLine::from_arg_matches(&matches).map_err(|said| usage::from_clap(&said))?;
    match line.command {
        None => run(line.run, &matches, host),
        Some(flags::Subcommands::Cleanup(flags)) => {
            Ok(Command::Cleanup(Cleanup { only: flags.only, log: LogSettings::new(&flags.log) }))
        }
        Some(flags::Subcommands::Status(flags)) => Ok(Command::Status(Status {
            json: flags.json,
            health: flags.healthz_address,
            metrics: flags.metrics_address,
            timeout: flags.timeout,
            socket: look::path(&flags.socket),
        })),
        Some(flags::Subcommands::Services(flags)) => Ok(Command::Services(look::services(flags))),
        Some(flags::Subcommands::Explain(flags)) => Ok(Command::Explain(look::explain(flags))),
        Some(flags::Subcommands::Completions { shell }) => Ok(Command::Print(reference::completions(shell))),
        Some(flags::Subcommands::Man { of }) => reference::man(&of).map(Command::Print),
        Some(flags::Subcommands::Metrics) => Ok(Command::Print(crate::metrics::reference())),
        Some(flags::Subcommands::Overlay { command }) => Ok(overlay_command(command)),
        Some(flags::Subcommands::Render(flags)) => Ok(Command::Render(Box::new(settings::render(*flags, host)?))),
    }
}

/// kube-proxy's `--version=raw` and the like, of which clap knows the bare flag alone.
fn version(argument: OsString) -> Option<OsString> {
    match argument.to_str() {
        Some("--version=raw" | "--version=true") => Some("--version".into()),
        Some("--version=false") => None,
        _ => Some(argument),
    }
}

/// The flags alone, or a file and the flags that count beside it.
fn run(line: flags::RunFlags, matches: &ArgMatches, host: Host) -> Result<Command, UsageError> {
    let given = |field: &str| matches.value_source(field) == Some(ValueSource::CommandLine);
    let mut notes = Vec::from_iter(file::without_effect(&line.accepted.feature_gates, &given));
    if line.file.cleanup {
        return Ok(Command::Cleanup(Cleanup { only: Vec::new(), log: LogSettings::new(&line.process.log) }));
    }
    let (write_to, init_only) = (line.file.write_config_to.clone(), line.file.init_only);
    let (mut settings, configuration) = if line.file.config.is_empty() {
        (settings::run(&line, host)?, file::configuration(&line))
    } else {
        let path = PathBuf::from(&line.file.config);
        let file = file::File::read(&path)?;
        notes.extend(file::ignored_beside_a_file(&on_line(matches)));
        notes.extend_from_slice(file.notes());
        let mut flags = beside_a_file(line);
        file.apply(&mut flags, &given)?;
        let mut settings = settings::run(&flags, host).map_err(|error| file.explain(error))?;
        settings.files.insert(0, path);
        (settings, file.configuration(&flags))
    };
    settings.said = notes;
    if !write_to.is_empty() {
        let text = configuration.yaml().map_err(|error| UsageError::sentence(format!("{error}.")))?;
        return Ok(Command::WriteConfig(write_to.into(), text));
    }
    settings.configuration = configuration;
    Ok(if init_only { Command::Init(Box::new(settings)) } else { Command::Run(Box::new(settings)) })
}

/// What is left of the command line when the file says the rest.
fn beside_a_file(line: flags::RunFlags) -> flags::RunFlags {
    let mut flags = flags::CommandLine::parse_from(["fairlead"]).run;
    flags.mode.iptables_variant = line.mode.iptables_variant;
    flags.api.manifests = line.api.manifests;
    flags.api.master = line.api.master;
    flags.node.hostname_override = line.node.hostname_override;
    flags.overlay = line.overlay;
    flags.process.log = line.process.log;
    flags.http.socket = line.http.socket;
    flags.http.service_counters = line.http.service_counters;
    flags
}

/// Every flag of the command line: the name of its field, and how it is written.
fn on_line(matches: &ArgMatches) -> Vec<(String, String)> {
    let command = flags::CommandLine::command();
    let given = command
        .get_arguments()
        .filter(|argument| matches.value_source(argument.get_id().as_str()) == Some(ValueSource::CommandLine));
    given.filter_map(|argument| Some((argument.get_id().to_string(), format!("--{}", argument.get_long()?)))).collect()
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
