//! The integration tests: laws, packets, the model with its oracle, faults.
#![forbid(unsafe_code)]

mod packets;
