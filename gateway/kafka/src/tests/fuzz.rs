//! Requests of every API in every version with random contents, changed as [`super::mutate`] does, and random bytes. Whatever comes
//! is decoded or refused: without a panic, within its memory, and what was decoded means the same when it is sent on.
//!
//! One target for each of the APIs' phases. An input depends on its number alone. By environment:
//! - `ESKER_FUZZ_INPUTS=40000000`: so many inputs for each target (10 minutes on one core), or
//! - `ESKER_FUZZ_SEED=77`: the number of the first one.

use std::ops::Range;

use bytes::{BufMut, Bytes, BytesMut};

use super::mutate::{Random, mutate};
use crate::api::{Api, Request, Response};
use crate::error::DecodeError;
use crate::header::RequestHeader;
use crate::reader::{DecodeLimits, Reader};

const CORE: &[Api] = &[
    Api::Produce,
    Api::Fetch,
    Api::ListOffsets,
    Api::Metadata,
    Api::ApiVersions,
    Api::CreateTopics,
    Api::DeleteTopics,
    Api::InitProducerId,
    Api::OffsetForLeaderEpoch,
    Api::DescribeConfigs,
];
const GROUPS: &[Api] = &[
    Api::OffsetCommit,
    Api::OffsetFetch,
    Api::OffsetDelete,
    Api::FindCoordinator,
    Api::JoinGroup,
    Api::SyncGroup,
    Api::Heartbeat,
    Api::LeaveGroup,
    Api::DescribeGroups,
    Api::ListGroups,
    Api::DeleteGroups,
    Api::ConsumerGroupHeartbeat,
    Api::ConsumerGroupDescribe,
];
const ADMIN: &[Api] = &[
    Api::DeleteRecords,
    Api::AlterConfigs,
    Api::AlterReplicaLogDirs,
    Api::DescribeLogDirs,
    Api::CreatePartitions,
    Api::ElectLeaders,
    Api::IncrementalAlterConfigs,
    Api::AlterPartitionReassignments,
    Api::ListPartitionReassignments,
    Api::DescribeCluster,
    Api::ListConfigResources,
    Api::DescribeTopicPartitions,
];

#[test]
fn every_api_is_in_one_target() {
    let mut all: Vec<Api> = [CORE, GROUPS, ADMIN].concat();
    all.sort_unstable();
    let mut expected = Api::ALL.to_vec();
    expected.sort_unstable();
    assert_eq!(all, expected);
}

/// Numbers of the inputs that a target runs.
fn seeds(inputs: u64) -> Range<u64> {
    let number = |name: &str| std::env::var(name).ok().map(|text| text.parse::<u64>().expect("a number"));
    let first = number("ESKER_FUZZ_SEED").unwrap_or(0);
    first..first + number("ESKER_FUZZ_INPUTS").unwrap_or(inputs)
}

/// Says how to run an input again if it panics.
struct Rerun {
    target: &'static str,
    seed: u64,
}

impl Drop for Rerun {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "again: ESKER_FUZZ_SEED={} ESKER_FUZZ_INPUTS=1 cargo test --release -p esker-kafka fuzz::{}",
                self.seed, self.target
            );
        }
    }
}

fn run(target: &'static str, inputs: u64, mut input: impl FnMut(&mut Random) -> bool) {
    let (mut count, mut taken) = (0u64, 0u64);
    for seed in seeds(inputs) {
        let _rerun = Rerun { target, seed };
        count += 1;
        taken += u64::from(input(&mut Random::new(seed)));
    }
    println!("{target}: {count} inputs, {taken} of them decoded");
    // Else the changes break everything at once, and nothing behind the first field is reached.
    assert!(count < 1_000 || (taken > count / 50 && taken < count), "{taken} of {count} inputs were decoded");
}

