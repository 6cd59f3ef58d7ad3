use std::time::Duration;

use esker_metadata_client::{ProposeError, SessionKeeper, SessionLost};
use esker_metadata_core::{NodeRef, OpenSession, Reply};
use esker_types::SessionId;

use super::{Stopping, Upkeep};

/// First guess; the store's answers replace it.
const TTL: Duration = Duration::from_secs(2);
const RETRY: Duration = Duration::from_millis(200);

impl Upkeep {
    /// Shows metadata that this process lives. A session that ended is replaced: the data is as good as before, and
    /// owners that rolled away come back.
    pub(super) async fn keep_session(&self) {
        let mut session = self.registered.session;
        loop {
            let keeper = SessionKeeper::start(self.store.clone(), session, self.boot, TTL);
            let lost = self.cancel.run_until_cancelled(keeper.lost()).await;
            keeper.stop().await;
            if lost != Some(SessionLost::Ended) {
                return;
            }
            match self.open_session().await {
                Ok(Some(opened)) => session = opened,
                Ok(None) | Err(Stopping) => return,
            }
        }
    }

    /// None: another process serves this instance now, or it was given up.
    async fn open_session(&self) -> Result<Option<SessionId>, Stopping> {
        let command = OpenSession { node: NodeRef::Bookie(self.registered.bookie), boot: self.boot };
        loop {
            let proposed = self.store.propose(vec![command.clone().into()]);
            match self.cancel.run_until_cancelled(proposed).await.ok_or(Stopping)? {
                Ok(done) => match done.single() {
                    Ok(Reply::Session(reply)) => return Ok(Some(reply.session)),
                    Ok(_) => self.fail("metadata answered another question than the one asked".to_owned()),
                    Err(reject) => self.fail(format!("the cluster ended this bookie's session: {reject}")),
                },
                // Asking again is safe: it is answered with the same session.
                Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason)) => {
                    tracing::debug!(reason, "no new session yet");
                    self.sleep(RETRY).await?;
                    continue;
                }
            }
            return Ok(None);
        }
    }
}
