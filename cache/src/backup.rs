//! Backups of the metadata: written, read back, listed, and deleted when newer ones are there.

use bytes::Bytes;
use esker_cache_core::backup::{BACKUP_MAX, BACKUPS, BackupName, surplus};
use esker_metadata_core::{State, decode_snapshot};

use crate::store::{Class, Error, Kind, Store};

const CLASS: Class = Class::Background;
/// Names per listing. A cluster keeps a dozen.
const NAMES: usize = 10_000;

impl Store {
    /// Writes a backup and reads it back: at return it is there, whole.
    ///
    /// # Errors
    /// Those of the store; `Damaged` if other bytes come back; after an error it may be there or not.
    pub async fn put_backup(&self, name: &BackupName, bytes: Bytes) -> Result<(), Error> {
        let key = name.to_string();
        match self.create(&key, bytes.clone(), CLASS).await {
            Ok(()) => {}
            // Ours from before a restart: the same state, perhaps compressed by another version.
            Err(error) if error.kind == Kind::Exists => return self.backup(name).await.map(drop),
            Err(error) => return Err(error),
        }
        let back = self.read_whole(&key, bytes.len() as u64, CLASS).await?;
        if back == bytes {
            return Ok(());
        }
        Err(Error::new(Kind::Damaged, "write", key, "other bytes came back than were written"))
    }

    /// All backups, newest first.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn backups(&self) -> Result<Vec<BackupName>, Error> {
        let mut names: Vec<BackupName> = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.list(BACKUPS, after.as_deref(), NAMES, CLASS).await?;
            names.extend(page.iter().filter_map(|listed| listed.key.parse::<BackupName>().ok()));
            match page.last() {
                Some(last) if page.len() == NAMES => after = Some(last.key.clone()),
                _ => break,
            }
        }
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// The state that a backup holds.
    ///
    /// # Errors
    /// Those of the store; `Damaged` if it is not whole, of a newer version, or of another life than its name.
    pub async fn backup(&self, name: &BackupName) -> Result<State, Error> {
        let key = name.to_string();
        let size = self.size(&key, CLASS).await?;
        if size > BACKUP_MAX {
            return Err(Error::new(Kind::Damaged, "read", key, "larger than any backup"));
        }
        let bytes = self.read_whole(&key, size, CLASS).await?;
        let decoded = tokio::task::spawn_blocking(move || decode_snapshot(&bytes)).await;
        let state = match decoded {
            Ok(Ok(state)) => state,
            Ok(Err(error)) => return Err(Error::new(Kind::Damaged, "read", key, error.to_string())),
            Err(_) => return Err(Error::new(Kind::Shutdown, "read", key, "")),
        };
        let incarnation = state.cluster().map(|cluster| cluster.incarnation);
        if (incarnation, state.revision()) != (Some(name.incarnation), name.revision) {
            return Err(Error::new(Kind::Damaged, "read", key, "it is another one than its name says"));
        }
        Ok(state)
    }

    /// Deletes all but the newest `kept` backups and says how many went. Call it only after a newer one was written.
    ///
    /// # Errors
    /// Those of the store.
    pub async fn prune_backups(&self, incarnation: u8, kept: usize) -> Result<usize, Error> {
        let old = surplus(&self.backups().await?, incarnation, kept.max(1));
        for name in &old {
            self.delete(&name.to_string(), CLASS).await?;
        }
        Ok(old.len())
    }
}
