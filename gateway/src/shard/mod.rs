//! Shards: as many tasks as cores, each the only owner of the partitions that hash to it. A shard never waits for
//! anything but its own mailbox and its timer, so nothing that it sends to can hold it up, and no cycle of full
//! queues can close.

mod carry;
mod early;
mod mailbox;
mod run;
mod slot;
mod tickets;
mod timers;

pub use mailbox::{Append, Control, Inbox, MoveReply, Moved, PartitionNews, Shards};
pub use run::{Services, start};
pub use tickets::{Outcome, Room};
