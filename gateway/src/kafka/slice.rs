//! Whole batches out of entries: entries hold several, and fetches begin and end between any two.

use bytes::Bytes;
use esker_types::ErrorCode;
use esker_types::Offset;
use esker_types::error::ErrorInfo;
use esker_wire::batch::BatchHeader;

use crate::tail::CachedEntry;

/// Batches that are sent as they lie.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cut {
    pub parts: Vec<Bytes>,
    pub len: usize,
    /// Offset behind the last batch; where the cut began if there is none.
    pub next: Offset,
}

/// Batches from the one that holds `offset` on, at most `bytes_max` of them, but the first one even if it is larger when
/// `at_least_one`. Nothing is copied.
pub fn cut(entries: &[CachedEntry], offset: Offset, bytes_max: usize, at_least_one: bool) -> Result<Cut, ErrorInfo> {
    let mut out = Cut { next: offset, ..Cut::default() };
    for entry in entries {
        let (mut at, mut begin) = (0, None);
        let mut full = false;
        while at < entry.batches.len() {
            let header = BatchHeader::parse(&entry.batches[at..]).map_err(|error| {
                ErrorInfo::new(ErrorCode::Internal, format!("a stored batch does not parse: {error}"))
            })?;
            let end = (at + header.total_len).min(entry.batches.len());
            if header.end_offset() > offset {
                let may_pass = at_least_one && out.len == 0;
                if out.len + (end - at) > bytes_max && !may_pass {
                    full = true;
                    break;
                }
                begin.get_or_insert(at);
                out.len += end - at;
                out.next = header.end_offset();
            }
            at = end;
        }
        out.parts.extend(begin.map(|begin| entry.batches.slice(begin..at)));
        if full {
            break;
        }
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use esker_wire::batch::{BatchBuilder, Compression};

    use super::*;

    /// Entries of two batches of two records each.
    fn entries(count: i64) -> Vec<CachedEntry> {
        let entry = |number: i64| {
            let mut bytes = Vec::new();
            for half in 0..2 {
                let mut builder = BatchBuilder::new(Compression::None, 100);
                builder.push(1, None, Some(b"a"), &[]);
                builder.push(2, None, Some(b"b"), &[]);
                let mut batch = builder.build(None);
                batch.assign(number * 4 + half * 2, 1);
                bytes.extend_from_slice(batch.bytes());
            }
            CachedEntry { base_offset: number * 4, end_offset: number * 4 + 4, max_ts: 2, batches: bytes.into() }
        };
        (0..count).map(entry).collect()
    }

    #[test]
    fn a_cut_begins_with_the_batch_that_holds_the_offset() {
        let entries = entries(3);
        let size = entries[0].batches.len() / 2;
        for (offset, batches) in [(0, 6), (1, 6), (2, 5), (3, 5), (4, 4), (11, 1)] {
            let cut = cut(&entries, offset, usize::MAX, true).expect("parses");
            assert_eq!((cut.len, cut.next), (batches * size, 12), "from {offset}");
            assert_eq!(cut.parts.iter().map(Bytes::len).sum::<usize>(), cut.len);
        }
        assert_eq!(cut(&entries, 12, usize::MAX, true).expect("parses"), Cut { next: 12, ..Cut::default() });
    }

    #[test]
    fn a_cut_ends_with_the_last_batch_that_fits_but_gives_one() {
        let entries = entries(3);
        let size = entries[0].batches.len() / 2;
        let lens = |max, one| cut(&entries, 0, max, one).map(|cut| (cut.len / size, cut.next)).expect("parses");
        assert_eq!(lens(size * 3, true), (3, 6));
        assert_eq!(lens(size * 3 - 1, true), (2, 4));
        assert_eq!(lens(1, true), (1, 2));
        assert_eq!(lens(1, false), (0, 0));
    }

    #[test]
    fn broken_bytes_are_an_error() {
        let broken =
            CachedEntry { base_offset: 0, end_offset: 1, max_ts: 0, batches: Bytes::from_static(b"not a batch") };
        assert!(cut(&[broken], 0, 100, true).is_err());
    }
}
