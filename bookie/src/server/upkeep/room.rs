use std::time::Duration;

use esker_bookie_core::journal::space::SpaceLevel;

use super::Upkeep;

/// A full journal file takes longer than this to write on any disk.
const INTERVAL: Duration = Duration::from_millis(250);

impl Upkeep {
    /// Watches the disk and stops what must stop as it fills.
    pub(super) async fn watch_room(&self) {
        let mut level = SpaceLevel::All;
        loop {
            match self.room.measure() {
                Ok(usage) => {
                    if usage.level != level {
                        self.on_level(level, usage.level, usage.free);
                        level = usage.level;
                    }
                    self.metrics.disk(usage.files, usage.used, usage.free, usage.level as u8);
                }
                Err(error) => tracing::warn!(%error, "free space is not known"),
            }
            self.journal.space().retry();
            let (segments, limbo, damaged) = self.journal.look(|state| {
                let limbo: Vec<_> = state.limbo_segments().collect();
                let damaged: usize = limbo.iter().map(|segment| state.damaged(*segment).len()).sum();
                (state.segment_ids().count(), limbo.len(), damaged)
            });
            self.metrics.held(segments, limbo, damaged);
            if self.sleep(INTERVAL).await.is_err() {
                return;
            }
        }
    }

    fn on_level(&self, before: SpaceLevel, level: SpaceLevel, free: u64) {
        match level {
            SpaceLevel::All => tracing::info!(free, "there is space again: entries are taken"),
            _ if before < level => tracing::warn!(?level, free, "the disk fills up: see disk.budget and disk.reserve"),
            _ => tracing::info!(?level, free, "a little more space"),
        }
        self.journal.space().hurry(level > SpaceLevel::All);
        self.journal.change(|state| state.set_space(level));
        self.news.notify_one();
    }
}
