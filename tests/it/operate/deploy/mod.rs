//! The manifests of `deploy/`, built as an operator builds them and used as a cluster uses them.

mod permissions;
mod rendered;
mod valid;
