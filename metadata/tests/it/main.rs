//! Metadata quorums in one process, over links inside the process and over TCP, and as real processes that are
//! killed.

mod backup;
mod cluster;
mod controller;
mod fixture;
mod kills;
mod members;
mod single;
mod store;
