use esker_bookie_core::journal::space::SpaceLevel;
use esker_metadata_core::ReportBookie;

use super::Upkeep;

impl Upkeep {
    /// Tells metadata how far the journal is durable (so that a disk image that was rolled back shows itself), and
    /// whether new entries are taken. Only when something moved, and at once when the disk got full or has room again.
    pub(super) async fn report(&self) {
        let mut told = None;
        loop {
            tokio::select! {
                slept = self.sleep(self.config.upkeep.report_interval.0) => if slept.is_err() { return },
                () = self.news.notified() => {}
            }
            let usage = self.room.usage();
            let command = ReportBookie {
                bookie: self.registered.bookie,
                instance: self.ids.instance,
                boot_no: self.registered.boot_no,
                durable_lsn: self.journal.look(|state| state.durable_lsn()).0,
                read_only: usage.level > SpaceLevel::All,
                disk_total: usage.used + usage.free,
                disk_used: usage.used,
            };
            let news = (command.durable_lsn, command.read_only);
            if told == Some(news) {
                continue;
            }
            let proposed = self.store.propose(vec![command.into()]);
            match self.cancel.run_until_cancelled(proposed).await {
                None => return,
                Some(Ok(done)) => match done.single() {
                    Ok(_) => told = Some(news),
                    // A later boot of this instance has registered, or it was declared lost.
                    Err(reject) => return self.fail(format!("the cluster does not know this process: {reject}")),
                },
                Some(Err(error)) => tracing::debug!(%error, "not reported"),
            }
        }
    }
}
