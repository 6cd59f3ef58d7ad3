//! A reader follows one partition from the start, asks whatever gateway, and tells the oracle all that it is given.

use bytes::Bytes;
use esker_gateway_core::partition::{EntriesRead, Location, Place, Refusal};
use esker_types::{Entry, EntryKind, ErrorCode, Offset, PartitionId, Rules};
use esker_wire::batch::{DecodeLimits, split};

use crate::metadata::Asker;
use crate::network::Node;
use crate::objects::Of;
use crate::oracle::Value;
use crate::sometimes::Case;
use crate::world::{Message, What, World};

/// Tags of fetches are far from those that partitions choose.
const FETCH_TAGS: u64 = 1 << 60;

#[derive(Clone, Debug)]
pub struct Reader {
    pub partition: PartitionId,
    /// Offset that it wants next.
    pub position: Offset,
    /// Answers to older questions are old news.
    question: u64,
}

#[derive(Clone, Debug)]
pub enum Fetched {
    Records(Vec<(Offset, Value)>),
    OutOfRange,
    /// Not now, not here, or nothing new.
    Later,
}

/// A fetch that a gateway answers with what a bookie holds.
#[derive(Clone, Copy, Debug)]
pub struct PendingFetch {
    pub reader: usize,
    pub question: u64,
    /// First offset wanted.
    pub offset: Offset,
    /// Exclusive: what of the segment may be served.
    pub end_offset: Offset,
}

impl Reader {
    pub fn new(partition: PartitionId) -> Self {
        Self { partition, position: 0, question: 0 }
    }
}

/// Records of an entry with their offsets. Panics on bytes that are not what a producer wrote: the checksums held.
pub fn records_of(entry: &Entry) -> Vec<(Offset, Value)> {
    checked_records_of(entry).expect("an entry holds whole, verified batches of records whose keys name values")
}

/// As a client reads them: none if they are not what a producer wrote.
pub fn checked_records_of(entry: &Entry) -> Option<Vec<(Offset, Value)>> {
    if entry.header.kind != EntryKind::Data {
        return Some(Vec::new());
    }
    let mut out = Vec::new();
    for batch in split(entry.payload(), true) {
        for record in batch.ok()?.records(DecodeLimits::default()).ok()? {
            let record = record.ok()?;
            let key: [u8; 8] = record.key.as_deref()?.try_into().ok()?;
            out.push((record.offset, Value::from_le_bytes(key)));
        }
    }
    Some(out)
}

impl<R: Rules> World<R> {
    pub fn on_reader_wake(&mut self, index: usize, question: u64) {
        let reader = &mut self.readers[index];
        if reader.question != question || !self.partitions.contains(&reader.partition) {
            return;
        }
        reader.question += 1;
        let (question, partition) = (reader.question, reader.partition);
        // Mostly it reads on; sometimes it looks again at what it has seen, or asks for the very end.
        let mut offset = reader.position;
        if self.rng.chance(250) && offset > 0 {
            offset = self.rng.below(offset as u64) as i64;
        }
        let owner = self.owner_index(partition).filter(|_| self.rng.chance(800));
        let gateway = owner.unwrap_or_else(|| self.rng.index(self.gateways.len()));
        let here = Node::Client(1_000 + index as u16);
        self.send(here, Node::Gateway(gateway as u16), Message::Fetch { reader: index, question, partition, offset });
        let patience = self.plan.read_pause_us() * 4_000;
        self.queue.after_ns(patience, What::ReaderWake { reader: index, question });
    }

    pub fn on_fetched(&mut self, index: usize, question: u64, fetched: Fetched) {
        let reader = &mut self.readers[index];
        if reader.question != question {
            return;
        }
        reader.question += 1;
        let question = reader.question;
        let partition = reader.partition;
        let mut pause = self.plan.read_pause_us();
        if let Fetched::Records(records) = fetched {
            self.cases.hit(Case::ReadServed);
            pause /= 4;
            for (offset, value) in records {
                let reader = &mut self.readers[index];
                if offset == reader.position {
                    reader.position += 1;
                }
                if self.partitions.contains(&partition) {
                    self.oracle.served(partition, offset, value);
                }
            }
        }
        let pause = self.rng.latency_ns(pause);
        self.queue.after_ns(pause, What::ReaderWake { reader: index, question });
    }

    pub fn answer_fetch(&mut self, g: usize, reader: usize, question: u64, fetched: Fetched) {
        let to = Node::Client(1_000 + reader as u16);
        self.send(Node::Gateway(g as u16), to, Message::Fetched { reader, question, fetched });
    }

