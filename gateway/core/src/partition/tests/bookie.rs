//! A bookie reduced to its promises, without a disk.

use std::collections::BTreeMap;

use bytes::Bytes;
use esker_bookie_core::owner::{Add, AddAnswerKind, FenceAnswerKind};
use esker_types::checksum::crc32c;
use esker_types::{Epoch, SegmentId};

use crate::partition::EntriesRead;

/// Accepts in order, fsyncs at once.
#[derive(Default)]
pub struct Bookie {
    pub up: bool,
    pub epoch: Epoch,
    pub held: BTreeMap<SegmentId, Vec<Bytes>>,
}

impl Bookie {
    pub fn add(&mut self, add: &Add) -> AddAnswerKind {
        if add.req_epoch < self.epoch {
            return AddAnswerKind::Fenced { max_epoch: self.epoch };
        }
        let held = self.held.entry(add.segment).or_default();
        let (at, len) = (add.entry.header.entry, held.len() as u64);
        if at > len {
            return AddAnswerKind::Gap { accepted: len };
        }
        if at < len {
            let same = crc32c(&held[at as usize]) == add.entry.crc();
            return if same { AddAnswerKind::Ok { durable: len } } else { AddAnswerKind::Conflict { entry: at } };
        }
        held.push(add.entry.bytes.clone());
        AddAnswerKind::Ok { durable: len + 1 }
    }

    pub fn fence(&mut self, segment: SegmentId, epoch: Epoch) -> FenceAnswerKind {
        if epoch < self.epoch {
            return FenceAnswerKind::Fenced { max_epoch: self.epoch };
        }
        self.epoch = epoch;
        let durable = self.held.get(&segment).map_or(0, |held| held.len() as u64);
        FenceAnswerKind::Ok { durable, lac: 0, limbo: false }
    }

    pub fn read(&self, segment: SegmentId, from: u64, to: u64, at_most: usize) -> EntriesRead {
        let held = self.held.get(&segment).map(Vec::as_slice).unwrap_or_default();
        let end = (to as usize).min(held.len());
        match held.get(from as usize..end).filter(|run| !run.is_empty()) {
            Some(run) => EntriesRead::Data(run.iter().take(at_most).cloned().collect()),
            None => EntriesRead::NoSuchEntry,
        }
    }
}
