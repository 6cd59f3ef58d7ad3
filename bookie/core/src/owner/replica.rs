//! One member as its writer sees it.

use std::time::Duration;

use esker_types::{Member, Time};

/// ```text
/// 0 ......... durable ......... next ......... assigned
///   fsynced there      in flight      not sent yet
/// ```
/// `durable <= next <= assigned`.
#[derive(Debug)]
pub(super) struct Replica {
    pub member: Member,
    pub durable: u64,
    /// First entry not sent on the present connection.
    pub next: u64,
    /// Since when the connection is down; None: up, as far as known.
    pub down_since: Option<Time>,
    /// No more sends in this segment; late answers still count.
    pub abandoned: bool,
    /// Abandoned, and heard of again since: good enough for the next segment.
    pub back: bool,
    /// Since when something is in flight without an answer that moves `durable`. None: nothing in flight.
    pub waiting_since: Option<Time>,
    /// When the entries in flight were last sent again for want of an answer.
    pub resent_at: Option<Time>,
    /// Where the last GAP sent us back to; further GAPs from there are echoes of the same hole.
    pub rewound_to: Option<u64>,
}

impl Replica {
    pub fn new(member: Member) -> Self {
        Self {
            member,
            durable: 0,
            next: 0,
            down_since: None,
            abandoned: false,
            back: false,
            waiting_since: None,
            resent_at: None,
            rewound_to: None,
        }
    }

    pub fn is_up(&self) -> bool {
        self.down_since.is_none()
    }

    /// Something is in flight to it, and has been for `timeout`, or the connection is gone for `grace`.
    pub fn is_late(&self, now: Time, timeout: Duration, grace: Duration) -> bool {
        let silent =
            |since: Time| now.since(since) >= timeout || self.down_since.is_some_and(|t| now.since(t) >= grace);
        self.waiting_since.is_some_and(silent)
    }

    /// An OK that covers `0..durable`.
    pub fn progress(&mut self, now: Time, durable: u64) {
        if durable <= self.durable {
            return;
        }
        self.durable = durable;
        self.next = self.next.max(durable);
        self.waiting_since = (self.next > durable).then_some(now);
        (self.resent_at, self.rewound_to) = (None, None);
    }

    /// Sends again from `to` on.
    pub fn rewind(&mut self, to: u64) {
        debug_assert!(to <= self.next);
        self.next = to;
    }
}
