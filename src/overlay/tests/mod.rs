mod build;
mod conflicts;
mod desired;
mod diff;
mod facts;
mod underlay;
