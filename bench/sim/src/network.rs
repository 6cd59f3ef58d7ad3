//! Links between nodes: each message has its own fate. A link is one direction between two nodes.

use std::collections::BTreeMap;

use crate::plan::{Fault, Faults};
use crate::rng::Rng;

/// A place that messages come from and go to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Node {
    Bookie(u16),
    Gateway(u16),
    Client(u16),
    Metadata,
}

impl Node {
    pub fn code(self) -> u64 {
        match self {
            Self::Bookie(i) => 0x100 + u64::from(i),
            Self::Gateway(i) => 0x200 + u64::from(i),
            Self::Client(i) => 0x300 + u64::from(i),
            Self::Metadata => 0x400,
        }
    }
}

/// When the copies of one message arrive, in nanoseconds from now. Empty: it never does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fate {
    pub first: Option<u64>,
    pub second: Option<u64>,
}

pub struct Network {
    mean_us: u64,
    loss: u64,
    duplicate: u64,
    reorder: u64,
    cut: BTreeMap<(Node, Node), ()>,
    /// Earliest next arrival per link, so that a link without reordering is first in, first out.
    busy_until: BTreeMap<(Node, Node), u64>,
    pub lost: u64,
    pub duplicated: u64,
}

impl Network {
    pub fn new(mean_us: u64, faults: Faults, rng: &mut Rng) -> Self {
        let rate = |on: bool, rng: &mut Rng| if on { *rng.pick(&[5, 30, 120, 250]) } else { 0 };
        Self {
            mean_us,
            loss: rate(faults.has(Fault::MessageLoss), rng),
            duplicate: rate(faults.has(Fault::MessageDuplicate), rng),
            reorder: rate(faults.has(Fault::MessageReorder), rng),
            cut: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            lost: 0,
            duplicated: 0,
        }
    }

    /// From now on links carry what they are given, once and in order.
    pub fn heal(&mut self) {
        self.cut.clear();
        (self.loss, self.duplicate, self.reorder) = (0, 0, 0);
    }

    pub fn cut(&mut self, from: Node, to: Node) {
        self.cut.insert((from, to), ());
    }

    pub fn join(&mut self, from: Node, to: Node) {
        self.cut.remove(&(from, to));
    }

    pub fn join_all(&mut self) {
        self.cut.clear();
    }

    pub fn is_cut(&self, from: Node, to: Node) -> bool {
        self.cut.contains_key(&(from, to))
    }

    pub fn fate(&mut self, now: u64, from: Node, to: Node, rng: &mut Rng) -> Fate {
        if self.is_cut(from, to) || rng.chance(self.loss) {
            self.lost += 1;
            return Fate::default();
        }
        let mut delay = rng.latency_ns(self.mean_us);
        if rng.chance(self.reorder) {
            delay += rng.latency_ns(self.mean_us * 8);
        } else {
            let free = self.busy_until.entry((from, to)).or_default();
            let arrival = (now + delay).max(*free + 1);
            *free = arrival;
            delay = arrival - now;
        }
        let second = rng.chance(self.duplicate).then(|| delay + rng.latency_ns(self.mean_us * 4));
        self.duplicated += u64::from(second.is_some());
        Fate { first: Some(delay), second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_healthy_link_keeps_order_and_a_cut_one_is_silent_one_way() {
        let mut rng = Rng::new(3);
        let mut net = Network::new(200, Faults::default(), &mut rng);
        let (a, b) = (Node::Bookie(0), Node::Gateway(1));
        let mut last = 0;
        for now in 0..200 {
            let at = now + net.fate(now, a, b, &mut rng).first.expect("no loss");
            assert!(at > last);
            last = at;
        }
        net.cut(a, b);
        assert_eq!(net.fate(0, a, b, &mut rng), Fate::default());
        assert!(net.fate(0, b, a, &mut rng).first.is_some());
    }
}
