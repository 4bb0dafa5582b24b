//! fairlead replaces kube-proxy and flanneld on a Kubernetes node.
#![forbid(unsafe_code)]

pub mod config;
pub mod health;
pub mod metrics;
pub mod object;
pub mod resolve;
pub mod world;
