//! Stores to test with.

use std::time::Duration;

use bytes::Bytes;
use esker_cache::store::{AwsCredentials, Location, Store, StoreMetrics};
use esker_cache::{Config, StoreConfig};
use esker_s3stub::Stub;
use esker_types::units::{ByteCount, Interval};

/// Patience is short, because faults that never answer are part of the game; retries are plenty.
pub fn config() -> StoreConfig {
    StoreConfig {
        attempt_timeout: Interval(Duration::from_millis(500)),
        bytes_per_second_min: ByteCount::mib(64),
        deadline: Interval::secs(30),
        part_bytes: ByteCount::mib(5),
        retry_budget: 1000,
        ..Config::default().store
    }
}

pub fn open(url: &str) -> Store {
    open_with(url, config())
}

/// A store at `url`. For S3, credentials that the server does not look at.
pub fn open_with(url: &str, config: StoreConfig) -> Store {
    let credentials = AwsCredentials { key_id: "k".to_owned(), secret_key: "s".to_owned(), session_token: None };
    let location = Location::parse(url).expect("a good URL");
    Store::open_as(location, Some(credentials), config, StoreMetrics::default()).expect("a good location")
}

pub async fn stub() -> (Stub, Store) {
    let stub = Stub::start("b").await.expect("a port");
    let store = open(&stub.url("p"));
    (stub, store)
}

/// Bytes that no neighbour shares.
pub fn noise(length: usize, seed: u64) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(length);
    bytes.into()
}
