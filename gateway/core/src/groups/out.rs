use std::collections::VecDeque;

use esker_types::Time;

use super::api::Response;
use super::config::Config;
use super::record::{Key, KeyedRecord, Value};
use super::topics::Topics;

/// Number of an append, from 1. Committed in order.
pub type Seq = u64;
/// Chosen by the shell; names one request, which is answered by exactly one `Answer`.
pub type Ticket = u64;

/// Something is to be done, in this order.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    Append(Append),
    Answer {
        ticket: Ticket,
        response: Response,
    },
    /// Records before this append are not needed any more: the log may start with it.
    LogStart(Seq),
}

/// Records that belong together: all of them are in the log, or none.
#[derive(Clone, Debug, PartialEq)]
pub struct Append {
    pub seq: Seq,
    /// At least one.
    pub records: Vec<KeyedRecord>,
}

/// Where handlers leave what is to be done.
#[derive(Debug, Default)]
pub struct Out {
    /// Of the event at hand.
    records: Vec<KeyedRecord>,
    /// Their bytes.
    pending: usize,
    answers: Vec<(Ticket, Response)>,
    pub appended: Seq,
    pub committed: Seq,
    /// Answers that wait for their append, in order.
    held: VecDeque<(Seq, Ticket, Response)>,
    effects: VecDeque<Effect>,
    /// Bytes of records appended since the last snapshot began.
    pub since_snapshot: usize,
}

impl Out {
    pub fn put<V: Value>(&mut self, key: &Key, value: Option<&V>) {
        let value = value.map(|value| value.encode_to_vec().into());
        self.put_raw(KeyedRecord { key: key.encode(), value });
    }

    pub fn put_raw(&mut self, record: KeyedRecord) {
        self.since_snapshot += record.len();
        self.pending += record.len();
        self.records.push(record);
    }

    pub fn answer(&mut self, ticket: Ticket, response: Response) {
        self.answers.push((ticket, response));
    }

    /// Ends an event: what it changed goes to the log, what it answered waits for all that was appended so far.
    pub fn flush(&mut self) {
        self.split(0);
        for (ticket, response) in self.answers.drain(..) {
            match self.committed == self.appended {
                true => self.effects.push_back(Effect::Answer { ticket, response }),
                false => self.held.push_back((self.appended, ticket, response)),
            }
        }
    }

    /// Makes an append of what is there if it has more than `bytes`: for records that need not stand together.
    pub fn split(&mut self, bytes: usize) {
        if self.pending > bytes {
            self.appended += 1;
            self.pending = 0;
            let records = std::mem::take(&mut self.records);
            self.effects.push_back(Effect::Append(Append { seq: self.appended, records }));
        }
    }

    pub fn on_committed(&mut self, seq: Seq) {
        assert!(seq <= self.appended, "only what was appended can be committed");
        self.committed = self.committed.max(seq);
        while let Some((_, ticket, response)) = self.held.pop_front_if(|(after, ..)| *after <= self.committed) {
            self.effects.push_back(Effect::Answer { ticket, response });
        }
    }

    pub fn log_start(&mut self, seq: Seq) {
        self.effects.push_back(Effect::LogStart(seq));
    }

    pub fn poll(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }
}

/// What a handler of one event works with.
pub struct Cx<'a> {
    pub now: Time,
    /// Milliseconds since the epoch: for expiry and for people.
    pub wall: i64,
    pub config: &'a Config,
    pub topics: &'a dyn Topics,
    pub out: &'a mut Out,
}

impl Cx<'_> {
    pub fn answer(&mut self, ticket: Ticket, response: Response) {
        self.out.answer(ticket, response);
    }
}
