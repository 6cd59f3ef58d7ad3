//! The journal: a thread that owns the disk, a state that decides, and the handle by which connections reach both.
//!
//! ```text
//! connections --ops--> Queue --> [thread: decide, gather, copy, write + sync, acknowledge] --status--> connections
//!                                     |  lock, never held across a write
//! reads ------------ plan --------- state
//! ```

mod handle;
pub(crate) mod output;
mod queue;
mod superblock;
mod thread;

#[cfg(test)]
mod tests;

pub use handle::{Journal, JournalConfig, JournalFailed, StatusSink};
pub use queue::Stopped;
pub use superblock::SuperblockFile;
