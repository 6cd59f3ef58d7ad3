//! The Kafka protocol: requests in, responses out, nothing else. No IO, no clock.
//!
//! Both directions of every message come from one description of its fields (`message::structs`). A length or count
//! from the network is held against the bytes that are left before anything is allocated, memory for the rest is bounded by
//! [`DecodeLimits`], and what does not decode is a value, never a panic. Record data is never copied: requests hand it
//! out as slices of what was received, responses go out as a list of buffers.

mod api;
mod assignment;
pub mod code;
mod error;
mod field;
mod header;
mod message;
mod messages;
mod reader;
mod text;
mod writer;

pub use api::{Api, Request, Response};
pub use assignment::member_assignment;
pub use error::DecodeError;
pub use field::{Records, Uuid};
pub use header::RequestHeader;
pub use messages::*;
pub use reader::{DecodeLimits, Reader};
pub use text::bounded;

#[cfg(test)]
mod tests;
