//! The object tier's IO against real stores: memory, a folder, and an S3 server in this process with faults.

mod claim;
mod faults;
mod inspect;
mod pools;
mod reader;
mod recover;
mod store;
mod support;
