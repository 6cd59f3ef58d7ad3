//! Tests of the metadata state machine as its users see it.

#![allow(clippy::unwrap_used)]

mod close;
mod copies;
mod format;
mod groups;
mod nodes;
mod objects;
mod ownership;
mod plan;
mod random;
mod restore;
mod topics;
mod world;
