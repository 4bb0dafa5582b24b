//! The dashboards and rules of `dashboards/`, read by a real Prometheus that watches the real program.

mod alerts;
mod documents;
mod pictures;
mod prometheus;
mod queries;
