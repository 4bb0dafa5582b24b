use fairlead_lab::api::ApiServer;
use serde_json::{Value, json};

/// Endpoints of each service.
pub const ENDPOINTS: usize = 10;
const NAMESPACE: &str = "bench";

/// One sort of change.
#[derive(Debug, Clone, Copy)]
pub enum Change {
    /// Another address in the place of one endpoint.
    Replace,
    /// One endpoint more.
    Add,
    /// One endpoint less.
    Remove,
    /// A Service and its slice appear; timed from the second of the two writes.
    NewService,
    /// A Service goes.
    DeleteService,
}

impl Change {
    /// In the order in which they are made.
    pub const ALL: [Self; 5] = [Self::Replace, Self::Add, Self::Remove, Self::NewService, Self::DeleteService];

    /// For the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replace => "endpoint replaced",
            Self::Add => "endpoint added",
            Self::Remove => "endpoint removed",
            Self::NewService => "service new",
            Self::DeleteService => "service deleted",
        }
    }

    /// Writes that must be in the kernel before the one that is timed.
    pub fn prepare(self, api: &ApiServer, size: usize, number: usize) -> anyhow::Result<bool> {
        if let Self::NewService = self {
            api.apply(service(size + number))?;
            return Ok(true);
        }
        Ok(false)
    }

    /// The write that is timed.
    pub fn make(self, api: &ApiServer, size: usize, number: usize) -> anyhow::Result<()> {
        let at = (number * 37) % size;
        match self {
            Self::Replace => api.apply(slice(at, ENDPOINTS, 1 + number % 2))?,
            Self::Add => api.apply(slice(at, ENDPOINTS + 1, 3))?,
            Self::Remove => api.apply(slice(at, ENDPOINTS, 3))?,
            Self::NewService => api.apply(slice(size + number, ENDPOINTS, 0))?,
            Self::DeleteService => {
                api.delete("Service", NAMESPACE, &name(size + number))?;
                Value::Null
            }
        };
        Ok(())
    }
}

/// Fills an API server.
pub fn fill(api: &ApiServer, size: usize) -> anyhow::Result<()> {
    api.apply(json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "a"},
        "status": {"addresses": [{"type": "InternalIP", "address": "192.168.50.1"}]}}))?;
    api.apply(json!({"apiVersion": "networking.k8s.io/v1", "kind": "ServiceCIDR", "metadata": {"name": "kubernetes"},
        "spec": {"cidrs": ["10.96.0.0/12"]}}))?;
    for number in 0..size {
        api.apply(service(number))?;
        api.apply(slice(number, ENDPOINTS, 0))?;
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("service-{number:06}")
}

fn service(number: usize) -> Value {
    let address = format!("10.{}.{}.{}", 96 + (number >> 16), (number >> 8) & 0xff, number & 0xff);
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name(number), "namespace": NAMESPACE},
        "spec": {"type": "ClusterIP", "clusterIP": address, "clusterIPs": [address], "ipFamilies": ["IPv4"],
            "ports": [{"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080}]}})
}

/// The slice of a service; `variant` 0 is the first, others have another address in one place.
fn slice(number: usize, endpoints: usize, variant: usize) -> Value {
    let address = |index: usize| {
        let unique = if index == 4 { variant * 400_000 + number * 12 + index } else { number * 12 + index };
        format!("10.{}.{}.{}", 128 + (unique >> 16), (unique >> 8) & 0xff, unique & 0xff)
    };
    let endpoints: Vec<Value> = (0..endpoints)
        .map(|index| {
            json!({"addresses": [address(index)], "nodeName": format!("node-{}", index % 7), "zone": "z1",
                "conditions": {"ready": true, "serving": true, "terminating": false},
                "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": format!("{}-{index}", name(number))}})
        })
        .collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
        "metadata": {"name": format!("{}-abcde", name(number)), "namespace": NAMESPACE,
            "labels": {"kubernetes.io/service-name": name(number)}},
        "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}], "endpoints": endpoints})
}
