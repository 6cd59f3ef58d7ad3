//! The door for native clients: QUIC, one stream per conversation. `gateway/PROTOCOL.md` is the protocol.

mod answers;
mod connection;
mod endpoint;
mod frames;
mod produce;
mod read;

pub use connection::{Client, Door, accept};
pub use endpoint::{EndpointError, open};
pub use read::ready;
