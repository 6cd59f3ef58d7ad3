//! Small segments wait here for others, and go to the bucket together: see `esker_cache_core::steps::gather`.

use esker_cache_core::object::SegmentFacts;
use esker_cache_core::steps::{Step, Waiting, gather};
use esker_types::{SessionId, WallMs};

use super::{Driver, Due, idle};

impl Driver {
    /// The segment that is to be written, if it shares an object with others.
    pub(super) fn small(&self, due: &Due) -> Option<SegmentFacts> {
        let Step::Write(facts) = &due.step else { return None };
        let alone = self.slots.get(&due.partition).is_some_and(|slot| slot.alone);
        let small = self.gateway.config.objects.sharing().is_small(facts.bytes);
        (small && !alone).then_some(*facts)
    }

    /// Puts the step off until there is company for it. The partition is looked at as if it had nothing to do.
    pub(super) fn wait(&mut self, due: Due, facts: &SegmentFacts) {
        let idle = idle(&self.gateway.config.objects);
        let Some(slot) = self.slots.get_mut(&due.partition) else { return };
        slot.rest(due.tier, due.info.record, idle);
        slot.waits = Some(Waiting::from(facts));
    }

    /// Starts the objects that are due, as far as there are places. What finds none waits on.
    pub(super) fn share(&mut self, session: SessionId) {
        let waiting: Vec<Waiting> = self.slots.values().filter_map(|slot| slot.waits).collect();
        self.gateway.metrics.offload_waiting_segments.set(i64::try_from(waiting.len()).unwrap_or(i64::MAX));
        let (wall, sharing) = (WallMs(self.gateway.clock.wall_ms()), self.gateway.config.objects.sharing());
        for object in gather(wall, &waiting, &sharing) {
            let Ok(permit) = self.places.clone().try_acquire_owned() else { return };
            let mut members = Vec::with_capacity(object.len());
            for segment in object {
                // Each once more: it may be another's by now, or deleted, or have better things to do.
                let Some(due) = self.next(segment.partition, session) else { continue };
                match self.small(&due) {
                    Some(_) => members.push(due),
                    None => self.start_or_forget(due),
                }
            }
            if !members.is_empty() {
                self.start(permit, members);
            }
        }
    }

    /// Without a place for it, a step is found again at the next look.
    fn start_or_forget(&mut self, due: Due) {
        match self.places.clone().try_acquire_owned() {
            Ok(permit) => self.start(permit, vec![due]),
            Err(_) => {
                if let Some(slot) = self.slots.get_mut(&due.partition) {
                    slot.tier = Some(due.tier);
                }
            }
        }
    }
}