/// A request of one of these APIs in any version that can be decoded.
fn valid(apis: &[Api], random: &mut Random) -> (Api, i16, Vec<u8>) {
    let api = random.pick(apis);
    let (min, max) = api.versions();
    let version = min + random.below((max - min + 1) as u64) as i16;
    let request = Request::sample(api, random, api.form(version));
    (api, version, request.encode(version, 1, Some("c")).concat())
}

fn any_input(apis: &[Api], random: &mut Random) -> Vec<u8> {
    let (api, version, mut bytes) = valid(apis, random);
    match random.below(12) {
        0 => (0..random.below(200)).map(|_| random.next() as u8).collect(),
        // Random behind a header that names the API.
        1 => {
            let mut bytes = BytesMut::new();
            bytes.put_i16(api as i16);
            bytes.put_i16(version);
            bytes.put_i32(1);
            bytes.put_i16(-1);
            bytes.extend((0..random.below(300)).map(|_| random.next() as u8 & random.pick(&[0xff, 0x03, 0x00])));
            bytes.to_vec()
        }
        _ => {
            let (_, _, other) = valid(apis, random);
            // API and version stay: what is behind them is to be reached.
            mutate(&mut bytes, 4, &other, random);
            bytes
        }
    }
}

fn decode(bytes: Bytes, limits: DecodeLimits) -> Result<(i16, Request), DecodeError> {
    let mut reader = Reader::new(bytes, limits);
    let header = RequestHeader::decode(&mut reader)?;
    Ok((header.version, Request::decode(&header, &mut reader)?))
}

/// True: it was a request.
fn requests(apis: &[Api], random: &mut Random) -> bool {
    let bytes = any_input(apis, random);
    let memory_max = random.pick(&[1 << 10, 64 << 10, 1 << 20, 32 << 20]);
    let Ok((version, request)) = decode(bytes.into(), DecodeLimits { memory_max, ..DecodeLimits::default() }) else {
        return false;
    };
    let weight = request.weigh();
    assert!(weight <= memory_max, "{weight} bytes where {memory_max} are allowed: {request:?}");
    // What it is understood as must survive being written and read.
    let written: Bytes = request.encode(version, 1, None).concat().into();
    let (_, again) = decode(written.clone(), DecodeLimits::default()).expect("our own bytes");
    assert_eq!(again.encode(version, 1, None).concat(), written, "{request:?}");
    true
}

// Some thirty seconds each on one core.

#[test]
fn core() {
    run("core", 2_000_000, |random| requests(CORE, random));
}

#[test]
fn groups() {
    run("groups", 2_000_000, |random| requests(GROUPS, random));
}

#[test]
fn admin() {
    run("admin", 2_000_000, |random| requests(ADMIN, random));
}

/// Answers are decoded by tools and tests alone; they must bear lies all the same.
#[test]
fn responses() {
    run("responses", 100_000, |random| {
        let api = random.pick(Api::ALL);
        let (min, max) = api.versions();
        let version = min + random.below((max - min + 1) as u64) as i16;
        let mut encoded = || Response::sample(api, random, api.form(version)).encode(version, 1).concat().split_off(4);
        let (mut bytes, other) = (encoded(), encoded());
        mutate(&mut bytes, 0, &other, random);
        Response::decode(api, version, bytes.into()).is_ok()
    });
}

/// Assignments that leaders of classic groups hand in, which tools show.
#[test]
fn assignments() {
    run("assignments", 200_000, |random| {
        let topics: Vec<(String, Vec<i32>)> = super::Sample::sample(random, Api::Metadata.form(0));
        let mut bytes = vec![0, 1];
        bytes.put_i32(topics.len() as i32);
        for (topic, partitions) in &topics {
            bytes.put_i16(topic.len() as i16);
            bytes.put_slice(topic.as_bytes());
            bytes.put_i32(partitions.len() as i32);
            partitions.iter().for_each(|partition| bytes.put_i32(*partition));
        }
        let other = bytes.clone();
        mutate(&mut bytes, 0, &other, random);
        crate::member_assignment(bytes.into()).is_ok()
    });
}
