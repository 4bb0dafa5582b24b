use fairlead_lab::api::{ApiServer, Settings};
use serde_json::json;

use super::{TempDir, quick, reader_with, service};
use crate::watch::{ApiSettings, Cause, NodeScope};

fn with_token(token: &str) -> ApiServer {
    let settings = Settings { token: Some(token.to_owned()), ..Settings::default() };
    let server = ApiServer::on_loopback(settings).expect("a server");
    server.apply(service("web", "10.96.0.1")).expect("a name");
    server
}

fn settings(directory: &TempDir) -> ApiSettings {
    ApiSettings {
        kubeconfig: Some(directory.path().join("kubeconfig")),
        master: None,
        nodes: NodeScope::All,
        timing: quick(),
    }
}

#[tokio::test]
async fn a_kubeconfig_leads_to_the_server_with_its_token() {
    let directory = TempDir::new();
    let server = with_token("secret");
    server.kubeconfig(&directory.path().join("kubeconfig")).expect("written");
    let mut reader = reader_with(&settings(&directory)).await;
    reader.synced().await;
    assert_eq!((reader.names().len(), reader.problems.len()), (1, 0));
}

#[tokio::test]
async fn a_token_file_is_read_and_the_master_url_counts_more_than_the_kubeconfig() {
    let directory = TempDir::new();
    let server = with_token("from-file");
    directory.write("token", "from-file");
    let kubeconfig = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "c",
        "clusters": [{"name": "c", "cluster": {"server": "http://127.0.0.1:1"}}],
        "users": [{"name": "c", "user": {"tokenFile": directory.path().join("token")}}],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}],
    });
    directory.write("kubeconfig", &kubeconfig.to_string());
    let mut reader = reader_with(&ApiSettings { master: Some(server.url()), ..settings(&directory) }).await;
    reader.synced().await;
    assert_eq!((reader.names().len(), reader.problems.len()), (1, 0));
}

#[tokio::test]
async fn bad_settings_are_one_clear_sentence() {
    let directory = TempDir::new();
    directory.write("kubeconfig", "clusters: 5");
    for (settings, part) in [
        (settings(&directory), "cannot use the kubeconfig file"),
        (ApiSettings { kubeconfig: Some("/nowhere".into()), ..settings(&directory) }, "/nowhere"),
        (ApiSettings { kubeconfig: None, ..settings(&directory) }, "no pod with a service account"),
    ] {
        let error = settings.client().await.err().expect(part).to_string();
        assert!(error.contains(part) && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn an_https_url_is_spoken_to_in_tls() {
    let server = with_token("secret");
    let settings = ApiSettings {
        kubeconfig: None,
        master: Some(server.url().replace("http:", "https:")),
        nodes: NodeScope::All,
        timing: quick(),
    };
    let mut reader = reader_with(&settings).await;
    reader.until("the handshake fails", |reader| reader.count(Cause::Connection) > 0).await;
    let what = &reader.problems[0].what;
    assert!(what.contains("TLS") || what.contains("corrupt message"), "{what}");
    assert!(server.requests().is_empty(), "nothing is said in the clear");
}
