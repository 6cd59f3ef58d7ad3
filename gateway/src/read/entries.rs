//! A closed segment's entries from its object, for a new owner that finds no copy of the tail on any bookie.

use bytes::Bytes;
use esker_bookie_client::ReadRange;
use esker_cache::For;
use esker_metadata_client::View;

use crate::offload::Bucket;

/// Entries of `range`, as many as fit its bytes, but at least one.
///
/// # Errors
/// In words: there is no object, or the store or the object does not give them.
pub async fn object_entries(bucket: &Bucket, view: &View, range: ReadRange) -> Result<Vec<Bytes>, String> {
    let segment = range.segment;
    let place = view.read(|state| state.segment(segment).and_then(|row| row.object.clone()));
    let place = place.ok_or_else(|| format!("segment {segment} is in no object"))?;
    let footer = bucket.reader.footer(segment, &place, For::Tail).await.map_err(|e| e.to_string())?;
    let first = footer.blocks.partition_point(|block| block.first_entry <= range.from).saturating_sub(1);
    let (mut out, mut bytes) = (Vec::new(), 0);
    for number in (first..footer.blocks.len()).filter_map(|number| u32::try_from(number).ok()) {
        let block =
            bucket.reader.block(segment, &place, &footer, number, For::Tail).await.map_err(|e| e.to_string())?;
        for entry in block.entries() {
            let entry = entry.map_err(|e| e.to_string())?;
            if !(range.from..range.to).contains(&entry.header.entry) {
                continue;
            }
            bytes += entry.bytes.len();
            if bytes > range.bytes_max as usize && !out.is_empty() {
                return Ok(out);
            }
            out.push(entry.bytes);
        }
        if out.last().is_some() && bytes >= range.bytes_max as usize {
            break;
        }
    }
    match out.is_empty() {
        true => Err(format!("the object of segment {segment} has no entry {}", range.from)),
        false => Ok(out),
    }
}
