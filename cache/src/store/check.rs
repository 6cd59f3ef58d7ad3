//! Proves, one by one, that a store does what the object tier needs of it.

use std::hash::{BuildHasher, RandomState};

use bytes::Bytes;

use super::error::{Error, Kind};
use super::{Class, Store};

/// One thing that a store must do, and what came of trying.
#[derive(Clone, Debug)]
pub struct Check {
    pub name: &'static str,
    pub result: Result<(), Error>,
}

const CLASS: Class = Class::Foreground;

impl Store {
    /// Writes, reads and deletes a few objects of its own below `check/`. Goes on after a failure, as far as that
    /// makes sense, and leaves nothing behind that it can delete.
    pub async fn check(&self) -> Vec<Check> {
        let nonce = RandomState::new().hash_one(std::process::id());
        let key = |name: &str| format!("check/{nonce:016x}-{name}");
        let (small, once, large) = (key("small"), key("once"), key("large"));
        let body = Bytes::from((0..10_000u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
        let mut checks = Vec::new();
        let mut note = |name, result: Result<(), Error>| {
            let good = result.is_ok();
            checks.push(Check { name, result });
            good
        };
        if note("list", self.probe().await) && note("write", self.put(&small, body.clone(), CLASS).await) {
            note("read", self.reads(&small, &body).await);
            note("ranged read", self.ranges(&small, &body).await);
        }
        note("conditional create", self.creates(&once).await);
        note("upload in parts", self.parts(&large).await);
        note("delete", self.deletes([&small, &once, &large]).await);
        checks
    }

    async fn reads(&self, key: &str, body: &Bytes) -> Result<(), Error> {
        let read = self.read_whole(key, body.len() as u64, CLASS).await?;
        same(key, &read, body)?;
        match self.size(&format!("{key}-absent"), CLASS).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(Kind::BadAnswer, "read", key, "an object that was never written is there")),
        }
    }

    async fn ranges(&self, key: &str, body: &Bytes) -> Result<(), Error> {
        same(key, &self.read(key, 100..9_000, CLASS).await?, &body.slice(100..9_000))?;
        let (end, size) = self.read_end(key, 64, CLASS).await?;
        same(key, &end, &body.slice(body.len() - 64..))?;
        if size == body.len() as u64 {
            return Ok(());
        }
        Err(Error::new(Kind::BadAnswer, "read", key, format!("size {size}, written {}", body.len())))
    }

    async fn creates(&self, key: &str) -> Result<(), Error> {
        self.create(key, Bytes::from_static(b"first"), CLASS).await?;
        match self.create(key, Bytes::from_static(b"second"), CLASS).await {
            Err(error) if error.kind == Kind::Exists => Ok(()),
            Err(error) => Err(error),
            Ok(()) => {
                let detail = "a second writer was let in: the store ignores If-None-Match";
                Err(Error::new(Kind::BadAnswer, "create", key, detail))
            }
        }
    }

    async fn parts(&self, key: &str) -> Result<(), Error> {
        let mut upload = self.upload(key, CLASS)?;
        let chunk = Bytes::from(vec![7; self.config().part_bytes.as_usize()]);
        upload.write(chunk.clone()).await?;
        upload.write(Bytes::from_static(b"the end")).await?;
        let bytes = upload.finish().await?;
        let around = chunk.len() as u64 - 1;
        same(key, &self.read(key, around..bytes, CLASS).await?, b"\x07the end")
    }

    async fn deletes(&self, keys: [&String; 3]) -> Result<(), Error> {
        for key in keys {
            self.delete(key, CLASS).await?;
        }
        // Again: a repeated delete must not fail.
        self.delete(keys[0], CLASS).await?;
        match self.size(keys[0], CLASS).await {
            Err(error) if error.kind == Kind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::new(Kind::BadAnswer, "delete", keys[0], "the object is still there")),
        }
    }
}

fn same(key: &str, read: &[u8], written: &[u8]) -> Result<(), Error> {
    if read == written {
        return Ok(());
    }
    Err(Error::new(Kind::BadAnswer, "read", key, "other bytes came back than were written"))
}
