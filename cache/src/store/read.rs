//! Reading objects: ranges, ends, and what is known about one.

use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use bytes::{Bytes, BytesMut};
use futures_util::{Stream, StreamExt, pin_mut};
use object_store::{GetOptions, GetRange, GetResult, GetResultPayload};

use super::error::{Error, Kind};
use super::{Class, Store, Task};

impl Store {
    /// The bytes of `range`, all of them.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if the range goes beyond the object's end; else see [`Kind`].
    pub async fn read(&self, key: &str, range: Range<u64>, class: Class) -> Result<Bytes, Error> {
        let length = checked_length(key, range.end.saturating_sub(range.start))?;
        let mut parts = self.read_parts(key, range.start, &[length], class).await?;
        Ok(parts.pop().unwrap_or_default())
    }

    /// Neighbouring pieces from `start` on, in one request, each in a buffer of its own: a piece that stays in a
    /// cache does not hold on to the others.
    ///
    /// # Errors
    /// As [`Store::read`].
    pub async fn read_parts(
        &self,
        key: &str,
        start: u64,
        lengths: &[usize],
        class: Class,
    ) -> Result<Vec<Bytes>, Error> {
        let path = self.path(key)?;
        let bytes = checked_length(key, lengths.iter().map(|&n| n as u64).sum())? as u64;
        if bytes == 0 {
            return Ok(lengths.iter().map(|_| Bytes::new()).collect());
        }
        let range = start..start.checked_add(bytes).ok_or_else(|| too_long(key))?;
        let task = Task { operation: "read", subject: key, class, bytes };
        let parts = self
            .run(task, || async {
                let options = GetOptions { range: Some(GetRange::Bounded(range.clone())), ..GetOptions::default() };
                let got = self.get(&task, &path, options).await?;
                if got.range != range {
                    let detail = format!("asked for {range:?} of an object of {} bytes", got.meta.size);
                    return Err(Error::new(Kind::Invalid, task.operation, key, detail));
                }
                take(&task, got, lengths).await
            })
            .await?;
        self.inner.metrics.bytes_read(bytes);
        Ok(parts)
    }

    /// The last `length` bytes (all if the object is shorter) and the object's size, in one request where the store
    /// can do that.
    ///
    /// # Errors
    /// `NotFound`, or see [`Kind`].
    pub async fn read_end(&self, key: &str, length: u64, class: Class) -> Result<(Bytes, u64), Error> {
        let path = self.path(key)?;
        checked_length(key, length)?;
        if matches!(self.location(), super::Location::Azure { .. }) {
            // Azure knows no ranges from the end.
            let size = self.size(key, class).await?;
            let from = size.saturating_sub(length);
            return Ok((self.read(key, from..size, class).await?, size));
        }
        let task = Task { operation: "read the end of", subject: key, class, bytes: length };
        let (bytes, size) = self
            .run(task, || async {
                let options = GetOptions { range: Some(GetRange::Suffix(length)), ..GetOptions::default() };
                let got = self.get(&task, &path, options).await?;
                let size = got.meta.size;
                let part = checked_length(key, got.range.end - got.range.start)?;
                if part as u64 != length.min(size) {
                    return Err(Error::new(Kind::BadAnswer, task.operation, key, format!("{part} bytes of {length}")));
                }
                let mut parts = take(&task, got, &[part]).await?;
                Ok((parts.pop().unwrap_or_default(), size))
            })
            .await?;
        self.inner.metrics.bytes_read(bytes.len() as u64);
        Ok((bytes, size))
    }

    /// A whole small object of at most `most` bytes.
    ///
    /// # Errors
    /// `NotFound`; `Invalid` if it is larger.
    pub async fn read_whole(&self, key: &str, most: u64, class: Class) -> Result<Bytes, Error> {
        let path = self.path(key)?;
        let task = Task { operation: "read", subject: key, class, bytes: most };
        let bytes = self
            .run(task, || async {
                let got = self.get(&task, &path, GetOptions::default()).await?;
                if got.meta.size > most {
                    let detail = format!("{} bytes, at most {most} expected", got.meta.size);
                    return Err(Error::new(Kind::Invalid, task.operation, key, detail));
                }
                let length = checked_length(key, got.meta.size)?;
                let mut parts = take(&task, got, &[length]).await?;
                Ok(parts.pop().unwrap_or_default())
            })
            .await?;
        self.inner.metrics.bytes_read(bytes.len() as u64);
        Ok(bytes)
    }

