//! Segments from bookies to the bucket, and back to see that they are there.

use std::ops::Range;

use bytes::Bytes;
use esker_bookie_client::ReadRange;
use esker_cache::{Class, Kind};
use esker_cache_core::object::{
    BLOCKS_MAX, Directory, Encoder, EncoderOptions, Finished, Footer, HEAD_LEN, Identity, SegmentFacts, TRAILER_LEN,
    Trailer, Verifier, parse_head,
};
use esker_metadata_core::ObjectPlace;
use esker_types::{EntryId, Member, ObjectKey};

use super::work::{Failed, Failure, Work};

/// Read from a bookie at once.
const READ_BYTES: u32 = 4 << 20;
/// Read back from the bucket at once.
const VERIFY_BYTES: u64 = 8 << 20;
/// An object's end: trailer, directory, and most footers.
const END_BYTES: u64 = 64 << 10;

/// A segment to be copied, and who holds it.
pub(super) struct Source {
    pub facts: SegmentFacts,
    pub copies: Vec<Member>,
}

impl Work {
    /// Streams the segments, one after the other, into an object named `key`. Gives their places. Whether they are there
    /// is for [`Work::whole`] to say: an upload whose outcome is unknown counts as written.
    pub(super) async fn write(&self, sources: &[Source], key: ObjectKey) -> Result<Vec<ObjectPlace>, Failed> {
        let identity = Identity { cluster: self.bucket.cluster, key };
        let mut encoder = Encoder::new(identity, EncoderOptions::default());
        let mut upload = self.bucket.store.upload(&key.to_string(), Class::Offload).map_err(Failed::store)?;
        let sent = async {
            for (at, source) in sources.iter().enumerate() {
                let by = |error: &dyn std::fmt::Display| Failed { by: Some(at), failure: Failure::other(error) };
                encoder.begin(source.facts).map_err(|error| by(&error))?;
                let (facts, mut next): (_, EntryId) = (&source.facts, 0);
                while next <= facts.last {
                    let (segment, to) = (facts.segment, facts.last + 1);
                    let range = ReadRange { segment, from: next, to, bytes_max: READ_BYTES };
                    let read = self.gateway.bookies.read(&source.copies, range).await;
                    let entries = read.map_err(|error| by(&error))?;
                    if entries.is_empty() {
                        return Err(by(&format_args!("bookies gave nothing of segment {segment}")));
                    }
                    next += entries.len() as EntryId;
                    let (back, chunks) = encode(encoder, entries).await.map_err(|error| by(&error))?;
                    encoder = back;
                    for chunk in chunks {
                        upload.write(chunk).await.map_err(Failed::store)?;
                    }
                }
                encoder.end().map_err(|error| by(&error))?;
                while let Some(chunk) = encoder.take() {
                    upload.write(chunk).await.map_err(Failed::store)?;
                }
            }
            let finished = encoder.finish();
            while let Some(chunk) = encoder.take() {
                upload.write(chunk).await.map_err(Failed::store)?;
            }
            Ok::<Finished, Failed>(finished)
        };
        let finished = match sent.await {
            Ok(finished) => finished,
            Err(failed) => {
                upload.abort().await;
                return Err(failed);
            }
        };
        match upload.finish().await {
            Err(error) if !error.kind.may_have_applied() => return Err(Failed::store(error)),
            _ => {}
        }
        Ok(finished.parts.iter().map(|part| part.place(key, finished.len)).collect())
    }

    /// Reads the segment back, every entry of it, with the object's two ends; of a shared object not the others. False:
    /// it is not there, or is not the segment.
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
        let footer_end = place.footer_position.saturating_add(u64::from(place.footer_len));
        if place.footer_len as usize > Footer::encoded_len(BLOCKS_MAX) || footer_end > trailer.directory_position {
            return Ok(false);
        }
        // What the end did not hold takes one more read each; a segment alone has its footer next to the directory.
        let directory = self.near_end(&key, &end, size, trailer.directory_position..size - TRAILER_LEN as u64).await?;
        let footer = self.near_end(&key, &end, size, place.footer_position..footer_end).await?;
        let Ok(directory) = Directory::decode(&trailer, &directory) else { return Ok(false) };
        let Ok(footer) = Footer::decode(&identity, facts.segment, place.footer_position, &footer) else {
            return Ok(false);
        };
        let verifier = match place.key.shared {
            true => {
                // Only who has nothing but the object needs its head.
                let head = store.read(&key, 0..HEAD_LEN as u64, Class::Offload).await?;
                if parse_head(&head).ok() != Some(identity) {
                    return Ok(false);
                }
                Verifier::place(&trailer, &directory, place, footer, &facts)
            }
            false => Verifier::new(&trailer, &directory, vec![footer], &[facts]),
        };
        let Ok(mut verifier) = verifier else { return Ok(false) };
        let (mut at, needed) = (if place.key.shared { place.position } else { 0 }, verifier.needs_up_to());
        while at < needed {
            let to = needed.min(at + VERIFY_BYTES);
            let bytes = store.read(&key, at..to, Class::Offload).await?;
            let pushed = tokio::task::spawn_blocking(move || {
                let seen = verifier.push(bytes);
                (verifier, seen)
            });
            let (back, seen) = pushed.await.map_err(Failure::other)?;
            if let Err(error) = seen {
                tracing::error!(%key, segment = %facts.segment, %error, "an object does not hold its segment");
                return Ok(false);
            }
            (verifier, at) = (back, to);
        }
        Ok(verifier.finish().is_ok())
    }

    /// Bytes of an object of which `end`, the last ones, were read before.
    async fn near_end(&self, key: &str, end: &Bytes, size: u64, range: Range<u64>) -> Result<Bytes, Failure> {
        let have = size - end.len() as u64;
        match range.start.checked_sub(have) {
            Some(from) => {
                let from = usize::try_from(from).map_err(Failure::other)?;
                let len = usize::try_from(range.end - range.start).map_err(Failure::other)?;
                Ok(end.slice(from..from + len))
            }
            None => Ok(self.bucket.store.read(key, range, Class::Offload).await?),
        }
    }
}

/// Compression takes milliseconds: not for a thread that serves clients.
async fn encode(mut encoder: Encoder, entries: Vec<Bytes>) -> Result<(Encoder, Vec<Bytes>), String> {
    let encoded = tokio::task::spawn_blocking(move || {
        let pushed = entries.iter().try_for_each(|entry| encoder.push(entry));
        let mut chunks = Vec::new();
        while let Some(chunk) = encoder.take() {
            chunks.push(chunk);
        }
        (encoder, chunks, pushed)
    });
    let (encoder, chunks, pushed) = encoded.await.map_err(|error| error.to_string())?;
    pushed.map_err(|error| error.to_string())?;
    Ok((encoder, chunks))
}
