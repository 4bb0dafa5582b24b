//! fairlead replaces kube-proxy and flanneld on a Kubernetes node.
#![forbid(unsafe_code)]

pub mod object;
pub mod watch;
