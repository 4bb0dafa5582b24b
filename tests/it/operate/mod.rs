//! What an operator meets: the files of kube-proxy's DaemonSet, the commands that show what is there, the manifests.

mod ask;
mod counters;
mod dashboards;
pub mod deploy;
mod documents;
mod drop_in;
mod image;
mod page;
mod shell;
