//! Tests of the metadata store's implementations, as their users see them.

#![allow(clippy::unwrap_used)]

mod memory;
mod remote;
mod server;
mod view;
