//! `fairlead render`: what would be programmed for files of objects. Touches no kernel and needs no privileges.

use std::fmt::Write;

use anyhow::{Context, bail};
use fairlead_plan::{Plan, Service};

use crate::config::{Mode, Render, RenderOutput};
use crate::object::Event;
use crate::watch::{NodeScope, read_files};
use crate::world::World;

/// The plan for these files, printed as asked.
///
/// # Errors
/// The file, line and reason if one cannot be read.
pub fn render(settings: &Render) -> anyhow::Result<String> {
    let objects = read_files(&settings.files, &NodeScope::Own(settings.traffic.node_name.clone()))
        .context("reading the files")?;
    let mut world = World::new(settings.traffic.clone());
    for object in objects {
        world.apply(Event::Apply(Box::new(object)));
    }
    let planned = world.plan(&Plan::default());
    for note in &planned.notes {
        eprintln!("fairlead: {}: {}", note.object, note.message);
    }
    match settings.output {
        RenderOutput::Text => {
            let rules = match settings.mode {
                Mode::Nft => fairlead_nft::text(&planned.plan),
                Mode::Iptables(_) => fairlead_iptables::text(&planned.plan),
                Mode::Ipvs => fairlead_ipvs::text(&planned.plan, &fairlead_ipvs::Settings::default()),
            };
            Ok(format!("{}\n{rules}", summary(&planned.plan)))
        }
        RenderOutput::Json if settings.mode != Mode::Nft => {
            bail!("rules of iptables have no form in JSON; use -o text or -o plan")
        }
        RenderOutput::Json => {
            let Ok(mut text) = fairlead_nft::json(&planned.plan) else { bail!("the rules cannot be written as JSON") };
            text.push('\n');
            Ok(text)
        }
        RenderOutput::Plan => {
            let services = planned.plan.services.sorted();
            let plan = serde_json::json!({ "node": &*planned.plan.node, "services": services });
            let Ok(mut text) = serde_json::to_string_pretty(&plan) else { bail!("the plan cannot be written as JSON") };
            text.push('\n');
            Ok(text)
        }
    }
}

/// The plan as comments, one paragraph for each service port.
fn summary(plan: &Plan) -> String {
    let mut out = String::new();
    for service in plan.services.sorted() {
        paragraph(&mut out, service);
    }
    out
}

fn paragraph(out: &mut String, service: &Service) {
    // Writing to a String cannot fail.
    let _ = writeln!(out, "# {}", service.key);
    for frontend in &service.frontends {
        let route = service.route(frontend);
        let _ = writeln!(
            out,
            "#   {frontend:?}: from pods {:?}, from this node {:?}, from outside {:?}",
            route.from_pod, route.from_node, route.from_outside
        );
    }
    for (name, pool) in [("cluster", &service.pools.cluster), ("local", &service.pools.local)] {
        let addresses: Vec<String> = pool.iter().map(|endpoint| endpoint.addr().to_string()).collect();
        if !addresses.is_empty() {
            let _ = writeln!(out, "#   {name}: {}", addresses.join(" "));
        }
    }
    if let Some(affinity) = service.affinity {
        let _ = writeln!(out, "#   clients stick for {} s", affinity.timeout_seconds);
    }
}
