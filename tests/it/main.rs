//! Integration tests, one binary.
#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

mod model;
mod oracle;
