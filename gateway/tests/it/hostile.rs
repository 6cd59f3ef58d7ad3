use std::sync::Arc;
use std::time::Duration;

use bytes::BytesMut;
use esker_client::ErrorCode;
use esker_types::error::ErrorInfo;
use esker_types::{BootId, Frame, FrameLimits, Hello, Quorum, Role, opcode};
use esker_wire::batch::{BatchBuilder, Compression};
use esker_wire::native::{self, PartitionName, ProduceOpen, Produced};
use quinn::crypto::rustls::QuicClientConfig;

use crate::world::{World, numbered, producer, read_all, send, within};

const ONE: Quorum = Quorum { write: 1, ack: 1 };

/// A client that can send anything.
struct Raw {
    connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

struct RawStream {
    send: quinn::SendStream,
    recv: quinn::RecvStream,
    buffer: BytesMut,
}

impl Raw {
    async fn connect(world: &World, alpn: &[u8]) -> Result<Self, quinn::ConnectionError> {
        use rustls::pki_types::pem::PemObject;
        let mut roots = rustls::RootCertStore::empty();
        roots.add(rustls::pki_types::CertificateDer::from_pem_slice(world.ca()).expect("pem")).expect("a root");
        let mut tls = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
        tls.alpn_protocols = vec![alpn.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("TLS 1.3")));
        let mut endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().expect("address")).expect("a socket");
        endpoint.set_default_client_config(config);
        let address = world.gateways["gateway-1"].server.addresses().quic;
        let connection = endpoint.connect(address, "127.0.0.1").expect("valid").await?;
        Ok(Self { connection, _endpoint: endpoint })
    }

    async fn welcomed(world: &World) -> Self {
        let raw = Self::connect(world, native::ALPN).await.expect("connects");
        let mut control = raw.stream().await;
        control.write(&Frame::new(opcode::HELLO, 1, &Hello::new(Role::Client, None, "raw", BootId([7; 16])))).await;
        let answer = control.read().await.expect("answered");
        assert!(answer.is_answer() && !answer.is_error());
        // Stays open as long as the connection.
        std::mem::drop(tokio::spawn(async move {
            let _control = control;
            std::future::pending::<()>().await;
        }));
        raw
    }

    async fn stream(&self) -> RawStream {
        let (send, recv) = self.connection.open_bi().await.expect("a stream");
        RawStream { send, recv, buffer: BytesMut::new() }
    }
}

impl RawStream {
    async fn write(&mut self, frame: &Frame) {
        self.send.write_all(&frame.encode()).await.expect("taken");
    }

    async fn read(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer, FrameLimits::PEER).expect("frames") {
                return Some(frame);
            }
            let chunk = within(self.recv.read_chunk(1 << 16, true)).await.ok()??;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }
}

fn error(frame: &Frame) -> Option<ErrorCode> {
    assert!(frame.is_error());
    frame.decode_control::<ErrorInfo>().expect("an error").error_code()
}

fn open(topic: &str, partition: u32) -> Frame {
    let partition = PartitionName { topic: topic.to_owned(), topic_id: Vec::new(), partition };
    Frame::new(opcode::client::PRODUCE_OPEN, 1, &ProduceOpen { partition: Some(partition) })
}

fn batch(values: &[&str]) -> bytes::Bytes {
    let mut builder = BatchBuilder::new(Compression::None, 1 << 16);
    values.iter().for_each(|value| builder.push(1, None, Some(value.as_bytes()), &[]));
    builder.build(None).into_bytes()
}

fn produce(id: u64, payload: bytes::Bytes) -> Frame {
    Frame::new(opcode::client::PRODUCE, id, &native::Produce {}).with_payload(payload)
}

