//! Time travel made safe (2.9): metadata that comes from a backup goes on in a life of its own, in which no id, epoch,
//! ordinal or offset that the lost past may have given out is given out again.

use esker_types::{Epoch, InstanceId, Offset, Rules, first_id};

use crate::change::Change;
use crate::command::{Command, Restore};
use crate::records::{BookieRecord, BookieState, ClusterRecord, GatewayRecord, LastClosed, LostRange, PartitionRecord};
use crate::state::State;
use crate::wire::Wire;

/// Offsets go on at a multiple of this: far above any that was given out after the backup was taken.
const JUMP: Offset = 1 << 40;
/// Encoded rows of one command. Several fit into one raft entry.
const PIECE_BYTES: usize = 512 << 10;

/// Raises what a backup says above all that may have happened since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bump {
    /// The backup's life. Those between it and the new one left no backup, and may have given out anything.
    pub from: u8,
    /// Of the new life. Above every earlier one.
    pub incarnation: u8,
}

impl Bump {
    pub fn cluster(&self, old: &ClusterRecord) -> ClusterRecord {
        let first = first_id(self.incarnation);
        ClusterRecord {
            incarnation: self.incarnation,
            next_partition: first,
            next_producer: first,
            next_session: first,
            next_gateway: first,
            next_bookie: first,
            ..old.clone()
        }
    }

    /// The name keeps its id; the process behind it has no session any more.
    pub fn gateway(&self, old: &GatewayRecord) -> GatewayRecord {
        GatewayRecord { session: None, draining: false, ..old.clone() }
    }

    /// The name keeps its id, and its data is given up for good: whatever comes back under an instance of the past is
    /// refused, and a new one may take the name.
    pub fn bookie(&self, old: &BookieRecord) -> BookieRecord {
        let mut retired = old.retired.clone();
        retired.extend(Some(old.instance).filter(|instance| !instance.is_nil() && !retired.contains(instance)));
        BookieRecord {
            instance: InstanceId::NIL,
            boot_no: 0,
            durable_lsn: 0,
            state: BookieState::Lost,
            session: None,
            retired,
            disk_total: 0,
            disk_used: 0,
            ..old.clone()
        }
    }

    /// Where the life that gave out `offset` began, if it gave out fewer than 2^40 in this partition.
    pub fn life_began(offset: Offset) -> Offset {
        offset / JUMP * JUMP
    }

    /// A partition whose records are there up to `end`, exclusive: what may have followed is declared lost, and records
    /// go on behind it. `lost` are the holes below, `last` the newest segment that is there.
    pub fn partition<R: Rules>(
        &self,
        old: &PartitionRecord,
        end: Offset,
        last: Option<LastClosed>,
        lost: &[LostRange],
    ) -> PartitionRecord {
        let end = end.max(old.log_start);
        // Each life between jumped once more than the one before it, counted from what the backup knows: what is found
        // of them must not count here too, or a later recovery that finds less would meet this life's beginning.
        let lives = Offset::from(self.incarnation.saturating_sub(self.from).max(1));
        let next_offset = (self.known_end(old) / JUMP + lives).max(end / JUMP + 1).saturating_mul(JUMP);
        let mut holes: Vec<LostRange> = old.lost.iter().chain(lost).cloned().collect();
        holes.push(LostRange { from: end, to: next_offset });
        let holes = crate::apply::merged_all(holes.into_iter().filter(|hole| hole.to > old.log_start));
        PartitionRecord {
            // Of the new incarnation: above every epoch of an earlier one.
            epoch: Epoch::first(self.incarnation).max(old.epoch),
            owner: None,
            next_offset,
            next_n: match R::ORDINALS_JUMP_AT_RESTORE {
                true => first_id(self.incarnation).max(old.next_n),
                false => old.next_n,
            },
            open: None,
            // The newest segment keeps its row: its producers are read from it.
            copies_from: last.as_ref().map_or(old.copies_from, |last| last.n),
            last,
            lost: holes,
            pins: Vec::new(),
            ..old.clone()
        }
    }

    /// First offset that the backup does not know to have existed.
    pub fn known_end(&self, old: &PartitionRecord) -> Offset {
        let open = old.open.as_ref().map_or(0, |open| open.base_offset);
        let last = old.last.as_ref().map_or(0, |last| last.end_offset);
        old.next_offset.max(open).max(last).max(old.log_start)
    }
}

/// The commands that put all rows of `state` into an empty state machine, in order; the cluster's record comes last.
pub fn restore_commands(state: &State) -> Vec<Command> {
    let (cluster, others): (Vec<Change>, Vec<Change>) = state.rows().partition(|row| matches!(row, Change::Cluster(_)));
    let mut pieces: Vec<Vec<Change>> = vec![Vec::new()];
    let mut bytes = 0;
    for row in others {
        let len = prost::Message::encoded_len(&row.to_wire());
        if bytes > 0 && bytes + len > PIECE_BYTES {
            pieces.push(Vec::new());
            bytes = 0;
        }
        bytes += len;
        pieces.last_mut().expect("never empty").push(row);
    }
    pieces.retain(|piece| !piece.is_empty());
    pieces.push(cluster);
    let mut copy = State::default();
    pieces
        .into_iter()
        .map(|rows| {
            let before = copy.rows_hash();
            rows.iter().for_each(|row| copy.put(row));
            Command::Restore(Restore { rows, before, after: copy.rows_hash() })
        })
        .collect()
}
