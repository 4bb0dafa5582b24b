//! `fairlead overlay list`: the ways to pods of other nodes, read from the kernel, never from anybody's memory.

use std::fmt::Write;
use std::path::PathBuf;

use anyhow::{Context, bail};
use fairlead_kernel::route::{HopObject, Neighbour, NextHop, RouteFilter, Rtnl, RtnlError, TABLE_MAIN};
use fairlead_plan::Family;

use super::annotation::Prefix;
use super::diff::{self, PROTOCOL};
use super::facts::Facts;
use super::ways::{self, Held, Way};
use crate::colour;
use crate::config::OverlayList;
use crate::object::Object;
use crate::watch::{NodeScope, read_files};

/// Between two columns.
const GAP: &str = "  ";
const HEADS: [&str; 8] = ["PREFIX", "NODE", "UNDERLAY", "MAC", "VNI", "MODE", "DEVICE", "DRIFT"];
/// Escape sequences of terminals (ECMA-48, SGR).
const BOLD: &str = "\x1b[1m";
const RED: &str = "\x1b[31m";
const PLAIN: &str = "\x1b[0m";

/// Prints the list to standard output.
///
/// # Errors
/// If the kernel or a file cannot be read; and, after printing, if something is not as it should be, so that scripts can
/// tell.
pub fn list(settings: &OverlayList) -> anyhow::Result<()> {
    let nodes = nodes(&settings.files, &settings.annotation_prefix)?;
    let held = read(&mut Rtnl::open()?, &Family::BOTH).context("reading the kernel")?;
    let ways = ways::ways(&held, &nodes);
    if settings.json {
        println!("{}", serde_json::to_string_pretty(&ways)?);
    } else if ways.is_empty() {
        println!("There is no way to pods of other nodes.");
    } else {
        let colours = colour::is_wanted(&std::io::stdout());
        let rows: Vec<_> = ways.iter().map(|way| (row(way), !way.drift.is_empty())).collect();
        print!("{}", table(&HEADS, &rows, colours));
    }
    match ways.iter().filter(|way| !way.drift.is_empty()).count() {
        0 => Ok(()),
        wrong => bail!("{wrong} of {} ways are not as they should be; see the last column", ways.len()),
    }
}

/// The Nodes in the given files and directories; what is wrong with one is printed.
///
/// # Errors
/// If a file cannot be read.
pub fn nodes(files: &[PathBuf], prefix: &str) -> anyhow::Result<Vec<Facts>> {
    let prefix = Prefix::new(prefix);
    let objects = read_files(files, &NodeScope::All).context("reading the files")?;
    let mut nodes = Vec::new();
    for object in &objects {
        let Object::Node(node) = object else { continue };
        let (facts, notes) = Facts::parse(node, &prefix);
        for note in notes {
            eprintln!("fairlead: {}: {}", note.object, note.message);
        }
        nodes.push(facts);
    }
    Ok(nodes)
}

/// Reads everything that ways to pods of these families are made of.
///
/// # Errors
/// If the kernel cannot be read.
pub fn read(kernel: &mut Rtnl, families: &[Family]) -> Result<Held, RtnlError> {
    let mut held = Held { links: kernel.links()?, addresses: kernel.addresses()?, ..Held::default() };
    let devices: Vec<u32> =
        held.links.iter().filter(|link| diff::device_family(link).is_some()).map(|link| link.index).collect();
    for family in families {
        let ours =
            RouteFilter { ipv6: *family == Family::V6, table: TABLE_MAIN, protocol: Some(PROTOCOL), index: None };
        held.routes.extend(kernel.routes(ours)?);
        for index in &devices {
            let through = kernel.routes(RouteFilter { protocol: None, index: Some(*index), ..ours })?;
            held.routes.extend(through.into_iter().filter(|route| route.protocol != PROTOCOL));
        }
    }
    for index in &devices {
        let of_these = |object: &HopObject| families.iter().any(|family| is_of(object, *family));
        held.hops.extend(kernel.hops_where(*index, of_these)?);
    }
    name_hops(kernel, &mut held)?;
    for index in devices {
        let of_these = |entry: &Neighbour| families.contains(&Family::of(entry.addr));
        held.neighbours.extend(kernel.neighbours_where(index, of_these)?);
        held.forwarding.extend(kernel.forwarding(index)?);
    }
    // The daemon keeps it while it waits for answers.
    held.routes.shrink_to_fit();
    held.neighbours.shrink_to_fit();
    held.forwarding.shrink_to_fit();
    held.hops.shrink_to_fit();
    Ok(held)
}

/// Adds the nexthop objects that routes name and that lead through no device of ours, as one that somebody has replaced.
fn name_hops(kernel: &mut Rtnl, held: &mut Held) -> Result<(), RtnlError> {
    held.hops.sort_unstable_by_key(|object| object.id);
    let mut others = Vec::new();
    for route in &held.routes {
        if let NextHop::Object(id) = route.hop
            && held.hops.binary_search_by_key(&id, |object| object.id).is_err()
        {
            others.extend(kernel.hop(id)?);
        }
    }
    held.hops.append(&mut others);
    Ok(())
}

fn is_of(object: &HopObject, family: Family) -> bool {
    matches!(object.hop, NextHop::Unicast { gateway: Some(gateway), .. } if Family::of(gateway) == family)
}

/// Aligned columns under a line of heads; rows with `true` are those with something wrong.
#[must_use]
pub fn table<const N: usize>(heads: &[&str; N], rows: &[([String; N], bool)], colours: bool) -> String {
    let width = |column: usize| {
        rows.iter().map(|(row, _)| row[column].len()).chain([heads[column].len()]).max().unwrap_or_default()
    };
    let widths: [usize; N] = std::array::from_fn(width);
    let mut out = String::new();
    line(&mut out, &heads.map(str::to_owned), widths, colours.then_some(BOLD));
    for (row, wrong) in rows {
        line(&mut out, row, widths, (colours && *wrong).then_some(RED));
    }
    out
}

fn line<const N: usize>(out: &mut String, row: &[String; N], widths: [usize; N], colour: Option<&str>) {
    let cells: Vec<String> = row.iter().zip(widths).map(|(text, width)| format!("{text:width$}")).collect();
    let text = cells.join(GAP);
    let text = text.trim_end();
    // Writing to a string does not fail.
    let _ = match colour {
        Some(colour) => writeln!(out, "{colour}{text}{PLAIN}"),
        None => writeln!(out, "{text}"),
    };
}

fn row(way: &Way) -> [String; 8] {
    fn or_dash<T: ToString>(value: Option<T>) -> String {
        value.map_or_else(|| "-".to_owned(), |value| value.to_string())
    }
    let mode = Some(way.mode).filter(|mode| !mode.is_empty());
    let drift = if way.drift.is_empty() { "none".to_owned() } else { way.drift.join("; ") };
    [
        or_dash(way.prefix),
        or_dash(way.node.as_ref()),
        or_dash(way.underlay),
        or_dash(way.mac),
        or_dash(way.vni),
        or_dash(mode),
        or_dash(way.device.as_ref()),
        drift,
    ]
}
