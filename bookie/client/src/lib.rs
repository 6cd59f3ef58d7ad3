//! How gateways talk to bookies.
//!
//! [`BookieClient`] keeps two connections per bookie: one that carries the ADDs of all partitions, in order, and one
//! for FENCE and READ, which must get through when the first is full. ADDs are fire-and-forget for the caller: what
//! a broken or full connection swallows is told by [`BookieEvent::Link`], and the owner core sends it again.
//! Answers go to a [`Sink`]. [`placement`] picks members for new segments, [`Penalties`] remembers who was slow.
//!
//! Nothing here decides about safety; that is `esker-bookie-core`.

mod client;
mod connection;
mod directory;
mod fences;
mod penalty;
pub mod placement;
mod reads;

pub use client::{BookieClient, BookieEvent, ClientConfig, Sink};
pub use directory::Directory;
pub use penalty::Penalties;
pub use reads::{ReadFailure, ReadRange};
