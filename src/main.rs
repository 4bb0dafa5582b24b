//! `fairlead`: see the library's documentation.

use std::process::ExitCode;

use anyhow::Context;
use fairlead::colour;
use fairlead::config::{self, Command, EXIT_USAGE, LogFormat, LogSettings};
use fairlead::overlay::{list, probe, trace};
use fairlead::{explain, render, run, services, status};
use fairlead_kernel::{memory, process};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let command = match config::parse(std::env::args_os(), config::Host::read()) {
        Ok(command) => command,
        Err(error) => {
            eprintln!("fairlead: {error}");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    match carry_out(command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fairlead: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn carry_out(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Print(text) => print!("{text}"),
        Command::Render(settings) => print!("{}", render::render(&settings)?),
        Command::OverlayList(settings) => list::list(&settings)?,
        Command::OverlayTrace(settings) => trace::trace(&settings)?,
        Command::Status(settings) => status::status(&settings)?,
        Command::Services(settings) => services::services(&settings)?,
        Command::Explain(settings) => explain::explain(&settings)?,
        Command::OverlayProbe(settings) => probe::probe(&settings)?,
        Command::Cleanup(settings) => {
            log(settings.log);
            run::cleanup(&settings)?;
        }
        Command::WriteConfig(path, text) => fairlead_kernel::file::replace(&path, text.as_bytes())
            .with_context(|| format!("writing the settings to {}", path.display()))?,
        Command::Init(settings) => {
            log(settings.log);
            run::init(&settings)?;
        }
        Command::Run(settings) => {
            memory::set_up_heap();
            log(settings.log);
            let read = || config::parse(std::env::args_os(), config::Host::read());
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            if runtime.block_on(run::run(*settings, read))? == run::Ended::Changed {
                drop(runtime);
                return Err(process::begin_anew()).context("starting again with the new settings");
            }
        }
    }
    Ok(())
}

fn log(settings: LogSettings) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(settings.filter()));
    // Whoever collects logs gets text: the builder would look at NO_COLOR alone.
    let colours = colour::is_wanted(&std::io::stderr());
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    match settings.format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
