use std::collections::BTreeMap;

use esker_client::{ReaderConfig, Start};
use esker_metadata_client::View;
use esker_metadata_core::PartitionRecord;
use esker_types::Quorum;
use esker_types::units::Interval;
use tokio_util::sync::CancellationToken;

use crate::world::{World, numbered, producer, read_all, send, within};

const Q32: Quorum = Quorum { write: 3, ack: 2 };

async fn start(world: &mut World, name: &str) {
    start_with(world, name, Interval::secs(0)).await;
}

async fn start_with(world: &mut World, name: &str, share_wait: Interval) {
    let url = format!("file://{}", world.path("bucket").display());
    let change = |config: &mut esker_gateway::Config| {
        config.objects.url = url;
        config.objects.share_wait = share_wait;
        config.objects.fold_segments = 2;
        config.objects.grave_grace = Interval::secs(1);
    };
    world.start_gateway_with(name, change).await;
}

fn record(world: &World, topic: &str) -> PartitionRecord {
    let found = |state: &esker_metadata_core::State| state.partition_of(topic, 0).map(|p| PartitionRecord::clone(p));
    world.store.inspect(found).expect("made before")
}

/// Waits until metadata says so.
async fn until(world: &World, is_so: impl Fn(&World) -> bool) {
    let cancel = CancellationToken::new();
    let _stop = cancel.clone().drop_guard();
    let view = View::follow(&world.store, cancel);
    within(async {
        let mut revision = 0;
        while !is_so(world) {
            revision = view.changed(revision).await;
        }
    })
    .await;
}

/// Six segments by six moves: each owner takes what the one before closed into the bucket, and the rest of its work.
async fn history(world: &mut World) -> u32 {
    start(world, "gateway-1").await;
    start(world, "gateway-2").await;
    let client = world.client(&["gateway-1", "gateway-2"]).await;
    client.admin().create_topic("old", 1, &[("local.retention.ms", "0")]).await.expect("created");
    let producer = producer(&client);
    for round in 0..6 {
        within(send(&producer, "old", 0, round * 20..(round + 1) * 20)).await;
        let to = ["gateway-2", "gateway-1"][round as usize % 2];
        within(client.admin().move_partition("old", 0, to)).await.expect("moves");
    }
    // Four at least are in the manifest and on no bookie; the newest stays on bookies.
    until(world, |world| {
        let record = record(world, "old");
        record.folded_to() >= 4 && record.copies_from >= 5
    })
    .await;
    assert_eq!(within(read_all(&client, "old", 0)).await, numbered(0..120));
    120
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn owners_that_follow_each_other_move_history_into_the_bucket() {
    let mut world = World::new(3, Q32).await;
    let written = history(&mut world).await;
    // Nobody is left who knows anything but metadata and the bucket.
    for name in ["gateway-1", "gateway-2"] {
        world.kill_gateway(name).await;
    }
    start(&mut world, "gateway-3").await;
    let client = world.client(&["gateway-3"]).await;
    assert_eq!(within(read_all(&client, "old", 0)).await, numbered(0..written));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_gateway_serves_what_is_closed_while_the_owner_is_dead() {
    let mut world = World::new(3, Q32).await;
    let written = history(&mut world).await;
    let owner = world.owner("old", 0).expect("owned");
    let other = ["gateway-1", "gateway-2"].into_iter().find(|name| *name != owner).expect("two");
    // Its session lives on in metadata: nobody else is made the owner.
    let dead = world.gateways.remove(&owner).expect("it runs");
    dead.cancel.cancel();
    drop(dead);
    let client = world.client(&[other]).await;
    for (start, from) in [(Start::Earliest, 0), (Start::Offset(37), 37)] {
        let (near, end) = (Some(world.address(other)), Some(i64::from(written)));
        let mut reader = client.reader_with("old", 0, ReaderConfig { near, end, ..ReaderConfig::new(start) });
        let mut next = from;
        while let Some(fetched) = within(reader.next()).await {
            for record in fetched.expect("readable").records().expect("decodes") {
                let record = record.expect("decodes");
                assert_eq!(record.offset, i64::from(next));
                assert_eq!(record.value.as_deref(), Some(format!("record {next}").as_bytes()));
                next += 1;
            }
        }
        assert_eq!(next, written);
    }
}

/// The first segment of a topic has an object.
fn in_bucket(world: &World, topic: &str) -> bool {
    let id = record(world, topic).id;
    world.store.inspect(|state| state.chain(id).next().is_some_and(|row| row.object.is_some()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_that_no_bookie_serves_keeps_its_company_from_nothing() {
    let mut world = World::new(3, Q32).await;
    let topics = ["a", "lost", "z"];
    for name in ["gateway-1", "gateway-2"] {
        start_with(&mut world, name, Interval::secs(3_600)).await;
    }
    let client = world.client(&["gateway-1", "gateway-2"]).await;
    for topic in topics {
        client.admin().create_topic(topic, 1, &[]).await.expect("created");
        within(send(&producer(&client), topic, 0, 0..20)).await;
        // A move closes the segment, which then waits for company.
        let to = if world.owner(topic, 0).as_deref() == Some("gateway-1") { "gateway-2" } else { "gateway-1" };
        within(client.admin().move_partition(topic, 0, to)).await.expect("moves");
    }
    assert!(topics.iter().all(|topic| !in_bucket(&world, topic)));
    let lost = record(&world, "lost").id;
    let mut taken = vec![BTreeMap::new(); world.disks.len()];
    let swap = |world: &World, taken: &mut Vec<BTreeMap<_, _>>| {
        world.disks.iter().zip(taken).for_each(|(disk, taken)| disk.swap(lost, taken));
    };
    swap(&world, &mut taken);
    for name in ["gateway-1", "gateway-2"] {
        world.kill_gateway(name).await;
    }
    start(&mut world, "gateway-3").await;
    until(&world, |world| in_bucket(world, "a") && in_bucket(world, "z")).await;
    assert!(!in_bucket(&world, "lost"));
    swap(&world, &mut taken);
    until(&world, |world| in_bucket(world, "lost")).await;
    let client = world.client(&["gateway-3"]).await;
    for topic in topics {
        assert_eq!(within(read_all(&client, topic, 0)).await, numbered(0..20));
    }
}
