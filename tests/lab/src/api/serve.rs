//! The HTTP side: connections, authentication, dispatch.

use std::{convert::Infallible, net::TcpListener, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    Method, Request, Response,
    body::{Bytes, Incoming},
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE},
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::{
    discovery, list,
    request::{Query, Target},
    state::{RecordedRequest, Shared},
    status::Failure,
    stream::Watch,
    table, write,
};

/// Where kubectl asks for the schemas of all objects. An empty answer is one without a schema, in protobuf, and kubectl leaves
/// the checking to the server. What is in `deploy` is checked against the schemas of Kubernetes elsewhere.
const SCHEMAS: &str = "/openapi/v2";
/// Before the next try after a connection could not be accepted.
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);

type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Accepts connections until the server is told to stop.
pub(super) async fn accept(listener: TcpListener, shared: Arc<Shared>) -> Result<()> {
    listener.set_nonblocking(true).context("making the listener non-blocking")?;
    let listener = tokio::net::TcpListener::from_std(listener).context("giving the listener to the runtime")?;
    let mut signals = shared.subscribe();
    loop {
        tokio::select! {
            stopped = signals.wait_for(|signals| signals.stop) => return stopped.map(|_| ()).context("signals ended"),
            accepted = listener.accept() => {
                match accepted {
                    Ok((stream, _)) => drop(tokio::spawn(connection(stream, Arc::clone(&shared)))),
                    // The client is gone already, or there are too many open files: a pause helps the latter.
                    Err(_) => tokio::time::sleep(ACCEPT_PAUSE).await,
                }
            }
        }
    }
}

/// Serves one connection until either side ends it or a fault cuts it.
async fn connection(stream: TcpStream, shared: Arc<Shared>) {
    let mut signals = shared.subscribe();
    let at_start = signals.borrow_and_update().clone();
    if at_start.faults.refuse {
        // Closing with unread data or zero linger sends a reset, as a closed port does.
        let _ = stream.set_zero_linger();
        return;
    }
    // Small watch lines must not wait for an acknowledgement.
    let _ = stream.set_nodelay(true);
    let serving = Arc::clone(&shared);
    let service = service_fn(move |request| {
        let shared = Arc::clone(&serving);
        async move { Ok::<_, Infallible>(answer(request, &shared).await) }
    });
    let cut = signals.wait_for(|signals| {
        signals.stop || signals.faults.refuse || signals.cut_connections != at_start.cut_connections
    });
    tokio::select! {
        _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        _ = cut => {}
    }
}

async fn answer(request: Request<Incoming>, shared: &Arc<Shared>) -> Answer {
    if shared.faults().hang {
        let mut signals = shared.subscribe();
        // An error means that the server is gone, and this connection with it.
        let _ = signals.wait_for(|signals| !signals.faults.hang).await;
    }
    let answer = route(request, shared).await;
    answer.unwrap_or_else(|failure| json_answer(failure.code, failure.to_json().to_string().into_bytes()))
}

async fn route(request: Request<Incoming>, shared: &Arc<Shared>) -> Result<Answer, Failure> {
    let (parts, body) = request.into_parts();
    let query = Query::of_uri(&parts.uri);
    if let Some(token) = &shared.settings.token {
        let given = parts.headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok());
        if given.and_then(|value| value.strip_prefix("Bearer ")) != Some(token) {
            return Err(Failure::unauthorized());
        }
    }
    let path = parts.uri.path();
    if path == SCHEMAS {
        shared.requests().push(RecordedRequest { verb: "get".into(), ..outside(&parts.uri) });
        return Ok(Response::new(BodyExt::boxed_unsync(Full::default())));
    }
    if let Some(found) = discovery::answer(path, shared.settings.minor) {
        shared.requests().push(RecordedRequest { verb: "get".into(), ..outside(&parts.uri) });
        return Ok(json_answer(200, found.to_string().into_bytes()));
    }
    let Some(target) = Target::of_path(path, shared.settings.minor) else {
        let verb = parts.method.as_str().to_ascii_lowercase();
        shared.requests().push(RecordedRequest { verb, ..outside(&parts.uri) });
        return Err(Failure::no_path());
    };
    let verb = target.verb(&parts.method, &query);
    shared.requests().push(target.recorded(verb, &parts.uri));
    let faults = shared.faults();
    if faults.forbidden.contains(target.resource.plural) {
        return Err(Failure::forbidden(target.resource, verb));
    }
    if verb == "list" || query.flag("sendInitialEvents") {
        tokio::time::sleep(faults.slow_lists).await;
    }
    match (parts.method.clone(), verb) {
        _ if !matches!(target.subresource.as_str(), "" | "status") => of_kubelet(shared, &target),
        (_, "watch") => {
            let body = StreamBody::new(Watch::start(shared, &target, &query)?.into_stream());
            Ok(json_header(200).body(BodyExt::boxed_unsync(body)).expect("a valid header"))
        }
        (Method::GET | Method::HEAD, "list") => {
            let list = list::list(shared, &target, &query)?;
            let accept = parts.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
            Ok(json_answer(200, table::of_list(target.resource, accept, &list).unwrap_or(list)))
        }
        (Method::GET | Method::HEAD, _) => Ok(json_answer(200, list::get(shared, &target)?)),
        (method, _) => {
            let content_type =
                parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
            let body = body.collect().await.map_err(|error| Failure::bad_request(error.to_string()))?.to_bytes();
            let (code, text) = write::write(shared, &target, &method, content_type, &body)?;
            Ok(json_answer(code, text))
        }
    }
}

/// A pod's log; the others need a connection that becomes another one, and are only recorded.
fn of_kubelet(shared: &Shared, target: &Target) -> Result<Answer, Failure> {
    let pod = shared.store().get(target.resource, &target.namespace, &target.name).cloned();
    pod.ok_or_else(|| Failure::no_object(target.resource, &target.name))?;
    if target.subresource != "log" {
        return Err(Failure::bad_request(format!("no kubelet of the lab does {}", target.subresource)));
    }
    let log = shared.logs().get(&target.name).cloned().unwrap_or_default();
    let text = Response::builder().header(CONTENT_TYPE, "text/plain");
    Ok(text.body(BodyExt::boxed_unsync(Full::new(Bytes::from(log)))).expect("a valid header"))
}

fn outside(uri: &hyper::Uri) -> RecordedRequest {
    RecordedRequest {
        verb: String::new(),
        group: String::new(),
        resource: String::new(),
        subresource: String::new(),
        namespace: String::new(),
        name: String::new(),
        uri: uri.to_string(),
    }
}

fn json_header(code: u16) -> hyper::http::response::Builder {
    Response::builder().status(code).header(CONTENT_TYPE, "application/json")
}

fn json_answer(code: u16, text: Vec<u8>) -> Answer {
    json_header(code).body(BodyExt::boxed_unsync(Full::new(Bytes::from(text)))).expect("a valid header")
}
