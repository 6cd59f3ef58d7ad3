//! What a reader may ask of a partition here, and where to find it (I6, R17).

use esker_metadata_core::{ObjectPlace, PartitionInfo, RootPlace};
use esker_types::{EntryId, Epoch, ErrorCode, Member, Offset, Rules, SegmentId};

use super::active::Tail;
use super::event::Refusal;
use super::{Partition, Stage};

/// Offsets that may be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    pub epoch: Epoch,
    /// Inclusive.
    pub log_start: Offset,
    /// Exclusive: all below are acked.
    pub high_watermark: Offset,
}

/// Where an offset is stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Location {
    Segment(Place),
    /// In the bucket; the manifest says where.
    Folded(RootPlace),
    /// At the high watermark: wait for the next record.
    End,
    /// Lost for good; records go on at `to`.
    Lost {
        from: Offset,
        to: Offset,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    pub segment: SegmentId,
    pub seg_epoch: Epoch,
    /// Bookies to ask. Empty: they may have dropped their copies.
    pub copies: Vec<Member>,
    /// The same entries in the bucket.
    pub object: Option<ObjectPlace>,
    pub base_offset: Offset,
    /// Exclusive; what of the segment may be served now.
    pub end_offset: Offset,
    /// Entries `0..entries` may be served.
    pub entries: u64,
    /// The entry with the offset is this one or a later one.
    pub from_entry: EntryId,
    pub open: bool,
}

/// Where a closed segment's record is, by what metadata says alone. None: `offset` is in no closed segment. Whether it is
/// above the log start is for the caller to see.
pub fn locate_closed(info: &PartitionInfo, offset: Offset) -> Option<Location> {
    if let Some(lost) = info.record.lost.iter().find(|lost| lost.from <= offset && offset < lost.to) {
        return Some(Location::Lost { from: lost.from, to: lost.to });
    }
    let at = info.chain.partition_point(|closed| closed.end_offset <= offset);
    if let Some(closed) = info.chain.get(at).filter(|closed| closed.base_offset <= offset) {
        return Some(Location::Segment(Place {
            segment: closed.segment,
            seg_epoch: closed.seg_epoch,
            copies: match closed.segment.n < info.record.copies_from {
                true => Vec::new(),
                false => closed.holders.clone(),
            },
            object: closed.object.clone(),
            base_offset: closed.base_offset,
            end_offset: closed.end_offset,
            entries: closed.last + 1,
            from_entry: 0,
            open: false,
        }));
    }
    let root = info.record.root.as_ref().filter(|root| offset < root.end_offset)?;
    Some(Location::Folded(root.clone()))
}

impl<R: Rules> Partition<R> {
    /// Only a recovered owner knows them.
    pub fn bounds(&self) -> Result<Bounds, Refusal> {
        match &self.stage {
            Stage::Active(active) => Ok(Bounds {
                epoch: active.epoch,
                log_start: active.log_start(&self.common),
                high_watermark: active.high_watermark,
            }),
            Stage::Recovering(_) if !R::RANGE_NEEDS_RECOVERY => {
                // The mutant answers from the record alone, which does not know how far the open segment reaches.
                let record = self.common.record().ok_or_else(|| self.not_ready())?;
                let Bounds { log_start, high_watermark, epoch } =
                    Bounds { epoch: record.epoch, log_start: record.log_start, high_watermark: record.next_offset };
                Ok(Bounds { epoch, log_start, high_watermark })
            }
            _ => Err(self.not_ready()),
        }
    }

    /// Where to read `offset`. `OffsetOutOfRange` means what it says: nobody else would know better.
    pub fn locate(&self, offset: Offset) -> Result<Location, Refusal> {
        let Bounds { log_start, high_watermark, .. } = self.bounds()?;
        if offset < log_start || offset > high_watermark {
            let reason = format!("offset {offset} is not in [{log_start}, {high_watermark}]");
            return Err(Refusal { code: ErrorCode::OffsetOutOfRange, reason });
        }
        if offset == high_watermark {
            return Ok(Location::End);
        }
        let Some(info) = &self.common.info else { return Err(self.not_ready()) };
        locate_closed(info, offset).or_else(|| self.locate_open(offset)).ok_or_else(|| Refusal {
            code: ErrorCode::OffsetNotAvailable,
            reason: format!("offset {offset} is on its way between segments"),
        })
    }

    fn locate_open(&self, offset: Offset) -> Option<Location> {
        let Stage::Active(active) = &self.stage else { return None };
        let Tail::Writing(writing) = &active.tail else { return None };
        let spec = writing.owner.spec();
        if !(spec.base_offset..writing.owner.acked_end()).contains(&offset) {
            return None;
        }
        let before = writing.index.partition_point(|(base, _)| *base <= offset);
        let from_entry = before.checked_sub(1).map_or(0, |i| writing.index[i].1);
        Some(Location::Segment(Place {
            segment: spec.segment,
            seg_epoch: spec.seg_epoch,
            copies: spec.members.clone(),
            object: None,
            base_offset: spec.base_offset,
            end_offset: writing.owner.acked_end(),
            entries: writing.owner.lac(),
            from_entry,
            open: true,
        }))
    }

    fn not_ready(&self) -> Refusal {
        let id = self.common.id;
        match &self.stage {
            Stage::Recovering(_) => {
                Refusal { code: ErrorCode::Recovering, reason: format!("partition {id} is being recovered") }
            }
            _ => Refusal { code: ErrorCode::NotOwner, reason: format!("partition {id} is not owned here") },
        }
    }
}
