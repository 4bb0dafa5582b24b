//! The container image of fairlead, written without a container engine.
//!
//! ```text
//!   elf        which loader and libraries a program names
//!   libraries  where these are, and which they name in turn
//!   layer      a tar archive in which nothing depends on when and where it was written
//!   layout     layers, configuration, manifest and index as an OCI image layout
//! ```
//!
//! The image holds the program, also under the name of kube-proxy, the loader and the libraries that it names, and nothing else: no shell, no package manager, no
//! user database. The same files give the same bytes, so two builds can be compared by the digest of the manifest.
#![forbid(unsafe_code)]

mod elf;
mod layer;
mod layout;
mod libraries;

pub use layout::{Image, copy, write};
