//! Writing a large object front to back with bounded memory.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use object_store::multipart::{MultipartStore, PartId};
use object_store::path::Path;
use object_store::{MultipartUpload, ObjectStore, PutMultipartOptions, PutPayload};
use tokio::task::JoinSet;

use super::error::{Error, Kind};
use super::{Class, Store, Task};

/// An object on its way. It appears in the store only when [`Upload::finish`] succeeds; dropping the upload aborts it.
///
/// Holds at most `parts-in-flight` + 1 parts of `part-bytes` in memory. All parts but the last have the same size.
pub struct Upload {
    store: Store,
    key: String,
    path: Path,
    class: Class,
    /// Chunks not sent yet, less than a part.
    waiting: VecDeque<Bytes>,
    waiting_bytes: usize,
    total: u64,
    sink: Sink,
}

enum Sink {
    /// Nothing was sent: a short object goes out in one piece.
    None,
    Parts(Parts),
    /// A file that appears under its name at the end.
    File(Box<dyn MultipartUpload>),
    Closed,
}

struct Parts {
    store: Arc<dyn MultipartStore>,
    id: String,
    running: JoinSet<Result<(usize, PartId), Error>>,
    done: Vec<Option<PartId>>,
}

/// Most parts that S3 takes for one object.
const PARTS_MAX: usize = 10_000;

impl Store {
    /// Begins an object of unknown length under a key that nobody else ever uses.
    ///
    /// # Errors
    /// `Invalid` for an impossible key. Nothing is sent yet.
    pub fn upload(&self, key: &str, class: Class) -> Result<Upload, Error> {
        Ok(Upload {
            store: self.clone(),
            key: key.to_owned(),
            path: self.path(key)?,
            class,
            waiting: VecDeque::new(),
            waiting_bytes: 0,
            total: 0,
            sink: Sink::None,
        })
    }
}

