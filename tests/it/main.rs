//! The integration tests: laws, packets, the model with its oracle, faults.
