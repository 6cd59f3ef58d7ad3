//! Telling the cluster that this process serves this instance, under a number that only the newest process has.

use std::sync::Arc;
use std::time::Duration;

use esker_metadata_client::{MetadataStore, ProposeError, ReadError};
use esker_metadata_core::{
    Answer, BookieQuery, BookieRecord, ClusterQuery, ClusterRecord, InstanceQuery, OpenOn, Query, RegisterBookie,
    Reply, SegmentsQuery,
};
use esker_types::{BookieId, BootId, ErrorCode, InstanceId, SegmentId, SessionId};
use tokio_util::sync::CancellationToken;

/// Newest `cluster.version` that this program can handle.
const VERSION: u32 = 1;
/// Between two tries while metadata is out of reach.
const RETRY: Duration = Duration::from_millis(200);
/// Further apart, so that a cluster whose metadata is down is not asked 5 times a second by everybody.
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What a bookie says of itself.
#[derive(Clone, Debug)]
pub struct Registration {
    pub name: String,
    pub instance: InstanceId,
    pub boot: BootId,
    pub durable_lsn: u64,
    pub address: String,
    pub zone: String,
    /// The instance that the operator has given up.
    pub replaces: Option<InstanceId>,
}

/// What the cluster answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Registered {
    pub bookie: BookieId,
    pub boot_no: u64,
    pub session: SessionId,
}

#[derive(Debug, thiserror::Error)]
pub enum RegisterError {
    #[error("stopped while waiting for metadata")]
    Cancelled,
    #[error("metadata refused the registration: {reason}")]
    Refused { code: ErrorCode, reason: String },
    #[error("metadata answered another question than the one asked: versions do not fit")]
    Protocol,
}

/// The metadata that a bookie asks for. Every question is asked until it is answered: without metadata the port stays
/// shut, and a bookie has nothing else to do.
#[derive(Clone)]
pub struct Directory {
    store: Arc<dyn MetadataStore>,
    cancel: CancellationToken,
}

impl Directory {
    pub fn new(store: Arc<dyn MetadataStore>, cancel: CancellationToken) -> Self {
        Self { store, cancel }
    }

    async fn ask(&self, query: Query) -> Result<Answer, RegisterError> {
        let mut pause = RETRY;
        loop {
            match self.cancel.run_until_cancelled(self.store.read(query.clone())).await {
                None => return Err(RegisterError::Cancelled),
                Some(Ok(answer)) => return Ok(answer),
                Some(Err(ReadError::Refused(code, reason))) => return Err(RegisterError::Refused { code, reason }),
                Some(Err(ReadError::Unavailable(reason))) => self.wait(&mut pause, &reason).await?,
            }
        }
    }

    async fn wait(&self, pause: &mut Duration, reason: &str) -> Result<(), RegisterError> {
        match *pause {
            RETRY => tracing::info!(reason, "waiting for metadata"),
            _ => tracing::debug!(reason, "still waiting for metadata"),
        }
        let slept = self.cancel.run_until_cancelled(tokio::time::sleep(*pause)).await;
        *pause = (*pause * 2).min(RETRY_MAX);
        slept.ok_or(RegisterError::Cancelled)
    }

    /// The cluster, once it is born.
    pub async fn cluster(&self) -> Result<Arc<ClusterRecord>, RegisterError> {
        let mut pause = RETRY;
        loop {
            match self.ask(Query::Cluster(ClusterQuery {})).await? {
                Answer::Cluster(answer) => match answer.cluster {
                    Some(cluster) => return Ok(cluster),
                    None => self.wait(&mut pause, "the cluster is not initialized yet").await?,
                },
                _ => return Err(RegisterError::Protocol),
            }
        }
    }

    /// What is registered under this name.
    pub async fn bookie(&self, name: &str) -> Result<Option<Arc<BookieRecord>>, RegisterError> {
        match self.ask(Query::BookieByName(BookieQuery { name: name.to_owned() })).await? {
            Answer::BookieByName(answer) => Ok(answer.bookie),
            _ => Err(RegisterError::Protocol),
        }
    }

    /// Open segments that name the instance, with the epochs below which it must refuse.
    pub async fn open_segments(&self, instance: InstanceId) -> Result<Vec<OpenOn>, RegisterError> {
        match self.ask(Query::OpenSegmentsOf(InstanceQuery { instance })).await? {
            Answer::OpenSegmentsOf(answer) => Ok(answer.open),
            _ => Err(RegisterError::Protocol),
        }
    }

