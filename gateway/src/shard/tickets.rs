//! The unanswered appends of one partition, in the order in which they were given to the core.

use std::collections::VecDeque;

use esker_gateway_core::partition::{Completed, Refusal, Ticket};
use esker_types::Time;
use tokio::sync::{OwnedSemaphorePermit, oneshot};

/// What an append comes to.
pub type Outcome = Result<Completed, Refusal>;

/// Room that an append takes until the core is done with it, in the partition and in the gateway.
#[derive(Debug, Default)]
pub struct Room {
    _permits: [Option<OwnedSemaphorePermit>; 2],
}

impl Room {
    pub fn new(partition: OwnedSemaphorePermit, gateway: OwnedSemaphorePermit) -> Self {
        Self { _permits: [Some(partition), Some(gateway)] }
    }
}

struct Waiting {
    reply: Option<oneshot::Sender<Outcome>>,
    deadline: Time,
    /// Given back when the core completes, not when the client is answered: it is the core that holds the bytes.
    _room: Room,
}

/// Tickets are given out in order and mostly completed in order: a ring, without a hash per append.
#[derive(Default)]
pub struct Tickets {
    first: Ticket,
    ring: VecDeque<Option<Waiting>>,
    open: usize,
    /// Everything below has been answered as timed out.
    timed_out: Ticket,
}

impl Tickets {
    pub fn open(&mut self, reply: oneshot::Sender<Outcome>, room: Room, deadline: Time) -> Ticket {
        self.ring.push_back(Some(Waiting { reply: Some(reply), deadline, _room: room }));
        self.open += 1;
        self.first + self.ring.len() as Ticket - 1
    }

    /// Answers one ticket. A stale or unknown one is ignored.
    pub fn complete(&mut self, ticket: Ticket, outcome: Outcome) {
        let Some(at) = ticket.checked_sub(self.first).and_then(|at| usize::try_from(at).ok()) else { return };
        let Some(mut waiting) = self.ring.get_mut(at).and_then(Option::take) else { return };
        self.open -= 1;
        if let Some(reply) = waiting.reply.take() {
            // The stream is gone: nobody wants to know.
            let _ = reply.send(outcome);
        }
        while self.ring.front().is_some_and(Option::is_none) {
            self.ring.pop_front();
            self.first += 1;
        }
    }

    /// Answers all that waited longer than they may. The core may still complete them; their room stays taken.
    pub fn expire(&mut self, now: Time, outcome: impl Fn() -> Outcome) -> usize {
        let mut expired = 0;
        let from = usize::try_from(self.timed_out.saturating_sub(self.first)).unwrap_or(0);
        for waiting in self.ring.range_mut(from.min(self.ring.len())..) {
            match waiting {
                Some(w) if w.deadline > now => break,
                Some(w) => {
                    if let Some(reply) = w.reply.take() {
                        expired += 1;
                        let _ = reply.send(outcome());
                    }
                }
                None => {}
            }
            self.timed_out = self.timed_out.max(self.first) + 1;
        }
        expired
    }

    /// When the oldest append that still waits runs out of time.
    pub fn deadline(&self) -> Option<Time> {
        let from = usize::try_from(self.timed_out.saturating_sub(self.first)).unwrap_or(0);
        self.ring.range(from.min(self.ring.len())..).flatten().next().map(|w| w.deadline)
    }

    /// Appends that the core has not completed.
    pub fn len(&self) -> usize {
        self.open
    }

    /// Answers everything: the partition is let go.
    pub fn close(&mut self, outcome: impl Fn() -> Outcome) {
        for mut waiting in self.ring.drain(..).flatten() {
            if let Some(reply) = waiting.reply.take() {
                let _ = reply.send(outcome());
            }
        }
        self.open = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use esker_types::ErrorCode;

    fn done(base_offset: i64) -> Outcome {
        Ok(Completed { base_offset, duplicate: false })
    }

    fn late() -> Outcome {
        Err(Refusal { code: ErrorCode::TimedOutUnknown, reason: "late".to_owned() })
    }

    #[test]
    fn each_append_is_answered_once_in_any_order() {
        let mut tickets = Tickets::default();
        let mut receivers = Vec::new();
        for i in 0..4u64 {
            let (tx, rx) = oneshot::channel();
            assert_eq!(tickets.open(tx, Room::default(), Time::from_millis(10 * i)), i);
            receivers.push(rx);
        }
        tickets.complete(1, done(11));
        assert_eq!(tickets.deadline(), Some(Time::from_millis(0)));
        assert_eq!(tickets.expire(Time::from_millis(20), late), 2, "0 and 2; 1 is done and 3 has time");
        assert_eq!(tickets.deadline(), Some(Time::from_millis(30)));
        for ticket in [0, 2, 3, 3, 9] {
            tickets.complete(ticket, done(ticket as i64));
        }
        let got: Vec<Outcome> = receivers.iter_mut().map(|rx| rx.try_recv().expect("answered")).collect();
        assert_eq!(got, [late(), done(11), late(), done(3)]);
        assert_eq!((tickets.len(), tickets.deadline()), (0, None));
        let (tx, mut rx) = oneshot::channel();
        assert_eq!(tickets.open(tx, Room::default(), Time::ZERO), 4);
        tickets.close(late);
        assert_eq!(rx.try_recv(), Ok(late()));
    }
}
