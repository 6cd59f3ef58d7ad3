//! What doors see of a partition: a handle whose facts the owning shard keeps up to date.

mod handle;

pub use handle::{Handle, Handles, News};