    /// All segments, open and closed, of which the instance should hold a copy.
    pub async fn segments(&self, instance: InstanceId) -> Result<Vec<SegmentId>, RegisterError> {
        match self.ask(Query::SegmentsOf(SegmentsQuery { instance })).await? {
            Answer::SegmentsOf(answer) => Ok(answer.segments),
            _ => Err(RegisterError::Protocol),
        }
    }

    /// Registers. `expect_boot_no` is from the record that the identity was checked against: if somebody else has
    /// registered the same instance since, this one is refused, because two processes then hold clones of one disk.
    /// An unknown outcome is settled by a read: the record then names this boot, or does not yet.
    pub async fn register(
        &self,
        registration: &Registration,
        expect_boot_no: u64,
    ) -> Result<Registered, RegisterError> {
        let command = RegisterBookie {
            name: registration.name.clone(),
            instance: registration.instance,
            boot: registration.boot,
            expect_boot_no,
            durable_lsn: registration.durable_lsn,
            address: registration.address.clone(),
            zone: registration.zone.clone(),
            version: VERSION,
            replaces: registration.replaces,
        };
        let mut pause = RETRY;
        loop {
            let proposed = self.store.propose(vec![command.clone().into()]);
            let reason = match self.cancel.run_until_cancelled(proposed).await {
                None => return Err(RegisterError::Cancelled),
                Some(Ok(done)) => match done.single() {
                    Ok(Reply::Bookie(reply)) => {
                        return Ok(Registered { bookie: reply.bookie, boot_no: reply.boot_no, session: reply.session });
                    }
                    Ok(_) => return Err(RegisterError::Protocol),
                    // A late first try may have made this one fail: the record decides.
                    Err(reject) => match self.registered_as(registration).await? {
                        Some(registered) => return Ok(registered),
                        None => return Err(RegisterError::Refused { code: reject.code, reason: reject.reason }),
                    },
                },
                Some(Err(ProposeError::NotApplied(reason) | ProposeError::Unknown(reason))) => reason,
            };
            self.wait(&mut pause, &reason).await?;
            if let Some(registered) = self.registered_as(registration).await? {
                return Ok(registered);
            }
        }
    }

    async fn registered_as(&self, registration: &Registration) -> Result<Option<Registered>, RegisterError> {
        let record = self.bookie(&registration.name).await?;
        Ok(record.and_then(|record| {
            let mine = record.instance == registration.instance && record.boot == registration.boot;
            let session = record.session.filter(|_| mine)?;
            Some(Registered { bookie: record.id, boot_no: record.boot_no, session })
        }))
    }
}

#[cfg(test)]
mod tests {
    use esker_metadata_client::{Fault, MemoryStore};
    use esker_metadata_core::InitCluster;
    use esker_types::{ClusterId, Quorum};

    use super::*;

    fn directory() -> (MemoryStore, Directory) {
        let store = MemoryStore::new();
        let quorum = Quorum { write: 1, ack: 1 };
        let init = InitCluster { id: ClusterId([1; 16]), quorum, auto_create_topics: false, default_partitions: 1 };
        store.apply(vec![init.into()]);
        (store.clone(), Directory::new(Arc::new(store), CancellationToken::new()))
    }

    fn registration(boot: u8) -> Registration {
        Registration {
            name: "b".to_owned(),
            instance: InstanceId([7; 16]),
            boot: BootId([boot; 16]),
            durable_lsn: 0,
            address: "127.0.0.1:1".to_owned(),
            zone: String::new(),
            replaces: None,
        }
    }

    #[tokio::test]
    async fn unknown_outcomes_are_settled_by_reading() {
        let (store, directory) = directory();
        store.inject([Fault::NotApplied, Fault::UnknownNever, Fault::UnknownApplied]);
        let registered = directory.register(&registration(1), 0).await.unwrap();
        assert_eq!(registered.boot_no, 1);
        let record = directory.bookie("b").await.unwrap().unwrap();
        assert_eq!((record.boot_no, record.id), (1, registered.bookie));
    }

    #[tokio::test]
    async fn the_older_of_two_clones_is_evicted() {
        let (_, directory) = directory();
        directory.register(&registration(1), 0).await.unwrap();
        // Both read boot_no 1; only one of them may have it.
        directory.register(&registration(2), 1).await.unwrap();
        let late = directory.register(&registration(3), 1).await;
        assert!(matches!(late, Err(RegisterError::Refused { .. })), "{late:?}");
    }
}