async fn world() -> World {
    let mut world = World::new(1, ONE).await;
    world
        .start_gateway_with("gateway-1", |config| config.quic.hello_timeout = esker_types::units::Interval::millis(300))
        .await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("events", 1, &[]).await.expect("created");
    world
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_refused_and_nobody_else_notices() {
    let world = world().await;
    assert!(Raw::connect(&world, b"h3").await.is_err(), "another protocol");
    let silent = Raw::connect(&world, native::ALPN).await.expect("connects");
    within(silent.connection.closed()).await;
    let rude = Raw::connect(&world, native::ALPN).await.expect("connects");
    let mut stream = rude.stream().await;
    stream.write(&open("events", 0)).await;
    assert_eq!(stream.read().await.as_ref().and_then(error), Some(ErrorCode::InvalidRequest), "no Hello");
    within(rude.connection.closed()).await;
    let garbage = Raw::connect(&world, native::ALPN).await.expect("connects");
    let mut stream = garbage.stream().await;
    stream.send.write_all(&[0xff; 4096]).await.expect("taken");
    within(garbage.connection.closed()).await;
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    for length in [0, 1, 20, 1200] {
        let noise = vec![0xc3; length];
        socket.send_to(&noise, world.address("gateway-1")).await.expect("sent");
    }
    let client = world.client(&["gateway-1"]).await;
    within(send(&producer(&client), "events", 0, 0..10)).await;
    assert_eq!(within(read_all(&client, "events", 0)).await, numbered(0..10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_stream_ends_alone() {
    let world = world().await;
    let raw = Raw::welcomed(&world).await;
    let mut good = raw.stream().await;
    good.write(&open("events", 0)).await;
    assert!(!good.read().await.expect("opened").is_error());
    for bytes in [&[0u8; 64][..], &[0xff; 64], b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"] {
        let mut bad = raw.stream().await;
        bad.send.write_all(bytes).await.expect("taken");
        let _ = bad.send.finish();
        assert!(bad.read().await.is_none());
    }
    let mut huge = raw.stream().await;
    let mut claim = produce(1, batch(&["x"])).encode().to_vec();
    claim[..4].copy_from_slice(&u32::MAX.to_le_bytes());
    huge.send.write_all(&claim).await.expect("taken");
    assert!(huge.read().await.is_none(), "a frame that claims 4 GiB");
    let mut unknown = raw.stream().await;
    unknown.write(&Frame::new(199, 5, &native::Produce {})).await;
    assert_eq!(unknown.read().await.as_ref().and_then(error), Some(ErrorCode::UnknownOpcode));
    good.write(&produce(2, batch(&["still here"]))).await;
    let answer = good.read().await.expect("answered");
    assert_eq!(answer.decode_control::<Produced>().expect("produced").base_offset, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_batches_are_typed_errors_and_append_nothing() {
    let world = world().await;
    let raw = Raw::welcomed(&world).await;
    let good = batch(&["a", "b"]);
    let mut flipped = good.to_vec();
    *flipped.last_mut().expect("bytes") ^= 1;
    let mut short = good.to_vec();
    short.truncate(good.len() - 1);
    let twice = [&good[..], &good[..]].concat();
    let cases = [
        (flipped, ErrorCode::CorruptBatch),
        (vec![1; 61], ErrorCode::CorruptBatch),
        (Vec::new(), ErrorCode::CorruptBatch),
        (vec![0; 2 << 20], ErrorCode::BatchTooLarge),
    ];
    for (bytes, wanted) in cases {
        let mut stream = raw.stream().await;
        stream.write(&open("events", 0)).await;
        assert!(!stream.read().await.expect("opened").is_error());
        stream.write(&produce(7, bytes.into())).await;
        let answer = stream.read().await.expect("answered");
        assert_eq!((answer.request_id, answer.is_error()), (7, true));
        let found = error(&answer);
        assert!(found == Some(wanted) || found == Some(ErrorCode::InvalidBatch), "{found:?} for {wanted:?}");
        stream.write(&produce(8, good.clone())).await;
        assert_eq!(stream.read().await.as_ref().and_then(error), Some(ErrorCode::EarlierBatchFailed));
    }
    for bytes in [short, twice] {
        let mut stream = raw.stream().await;
        stream.write(&open("events", 0)).await;
        stream.read().await.expect("opened");
        stream.write(&produce(7, bytes.into())).await;
        assert!(stream.read().await.expect("answered").is_error());
    }
    let client = world.client(&["gateway-1"]).await;
    assert_eq!(within(read_all(&client, "events", 0)).await, Vec::<String>::new());
    let unknown = [open("nothing", 0), open("events", 9)];
    for (frame, wanted) in unknown.iter().zip([ErrorCode::UnknownTopic, ErrorCode::UnknownPartition]) {
        let mut stream = raw.stream().await;
        stream.write(frame).await;
        assert_eq!(stream.read().await.as_ref().and_then(error), Some(wanted));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_acks_nothing_is_answered_and_all_is_stored() {
    let world = world().await;
    let raw = Raw::welcomed(&world).await;
    let mut stream = raw.stream().await;
    stream.write(&open("events", 0)).await;
    stream.read().await.expect("opened");
    for value in ["record 0", "record 1"] {
        stream.write(&produce(0, batch(&[value]))).await;
    }
    stream.write(&produce(9, batch(&["record 2"]))).await;
    assert_eq!(stream.read().await.expect("answered").request_id, 9, "only the one that asked");
    let client = world.client(&["gateway-1"]).await;
    assert_eq!(within(read_all(&client, "events", 0)).await, numbered(0..3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_disk_pushes_back_to_the_client() {
    let mut world = World::new(1, ONE).await;
    world
        .start_gateway_with("gateway-1", |config| {
            config.append.partition_inflight = esker_types::ByteCount::mib(8);
            config.append.total_inflight = esker_types::ByteCount::mib(8);
        })
        .await;
    let client = world.client(&["gateway-1"]).await;
    client.admin().create_topic("events", 1, &[]).await.expect("created");
    within(send(&producer(&client), "events", 0, 0..1)).await;
    world.bookies[&1].hold(true);
    let raw = Raw::welcomed(&world).await;
    let mut stream = raw.stream().await;
    stream.write(&open("events", 0)).await;
    stream.read().await.expect("opened");
    let value = "x".repeat(900_000);
    let frame = produce(3, batch(&[&value])).encode();
    let mut written = 0usize;
    // Far more than gateway and QUIC may hold together; the writer is made to wait long before the end.
    while written < 64 << 20 {
        match tokio::time::timeout(Duration::from_millis(500), stream.send.write(&frame[written % frame.len()..])).await
        {
            Ok(taken) => written += taken.expect("open"),
            Err(_) => break,
        }
    }
    assert!(written < 32 << 20, "{written} bytes were taken while nothing could be stored");
    world.bookies[&1].hold(false);
    let answer = stream.read().await.expect("answered");
    assert!(!answer.is_error());
}
