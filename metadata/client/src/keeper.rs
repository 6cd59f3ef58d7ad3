//! Keeps a session alive, and says when it is lost.

use std::sync::Arc;
use std::time::Duration;

use esker_types::{BootId, SessionId};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::store::{MetadataStore, RenewError};

/// Renews every third of the time to live, until dropped or lost. Nothing about safety hangs on it: a process that
/// does not know yet that its session is lost is stopped by epochs.
pub struct SessionKeeper {
    session: SessionId,
    lost: watch::Receiver<Option<SessionLost>>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

/// Why a session is over for the process that had it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionLost {
    /// Metadata said that it ended. Step down everywhere; then open another.
    Ended,
    /// The keeper was stopped by its owner.
    Stopped,
}

impl SessionKeeper {
    /// `ttl` is the first guess; the store's answers replace it. Needs a tokio runtime.
    pub fn start(store: Arc<dyn MetadataStore>, session: SessionId, boot: BootId, ttl: Duration) -> Self {
        let (tell, lost) = watch::channel(None);
        let cancel = CancellationToken::new();
        let stopped = cancel.clone();
        let task = tokio::spawn(async move {
            let why = tokio::select! {
                biased;
                () = stopped.cancelled() => SessionLost::Stopped,
                () = renew_until_lost(&*store, session, boot, ttl) => SessionLost::Ended,
            };
            tell.send_replace(Some(why));
        });
        Self { session, lost, cancel, task }
    }

    pub fn session(&self) -> SessionId {
        self.session
    }

    pub fn is_lost(&self) -> bool {
        self.lost.borrow().is_some()
    }

    /// Waits for the end of the session. Cancel-safe.
    pub async fn lost(&self) -> SessionLost {
        let mut lost = self.lost.clone();
        match lost.wait_for(Option::is_some).await {
            Ok(why) => why.unwrap_or(SessionLost::Stopped),
            // The task is gone: the runtime is shutting down.
            Err(_) => SessionLost::Stopped,
        }
    }

    /// Stops renewing. The session itself ends when somebody expires it.
    pub async fn stop(mut self) {
        self.cancel.cancel();
        // A task that panicked or was aborted renews no more either.
        let _ = (&mut self.task).await;
    }
}

impl Drop for SessionKeeper {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Returns when metadata says that the session has ended. Silence is no verdict: it goes on trying.
async fn renew_until_lost(store: &dyn MetadataStore, session: SessionId, boot: BootId, mut ttl: Duration) {
    let mut silent = 0u32;
    loop {
        match tokio::time::timeout(ttl, store.renew(session, boot)).await {
            Ok(Ok(renewed)) => {
                ttl = renewed.ttl.max(Duration::from_millis(30));
                silent = 0;
            }
            Ok(Err(RenewError::Lost)) => {
                tracing::warn!(session = session.0, "session has ended");
                return;
            }
            Ok(Err(RenewError::Unavailable(reason))) => {
                silent += 1;
                match silent {
                    1 => tracing::debug!(session = session.0, reason, "session not renewed, trying again"),
                    _ => tracing::warn!(session = session.0, reason, tries = silent, "session not renewed"),
                }
            }
            Err(_) => {
                silent += 1;
                tracing::warn!(session = session.0, tries = silent, "metadata does not answer a renewal");
            }
        }
        tokio::time::sleep(ttl / 3).await;
    }
}
