//! The client against bookies in this process: real links, real frames, a store that forgets.

mod fake;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use esker_bookie_client::{BookieClient, BookieEvent, ClientConfig, Directory, ReadFailure, ReadRange, Sink};
use esker_bookie_core::owner::{Add, AddAnswerKind, FenceAnswerKind};
use esker_net::{Address, BoxFuture, Hub, Identity, NetConfig, Network};
use esker_types::entry::NO_SNAPSHOT;
use esker_types::{
    BookieId, BootId, ClusterId, Entry, EntryHeader, EntryKind, Epoch, InstanceId, Member, Role, SegmentId, checksum,
};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use fake::FakeBookie;

const SEGMENT: SegmentId = SegmentId::new(7, 1);
const EPOCH: Epoch = Epoch(3);
const CLUSTER: ClusterId = ClusterId([9; 16]);

struct Fixed(BTreeMap<BookieId, Address>);

impl Directory for Fixed {
    fn address(&self, bookie: BookieId) -> Option<Address> {
        self.0.get(&bookie).cloned()
    }
}

struct Events(mpsc::Sender<BookieEvent>);

impl Sink for Events {
    fn deliver(&self, event: BookieEvent) -> BoxFuture<'_, ()> {
        Box::pin(async move {
            let _ = self.0.send(event).await;
        })
    }
}

struct World {
    client: BookieClient,
    events: mpsc::Receiver<BookieEvent>,
    hub: Hub,
    _stop: tokio_util::sync::DropGuard,
}

fn network(hub: &Hub, role: Role, name: &str) -> Network {
    let network = Network::with_hub(Identity::new(role, name, BootId([1; 16])), NetConfig::default(), hub.clone());
    network.set_cluster(CLUSTER);
    network
}

fn member(id: u64) -> Member {
    Member { bookie: BookieId(id), instance: InstanceId([id as u8; 16]) }
}

impl World {
    fn new() -> Self {
        let (hub, cancel) = (Hub::new(), CancellationToken::new());
        let (tx, events) = mpsc::channel(1024);
        let addresses = (1..=3).map(|id| (BookieId(id), Address::InProcess(format!("bookie-{id}")))).collect();
        let client = BookieClient::new(
            network(&hub, Role::Gateway, "gateway-1"),
            Arc::new(Fixed(addresses)),
            Arc::new(Events(tx)),
            ClientConfig { redial_min: Duration::from_millis(1), ..ClientConfig::default() },
            cancel.clone(),
        );
        Self { client, events, hub, _stop: cancel.drop_guard() }
    }

    async fn bookie(&self, id: u64) -> FakeBookie {
        FakeBookie::start(network(&self.hub, Role::Bookie, &format!("bookie-{id}")), member(id)).await
    }

    async fn next(&mut self) -> BookieEvent {
        tokio::time::timeout(Duration::from_secs(20), self.events.recv()).await.expect("an event").expect("open")
    }

    /// Skips until the link to a bookie is as told.
    async fn link(&mut self, id: u64, wanted: bool) {
        loop {
            if let BookieEvent::Link { instance, up, .. } = self.next().await
                && instance == member(id).instance
                && up == wanted
            {
                return;
            }
        }
    }

    /// Skips until the member has `durable` entries.
    async fn durable(&mut self, id: u64, wanted: u64) {
        loop {
            if let BookieEvent::Add(answer) = self.next().await
                && answer.instance == member(id).instance
                && answer.kind == (AddAnswerKind::Ok { durable: wanted })
            {
                return;
            }
        }
    }
}

fn entry(number: u64) -> Entry {
    let payload = vec![number as u8; 100];
    let header = EntryHeader {
        kind: EntryKind::Data,
        segment: SEGMENT,
        seg_epoch: EPOCH,
        entry: number,
        base_offset: number as i64,
        count: 1,
        max_ts: 0,
        snap: NO_SNAPSHOT,
        len: payload.len() as u32,
        payload_crc: checksum::crc32c(&payload),
        chain: 0,
    };
    Entry::assemble(header.sealed(0), &payload)
}

fn add(id: u64, number: u64) -> Add {
    Add { member: member(id), segment: SEGMENT, req_epoch: EPOCH, lac: 0, recovery: false, entry: entry(number) }
}

