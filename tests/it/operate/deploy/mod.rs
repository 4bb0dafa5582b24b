//! The manifests of `deploy/`, built as an operator builds them and used as a cluster uses them.

mod container;
pub mod kubeadm;
mod least;
mod permissions;
pub mod rendered;
mod seccomp;
mod valid;
