//! fairlead replaces kube-proxy and flanneld on a Kubernetes node.
#![forbid(unsafe_code)]

pub mod config;
pub mod conntrack;
pub mod flows;
pub mod guard;
pub mod health;
pub mod metrics;
pub mod object;
pub mod outward;
pub mod program;
pub mod reconcile;
pub mod render;
pub mod resolve;
pub mod run;
pub mod sysctls;
pub mod watch;
pub mod world;
