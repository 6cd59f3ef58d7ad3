//! Tests of the metadata store's implementations, as their users see them.

mod memory;
mod remote;
mod server;
mod view;
