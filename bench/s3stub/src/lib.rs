//! An S3 server for tests and measurements: one bucket in memory, path-style, no signatures checked, and faults on
//! request. It speaks the part of the protocol that Esker uses, and keeps count of what it was asked.

mod answer;
mod bucket;
mod fault;
mod server;

pub use fault::{Fault, Rule};
pub use server::Stub;
