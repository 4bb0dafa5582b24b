//! The overlay: the real program on every node of a lab whose nodes know nothing of each other's pods.

mod documents;
mod faults;
mod flannel;
mod modes;
mod reach;
mod services;
mod soak;
mod stage;