#[tokio::test]
async fn adds_reach_the_bookie_in_order_and_are_answered() {
    let mut world = World::new();
    let bookie = world.bookie(1).await;
    world.client.add(&add(1, 0));
    world.link(1, true).await;
    for number in 0..500 {
        world.client.add(&add(1, number));
    }
    world.durable(1, 500).await;
    assert_eq!(bookie.stored(SEGMENT), 500);
}

#[tokio::test]
async fn a_broken_link_is_told_and_the_next_one_too() {
    let mut world = World::new();
    let bookie = world.bookie(1).await;
    world.client.add(&add(1, 0));
    world.link(1, true).await;
    world.client.add(&add(1, 0));
    world.durable(1, 1).await;
    bookie.stop().await;
    world.link(1, false).await;
    assert!(world.client.is_down(BookieId(1)));
    world.client.add(&add(1, 1));
    let again = world.bookie(1).await;
    world.link(1, true).await;
    assert!(!world.client.is_down(BookieId(1)));
    world.client.add(&add(1, 0));
    world.durable(1, 1).await;
    assert_eq!(again.stored(SEGMENT), 1, "what was sent into the gap is gone: its owner sends it again");
}

#[tokio::test]
async fn fences_travel_together_and_each_is_answered() {
    let mut world = World::new();
    let bookie = world.bookie(2).await;
    let segments: Vec<SegmentId> = (1..=300).map(|p| SegmentId::new(p, 1)).collect();
    for segment in &segments {
        world.client.fence(member(2), *segment, EPOCH);
    }
    let mut answered = Vec::new();
    while answered.len() < segments.len() {
        if let BookieEvent::Fence(answer) = world.next().await {
            assert_eq!(answer.kind, FenceAnswerKind::Ok { durable: 0, lac: 0, limbo: false });
            answered.push(answer.segment);
        }
    }
    answered.sort_unstable();
    assert_eq!(answered, segments);
    assert!(bookie.fence_requests() <= 3, "{} requests for 300 fences", bookie.fence_requests());
}

#[tokio::test]
async fn reads_go_on_to_the_copy_that_has_the_entries() {
    let mut world = World::new();
    let (empty, whole) = (world.bookie(1).await, world.bookie(3).await);
    world.client.add(&add(3, 0));
    world.link(3, true).await;
    for number in 0..4 {
        world.client.add(&add(3, number));
    }
    world.durable(3, 4).await;
    let range = ReadRange { segment: SEGMENT, from: 1, to: 4, bytes_max: 1 << 20 };
    let all = [member(1), member(2), member(3)];
    let got = world.client.read(&all, range).await.expect("member 3 has them");
    let wanted: Vec<Bytes> = (1..4).map(|number| entry(number).bytes).collect();
    assert_eq!(got, wanted);
    let one = world.client.read(&all, ReadRange { bytes_max: 1, ..range }).await.expect("at least one");
    assert_eq!(one.len(), 1);
    assert!(matches!(world.client.read(&all[..2], range).await, Err(ReadFailure::Failed { .. })), "2 may have it");
    let nowhere = world.client.read_from(member(1), range).await;
    assert_eq!(nowhere, Err(ReadFailure::NoSuchEntry { segment: SEGMENT, entry: 1 }));
    drop((empty, whole));
}

#[tokio::test]
async fn another_instance_under_the_address_is_no_copy() {
    let world = World::new();
    let _bookie = world.bookie(1).await;
    let stranger = Member { instance: InstanceId([77; 16]), ..member(1) };
    let range = ReadRange { segment: SEGMENT, from: 0, to: 1, bytes_max: 1 };
    assert!(matches!(world.client.read_from(stranger, range).await, Err(ReadFailure::Failed { .. })));
}

#[tokio::test]
async fn a_bookie_that_does_not_read_costs_a_bounded_queue() {
    let mut world = World::new();
    let bookie = world.bookie(1).await;
    world.client.add(&add(1, 0));
    world.link(1, true).await;
    bookie.hold();
    // Far more than the queues hold; the call never blocks.
    let payload = vec![1u8; 1 << 20];
    let big = Entry::assemble(
        EntryHeader { len: payload.len() as u32, payload_crc: checksum::crc32c(&payload), ..entry(0).header },
        &payload,
    );
    for _ in 0..200 {
        world.client.add(&Add { entry: big.clone(), ..add(1, 0) });
    }
    bookie.release();
    world.link(1, true).await;
    assert!(bookie.received() < 150, "some were dropped, and the owner was asked to send again");
}
