//! Words that every part of Esker shares: ids, epochs, units, the entry header, the frame codec, the error
//! table and the safety switches. No IO, no clock, no randomness, no async.

pub mod checksum;
pub mod entry;
pub mod error;
pub mod frame;
pub mod hello;
pub mod ids;
pub mod moves;
pub mod object;
pub mod opcode;
pub mod rules;
pub mod segment;
pub mod time;
pub mod units;

pub use entry::{Entry, EntryHeader, EntryKind};
pub use error::{ErrorClass, ErrorCode};
pub use frame::{Frame, FrameError, FrameLimits};
pub use hello::{Hello, Role};
pub use ids::*;
pub use object::{ObjectKey, PageKey};
pub use rules::{AllRules, Rules};
pub use segment::{Member, Quorum, SegmentPrologue};
pub use time::{Time, WallMs};
pub use units::{ByteCount, Interval};
