//! Objects in, decisions out. Every test runs in both families.

mod build;
mod frontends;
mod node;
mod policy;
mod readiness;
mod slots;
mod sources;
mod topology;

use build::{both, endpoints, service};
