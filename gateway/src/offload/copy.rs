//! A segment from bookies to the bucket, and back to see that it is there.

use bytes::Bytes;
use esker_bookie_client::ReadRange;
use esker_cache::{Class, Kind};
use esker_cache_core::object::{
    Directory, Encoder, EncoderOptions, Finished, Footer, Identity, SegmentFacts, TRAILER_LEN, Trailer, Verifier,
};
use esker_metadata_core::ObjectPlace;
use esker_types::{EntryId, Member, ObjectKey};

use super::work::{Failure, Work};

/// Read from a bookie at once.
const READ_BYTES: u32 = 4 << 20;
/// Read back from the bucket at once.
const VERIFY_BYTES: u64 = 8 << 20;
/// An object's end: trailer, directory, and most footers.
const END_BYTES: u64 = 64 << 10;

impl Work {
    /// Streams the segment into an object named `key`. Whether it is there is for [`Work::whole`] to say: an upload
    /// whose outcome is unknown counts as written.
    pub(super) async fn write(
        &self,
        facts: SegmentFacts,
        copies: &[Member],
        key: ObjectKey,
    ) -> Result<ObjectPlace, Failure> {
        let identity = Identity { cluster: self.bucket.cluster, key };
        let mut encoder = Encoder::new(identity, EncoderOptions::default());
        encoder.begin(facts).map_err(Failure::other)?;
        let mut upload = self.bucket.store.upload(&key.to_string(), Class::Offload)?;
        let sent = async {
            let mut next: EntryId = 0;
            while next <= facts.last {
                let range = ReadRange { segment: facts.segment, from: next, to: facts.last + 1, bytes_max: READ_BYTES };
                let entries = self.gateway.bookies.read(copies, range).await.map_err(Failure::other)?;
                if entries.is_empty() {
                    return Err(Failure::Other(format!("bookies gave nothing of segment {}", facts.segment)));
                }
                next += entries.len() as EntryId;
                let (back, chunks) = encode(encoder, entries).await?;
                encoder = back;
                for chunk in chunks {
                    upload.write(chunk).await?;
                }
            }
            encoder.end().map_err(Failure::other)?;
            let finished = encoder.finish();
            while let Some(chunk) = encoder.take() {
                upload.write(chunk).await?;
            }
            Ok::<Finished, Failure>(finished)
        };
        let finished = match sent.await {
            Ok(finished) => finished,
            Err(failure) => {
                upload.abort().await;
                return Err(failure);
            }
        };
        match upload.finish().await {
            Err(error) if !error.kind.may_have_applied() => return Err(error.into()),
            _ => {}
        }
        Ok(finished.parts[0].place(key, finished.len))
    }

    /// Reads the object back, every entry of it. False: it is not there, or is not the segment.
    pub(super) async fn whole(&self, facts: SegmentFacts, place: &ObjectPlace) -> Result<bool, Failure> {
        let (store, key) = (&self.bucket.store, place.key.to_string());
        let (end, size) = match store.read_end(&key, END_BYTES, Class::Offload).await {
            Ok(read) => read,
            Err(error) if error.kind == Kind::NotFound => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let identity = Identity { cluster: self.bucket.cluster, key: place.key };
        let trailer = match Trailer::parse(&end, size) {
            Ok(trailer) if trailer.identity == identity && size == place.size => trailer,
            _ => return Ok(false),
        };
        // All behind the blocks, in one more read if the end did not hold it.
        let from = place.footer_position.min(trailer.directory_position);
        let tail = match size - end.len() as u64 {
            have if have <= from => end.slice(usize::try_from(from - have).map_err(Failure::other)?..),
            _ => store.read(&key, from..size, Class::Offload).await?,
        };
        let directory_at = usize::try_from(trailer.directory_position - from).map_err(Failure::other)?;
        let Some(directory) = tail.get(directory_at..tail.len().saturating_sub(TRAILER_LEN)) else { return Ok(false) };
        let (Ok(directory), Some(footer)) =
            (Directory::decode(&trailer, directory), tail.get(..place.footer_len as usize))
        else {
            return Ok(false);
        };
        let Ok(footer) = Footer::decode(&identity, facts.segment, place.footer_position, footer) else {
            return Ok(false);
        };
        let Ok(mut verifier) = Verifier::new(&trailer, &directory, vec![footer], &[facts]) else { return Ok(false) };
        let (mut at, needed) = (0, verifier.needs_up_to());
        while at < needed {
            let to = needed.min(at + VERIFY_BYTES);
            let bytes = store.read(&key, at..to, Class::Offload).await?;
            let pushed = tokio::task::spawn_blocking(move || {
                let seen = verifier.push(bytes);
                (verifier, seen)
            });
            let (back, seen) = pushed.await.map_err(Failure::other)?;
            if let Err(error) = seen {
                tracing::error!(%key, %error, "an object does not hold its segment");
                return Ok(false);
            }
            (verifier, at) = (back, to);
        }
        Ok(verifier.finish().is_ok())
    }
}

/// Compression takes milliseconds: not for a thread that serves clients.
async fn encode(mut encoder: Encoder, entries: Vec<Bytes>) -> Result<(Encoder, Vec<Bytes>), Failure> {
    let encoded = tokio::task::spawn_blocking(move || {
        let pushed = entries.iter().try_for_each(|entry| encoder.push(entry));
        let mut chunks = Vec::new();
        while let Some(chunk) = encoder.take() {
            chunks.push(chunk);
        }
        (encoder, chunks, pushed)
    });
    let (encoder, chunks, pushed) = encoded.await.map_err(Failure::other)?;
    pushed.map_err(Failure::other)?;
    Ok((encoder, chunks))
}
