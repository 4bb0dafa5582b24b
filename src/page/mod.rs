//! The status page: what `fairlead status` and `fairlead services` print, for a browser.
//!
//! It is one document without a script, an image or anything from elsewhere. All of it is made when somebody asks, on the thread of
//! the HTTP servers, from what the loop has told [`Facts`] and [`Metrics`] anyway: nobody who does not ask pays for it.
//!
//! Names of Services and addresses of pods are for those who run the node, and the ports of health and metrics may be open to
//! others. So the page is given to the node itself alone, whatever address the ports are bound to: [`Known::page`].

mod html;
mod query;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use html::Html;
pub use query::Wanted;

use crate::health::Health;
use crate::local::{Facts, ServiceView};
use crate::metrics::Metrics;
use crate::services;
use crate::status::{self, Status};

/// More Services than this make a page that nobody reads; they are found by name.
const SHOWN: usize = 200;
const STYLE: &str = include_str!("style.css");
/// What is said to those who may not see it.
pub const NOT_FOR_YOU: &str = "this page is for the node itself; ask on 127.0.0.1 or [::1], there by `kubectl port-forward` for \
    instance, and not by a name other than localhost\n";

/// What is known of this node, by those who know it.
#[derive(Debug)]
pub struct Known {
    /// `--hostname-override`
    pub node: String,
    /// What the kernel has been told.
    pub facts: Arc<Facts>,
    /// Whether the node does its job.
    pub health: Arc<Health>,
    /// What has been counted.
    pub metrics: Arc<Metrics>,
}

/// Whether somebody may see the page: only a program on this node, and no browser that was led here by a name that another has made
/// to mean this node ("DNS rebinding"). `host` is the request's header of that name.
#[must_use]
pub fn may_see(peer: IpAddr, host: Option<&str>) -> bool {
    let named = host.is_none_or(|host| {
        let name = match host.rsplit_once(':') {
            Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => host,
        };
        name == "localhost" || name.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>().is_ok()
    });
    // A listener for both families sees clients of IPv4 as mapped addresses.
    peer.to_canonical().is_loopback() && named
}

impl Known {
    /// The page.
    ///
    /// # Errors
    /// When metrics cannot be written; none that is declared can be the cause.
    pub fn page(&self, wanted: &Wanted) -> anyhow::Result<String> {
        let told = self.metrics.scrape()?;
        let status = self.status(&told);
        let wrong = status::wrong(&status);
        let mut html = Html::default();
        html.markup("<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<title>fairlead on ");
        html.text(&self.node).markup("</title>\n<meta name=\"viewport\" content=\"width=device-width\">\n<style>\n");
        html.markup(STYLE).markup("</style>\n</head>\n<body>\n<h1>fairlead on ").text(&self.node).markup("</h1>\n");
        if wrong.is_empty() {
            html.markup("<p class=\"good\">All is well.</p>\n");
        }
        for sentence in &wrong {
            html.markup("<p class=\"bad\">").text(sentence).markup("</p>\n");
        }
        html.markup("<h2>State</h2>\n<table id=\"state\">\n");
        let peers = status::peers_told(&told).map(|text| ("peers", text));
        for (name, text) in status::lines(&status, SystemTime::now()).into_iter().chain(peers) {
            html.markup("<tr><th scope=\"row\">").text(name).markup("</th><td>").text(&text).markup("</td></tr>\n");
        }
        html.markup("</table>\n");
        troubles(&mut html, &status);
        self.services(&mut html, wanted);
        html.markup("<p>fairlead ").text(env!("CARGO_PKG_VERSION")).markup("</p>\n</body>\n</html>\n");
        Ok(html.finish())
    }

    fn status(&self, told: &str) -> Status {
        let verdict = self.health.verdict(Instant::now());
        let mut controllers = vec![
            ("process", verdict.healthy),
            ("services", verdict.healthy && verdict.eligible),
            ("first sync", verdict.ready),
        ];
        controllers.extend(status::overlay_controllers(told));
        let state = self.facts.state();
        Status {
            mode: state.mode.clone(),
            state: Some(state),
            conntrack: status::conntrack(),
            controllers,
            overlay: status::overlay(told),
            peers: (0, 0),
        }
    }

    fn services(&self, html: &mut Html, wanted: &Wanted) {
        let picked = |service: &fairlead_plan::Service| {
            let fits = wanted.service.is_empty() || crate::explain::name(&service.key).contains(&wanted.service);
            fits && !(wanted.without_endpoints && service.endpoints().next().is_some())
        };
        let (first, fitting) = self.facts.first_services(SHOWN, picked);
        html.markup("<h2>Services</h2>\n<form method=\"get\">\n<label>Name <input name=\"service\" value=\"");
        html.text(&wanted.service).markup("\"></label>\n<label><input type=\"checkbox\" name=\"empty\" value=\"1\"");
        html.markup(if wanted.without_endpoints { " checked" } else { "" });
        html.markup("> without endpoints</label>\n<button>Show</button>\n</form>\n<p id=\"count\">");
        html.text(&match fitting {
            all if all <= SHOWN => format!("{all} service ports."),
            all => format!("The first {SHOWN} of {all} service ports; ask for a name, or run: fairlead services"),
        });
        html.markup("</p>\n<div class=\"wide\"><table id=\"services\">\n<thead><tr>");
        for head in services::HEADS {
            html.markup("<th scope=\"col\">").text(&head.to_lowercase()).markup("</th>");
        }
        html.markup("</tr></thead>\n<tbody>\n");
        first.iter().for_each(|service: &ServiceView| _ = html.row(services::row(service).iter().map(String::as_str)));
        html.markup("</tbody></table></div>\n");
    }
}

fn troubles(html: &mut Html, status: &Status) {
    html.markup("<h2>Last failures and repairs</h2>\n");
    let troubles = status::troubles(status, SystemTime::now());
    if troubles.is_empty() {
        html.markup("<p>None since the start.</p>\n");
        return;
    }
    html.markup("<ul id=\"troubles\">\n");
    troubles.iter().rev().for_each(|text| _ = html.markup("<li>").text(text).markup("</li>\n"));
    html.markup("</ul>\n");
}

#[cfg(test)]
mod tests;
