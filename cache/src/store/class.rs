//! On whose behalf a request is made. Each class has its own bound, so that none can take the line from another.

use tokio::sync::{Semaphore, SemaphorePermit};

use super::error::{Error, Kind};
use crate::config::StoreConfig;

/// Who waits for a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A client, now.
    Foreground,
    /// A client that reads through history; throughput counts.
    Replay,
    /// The offload of closed segments.
    Offload,
    /// Sweeps, merges, checks: nobody waits.
    Background,
}

impl Class {
    pub(crate) const ALL: [Self; 4] = [Self::Foreground, Self::Replay, Self::Offload, Self::Background];

    /// A word for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Foreground => "foreground",
            Self::Replay => "replay",
            Self::Offload => "offload",
            Self::Background => "background",
        }
    }
}

#[derive(Debug)]
pub(crate) struct Gates([Semaphore; 4]);

impl Gates {
    pub(crate) fn new(config: &StoreConfig) -> Self {
        let gate = |class| {
            let permits = match class {
                Class::Foreground => config.foreground_requests,
                Class::Replay => config.replay_requests,
                Class::Offload => config.offload_requests,
                Class::Background => config.background_requests,
            };
            Semaphore::new(permits as usize)
        };
        Self(Class::ALL.map(gate))
    }

    /// A place for one request; waits in order of arrival.
    pub(crate) async fn enter(&self, class: Class) -> Result<SemaphorePermit<'_>, Error> {
        let gate = &self.0[class as usize];
        gate.acquire().await.map_err(|_| Error::new(Kind::Shutdown, "use", "the store", ""))
    }
}
