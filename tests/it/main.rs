//! The integration tests: arrows, laws, packets, the model with its oracle, faults.

mod arrows;