impl Upload {
    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.total
    }

    /// Appends `chunk`; waits while the bound of parts in flight is reached. Not cancel-safe: after dropping the
    /// future, drop the upload.
    ///
    /// # Errors
    /// See [`Kind`]. The upload can't go on: begin another one.
    pub async fn write(&mut self, chunk: Bytes) -> Result<(), Error> {
        self.total += chunk.len() as u64;
        self.waiting_bytes += chunk.len();
        self.waiting.push_back(chunk);
        let part = self.part_bytes();
        while self.waiting_bytes > part {
            let payload = self.cut(part);
            self.send(payload).await?;
        }
        Ok(())
    }

    /// Ends the object. On success it is durable and the store lists its full size; returns that.
    ///
    /// # Errors
    /// See [`Kind`]; after those with `may_have_applied` the object may exist, whole.
    pub async fn finish(mut self) -> Result<u64, Error> {
        if matches!(self.sink, Sink::None) {
            let chunks: Vec<Bytes> = self.waiting.drain(..).collect();
            self.store.put_chunks(&self.key, chunks, self.class).await?;
            self.sink = Sink::Closed;
            return Ok(self.total);
        }
        if self.waiting_bytes > 0 {
            let last = self.cut(self.waiting_bytes);
            self.send(last).await?;
        }
        if let Sink::Parts(parts) = &mut self.sink {
            while let Some(joined) = parts.running.join_next().await {
                parts.settle(&self.key, joined)?;
            }
        }
        self.complete().await?;
        self.sink = Sink::Closed;
        Ok(self.total)
    }

    /// Gives the object up and waits until the store has forgotten it, as far as it answers.
    pub async fn abort(mut self) {
        if let Some(abort) = self.take_abort() {
            abort.await;
        }
    }

    fn part_bytes(&self) -> usize {
        self.store.config().part_bytes.as_usize()
    }

    /// Takes `length` bytes off the front of what is waiting.
    fn cut(&mut self, length: usize) -> PutPayload {
        let (mut chunks, mut missing) = (Vec::new(), length);
        while missing > 0 {
            let Some(mut chunk) = self.waiting.pop_front() else { break };
            if chunk.len() > missing {
                self.waiting.push_front(chunk.split_off(missing));
            }
            missing -= chunk.len();
            chunks.push(chunk);
        }
        self.waiting_bytes -= length;
        chunks.into_iter().collect()
    }

    async fn send(&mut self, payload: PutPayload) -> Result<(), Error> {
        if matches!(self.sink, Sink::None) {
            self.sink = begin(&self.store, &self.path, &self.key, self.class).await?;
        }
        let bytes = payload.content_length() as u64;
        match &mut self.sink {
            Sink::Parts(parts) => {
                while parts.running.len() >= self.store.config().parts_in_flight as usize {
                    match parts.running.join_next().await {
                        Some(joined) => parts.settle(&self.key, joined)?,
                        None => break,
                    }
                }
                let index = parts.done.len();
                if index >= PARTS_MAX {
                    let detail = "more than 10,000 parts: raise store.part-bytes";
                    return Err(Error::new(Kind::Invalid, "write", self.key.as_str(), detail));
                }
                parts.done.push(None);
                let (store, path, key) = (self.store.clone(), self.path.clone(), self.key.clone());
                let (to, id, class) = (parts.store.clone(), parts.id.clone(), self.class);
                parts.running.spawn(async move {
                    let task = Task { operation: "send a part of", subject: &key, class, bytes };
                    let part = store
                        .run(task, || async {
                            let sent = to.put_part(&path, &id, index, payload.clone()).await;
                            sent.map_err(|e| Error::from_store(task.operation, &key, e))
                        })
                        .await?;
                    store.inner.metrics.bytes_written(bytes);
                    Ok((index, part))
                });
                Ok(())
            }
            Sink::File(file) => {
                let written = file.put_part(payload).await;
                written.map_err(|e| Error::from_store("write", &self.key, e))?;
                self.store.inner.metrics.bytes_written(bytes);
                Ok(())
            }
            Sink::None | Sink::Closed => Err(Error::new(Kind::Invalid, "write", self.key.as_str(), "already closed")),
        }
    }

    async fn complete(&mut self) -> Result<(), Error> {
        let task = Task { operation: "write", subject: &self.key, class: self.class, bytes: 0 };
        let failed = |e| Error::from_store(task.operation, &self.key, e);
        match &mut self.sink {
            Sink::File(file) => {
                file.complete().await.map_err(failed)?;
                self.store.confirm(task, &self.path, self.total).await
            }
            Sink::Parts(parts) => {
                let ids: Vec<PartId> = parts.done.iter().flatten().cloned().collect();
                assert_eq!(ids.len(), parts.done.len(), "every part was settled before");
                let (parts, store, path, total) = (&*parts, &self.store, &self.path, self.total);
                store
                    .run(task, || async {
                        // Refused, lost, or 200 with an error inside: only the object itself tells.
                        let said = parts.store.complete_multipart(path, &parts.id, ids.clone()).await.map_err(failed);
                        match (store.confirm(task, path, total).await, said) {
                            (Ok(()), _) => Ok(()),
                            (Err(confirmed), Ok(_)) => Err(confirmed),
                            (Err(_), Err(said)) if said.kind == Kind::NotFound => Err(forgotten(task.subject)),
                            (Err(_), Err(said)) => Err(said),
                        }
                    })
                    .await
            }
            Sink::None | Sink::Closed => Ok(()),
        }
    }

    fn take_abort(&mut self) -> Option<impl Future<Output = ()> + Send + 'static> {
        let sink = std::mem::replace(&mut self.sink, Sink::Closed);
        if matches!(sink, Sink::None | Sink::Closed) {
            return None;
        }
        let (store, path, key) = (self.store.clone(), self.path.clone(), self.key.clone());
        Some(async move {
            let failed = |e| Error::from_store("abort", &key, e);
            let task = Task { operation: "abort", subject: &key, class: Class::Background, bytes: 0 };
            let result = match sink {
                Sink::Parts(mut parts) => {
                    // A part that arrives after the abort would stay for ever.
                    parts.running.shutdown().await;
                    store
                        .run(task, || async { parts.store.abort_multipart(&path, &parts.id).await.map_err(failed) })
                        .await
                }
                Sink::File(mut file) => file.abort().await.map_err(failed),
                Sink::None | Sink::Closed => Ok(()),
            };
            if let Err(error) = result
                && error.kind != Kind::NotFound
            {
                tracing::warn!(%error, "an upload stays behind until the bucket's lifecycle rule removes it");
            }
        })
    }
}

impl Parts {
    fn settle(
        &mut self,
        key: &str,
        joined: Result<Result<(usize, PartId), Error>, tokio::task::JoinError>,
    ) -> Result<(), Error> {
        let sent = joined.map_err(|_| Error::new(Kind::Shutdown, "write", key, ""))?;
        let (index, part) = sent.map_err(|error| match error.kind {
            Kind::NotFound => forgotten(key),
            _ => error,
        })?;
        self.done[index] = Some(part);
        Ok(())
    }
}

fn forgotten(key: &str) -> Error {
    let detail = "the store has forgotten the upload: write the object again";
    Error::new(Kind::NotFound, "write", key, detail)
}

/// No method: a file on its way is not `Sync`, and the future must be `Send`.
async fn begin(store: &Store, path: &Path, key: &str, class: Class) -> Result<Sink, Error> {
    let task = Task { operation: "begin", subject: key, class, bytes: 0 };
    let inner = &store.inner;
    let failed = |e| Error::from_store(task.operation, key, e);
    let Some(parts) = &inner.parts else {
        let options = PutMultipartOptions::default();
        return inner.objects.put_multipart_opts(path, options).await.map(Sink::File).map_err(failed);
    };
    // An upload whose id is lost with the answer is removed by the bucket's lifecycle rule.
    let id = store.run(task, || async { parts.create_multipart(path).await.map_err(failed) }).await?;
    Ok(Sink::Parts(Parts { store: parts.clone(), id, running: JoinSet::new(), done: Vec::new() }))
}

impl Drop for Upload {
    fn drop(&mut self) {
        if let (Some(abort), Ok(runtime)) = (self.take_abort(), tokio::runtime::Handle::try_current()) {
            runtime.spawn(abort);
        }
    }
}
