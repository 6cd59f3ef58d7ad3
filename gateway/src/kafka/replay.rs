//! Replays: reads from bookies that go on from fetch to fetch, so that a consumer far behind costs one search, not one per
//! fetch, and finds the next bytes read ahead.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use esker_types::error::ErrorInfo;
use esker_types::{Offset, PartitionId};
use tokio::sync::OwnedSemaphorePermit;

use super::near::Sent;
use super::session::Session;
use crate::partition::Handle;
use crate::read::{Chunk, ColdReader};
use crate::tail::CachedEntry;

/// Open replays of one connection: so many partitions can be caught up with at once without searches.
const PER_CONNECTION: usize = 16;

/// The replays of one connection.
#[derive(Default)]
pub struct Replays {
    open: HashMap<PartitionId, Replay>,
    clock: u64,
    /// Where the client was sent to read, instead of here.
    pub sent: Sent,
}

struct Replay {
    handle: Arc<Handle>,
    reader: ColdReader,
    /// Read and not yet passed by the client.
    entries: VecDeque<CachedEntry>,
    used: u64,
    _place: OwnedSemaphorePermit,
}

impl Replays {
    /// Entries at `offset` or behind it, without those that are not below `limit`. None: what lies between is lost, and
    /// nothing follows yet.
    pub async fn read(
        &mut self,
        session: &Session,
        handle: &Arc<Handle>,
        offset: Offset,
        limit: Offset,
    ) -> Result<Option<Vec<CachedEntry>>, ErrorInfo> {
        self.clock += 1;
        // One of another owner's partition is made for each request, and they are all alike.
        let same = |old: &Arc<Handle>| Arc::ptr_eq(old, handle) || (old.closed_only && handle.closed_only);
        if self.open.get(&handle.id).is_some_and(|replay| !same(&replay.handle)) {
            self.open.remove(&handle.id);
        }
        if !self.open.contains_key(&handle.id) && !self.make_room(session, handle) {
            // All places are taken: look the place up anew, as often as it takes.
            let mut reader = ColdReader::new(session.gateway().clone(), handle.clone());
            return forward(&mut reader, offset, limit).await;
        }
        let Some(replay) = self.open.get_mut(&handle.id) else { return Ok(None) };
        replay.used = self.clock;
        while replay.entries.front().is_some_and(|first| first.end_offset <= offset) {
            replay.entries.pop_front();
        }
        if replay.entries.front().is_none_or(|first| first.base_offset > offset) {
            replay.entries.clear();
            match forward(&mut replay.reader, offset, limit).await? {
                Some(entries) => replay.entries.extend(entries),
                None => return Ok(None),
            }
        }
        Ok(Some(replay.entries.iter().cloned().collect()))
    }

    /// The client has caught up: the tail cache serves it now.
    pub fn close(&mut self, partition: PartitionId) {
        self.open.remove(&partition);
    }

    fn make_room(&mut self, session: &Session, handle: &Arc<Handle>) -> bool {
        if self.open.len() >= PER_CONNECTION {
            let oldest = self.open.iter().min_by_key(|(_, replay)| replay.used).map(|(id, _)| *id);
            oldest.map(|id| self.open.remove(&id));
        }
        let Ok(place) = session.door.replays.clone().try_acquire_owned() else { return false };
        let replay = Replay {
            handle: handle.clone(),
            reader: ColdReader::new(session.gateway().clone(), handle.clone()),
            entries: VecDeque::new(),
            used: self.clock,
            _place: place,
        };
        self.open.insert(handle.id, replay);
        true
    }
}

/// The next entries. Ranges that are lost for good are passed over, as consumers pass over the gaps of compaction.
async fn forward(
    reader: &mut ColdReader,
    mut offset: Offset,
    limit: Offset,
) -> Result<Option<Vec<CachedEntry>>, ErrorInfo> {
    while offset < limit {
        match reader.read(offset).await? {
            Chunk::Entries(entries) => return Ok(Some(entries)),
            Chunk::Lost { to, .. } => offset = to,
            Chunk::End => break,
        }
    }
    Ok(None)
}
