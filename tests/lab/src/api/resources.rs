//! The resources that the API server serves, and since which release.

/// One resource of the API.
#[derive(Debug, PartialEq, Eq)]
pub struct Resource {
    /// API group, empty for the core group.
    pub group: &'static str,
    /// Version within the group.
    pub version: &'static str,
    /// The name in paths: `services`.
    pub plural: &'static str,
    /// The name of one: `service`.
    pub singular: &'static str,
    /// What `kubectl` may call it too: `svc`.
    pub short: &'static [&'static str],
    /// `Service`.
    pub kind: &'static str,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether it has the subresource `status`.
    pub has_status: bool,
    /// The first minor release (of 1.x) that serves this version of it.
    pub since: u32,
    /// The fields after `metadata` of an object that has only its type, as Go writes it into a bookmark.
    pub zero: &'static str,
}

impl Resource {
    /// A resource of a cluster for which no program under test asks, but `kubectl` does.
    const fn of(group: &'static str, [plural, singular, kind]: [&'static str; 3]) -> Self {
        Self {
            group,
            version: "v1",
            plural,
            singular,
            short: &[],
            kind,
            namespaced: true,
            has_status: false,
            since: 0,
            zero: "",
        }
    }

    const fn of_cluster(self) -> Self {
        Self { namespaced: false, ..self }
    }

    const fn with_status(self) -> Self {
        Self { has_status: true, ..self }
    }

    const fn called(self, short: &'static [&'static str]) -> Self {
        Self { short, ..self }
    }

    /// `v1` or `discovery.k8s.io/v1`.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_owned() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Its place in [`RESOURCES`].
    pub(super) fn index(&self) -> usize {
        RESOURCES.iter().position(|other| other == self).expect("a Resource exists only in RESOURCES")
    }

    /// The resource of this kind, if it is served at all.
    #[must_use]
    pub fn of_kind(kind: &str) -> Option<&'static Self> {
        RESOURCES.iter().find(|resource| resource.kind == kind)
    }
}

/// Everything that is served.
pub static RESOURCES: [Resource; 12] = [
    Resource {
        group: "",
        version: "v1",
        plural: "services",
        singular: "service",
        short: &["svc"],
        kind: "Service",
        namespaced: true,
        has_status: true,
        since: 0,
        zero: r#","spec":{},"status":{"loadBalancer":{}}"#,
    },
    Resource {
        group: "",
        version: "v1",
        plural: "nodes",
        singular: "node",
        short: &["no"],
        kind: "Node",
        namespaced: false,
        has_status: true,
        since: 0,
        zero: r#","spec":{},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":0}},"nodeInfo":{"machineID":""}}"#,
    },
    Resource {
        group: "discovery.k8s.io",
        version: "v1",
        plural: "endpointslices",
        singular: "endpointslice",
        short: &[],
        kind: "EndpointSlice",
        namespaced: true,
        has_status: false,
        since: 21,
        zero: r#","addressType":"","endpoints":null,"ports":null"#,
    },
    Resource {
        group: "networking.k8s.io",
        version: "v1",
        plural: "servicecidrs",
        singular: "servicecidr",
        short: &[],
        kind: "ServiceCIDR",
        namespaced: false,
        has_status: true,
        since: 33,
        zero: r#","spec":{"cidrs":null},"status":{}"#,
    },
    Resource {
        group: "events.k8s.io",
        version: "v1",
        plural: "events",
        singular: "event",
        short: &["ev"],
        kind: "Event",
        namespaced: true,
        has_status: false,
        since: 19,
        zero: r#","eventTime":null,"regarding":{}"#,
    },
    Resource::of("", ["configmaps", "configmap", "ConfigMap"]).called(&["cm"]),
    Resource::of("", ["pods", "pod", "Pod"]).called(&["po"]).with_status(),
    Resource::of("", ["serviceaccounts", "serviceaccount", "ServiceAccount"]).called(&["sa"]),
    Resource::of("apps", ["daemonsets", "daemonset", "DaemonSet"]).called(&["ds"]).with_status(),
    Resource::of("apps", ["controllerrevisions", "controllerrevision", "ControllerRevision"]),
    Resource::of("rbac.authorization.k8s.io", ["clusterroles", "clusterrole", "ClusterRole"]).of_cluster(),
    Resource::of("rbac.authorization.k8s.io", ["clusterrolebindings", "clusterrolebinding", "ClusterRoleBinding"])
        .of_cluster(),
];
