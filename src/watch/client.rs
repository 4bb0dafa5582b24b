//! The connection to the API server.

use std::{path::PathBuf, time::Duration};

use hyper_util::{
    client::legacy::{Client as HttpClient, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::ConfigExt,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use tower::{BoxError, ServiceBuilder};

use super::kinds::NodeScope;

/// A peer that says nothing is asked for a sign of life after this long,
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// then this often,
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// and given up after so many questions: half a minute in all, where the answer would never come.
const KEEPALIVE_PROBES: u32 = 3;
/// Data that is not acknowledged for this long ends the connection.
const UNACKNOWLEDGED: Duration = Duration::from_secs(25);
/// How long a connection may take to come about.
const CONNECT: Duration = Duration::from_secs(10);
/// Unused connections are closed before a middlebox forgets them.
const POOL_IDLE: Duration = Duration::from_secs(30);
/// What one connection reads at a time, bytes. Without this limit each watch keeps a buffer of up to 400 kB, made for its first list.
const READ_AT_ONCE: usize = 64 << 10;

/// How to reach the API server and what to ask it for.
#[derive(Debug, Clone, PartialEq)]
pub struct ApiSettings {
    /// A kubeconfig file; `tokenFile`s in it are read again as they rotate.
    pub kubeconfig: Option<PathBuf>,
    /// The URL of the API server, in place of the one in the kubeconfig. With neither, the service account of the pod
    /// and `KUBERNETES_SERVICE_HOST` are used; as that is a ClusterIP, which fairlead itself provides, a node where
    /// nothing else provides it must name the real address here.
    pub master: Option<String>,
    /// Which Nodes are wanted.
    pub nodes: NodeScope,
    /// Waiting times.
    pub timing: Timing,
}

impl ApiSettings {
    /// The service account of the pod, and this node's own Node.
    #[must_use]
    pub fn in_cluster(node_name: &str) -> Self {
        Self { kubeconfig: None, master: None, nodes: NodeScope::Own(node_name.to_owned()), timing: Timing::default() }
    }
}

/// Waiting times. The defaults are right for clusters of any size; tests have less time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timing {
    /// After a first failure about this long until the next try; doubles from try to try.
    pub retry_first: Duration,
    /// At most this long between tries.
    pub retry_most: Duration,
    /// How long a streamed list may take before lists are read in pages.
    pub streamed_list: Duration,
    /// How long one page, or the beginning of a watch, may take.
    pub answer: Duration,
    /// A watch that has seen bookmarks and then hears nothing for this long is taken for dead. kube-apiserver sends a
    /// bookmark about every minute.
    pub silence: Duration,
    /// How often a resource that the API server does not have, or does not allow, is asked for again.
    pub absent_retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            retry_first: Duration::from_millis(200),
            retry_most: Duration::from_secs(15),
            streamed_list: Duration::from_secs(30),
            answer: Duration::from_secs(60),
            silence: Duration::from_secs(150),
            absent_retry: Duration::from_secs(60),
        }
    }
}

/// Why there can be no client. That the API server cannot be reached is no such reason: that is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The kubeconfig file cannot be read or understood.
    #[error("cannot use the kubeconfig file {}: {error}", path.display())]
    Kubeconfig {
        /// As given.
        path: PathBuf,
        /// What is wrong with it, in one line.
        error: String,
    },
    /// The master URL is no URL.
    #[error("the master URL \"{url}\" is not valid: {reason}; write it like https://192.0.2.1:6443")]
    Master {
        /// As given.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// There is no service account here.
    #[error("neither a kubeconfig file nor a master URL is given, and this is no pod with a service account: {0}")]
    InCluster(kube::config::InClusterError),
    /// Certificates or credentials cannot be used.
    #[error("cannot use the credentials for the API server: {0}")]
    Credentials(kube::Error),
}

impl ApiSettings {
    /// Makes a client; does not talk to the API server yet. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If files cannot be read or understood.
    pub async fn client(&self) -> Result<Client, ConnectError> {
        let mut config = self.config().await?;
        config.headers.push((
            hyper::header::USER_AGENT,
            hyper::header::HeaderValue::from_static(concat!("fairlead/", env!("CARGO_PKG_VERSION"))),
        ));
        let auth = config.auth_layer().map_err(ConnectError::Credentials)?;
        let headers = config.extra_headers_layer().map_err(ConnectError::Credentials)?;
        let connector = config.rustls_https_connector_with_connector(connector()).map_err(ConnectError::Credentials)?;
        let http = HttpClient::builder(TokioExecutor::new())
            .pool_idle_timeout(POOL_IDLE)
            .http1_max_buf_size(READ_AT_ONCE)
            .build(connector);
        let service = ServiceBuilder::new()
            .layer(config.base_uri_layer())
            .option_layer(auth)
            .layer(headers)
            .map_err(BoxError::from)
            .service(http);
        Ok(Client::new(service, config.default_namespace))
    }

    async fn config(&self) -> Result<Config, ConnectError> {
        let master = self.master.as_deref().map(parse_master).transpose()?;
        if let Some(path) = &self.kubeconfig {
            let wrap = |error: KubeconfigError| {
                // An error in YAML goes on with a drawing of the place.
                let error = error.to_string().lines().next().unwrap_or_default().to_owned();
                ConnectError::Kubeconfig { path: path.clone(), error }
            };
            let kubeconfig = Kubeconfig::read_from(path).map_err(wrap)?;
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await;
            let mut config = config.map_err(wrap)?;
            if let Some(master) = master {
                config.cluster_url = master;
            }
            return Ok(config);
        }
        match master {
            Some(master) => Ok(Config::new(master)),
            None => Config::incluster().map_err(ConnectError::InCluster),
        }
    }
}

fn parse_master(url: &str) -> Result<hyper::Uri, ConnectError> {
    let error = |reason: String| ConnectError::Master { url: url.to_owned(), reason };
    let uri: hyper::Uri = url.parse().map_err(|problem: hyper::http::uri::InvalidUri| error(problem.to_string()))?;
    match uri.scheme_str() {
        Some("http" | "https") if uri.host().is_some() => Ok(uri),
        _ => Err(error("it has no scheme http or https, or no host".to_owned())),
    }
}

fn connector() -> HttpConnector {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    connector.set_nodelay(true);
    connector.set_connect_timeout(Some(CONNECT));
    connector.set_keepalive(Some(KEEPALIVE_IDLE));
    connector.set_keepalive_interval(Some(KEEPALIVE_INTERVAL));
    connector.set_keepalive_retries(Some(KEEPALIVE_PROBES));
    connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
    connector
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_master_without_scheme_or_host_is_refused_with_an_example() {
        for url in ["192.0.2.1:6443", "ftp://x", "", "https://"] {
            let error = parse_master(url).expect_err(url).to_string();
            assert!(error.contains("https://192.0.2.1:6443"), "{error}");
        }
        assert!(parse_master("https://[2001:db8::1]:6443").is_ok());
    }
}
