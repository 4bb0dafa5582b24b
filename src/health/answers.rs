//! What the health address and the metrics address answer.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, HeaderName, HeaderValue, REFERRER_POLICY};
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;

use super::listen::{Answer, Asked, ListenError, Server, answer};
use super::{Notes, Verdict};
use crate::config::Mode;
use crate::metrics::Question;
use crate::page::{self, Known, Wanted};

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; charset=utf-8";
const HTML: &str = "text/html; charset=utf-8";
/// The page needs nothing but its own style and form: a browser takes nothing else from it, whatever should get into it.
const PAGE_HEADERS: [(HeaderName, &str); 3] = [
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (CACHE_CONTROL, "no-store"),
    (REFERRER_POLICY, "no-referrer"),
];
/// The content type that tells Prometheus the version of its text format.
const METRICS: &str = "text/plain; version=0.0.4";
/// Go's zero time, which kube-proxy shows for "never".
const NEVER: &str = "0001-01-01T00:00:00Z";

/// Serves `/healthz`, `/livez`, `/readyz` and the status page for ever.
///
/// # Errors
/// Only with `hard_fail`, when the address is taken.
pub async fn serve_health(
    address: SocketAddr,
    hard_fail: bool,
    known: Arc<Known>,
    notes: Notes,
) -> Result<(), ListenError> {
    let server = Server {
        what: "/healthz",
        flag: "--healthz-bind-address",
        reason: "FailedToStartProxierHealthcheck",
        address,
        hard_fail,
    };
    let metrics = Arc::clone(&known.metrics);
    let answering = move |asked: &Asked<'_>| health_answer(asked, &known);
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

/// Serves `/metrics`, `/proxyMode`, `/configz`, `/healthz` and the status page for ever.
///
/// # Errors
/// Only with `hard_fail`, when the address is taken.
pub async fn serve_metrics(
    address: SocketAddr,
    hard_fail: bool,
    facts: Facts,
    known: Arc<Known>,
    notes: Notes,
) -> Result<(), ListenError> {
    let server = Server {
        what: "/metrics",
        flag: "--metrics-bind-address",
        reason: "FailedToStartMetricServer",
        address,
        hard_fail,
    };
    let metrics = Arc::clone(&known.metrics);
    let answering = move |asked: &Asked<'_>| metrics_answer(asked, &facts, &known);
    server.run(Arc::new(answering), &metrics, &notes).await
}

fn metrics_answer(asked: &Asked<'_>, facts: &Facts, known: &Known) -> Answer {
    match asked.path {
        "/metrics" => match known.metrics.scrape() {
            Ok(text) => answer(StatusCode::OK, METRICS, text),
            Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
        },
        "/proxyMode" => answer(StatusCode::OK, TEXT, facts.mode.kube_proxy_name()),
        "/configz" => answer(StatusCode::OK, JSON, facts.configuration.clone()),
        "/healthz" | "/healthz/ping" => answer(StatusCode::OK, TEXT, "ok"),
        "/" | "/status" => status_page(asked, known),
        _ => not_found("/metrics, /proxyMode, /configz, /healthz or /status"),
    }
}

fn status_page(asked: &Asked<'_>, known: &Known) -> Answer {
    if !page::may_see(asked.peer, asked.host) {
        return answer(StatusCode::FORBIDDEN, TEXT, page::NOT_FOR_YOU);
    }
    match known.page(&Wanted::of(asked.query)) {
        Ok(text) => {
            let mut answer = answer(StatusCode::OK, HTML, text);
            for (name, value) in PAGE_HEADERS {
                answer.headers_mut().insert(name, HeaderValue::from_static(value));
            }
            answer
        }
        Err(error) => answer(StatusCode::INTERNAL_SERVER_ERROR, TEXT, format!("{error}\n")),
    }
}

fn health_answer(asked: &Asked<'_>, known: &Known) -> Answer {
    let Known { health, metrics, .. } = known;
    let verdict = health.verdict(Instant::now());
    let (good, question) = match asked.path {
        "/" | "/status" => return status_page(asked, known),
        "/healthz" => (verdict.healthy && verdict.eligible, Some(Question::Healthz)),
        "/livez" => (verdict.healthy, Some(Question::Livez)),
        "/readyz" => (verdict.ready, None),
        _ => return not_found("/healthz, /livez, /readyz or /status"),
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
