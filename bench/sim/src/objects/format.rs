//! Segments to objects and back, by the code that production runs.

use bytes::Bytes;
use esker_cache_core::object::{
    Directory, Encoder, EncoderOptions, Footer, Identity, SegmentFacts, TRAILER_LEN, Trailer, Verifier,
};
use esker_metadata_core::ObjectPlace;
use esker_types::SegmentId;

/// So small that most objects have more than one block.
const BLOCK_TARGET: usize = 1_500;

/// None: the entries are not the segment that metadata closed.
pub fn encode(identity: Identity, facts: SegmentFacts, entries: &[Bytes]) -> Option<(Bytes, ObjectPlace)> {
    let mut encoder = Encoder::new(identity, EncoderOptions { block_target: BLOCK_TARGET, level: 1 });
    encoder.begin(facts).ok()?;
    entries.iter().try_for_each(|entry| encoder.push(entry)).ok()?;
    encoder.end().ok()?;
    let finished = encoder.finish();
    let mut object = Vec::with_capacity(finished.len as usize);
    while let Some(chunk) = encoder.take() {
        object.extend_from_slice(&chunk);
    }
    let place = finished.parts[0].place(identity.key, finished.len);
    Some((object.into(), place))
}

/// Whether `object` holds the segment, every entry of it.
pub fn holds(identity: Identity, facts: SegmentFacts, place: &ObjectPlace, object: &Bytes) -> bool {
    let size = object.len() as u64;
    let Ok(trailer) = Trailer::parse(object, size) else { return false };
    if trailer.identity != identity || size != place.size {
        return false;
    }
    let end = object.len() - TRAILER_LEN;
    let Some(directory) = object.get(trailer.directory_position as usize..end) else { return false };
    let (Ok(directory), Some(footer)) =
        (Directory::decode(&trailer, directory), footer(identity, facts.segment, place, object))
    else {
        return false;
    };
    let Ok(mut verifier) = Verifier::new(&trailer, &directory, vec![footer], &[facts]) else { return false };
    verifier.push(object.clone()).is_ok() && verifier.finish().is_ok()
}

pub fn footer(identity: Identity, segment: SegmentId, place: &ObjectPlace, object: &Bytes) -> Option<Footer> {
    let from = place.footer_position as usize;
    let bytes = object.get(from..from + place.footer_len as usize)?;
    Footer::decode(&identity, segment, place.footer_position, bytes).ok()
}
