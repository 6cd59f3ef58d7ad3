//! The client against gateways that misbehave on demand.

// Clippy knows `#[test]` functions as tests, but not what they call.
#![allow(clippy::unwrap_used)]

mod calls;
mod fake;
mod produce;
mod read;