    /// Size of an object, in bytes.
    ///
    /// # Errors
    /// `NotFound`, or see [`Kind`].
    pub async fn size(&self, key: &str, class: Class) -> Result<u64, Error> {
        let path = self.path(key)?;
        let task = Task { operation: "look up", subject: key, class, bytes: 0 };
        self.run(task, || async {
            let options = GetOptions { head: true, ..GetOptions::default() };
            Ok(self.get(&task, &path, options).await?.meta.size)
        })
        .await
    }

    async fn get(
        &self,
        task: &Task<'_>,
        path: &object_store::path::Path,
        options: GetOptions,
    ) -> Result<GetResult, Error> {
        let got = self.inner.objects.get_opts(path, options).await;
        got.map_err(|e| Error::from_store(task.operation, task.subject, e))
    }
}

/// Most that one request may ask for. More would be a bug or a damaged index, and memory must not follow it.
const READ_MAX: u64 = 1 << 30;

fn checked_length(key: &str, length: u64) -> Result<usize, Error> {
    if length > READ_MAX {
        return Err(too_long(key));
    }
    usize::try_from(length).map_err(|_| too_long(key))
}

fn too_long(key: &str) -> Error {
    Error::new(Kind::Invalid, "read", key, "more than 1 GiB in one request")
}

/// The body, cut into buffers of the given lengths. A body of another length is an error: bodies can be cut short.
async fn take(task: &Task<'_>, got: GetResult, lengths: &[usize]) -> Result<Vec<Bytes>, Error> {
    match got.payload {
        GetResultPayload::File(file, _) => {
            let (start, lengths) = (got.range.start, lengths.to_vec());
            let read = tokio::task::spawn_blocking(move || read_file(&file, start, &lengths)).await;
            match read {
                Ok(Ok(parts)) => Ok(parts),
                Ok(Err(error)) => Err(Error::new(Kind::Disk, task.operation, task.subject, error.to_string())),
                Err(_) => Err(Error::new(Kind::Shutdown, task.operation, task.subject, "")),
            }
        }
        GetResultPayload::Stream(body) => fill(task, body, lengths).await,
    }
}

fn read_file(file: &File, mut at: u64, lengths: &[usize]) -> std::io::Result<Vec<Bytes>> {
    lengths
        .iter()
        .map(|&length| {
            let mut buffer = BytesMut::zeroed(length);
            file.read_exact_at(&mut buffer, at)?;
            at += length as u64;
            Ok(buffer.freeze())
        })
        .collect()
}

async fn fill(
    task: &Task<'_>,
    body: impl Stream<Item = Result<Bytes, object_store::Error>>,
    lengths: &[usize],
) -> Result<Vec<Bytes>, Error> {
    pin_mut!(body);
    let wrong = |detail: &str| Error::new(Kind::BadAnswer, task.operation, task.subject, detail);
    let mut rest = Bytes::new();
    let mut parts = Vec::with_capacity(lengths.len());
    for &length in lengths {
        let mut part = BytesMut::new();
        loop {
            let missing = length - part.len();
            if missing == 0 {
                break;
            }
            if rest.is_empty() {
                rest = match body.next().await {
                    Some(Ok(chunk)) => chunk,
                    Some(Err(error)) => return Err(broken_body(task, error)),
                    None => return Err(wrong("the body ended early")),
                };
                continue;
            }
            if part.is_empty() {
                part.reserve(length);
            }
            part.extend_from_slice(&rest.split_to(missing.min(rest.len())));
        }
        parts.push(part.freeze());
    }
    while rest.is_empty() {
        match body.next().await {
            Some(Ok(chunk)) => rest = chunk,
            Some(Err(error)) => return Err(broken_body(task, error)),
            None => return Ok(parts),
        }
    }
    Err(wrong("the body is longer than asked for"))
}

/// Whatever breaks a body, the request may be made again.
fn broken_body(task: &Task<'_>, error: object_store::Error) -> Error {
    let mut error = Error::from_store(task.operation, task.subject, error);
    if !error.retryable() {
        error.kind = Kind::BadAnswer;
    }
    error
}
