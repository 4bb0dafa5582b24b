//! What the health address and the metrics address answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::StatusCode;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::listen::{Answer, ListenError, Server, answer};
use super::{Health, Notes, Verdict};
use crate::config::Mode;
use crate::metrics::{Metrics, Question};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
/// The content type that tells Prometheus the version of its text format.
const METRICS: &str = "text/plain; version=0.0.4";
/// Go's zero time, which kube-proxy shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Serves `/healthz`, `/livez` and `/readyz` for ever.
///
/// # Errors
/// Only with `hard_fail`, when the address is taken.
pub async fn serve_health(
    address: SocketAddr,
    hard_fail: bool,
    health: Arc<Health>,
    metrics: Arc<Metrics>,
    notes: Notes,
) -> Result<(), ListenError> {
    let server = Server {
        what: "/healthz",
        flag: "--healthz-bind-address",
        reason: "FailedToStartProxierHealthcheck",
        address,
        hard_fail,
    };
    let counts = Arc::clone(&metrics);
    let answering = move |path: &str| health_answer(path, &health, &counts);
    server.run(Arc::new(answering), &metrics, &notes).await
}

/// What the metrics address says of this program beside its metrics.
#[derive(Debug, Clone)]
pub struct Facts {
    /// `/proxyMode`
    pub mode: Mode,
    /// `/configz`: JSON of [`crate::config::Configuration`].
    pub configuration: String,
}

/// Serves `/metrics`, `/proxyMode`, `/configz` and `/healthz` for ever.
///
/// # Errors
/// Only with `hard_fail`, when the address is taken.
pub async fn serve_metrics(
    address: SocketAddr,
    hard_fail: bool,
    facts: Facts,
    metrics: Arc<Metrics>,
    notes: Notes,
) -> Result<(), ListenError> {
    let server = Server {
        what: "/metrics",
        flag: "--metrics-bind-address",
        reason: "FailedToStartMetricServer",
        address,
        hard_fail,
    };
    let shown = Arc::clone(&metrics);
    let answering = move |path: &str| metrics_answer(path, &facts, &shown);
    server.run(Arc::new(answering), &metrics, &notes).await
}

fn metrics_answer(path: &str, facts: &Facts, metrics: &Metrics) -> Answer {
    match path {
        "/metrics" => match metrics.scrape() {
            Ok(text) => answer(StatusCode::OK, METRICS, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/proxyMode" => answer(StatusCode::OK, TEXT, facts.mode.kube_proxy_name()),
        "/configz" => answer(StatusCode::OK, JSON, facts.configuration.clone()),
        "/healthz" | "/healthz/ping" => answer(StatusCode::OK, TEXT, "ok"),
        _ => not_found("/metrics, /proxyMode, /configz or /healthz"),
    }
}

fn health_answer(path: &str, health: &Health, metrics: &Metrics) -> Answer {
    let verdict = health.verdict(Instant::now());
    let (good, question) = match path {
        "/healthz" => (verdict.healthy && verdict.eligible, Some(Question::Healthz)),
        "/livez" => (verdict.healthy, Some(Question::Livez)),
        "/readyz" => (verdict.ready, None),
        _ => return not_found("/healthz, /livez or /readyz"),
    };
    let status = if good { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    if let Some(question) = question {
        metrics.answered(question, status.as_u16());
    }
    let body = Body::new(question, verdict, good, &health.families);
    answer(status, JSON, serde_json::to_vec(&body).unwrap_or_default())
}

fn not_found(paths: &str) -> Answer {
    answer(StatusCode::NOT_FOUND, TEXT, format!("nothing is here; ask for {paths}\n"))
}

/// kube-proxy's answer, field by field in its order; `ready` is fairlead's own.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    last_updated: String,
    current_time: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    node_eligible: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ready: Option<bool>,
    healthy: bool,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    status: BTreeMap<&'static str, FamilyBody>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FamilyBody {
    last_updated: String,
    healthy: bool,
}

impl Body {
    fn new(question: Option<Question>, verdict: Verdict, good: bool, families: &[fairlead_plan::Family]) -> Self {
        let now = SystemTime::now();
        let family = || FamilyBody { last_updated: time(verdict.updated), healthy: verdict.healthy };
        let status = families.iter().filter(|_| verdict.updated.is_some()).map(|f| (f.label(), family()));
        Self {
            // Some load balancers read only this field and take an old time for an illness.
            last_updated: time(if good { Some(now) } else { verdict.updated }),
            current_time: time(Some(now)),
            node_eligible: matches!(question, Some(Question::Healthz)).then_some(verdict.eligible),
            ready: question.is_none().then_some(verdict.ready),
            healthy: verdict.healthy,
            status: status.collect(),
        }
    }
}

/// RFC 3339 in UTC.
fn time(at: Option<SystemTime>) -> String {
    at.and_then(|at| Timestamp::try_from(at).ok()).map_or_else(|| NEVER.to_owned(), |at| at.to_string())
}
