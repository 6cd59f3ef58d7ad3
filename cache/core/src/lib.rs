//! The object tier's formats and decisions: what an object and a manifest page look like, how a partition's history is
//! folded into pages and looked up.
//!
//! Pure: no clock, randomness, IO or async. Bytes that come from a bucket are never trusted: nothing here panics or
//! allocates beyond a stated bound whatever they hold. The layout is described in `cache/FORMAT.md`.

pub mod backup;
pub mod claim;
pub mod create;
pub mod error;
mod input;
pub mod manifest;
pub mod object;
pub mod recover;
pub mod steps;

pub use error::FormatError;
pub use esker_types::{ObjectKey, PageKey};
