//! Writes this node's annotations, and clears `NetworkUnavailable`, by a PATCH of the Node's `status`: the one right that
//! flannel needs too.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Node;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch as Body, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{info, warn};

use super::facts::NETWORK_UNAVAILABLE;

/// How long the API server may take at the first try, and the longest. The first is short because the reason to write is
/// often a new address of this node: what goes over the old connection is never answered.
const ANSWER: (Duration, Duration) = (Duration::from_millis(300), Duration::from_secs(10));
/// First pause after a failure, and the longest.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(30));

/// What of this node's Node must be different.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Patch {
    /// Annotations that are missing or other.
    pub annotations: BTreeMap<String, String>,
    /// Whether the condition `NetworkUnavailable` must become `False`.
    pub clear_unavailable: bool,
}

impl Patch {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the API wants it.
    fn body(&self) -> Value {
        let mut body = json!({});
        if !self.annotations.is_empty() {
            body["metadata"] = json!({ "annotations": self.annotations });
        }
        if self.clear_unavailable {
            let now = Timestamp::now().to_string();
            body["status"] = json!({ "conditions": [{
                "type": NETWORK_UNAVAILABLE,
                "status": "False",
                "reason": "FairleadIsUp",
                "message": "fairlead carries packets to pods of other nodes",
                "lastTransitionTime": now,
                "lastHeartbeatTime": now,
            }] });
        }
        body
    }
}

/// Sends each patch that is asked for, until nobody asks any more.
pub async fn publish(client: Client, node: String, mut wanted: watch::Receiver<Option<Patch>>) {
    let api: Api<Node> = Api::all(client);
    let (mut answer, mut pause) = (ANSWER.0, PAUSE.0);
    while wanted.changed().await.is_ok() {
        loop {
            let Some(patch) = wanted.borrow_and_update().clone() else { break };
            let Err(why) = send(&api, &node, &patch, answer).await else {
                (answer, pause) = (ANSWER.0, PAUSE.0);
                info!(annotations = patch.annotations.len(), "overlay: this node's Node says how to reach it");
                break;
            };
            warn!("overlay: this node's Node cannot be patched: {why}; trying again in {pause:?}");
            tokio::time::sleep(pause).await;
            (answer, pause) = ((answer * 2).min(ANSWER.1), (pause * 2).min(PAUSE.1));
        }
    }
}

async fn send(api: &Api<Node>, node: &str, patch: &Patch, answer: Duration) -> Result<(), String> {
    let (params, body) = (PatchParams::default(), Body::Strategic(patch.body()));
    match tokio::time::timeout(answer, api.patch_status(node, &params, &body)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(kube::Error::Api(status))) if status.code == 403 => {
            Err(format!("{}; allow patch of nodes/status", status.message))
        }
        Ok(Err(error)) => Err(error.to_string()),
        Err(_) => Err("no answer".to_owned()),
    }
}
