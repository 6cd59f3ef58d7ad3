//! The only part that touches the file system: aligned buffers, files written around the page cache, directories
//! with fsync at every step, and the hooks by which tests make a disk fail.

mod aligned;
pub mod dir;
mod file;
mod files;
mod footers;
mod hooks;
mod space;

pub use aligned::{AlignedBuf, PAGE};
pub use file::{DiskFile, OpenMode};
pub use files::{JournalFiles, Listing};
pub use hooks::{DiskHooks, RealDisk};
pub use space::{Space, SpaceConfig};
