//! Integration tests, one binary.

mod model;
mod oracle;
