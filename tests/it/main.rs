//! The integration tests: laws, packets, the model with its oracle, faults.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod faults;
mod laws;
mod listing;
mod program;
