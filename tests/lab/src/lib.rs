#![allow(missing_docs)]

pub mod api;
