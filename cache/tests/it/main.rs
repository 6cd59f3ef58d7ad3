//! The object tier's IO against real stores: memory, a folder, and an S3 server in this process with faults.

mod claim;
mod faults;
mod pools;
mod reader;
mod store;
mod support;