    /// What a gateway does with a read: its partition decides, the tail cache or a bookie has the bytes.
    pub fn on_fetch(&mut self, g: usize, reader: usize, question: u64, partition: PartitionId, offset: Offset) {
        let Some(hosted) = self.gateways[g].hosted.get(&partition) else {
            return self.answer_fetch(g, reader, question, Fetched::Later);
        };
        let place = match hosted.partition.locate(offset) {
            Ok(Location::Segment(place)) => place,
            Ok(Location::Folded(root)) => {
                let fetch = PendingFetch { reader, question, offset, end_offset: root.end_offset };
                return self.read_from_bucket(g, partition, fetch, Of::Root(root));
            }
            Ok(Location::End | Location::Lost { .. }) => return self.answer_fetch(g, reader, question, Fetched::Later),
            Err(Refusal { code: ErrorCode::OffsetOutOfRange, .. }) => {
                self.on_out_of_range(g, partition, offset);
                return self.answer_fetch(g, reader, question, Fetched::OutOfRange);
            }
            Err(_) => return self.answer_fetch(g, reader, question, Fetched::Later),
        };
        let cached = hosted.tail.range(..=offset).next_back().map(|(_, entry)| entry);
        let cached = cached.filter(|entry| entry.header.end_offset() > offset);
        if let Some(entry) = cached.filter(|_| offset < hosted.high_watermark) {
            let records = records_of(entry).into_iter().filter(|(at, _)| *at >= offset).collect();
            return self.answer_fetch(g, reader, question, Fetched::Records(records));
        }
        let fetch = PendingFetch { reader, question, offset, end_offset: place.end_offset };
        if let Some(object) = place.object.clone()
            && (place.copies.is_empty() || self.objects.rng.chance(300))
        {
            return self.read_from_bucket(g, partition, fetch, Of::Object(place.segment, object));
        }
        self.fetch_from_bookie(g, fetch, &place);
    }

    /// R17. An owner that was replaced and does not know it yet may be behind: it is not the one that the rule binds.
    fn on_out_of_range(&mut self, g: usize, partition: PartitionId, offset: Offset) {
        self.cases.hit(Case::OutOfRangeServed);
        let epoch = self.gateways[g].hosted.get(&partition).and_then(|hosted| hosted.partition.epoch());
        if self.record(partition).is_some_and(|record| Some(record.epoch) == epoch) {
            self.oracle.out_of_range(partition, offset);
        }
    }

    fn fetch_from_bookie(&mut self, g: usize, fetch: PendingFetch, place: &Place) {
        let partition = place.segment.partition;
        if place.copies.is_empty() {
            // Dropped and not in the bucket: retention is passing it.
            return self.answer_fetch(g, fetch.reader, fetch.question, Fetched::Later);
        }
        let Some(hosted) = self.gateways[g].hosted.get_mut(&partition) else { return };
        hosted.fetches += 1;
        let tag = FETCH_TAGS + hosted.fetches;
        hosted.reads.insert(tag, fetch);
        let asker = Asker { gateway: g, life: hosted.life, partition, tag };
        let member = *self.rng.pick(&place.copies);
        let Some(b) = self.bookie_of(member) else { return };
        let (segment, from, to) = (place.segment, place.from_entry, place.entries);
        let message = Message::Read { asker, member, segment, from, to, bytes_max: 1 << 20 };
        self.send(Node::Gateway(g as u16), Node::Bookie(b as u16), message);
    }

    /// Entries for a reader came back. An answer that is not data is not passed on: the reader asks again.
    pub fn on_entries_for_reader(&mut self, asker: Asker, result: EntriesRead) {
        let Some(hosted) = self.gateways[asker.gateway].hosted.get_mut(&asker.partition) else { return };
        if hosted.life != asker.life {
            return;
        }
        let Some(fetch) = hosted.reads.remove(&asker.tag) else { return };
        let EntriesRead::Data(entries) = result else { return };
        self.cases.hit(Case::ReadFromBookie);
        let parse = |bytes: Bytes| Entry::parse(bytes).expect("a bookie serves only what verifies");
        let records = entries.into_iter().map(parse).flat_map(|entry| records_of(&entry));
        let wanted = fetch.offset..fetch.end_offset;
        let records: Vec<_> = records.filter(|(at, _)| wanted.contains(at)).collect();
        let fetched = if records.is_empty() { Fetched::Later } else { Fetched::Records(records) };
        self.answer_fetch(asker.gateway, fetch.reader, fetch.question, fetched);
    }
}
