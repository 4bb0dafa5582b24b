//! The overlay: the real program on every node of a lab whose nodes know nothing of each other's pods.

mod cni;
mod faults;
mod list;
mod reach;
mod rules;
mod stage;
