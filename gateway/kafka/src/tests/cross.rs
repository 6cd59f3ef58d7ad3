//! kafka-protocol, generated from Kafka's own schemas, must read what we write, and write the same bytes.

use bytes::{Bytes, BytesMut};
use kafka_protocol::messages::{ApiKey, RequestHeader as TheirHeader, RequestKind, ResponseHeader, ResponseKind};
use kafka_protocol::protocol::{Decodable, Encodable};

use super::Random;
use crate::api::{Api, Request, Response};
use crate::header::RequestHeader;
use crate::reader::{DecodeLimits, Reader};
use crate::writer::Writer;

const SEEDS: u64 = 60;

fn joined(parts: &[Bytes]) -> Bytes {
    parts.concat().into()
}

fn all() -> impl Iterator<Item = (Api, i16)> {
    Api::ALL.iter().flat_map(|api| {
        let (min, max) = api.versions();
        (min..=max).map(move |version| (*api, version))
    })
}

/// Names of fields in the order of a `{:?}`, without those that the other side has and we do not serve.
fn names(debug: &str) -> Vec<&str> {
    let word = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
    let ends = debug.match_indices(": ").map(|(at, _)| at);
    ends.map(|end| debug[..end].rsplit(|c| !word(c)).next().unwrap_or_default())
        .filter(|name| !name.is_empty() && *name != "unknown_tagged_fields")
        .collect()
}

/// Same fields in the same order: a swap of two of one type would not show in the bytes.
fn assert_same_names(ours: &str, theirs: &str, what: &str) {
    let theirs = names(theirs);
    let mut rest = theirs.iter();
    for name in names(ours) {
        assert!(rest.any(|theirs| *theirs == name), "{what}: field {name} is out of place\n{ours}\n{theirs:?}");
    }
}

#[test]
fn requests_agree_in_every_version() {
    for (api, version) in all() {
        let what = format!("{} request v{version}", api.name());
        let form = api.form(version);
        for seed in 0..SEEDS {
            let request = Request::sample(api, &mut Random::new(seed), form);
            let bytes = joined(&request.encode(version, 7, Some("client")));
            let key = ApiKey::try_from(api as i16).expect("known to both");
            let mut rest = bytes.clone();
            let header = TheirHeader::decode(&mut rest, key.request_header_version(version)).expect(&what);
            assert_eq!((header.request_api_key, header.request_api_version), (api as i16, version));
            let theirs = RequestKind::decode(key, &mut rest, version).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(rest.is_empty(), "{what}: {} bytes behind what they read", rest.len());
            assert_same_names(&format!("{request:?}"), &format!("{theirs:?}"), &what);
            let mut again = BytesMut::new();
            header.encode(&mut again, key.request_header_version(version)).expect(&what);
            theirs.encode(&mut again, version).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(again.freeze(), bytes, "{what} seed {seed}");
            let mut reader = Reader::new(bytes, DecodeLimits::default());
            let header = RequestHeader::decode(&mut reader).expect(&what);
            assert_eq!(header.client_id.as_deref(), Some("client"));
            assert_eq!(Request::decode(&header, &mut reader).expect(&what), request, "{what} seed {seed}");
        }
    }
}

#[test]
fn responses_agree_in_every_version() {
    for (api, version) in all() {
        let what = format!("{} response v{version}", api.name());
        let form = api.form(version);
        for seed in 0..SEEDS {
            let response = Response::sample(api, &mut Random::new(seed), form);
            let whole = joined(&response.encode(version, 99));
            let bytes = whole.slice(4..);
            assert_eq!(whole[..4], (bytes.len() as i32).to_be_bytes());
            let key = ApiKey::try_from(api as i16).expect("known to both");
            let mut rest = bytes.clone();
            let header = ResponseHeader::decode(&mut rest, key.response_header_version(version)).expect(&what);
            assert_eq!(header.correlation_id, 99);
            let theirs = ResponseKind::decode(key, &mut rest, version).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(rest.is_empty(), "{what}: {} bytes behind what they read", rest.len());
            assert_same_names(&format!("{response:?}"), &format!("{theirs:?}"), &what);
            let mut again = BytesMut::new();
            header.encode(&mut again, key.response_header_version(version)).expect(&what);
            theirs.encode(&mut again, version).unwrap_or_else(|e| panic!("{what}: {e}"));
            assert_eq!(again.freeze(), bytes, "{what} seed {seed}");
            assert_eq!(Response::decode(api, version, bytes).expect(&what), (99, response), "{what} seed {seed}");
        }
    }
}

#[test]
fn the_table_agrees_on_what_is_flexible() {
    for (api, version) in all() {
        let key = ApiKey::try_from(api as i16).expect("known to both");
        assert_eq!(api.form(version).flexible, key.request_header_version(version) == 2, "{} v{version}", api.name());
    }
}

#[test]
fn record_data_is_not_copied() {
    let part = Bytes::from(vec![7u8; 5000]);
    let mut out = Writer::new();
    out.i32(1);
    out.shared(&[part.clone(), Bytes::new(), part.clone()], false);
    out.i32(2);
    let parts = out.finish(true);
    assert_eq!(parts.iter().filter(|p| p.as_ptr() == part.as_ptr()).count(), 2);
    let len = i32::from_be_bytes(parts[0][..].try_into().expect("4 bytes"));
    assert_eq!(len as usize, parts[1..].iter().map(Bytes::len).sum::<usize>());
    assert_eq!(len, 4 + 4 + 10_000 + 4);
}
