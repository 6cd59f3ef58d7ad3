//! Reads in the client's zone (KIP-392). What is closed of a partition can be read at any gateway: its owner sends a consumer of
//! another zone to a gateway there, and that one sends it back for what is not closed, or what it has not heard of yet.
//!
//! ```text
//!   consumer in b ── fetch 0 ────> owner, zone a        "read at the gateway in b"
//!                 ── fetch 0.. ──> gateway, zone b      records of closed segments
//!                 ── fetch n ────> gateway, zone b      OFFSET_NOT_AVAILABLE: behind all that is closed
//!                 ── fetch n ────> owner, zone a        records of the segment that is written
//! ```
//! Whether an offset is out of range is for the owner alone to say (R17).

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use esker_metadata_core::{PartitionRecord, State};
use esker_types::error::ErrorInfo;
use esker_types::{ErrorCode, Offset, PartitionId};

use super::brokers::{Broker, broker};
use super::session::Session;
use crate::partition::{Handle, News};

/// Consumers of older versions stay at the owner: librdkafka 2.0.2, which speaks no later one, takes OFFSET_NOT_AVAILABLE for a
/// replica that is about to catch up, and asks it again and again.
pub const FETCH_VERSION_MIN: i16 = 12;
/// A client that was sent away and comes back is served by the owner for so long: where it was sent it could not read, or it
/// has read to the end. librdkafka does not like to be sent away more often either.
const BACK: Duration = Duration::from_secs(60);
/// Partitions of one connection that are remembered for that: some 50 bytes each. Clients are not sent away for more at a time.
const SENT_MAX: usize = 10_000;

/// Where the client of one connection was sent away, and when.
#[derive(Debug, Default)]
pub struct Sent {
    at: HashMap<PartitionId, Instant>,
}

impl Sent {
    /// Whether the client may be sent away for this partition now; then it is.
    fn leave(&mut self, partition: PartitionId, now: Instant) -> bool {
        let recent = |at: &Instant| now.saturating_duration_since(*at) < BACK;
        if self.at.get(&partition).is_some_and(recent) {
            return false;
        }
        if self.at.len() >= SENT_MAX {
            self.at.retain(|_, at| recent(at));
        }
        let room = self.at.len() < SENT_MAX;
        if room {
            self.at.insert(partition, now);
        }
        room
    }
}

/// The broker at which a consumer in the zone `rack` should read `offset` of a partition that is ours. None: here.
pub fn elsewhere(
    session: &Session,
    sent: &mut Sent,
    rack: &str,
    partition: PartitionId,
    offset: Offset,
) -> Option<i32> {
    let gateway = session.gateway();
    if rack.is_empty() || rack == gateway.config.zone {
        return None;
    }
    let broker = gateway.view.read(|state| {
        let record = state.partition(partition).filter(|record| is_closed(record, offset))?;
        nearest(state, rack, record.id)
    })?;
    let sent = sent.leave(partition, Instant::now());
    if sent {
        gateway.metrics.kafka_sent_near.inc();
    }
    sent.then_some(broker.id)
}

/// There is a closed segment at `offset`, not a gap that only the owner knows how to pass.
fn is_closed(record: &PartitionRecord, offset: Offset) -> bool {
    record.last.as_ref().is_some_and(|last| offset < last.end_offset)
        && !record.lost.iter().any(|lost| (lost.from..lost.to).contains(&offset))
}

/// A gateway of the zone that takes clients and is to stay. Partitions spread over those that there are.
fn nearest(state: &State, zone: &str, partition: PartitionId) -> Option<Broker> {
    let mut found: Vec<Broker> = state
        .gateways()
        .filter(|gateway| gateway.zone == zone && !gateway.draining)
        .filter_map(|gateway| broker(state, gateway))
        .collect();
    match found.len() {
        0 => None,
        count => Some(found.swap_remove((partition.0 % count as u64) as usize)),
    }
}

/// What this gateway can serve of a partition that another one owns, to a consumer in its own zone: what is closed, by its copy
/// of the metadata. None: nothing.
pub fn closed(session: &Session, rack: &str, record: &PartitionRecord) -> Option<Arc<Handle>> {
    let gateway = session.gateway();
    if rack.is_empty() || rack != gateway.config.zone || gateway.is_ours(record.id) {
        return None;
    }
    let end = record.last.as_ref()?.end_offset;
    Some(Arc::new(Handle::closed(record.id, record.topic, record.epoch, record.log_start, end)))
}

/// Sends the client back to the owner, as a follower does that is behind.
pub fn back(offset: Offset, news: News) -> ErrorInfo {
    let News { log_start, high_watermark, .. } = news;
    let message =
        format!("offset {offset} is not in what is closed here, [{log_start}, {high_watermark}): ask the owner");
    ErrorInfo::new(ErrorCode::OffsetNotAvailable, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_comes_back_stays_for_a_while() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        let (one, two) = (PartitionId(1), PartitionId(2));
        assert!(sent.leave(one, now) && sent.leave(two, now));
        assert!(!sent.leave(one, now) && !sent.leave(one, now + BACK - Duration::from_millis(1)));
        assert!(sent.leave(one, now + BACK), "a minute later it may have caught up, and fallen back again");
        assert!(!sent.leave(one, now + BACK));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (mut sent, now) = (Sent::default(), Instant::now());
        assert!((0..SENT_MAX as u64).all(|id| sent.leave(PartitionId(id), now)));
        assert!(!sent.leave(PartitionId(u64::MAX), now), "full: read here");
        assert!(sent.leave(PartitionId(u64::MAX), now + BACK));
        assert_eq!(sent.at.len(), 1, "those before are forgotten");
    }
}
