//! The steps by which one partition's history moves to the bucket and leaves it.
//!
//! ```text
//! closed on bookies ─ Write ─ Verify ─ Commit ─> safe in the bucket ─ VerifyAgain ─ Drop ─> bookies may forget it
//!                                                       └ Fold ─ SetRoot ─> in the manifest ─ Retain ─ grave ─ Empty
//! ```
//! [`Tier::next`] reads the next step off the metadata; the driver does it and says by [`Tier::on`] how it went. A step
//! whose outcome is unknown is decided by the record that metadata shows later (2.2): the same command is proposed
//! again until the record shows it, or something else in its place. A process that dies loses nothing but work: its
//! successor begins at the record, and what was written and not committed is left to the sweep.

mod share;
mod sweep;
mod tier;

pub use share::{SHARE_SEGMENTS_MAX, Sharing, Waiting, gather};
pub use sweep::{Candidate, Verdict, candidate, doomed, parse, verdict};
pub use tier::{EMPTY_MAX, Event, Policy, Step, Tier};
