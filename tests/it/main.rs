//! The integration tests: arrows, packets, the model with its oracle, laws, faults.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod arrows;
mod faults;
mod laws;
mod listing;
mod model;
mod modules;
mod operate;
mod oracle;
mod overlay;
mod packets;
mod program;
