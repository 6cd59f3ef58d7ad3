//! Writing and deleting whole objects.
//!
//! A store may carry out a request and fail to say so. Keys are never reused, so a plain write may simply be made
//! again; a conditional one is settled by reading what is there.

use bytes::Bytes;
use esker_cache_core::create::{Created, Said, There, created};
use esker_types::AllRules;
use object_store::path::Path;
use object_store::{GetOptions, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::error::{Error, Kind};
use super::{Class, Store, Task};

impl Store {
    /// Writes an object under a key that nobody else ever uses; held in memory, so meant for small ones (larger ones:
    /// [`Store::upload`]). On success the object is durable and the store lists its full size.
    ///
    /// # Errors
    /// See [`Kind`]; after those with `may_have_applied` the object may exist, whole.
    pub async fn put(&self, key: &str, payload: Bytes, class: Class) -> Result<(), Error> {
        self.put_chunks(key, vec![payload], class).await
    }

    pub(super) async fn put_chunks(&self, key: &str, chunks: Vec<Bytes>, class: Class) -> Result<(), Error> {
        let path = self.path(key)?;
        let payload: PutPayload = chunks.into_iter().collect();
        let bytes = payload.content_length() as u64;
        let task = Task { operation: "write", subject: key, class, bytes };
        self.run(task, || async {
            let done = self.inner.objects.put_opts(&path, payload.clone(), PutOptions::default()).await;
            done.map_err(|e| Error::from_store(task.operation, key, e))?;
            self.confirm(task, &path, bytes).await
        })
        .await?;
        self.inner.metrics.bytes_written(bytes);
        Ok(())
    }

    /// Writes an object only if the key is free. `payload` must hold something that no other writer would write, such
    /// as its own id: that is how a write of ours whose answer was lost is told from another's.
    ///
    /// # Errors
    /// `Exists` if another writer was first; else see [`Kind`].
    pub async fn create(&self, key: &str, payload: Bytes, class: Class) -> Result<(), Error> {
        let path = self.path(key)?;
        let task = Task { operation: "create", subject: key, class, bytes: payload.len() as u64 };
        self.run(task, || async {
            let options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            let done = self.inner.objects.put_opts(&path, payload.clone().into(), options).await;
            let error = match done {
                Ok(_) => return Ok(()),
                Err(error) => Error::from_store(task.operation, key, error),
            };
            if error.kind != Kind::Exists && !error.kind.may_have_applied() {
                return Err(error);
            }
            self.settle(task, &path, &payload, error).await
        })
        .await?;
        self.inner.metrics.bytes_written(payload.len() as u64);
        Ok(())
    }

    /// Removes an object. One that is not there is as good as removed.
    ///
    /// # Errors
    /// See [`Kind`].
    pub async fn delete(&self, key: &str, class: Class) -> Result<(), Error> {
        let path = self.path(key)?;
        let task = Task { operation: "delete", subject: key, class, bytes: 0 };
        self.run(task, || async {
            match self.inner.objects.delete(&path).await.map_err(|e| Error::from_store(task.operation, key, e)) {
                Err(error) if error.kind == Kind::NotFound => Ok(()),
                result => result,
            }
        })
        .await
    }

    /// A success may lie: there are gateways that answer 200 before they have stored anything.
    pub(super) async fn confirm(&self, task: Task<'_>, path: &Path, bytes: u64) -> Result<(), Error> {
        let options = GetOptions { head: true, ..GetOptions::default() };
        let there = self.inner.objects.get_opts(path, options).await;
        match there.map_err(|e| Error::from_store(task.operation, task.subject, e)) {
            Ok(got) if got.meta.size == bytes => Ok(()),
            Ok(got) => {
                let detail = format!("{} bytes are stored of {bytes}", got.meta.size);
                Err(Error::new(Kind::BadAnswer, task.operation, task.subject, detail))
            }
            Err(error) if error.kind == Kind::NotFound => {
                let detail = "the store said yes, but has no such object";
                Err(Error::new(Kind::BadAnswer, task.operation, task.subject, detail))
            }
            Err(error) => Err(error),
        }
    }

    /// Whose object is it, after a conditional write that was refused or ended unknown? 409 and lost answers say
    /// nothing; what is stored does.
    async fn settle(&self, task: Task<'_>, path: &Path, mine: &Bytes, said: Error) -> Result<(), Error> {
        let found = self.inner.objects.get_opts(path, GetOptions::default()).await;
        let there = match found.map_err(|e| Error::from_store(task.operation, task.subject, e)) {
            Err(error) if error.kind == Kind::NotFound => There::Nothing,
            Err(error) => return Err(error),
            Ok(found) if found.meta.size != mine.len() as u64 => There::Others,
            Ok(found) => {
                let bytes = found.bytes().await.map_err(|e| Error::from_store(task.operation, task.subject, e))?;
                if bytes == *mine { There::Ours } else { There::Others }
            }
        };
        let said_so = match said.kind {
            Kind::Exists => Said::Taken,
            Kind::Conflict => Said::Conflict,
            _ => Said::Unknown,
        };
        match created::<AllRules>(said_so, there) {
            Created::Ours => Ok(()),
            Created::Others => Err(Error { kind: Kind::Exists, ..said }),
            // Nothing landed: try again, also after a 409 or 412 that claims otherwise.
            Created::Again => Err(Error { kind: Kind::Conflict, ..said }),
        }
    }
}
