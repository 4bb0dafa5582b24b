//! The overlay: the real program on every node of a lab whose nodes know nothing of each other's pods.

mod around;
mod bridged;
mod captures;
mod cni;
mod documents;
mod faults;
mod flannel;
mod held;
mod hops;
mod list;
mod modes;
mod nodes;
mod plugins;
mod probe;
mod reach;
mod rules;
mod services;
mod soak;
pub mod stage;
