//! A Kafka client of the plainest kind: one connection, one request at a time, any version.

use std::net::SocketAddr;

use bytes::Bytes;
use esker_kafka::{Api, Records, Request, Response, create_topics, fetch, init_producer_id, list_offsets, produce};
use esker_wire::batch::{Batch, BatchBuilder, Compression, DecodeLimits, ProducerStamp, split};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::world::{World, within};

pub struct Kafka {
    pub stream: TcpStream,
    next: i32,
}

pub fn address(world: &World, gateway: &str) -> SocketAddr {
    world.gateways[gateway].server.addresses().kafka.expect("it has a Kafka door")
}

impl Kafka {
    pub async fn connect(world: &World, gateway: &str) -> Self {
        Self::to(address(world, gateway)).await
    }

    pub async fn to(address: SocketAddr) -> Self {
        Self { stream: TcpStream::connect(address).await.expect("connects"), next: 0 }
    }

    pub async fn send(&mut self, version: i16, request: &Request) -> i32 {
        self.next += 1;
        let body = request.encode(version, self.next, Some("test")).concat();
        self.raw(&body).await;
        self.next
    }

    /// A length and these bytes. A connection that was closed takes them or not.
    pub async fn raw(&mut self, body: &[u8]) {
        let mut all = (body.len() as u32).to_be_bytes().to_vec();
        all.extend_from_slice(body);
        let _ = self.stream.write_all(&all).await;
    }

    /// The next answer's bytes. None: the gateway closed the connection.
    pub async fn frame(&mut self) -> Option<Bytes> {
        let mut len = [0; 4];
        within(self.stream.read_exact(&mut len)).await.ok()?;
        let mut body = vec![0; u32::from_be_bytes(len) as usize];
        within(self.stream.read_exact(&mut body)).await.ok()?;
        Some(body.into())
    }

    pub async fn receive(&mut self, api: Api, version: i16) -> (i32, Response) {
        let body = self.frame().await.expect("an answer");
        Response::decode(api, version, body).expect("a valid answer")
    }

    pub async fn ask(&mut self, version: i16, request: Request) -> Response {
        let id = self.send(version, &request).await;
        let (answered, response) = self.receive(request.api(), version).await;
        assert_eq!(answered, id);
        response
    }

    pub async fn create(&mut self, topic: &str, partitions: i32, configs: &[(&str, &str)]) -> create_topics::Topic {
        let configs = configs.iter().map(|(name, value)| create_topics::RequestConfig {
            name: name.to_string(),
            value: Some(value.to_string()),
        });
        let topic = create_topics::RequestTopic {
            name: topic.to_owned(),
            num_partitions: partitions,
            replication_factor: -1,
            configs: configs.collect(),
            ..Default::default()
        };
        let request = create_topics::Request { topics: vec![topic], timeout_ms: 10_000, validate_only: false };
        let Response::CreateTopics(mut answer) = self.ask(7, Request::CreateTopics(request)).await else {
            panic!("another answer");
        };
        answer.topics.remove(0)
    }

    pub async fn produce(&mut self, version: i16, topic: &str, index: i32, records: Bytes) -> produce::Partition {
        let Response::Produce(mut answer) = self.ask(version, produce_of(topic, index, records, -1)).await else {
            panic!("another answer");
        };
        answer.responses.remove(0).partition_responses.remove(0)
    }

    pub async fn fetch(&mut self, version: i16, request: fetch::Request) -> fetch::Response {
        let Response::Fetch(answer) = self.ask(version, Request::Fetch(request)).await else {
            panic!("another answer");
        };
        answer
    }

    /// Of one partition, at once.
    pub async fn fetch_one(&mut self, topic: &str, index: i32, offset: i64) -> fetch::Partition {
        let mut answer = self.fetch(11, fetch_of(topic, &[(index, offset)], 1 << 20)).await;
        answer.responses.remove(0).partitions.remove(0)
    }

    pub async fn offset(&mut self, topic: &str, index: i32, timestamp: i64) -> list_offsets::Partition {
        let partition = list_offsets::RequestPartition { partition_index: index, timestamp, ..Default::default() };
        let topic = list_offsets::RequestTopic { name: topic.to_owned(), partitions: vec![partition] };
        let request = list_offsets::Request { replica_id: -1, topics: vec![topic], ..Default::default() };
        let Response::ListOffsets(mut answer) = self.ask(8, Request::ListOffsets(request)).await else {
            panic!("another answer");
        };
        answer.topics.remove(0).partitions.remove(0)
    }

    pub async fn producer_id(&mut self) -> init_producer_id::Response {
        let request = init_producer_id::Request { transaction_timeout_ms: 1, producer_id: -1, ..Default::default() };
        match self.ask(4, Request::InitProducerId(request)).await {
            Response::InitProducerId(answer) => answer,
            _ => panic!("another answer"),
        }
    }
}

pub fn produce_of(topic: &str, index: i32, records: Bytes, acks: i16) -> Request {
    let partition = produce::RequestPartition { index, records: Records(vec![records]) };
    Request::Produce(produce::Request {
        acks,
        timeout_ms: 30_000,
        topic_data: vec![produce::RequestTopic { name: topic.to_owned(), partition_data: vec![partition] }],
        ..Default::default()
    })
}

pub fn fetch_of(topic: &str, partitions: &[(i32, i64)], partition_max_bytes: i32) -> fetch::Request {
    let partitions = partitions.iter().map(|(partition, fetch_offset)| fetch::RequestPartition {
        partition: *partition,
        fetch_offset: *fetch_offset,
        partition_max_bytes,
        ..Default::default()
    });
    let topic = fetch::RequestTopic { topic: topic.to_owned(), partitions: partitions.collect(), ..Default::default() };
    fetch::Request { max_wait_ms: 0, min_bytes: 1, topics: vec![topic], ..Default::default() }
}

/// A batch of records with these values, one millisecond apart from `from_ms` on.
pub fn batch(compression: Compression, from_ms: i64, values: &[&str], stamp: Option<ProducerStamp>) -> Batch {
    let mut builder = BatchBuilder::new(compression, 1024);
    for (delta, value) in values.iter().enumerate() {
        builder.push(from_ms + delta as i64, Some(b"key"), Some(value.as_bytes()), &[]);
    }
    builder.build(stamp)
}

/// Offsets and values of everything in fetched bytes.
pub fn values(records: &Records) -> Vec<(i64, String)> {
    let bytes: Bytes = records.0.concat().into();
    let mut found = Vec::new();
    for batch in split(bytes, true) {
        for record in batch.expect("whole").records(DecodeLimits::default()).expect("decodes") {
            let record = record.expect("decodes");
            let value = String::from_utf8(record.value.expect("a value").to_vec()).expect("text");
            found.push((record.offset, value));
        }
    }
    found
}
