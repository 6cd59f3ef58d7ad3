//! Clients: producers that repeat what was not acked, readers that follow the log. They promise what a client library
//! promises and the oracle hears all that they are told.

mod producer;
mod reader;

use esker_types::Rules;

pub use producer::{Pending, Producer, values};
pub use reader::{Fetched, PendingFetch, Reader, checked_records_of, records_of};

use crate::network::Node;
use crate::sometimes::Case;
use crate::world::{Message, What, World};

impl<R: Rules> World<R> {
    /// Wakes the producer a little later, once.
    pub fn wake_producer(&mut self, producer: usize, after_ns: u64) {
        if !std::mem::replace(&mut self.producers[producer].waking, true) {
            self.queue.after_ns(after_ns, What::ProducerWake { producer });
        }
    }

    pub fn on_producer_wake(&mut self, index: usize) {
        self.producers[index].waking = false;
        if !self.partitions.contains(&self.producers[index].partition) {
            // The topic is gone: so is the wish.
            self.producers[index].give_up();
            return;
        }
        let fresh = self.producers[index].fill(&mut self.rng);
        self.produce(index, fresh);
    }

    fn produce(&mut self, index: usize, batches: Vec<Pending>) {
        if batches.is_empty() {
            return;
        }
        let producer = &self.producers[index];
        let (partition, attempt, gateway) = (producer.partition, producer.attempt(), producer.gateway);
        for pending in batches {
            let message =
                Message::Produce { producer: index, attempt, partition, first: pending.first, batch: pending.batch };
            self.send(Node::Client(index as u16), Node::Gateway(gateway as u16), message);
        }
        let patience = self.plan.produce_timeout_ms * 1_000_000 + self.plan.network_us * 20_000;
        self.queue.after_ns(patience, What::ProducerTimeout { producer: index, attempt, elsewhere: true });
    }

    pub fn on_producer_timeout(&mut self, index: usize, attempt: u32, elsewhere: bool) {
        if self.producers[index].attempt() == attempt && !self.producers[index].pending.is_empty() {
            let other = elsewhere.then(|| self.rng.index(self.gateways.len()));
            self.try_again(index, other);
        }
    }

    fn try_again(&mut self, index: usize, hint: Option<usize>) {
        if let Some(gateway) = hint {
            self.producers[index].gateway = gateway;
        }
        let again = self.producers[index].again();
        self.produce(index, again);
        self.wake_producer(index, 0);
    }

    pub fn on_produced(&mut self, index: usize, attempt: u32, first: u32, result: Result<i64, Option<usize>>) {
        match result {
            Ok(_) => {
                self.producers[index].on_acked(first);
                let pause = self.rng.latency_ns(self.plan.think_us);
                self.wake_producer(index, pause);
            }
            // A refusal of an older try says nothing about this one.
            Err(hint) if attempt == self.producers[index].attempt() => {
                let hint = hint.or_else(|| {
                    let lost = self.rng.chance(300);
                    lost.then(|| self.rng.index(self.gateways.len()))
                });
                let gateway = hint.unwrap_or(self.producers[index].gateway);
                self.producers[index].gateway = gateway;
                // One repetition for the whole window, after a back-off.
                self.producers[index].bump_attempt();
                let attempt = self.producers[index].attempt();
                let back_off =
                    self.rng.latency_ns(self.plan.metadata_us * 4 + self.plan.network_us * 8 + self.plan.disk_us);
                self.queue.after_ns(back_off, What::ProducerTimeout { producer: index, attempt, elsewhere: false });
                self.cases.hit(Case::ProduceRefused);
            }
            Err(_) => {}
        }
    }
}
