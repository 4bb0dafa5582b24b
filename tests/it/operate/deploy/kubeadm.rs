//! kubeadm's own DaemonSet and ConfigMap, with only the image changed, by a container runtime.

use fairlead_lab::{Feature, POD_NETS, needs};
use serde_json::json;

use super::container::Pod;
use super::rendered::Rendered;
use crate::faults::until_answered_by;
use crate::operate::drop_in::{CONFIG, KUBECONFIG};
use crate::program::{Cluster, METRICS_PORT};

/// The DaemonSet as kubeadm writes it, with our image.
pub const DAEMON_SET: &str = "\
apiVersion: apps/v1
kind: DaemonSet
metadata:
  name: kube-proxy
  namespace: kube-system
  labels:
    k8s-app: kube-proxy
spec:
  selector:
    matchLabels:
      k8s-app: kube-proxy
  updateStrategy:
    type: RollingUpdate
  template:
    metadata:
      labels:
        k8s-app: kube-proxy
    spec:
      priorityClassName: system-node-critical
      containers:
      - name: kube-proxy
        image: fairlead:0.1.0
        imagePullPolicy: IfNotPresent
        command:
        - /usr/local/bin/kube-proxy
        - --config=/var/lib/kube-proxy/config.conf
        - --hostname-override=$(NODE_NAME)
        securityContext:
          privileged: true
        volumeMounts:
        - mountPath: /var/lib/kube-proxy
          name: kube-proxy
        - mountPath: /run/xtables.lock
          name: xtables-lock
          readOnly: false
        - mountPath: /lib/modules
          name: lib-modules
          readOnly: true
        env:
        - name: NODE_NAME
          valueFrom:
            fieldRef:
              fieldPath: spec.nodeName
      hostNetwork: true
      serviceAccountName: kube-proxy
      volumes:
      - name: kube-proxy
        configMap:
          name: kube-proxy
      - name: xtables-lock
        hostPath:
          path: /run/xtables.lock
          type: FileOrCreate
      - name: lib-modules
        hostPath:
          path: /lib/modules
      tolerations:
      - operator: Exists
      nodeSelector:
        kubernetes.io/os: linux
";

#[test]
fn kubeadms_daemon_set_runs_the_image_by_kube_proxys_path() {
    if !needs(&[Feature::Namespaces, Feature::NfTables, Feature::Deployment]) {
        return;
    }
    let cluster = Cluster::new();
    cluster.serve("web", 1, &["a1", "b1"]);
    let data = json!({"config.conf": CONFIG, "kubeconfig.conf": KUBECONFIG.replace("SERVER", &cluster.server.url())});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "kube-proxy"}, "data": data});
    let objects = Rendered::of(&format!("{map}\n---\n{DAEMON_SET}"));
    let pod = Pod::of(objects, cluster.node(), &cluster.directory, cluster.server.url());
    pod.set("clusterCIDR: 10.244.0.0/16,fd00:10:244::/56", &format!("clusterCIDR: {}", POD_NETS.join(",")));
    pod.set("maxPerCore: null", "maxPerCore: 0");
    let container = pod.start();
    for from in ["a2", "outside", "a"] {
        until_answered_by(cluster.lab.place(from), 1, &["a1", "b1"]);
    }
    assert_eq!(container.get(METRICS_PORT, "/proxyMode"), Some((200, "nftables".to_owned())));
    assert!(container.stop().success());
}
