//! Segments to objects and back, by the code that production runs.

use bytes::Bytes;
use esker_cache_core::object::{
    Directory, Encoder, EncoderOptions, Footer, Identity, SegmentFacts, TRAILER_LEN, Trailer, Verifier,
};
use esker_metadata_core::ObjectPlace;
use esker_types::SegmentId;

/// So small that most objects have more than one block.
const BLOCK_TARGET: usize = 1_500;

/// None: the entries are not the segments that metadata closed.
pub fn encode(identity: Identity, segments: &[(SegmentFacts, Vec<Bytes>)]) -> Option<(Bytes, Vec<ObjectPlace>)> {
    let mut encoder = Encoder::new(identity, EncoderOptions { block_target: BLOCK_TARGET, level: 1 });
    for (facts, entries) in segments {
        encoder.begin(*facts).ok()?;
        entries.iter().try_for_each(|entry| encoder.push(entry)).ok()?;
        encoder.end().ok()?;
    }
    let finished = encoder.finish();
    let mut object = Vec::with_capacity(finished.len as usize);
    while let Some(chunk) = encoder.take() {
        object.extend_from_slice(&chunk);
    }
    let places = finished.parts.iter().map(|part| part.place(identity.key, finished.len)).collect();
    Some((object.into(), places))
}

/// Whether `object` holds the segment, every entry of it; of a shared one nothing else is looked at.
pub fn holds(identity: Identity, facts: SegmentFacts, place: &ObjectPlace, object: &Bytes) -> bool {
    let Some((trailer, directory)) = directory(identity, object).filter(|(trailer, _)| trailer.len == place.size)
    else {
        return false;
    };
    let Some(footer) = footer(identity, facts.segment, place, object) else { return false };
    let (verifier, from) = match place.key.shared {
        true => (Verifier::place(&trailer, &directory, place, footer, &facts), place.position as usize),
        false => (Verifier::new(&trailer, &directory, vec![footer], &[facts]), 0),
    };
    let Ok(mut verifier) = verifier else { return false };
    verifier.push(object.slice(from.min(object.len())..)).is_ok() && verifier.finish().is_ok()
}

/// What the end of an object says of it.
pub fn directory(identity: Identity, object: &Bytes) -> Option<(Trailer, Directory)> {
    let trailer = Trailer::parse(object, object.len() as u64).ok().filter(|trailer| trailer.identity == identity)?;
    let bytes = object.get(trailer.directory_position as usize..object.len() - TRAILER_LEN)?;
    let directory = Directory::decode(&trailer, bytes).ok()?;
    Some((trailer, directory))
}

pub fn footer(identity: Identity, segment: SegmentId, place: &ObjectPlace, object: &Bytes) -> Option<Footer> {
    let from = place.footer_position as usize;
    let bytes = object.get(from..from + place.footer_len as usize)?;
    Footer::decode(&identity, segment, place.footer_position, bytes).ok()
}
