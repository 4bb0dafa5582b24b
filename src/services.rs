//! `fairlead services`: what the running program on this node knows of Services, as a table or as JSON.

use anyhow::{Context, bail};

use crate::local::{self, DEFAULT_SOCKET, ServiceView};
use crate::overlay::list;
use crate::{colour, config};

/// What the columns of the table say.
pub(crate) const HEADS: [&str; 8] =
    ["SERVICE", "PROTOCOL", "FAMILY", "FRONTENDS", "POLICY", "AFFINITY", "ENDPOINTS", "CONNECTIONS"];
/// How many addresses a column names.
const TOLD: usize = 4;

/// Prints all of them, or those whose names hold a text.
///
/// # Errors
/// If no running program answers; and, after printing, if a name was given that no Service has.
pub fn services(settings: &config::Services) -> anyhow::Result<()> {
    let asked = local::services(settings.socket.as_deref())?;
    let at = settings.socket.as_deref().unwrap_or(DEFAULT_SOCKET.as_ref());
    let mut all = asked.with_context(|| format!("no fairlead answers at {}; is it running?", at.display()))?;
    if let Some(name) = &settings.name {
        all.retain(|service| service.name.contains(name.as_str()));
    }
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&all)?);
    } else {
        let colours = colour::is_wanted(&std::io::stdout());
        let rows: Vec<_> = all.iter().map(|service| (row(service), service.endpoints.is_empty())).collect();
        print!("{}", list::table(&HEADS, &rows, colours));
    }
    match &settings.name {
        Some(name) if all.is_empty() => bail!("no Service has a name with {name} in it"),
        _ => Ok(()),
    }
}

/// A service port as a row of the table.
pub(crate) fn row(service: &ServiceView) -> [String; 8] {
    let frontend = |one: &local::FrontendView| match one.allow.is_empty() {
        true => format!("{} {}", one.kind, one.address),
        false => format!("{} {} from {}", one.kind, one.address, some(one.allow.iter().cloned())),
    };
    let here = service.endpoints.iter().filter(|endpoint| endpoint.local).count();
    let affinity = service.affinity_seconds.map_or_else(|| "-".to_owned(), |seconds| format!("ClientIP {seconds}s"));
    let endpoints = match service.endpoints.len() {
        0 => "none".to_owned(),
        all => format!("{all} ({here} here): {}", some(service.endpoints.iter().map(|one| one.address.to_string()))),
    };
    [
        service.name.clone(),
        service.protocol.clone(),
        service.family.clone(),
        some(service.frontends.iter().map(frontend)),
        service.policy(),
        affinity,
        endpoints,
        service.connections.map_or_else(|| "-".to_owned(), |count| count.to_string()),
    ]
}

/// The first few, and how many more there are.
fn some(all: impl Iterator<Item = String>) -> String {
    let all: Vec<String> = all.collect();
    let told = all.iter().take(TOLD).map(String::as_str).collect::<Vec<_>>().join(", ");
    match all.len().saturating_sub(TOLD) {
        0 => told,
        more => format!("{told} and {more} more"),
    }
}
