//! A cluster of gateways in memory: real QUIC, one topic, and faults from a list. It checks idempotence the hard
//! way: a batch that is neither the next nor a known one is noted as a violation.

use std::collections::VecDeque;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use esker_client::{Client, ClientConfig, ErrorCode, Trust};
use esker_types::error::{ErrorInfo, OwnerHint};
use esker_types::hello::Hello;
use esker_types::opcode::{self, client as op};
use esker_types::{BootId, ClusterId, Frame, FrameLimits, Role};
use esker_wire::batch::{Batch, BatchLimits};
use esker_wire::native::*;
use parking_lot::Mutex;
use quinn::rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use quinn::{Endpoint, RecvStream, SendStream, ServerConfig, VarInt};
use tokio::sync::Notify;

pub const TOPIC: &str = "events";

/// What happens to the next PRODUCE frame.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Handle it well: lets later faults hit later frames.
    None,
    /// Store it, then lose the connection before the answer.
    StoreAndCut,
    /// Lose the connection, store nothing.
    Cut,
    /// Store it, hand the partition to another gateway, answer that the outcome is not known.
    StoreAndMove(usize),
    /// Hand the partition over first: it is not stored here.
    Move(usize),
    /// Hand it over and say nothing, as a stopped process.
    Silence(usize),
    /// Store and answer it, then tell without being asked that the partition has moved.
    Notice(usize),
    /// Answer with this error, store nothing.
    Refuse(ErrorCode),
    /// Handle it well, but only when told to.
    Hold(Arc<Notify>),
}

#[derive(Default)]
pub struct State {
    pub owner: usize,
    pub epoch: u32,
    pub partitions: u32,
    /// Of partition 0: every stored batch, offsets assigned.
    pub log: Vec<Batch>,
    pub faults: VecDeque<Fault>,
    /// Of reads: close the stream after so many pushes; push each batch twice.
    pub read_faults: VecDeque<ReadFault>,
    pub violations: Vec<String>,
    pub duplicates: usize,
    pub produce_opens: usize,
    pub producers: u64,
    pub calls: Vec<u16>,
    /// Answers for the next calls of that opcode.
    pub call_errors: VecDeque<(u16, ErrorCode)>,
    pub lost: Option<(i64, i64)>,
    /// How often the topic was deleted and made again.
    pub remade: u8,
}

#[derive(Clone, Debug)]
pub enum ReadFault {
    CutAfter(usize),
    Repeat,
    Hole,
    FlipBit,
}

pub struct Fake {
    pub state: Arc<Mutex<State>>,
    pub grew: Arc<Notify>,
    pub servers: Vec<String>,
    pub ca: Vec<u8>,
    endpoints: Vec<Endpoint>,
}

impl Fake {
    pub fn start(gateways: usize) -> Self {
        let certified = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned(), "localhost".to_owned()]).unwrap();
        let endpoints: Vec<Endpoint> = (0..gateways).map(|_| endpoint(&certified)).collect();
        let servers: Vec<String> = endpoints.iter().map(|e| e.local_addr().unwrap().to_string()).collect();
        let state = State { epoch: 1, partitions: 1, ..State::default() };
        let fake = Self {
            state: Arc::new(Mutex::new(state)),
            grew: Arc::default(),
            servers,
            ca: certified.cert.pem().into_bytes(),
            endpoints,
        };
        for me in 0..gateways {
            let gateway =
                Gateway { me, state: fake.state.clone(), grew: fake.grew.clone(), servers: fake.servers.clone() };
            tokio::spawn(gateway.accept(fake.endpoints[me].clone()));
        }
        fake
    }

    pub async fn client(&self) -> Client {
        Client::connect(self.config()).await.unwrap()
    }

    pub fn config(&self) -> ClientConfig {
        ClientConfig::new(self.servers.clone(), Trust::CaPem(self.ca.clone()))
    }

    pub fn faults(&self, faults: impl IntoIterator<Item = Fault>) {
        self.state.lock().faults.extend(faults);
    }

    /// The values in the log, in order.
    pub fn values(&self) -> Vec<String> {
        let log = self.state.lock().log.clone();
        log.iter()
            .flat_map(|batch| batch.records(Default::default()).unwrap())
            .map(|record| String::from_utf8(record.unwrap().value.unwrap().to_vec()).unwrap())
            .collect()
    }

    pub fn assert_sound(&self) {
        assert_eq!(self.state.lock().violations, Vec::<String>::new());
    }

    pub fn stop(&self, gateway: usize) {
        self.endpoints[gateway].close(VarInt::from_u32(1), b"stopped");
    }
}

fn endpoint(certified: &rcgen::CertifiedKey<rcgen::KeyPair>) -> Endpoint {
    let key = PrivatePkcs8KeyDer::from(certified.signing_key.serialize_der());
    let chain = vec![CertificateDer::from(certified.cert.der().to_vec())];
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain, key.into())
        .unwrap();
    tls.alpn_protocols = vec![ALPN.to_vec()];
    let tls = quinn::crypto::rustls::QuicServerConfig::try_from(tls).unwrap();
    let config = ServerConfig::with_crypto(Arc::new(tls));
    Endpoint::server(config, SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).unwrap()
}

#[derive(Clone)]
struct Gateway {
    me: usize,
    state: Arc<Mutex<State>>,
    grew: Arc<Notify>,
    servers: Vec<String>,
}

struct Frames {
    stream: RecvStream,
    buffer: BytesMut,
}

impl Frames {
    async fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = Frame::decode(&mut self.buffer, FrameLimits::PEER).unwrap() {
                return Some(frame);
            }
            let chunk = self.stream.read_chunk(usize::MAX, true).await.ok()??;
            self.buffer.extend_from_slice(&chunk.bytes);
        }
    }
}

async fn write(send: &mut SendStream, frame: Frame) -> Option<()> {
    send.write_chunk(frame.encode()).await.ok()
}

impl Gateway {
    async fn accept(self, endpoint: Endpoint) {
        while let Some(incoming) = endpoint.accept().await {
            let gateway = self.clone();
            tokio::spawn(async move {
                let Ok(connection) = incoming.await else { return };
                while let Ok((send, stream)) = connection.accept_bi().await {
                    let frames = Frames { stream, buffer: BytesMut::new() };
                    tokio::spawn(gateway.clone().serve(connection.clone(), send, frames));
                }
            });
        }
    }

    async fn serve(self, connection: quinn::Connection, mut send: SendStream, mut frames: Frames) -> Option<()> {
        let first = frames.next().await?;
        match first.opcode {
            opcode::HELLO => {
                let boot = BootId::from_random([self.me as u8; 16]);
                let hello = Hello::new(Role::Gateway, Some(ClusterId::from_random([9; 16])), "fake", boot);
                write(&mut send, first.answer(&hello)).await?;
                // Keep the control stream open until the client leaves.
                frames.next().await;
            }
            op::PRODUCE_OPEN => self.produce(connection, send, frames, first).await?,
            op::READ_OPEN => self.read(send, first).await?,
            _ => {
                let answer = self.call(&first);
                write(&mut send, answer).await?;
                let _ = send.finish();
                let _ = send.stopped().await;
            }
        }
        Some(())
    }

    fn hint(&self, state: &State) -> OwnerHint {
        OwnerHint {
            epoch: state.epoch,
            gateway: state.owner as u64 + 1,
            addresses: vec![self.servers[state.owner].clone()],
        }
    }

    fn error(&self, code: ErrorCode) -> ErrorInfo {
        let owner = Some(self.hint(&self.state.lock()));
        ErrorInfo { owner, ..ErrorInfo::new(code, format!("fake {}", code.name())) }
    }

    fn owns(&self) -> bool {
        self.state.lock().owner == self.me
    }

    fn move_to(&self, to: usize) {
        let mut state = self.state.lock();
        state.owner = to;
        state.epoch += 1;
    }

    async fn produce(
        self,
        connection: quinn::Connection,
        mut send: SendStream,
        mut frames: Frames,
        open: Frame,
    ) -> Option<()> {
        if !self.owns() {
            return write(&mut send, open.error_answer(&self.error(ErrorCode::NotOwner))).await;
        }
        let request: ProduceOpen = open.decode_control().unwrap();
        let (epoch, topic_id) = {
            let mut state = self.state.lock();
            state.produce_opens += 1;
            (state.epoch, vec![7 + state.remade; 16])
        };
        if request.partition.unwrap().topic_id != topic_id {
            return write(&mut send, open.error_answer(&self.error(ErrorCode::UnknownTopicId))).await;
        }
        let opened = ProduceOpened { topic_id, epoch, batch_bytes_max: 1_048_588, window_bytes: 8 << 20 };
        write(&mut send, open.answer(&opened)).await?;
        let mut failed = false;
        while let Some(frame) = frames.next().await {
            if failed {
                let error = ErrorInfo::new(ErrorCode::EarlierBatchFailed, "an earlier batch of this stream failed");
                write(&mut send, frame.error_answer(&error)).await?;
                continue;
            }
            let fault = self.state.lock().faults.pop_front().unwrap_or(Fault::None);
            let answer = match fault {
                Fault::None => self.store(&frame),
                Fault::Hold(go_on) => {
                    go_on.notified().await;
                    self.store(&frame)
                }
                Fault::StoreAndCut => {
                    self.store(&frame);
                    connection.close(VarInt::from_u32(2), b"cut");
                    return None;
                }
                Fault::Cut => {
                    connection.close(VarInt::from_u32(2), b"cut");
                    return None;
                }
                Fault::StoreAndMove(to) => {
                    self.store(&frame);
                    self.move_to(to);
                    frame.error_answer(&self.error(ErrorCode::Moved))
                }
                Fault::Move(to) => {
                    self.move_to(to);
                    frame.error_answer(&self.error(ErrorCode::Moved))
                }
                Fault::Silence(to) => {
                    self.move_to(to);
                    std::future::pending().await
                }
                Fault::Notice(to) => {
                    let stored = self.store(&frame);
                    write(&mut send, stored).await?;
                    self.move_to(to);
                    let notice = Frame { request_id: 0, ..open.error_answer(&self.error(ErrorCode::Moved)) };
                    return write(&mut send, notice).await;
                }
                Fault::Refuse(code) => frame.error_answer(&ErrorInfo::new(code, format!("fake {}", code.name()))),
            };
            failed = answer.is_error();
            if frame.request_id != 0 {
                write(&mut send, answer).await?;
            }
        }
        Some(())
    }

    /// Stores a batch unless it is there, as an owner does.
    fn store(&self, frame: &Frame) -> Frame {
        let batch = Batch::check(frame.payload_bytes(), BatchLimits::default());
        let mut batch = match batch {
            Ok(batch) => batch,
            Err(e) => return frame.error_answer(&ErrorInfo::new(e.code(), e.to_string())),
        };
        if !self.owns() {
            return frame.error_answer(&self.error(ErrorCode::NotOwner));
        }
        let mut state = self.state.lock();
        if let Some(stamp) = batch.producer() {
            let known: Vec<&Batch> =
                state.log.iter().filter(|b| b.producer().is_some_and(|p| p.id == stamp.id)).collect();
            if let Some(same) = known.iter().rev().take(5).find(|b| b.producer() == Some(stamp)) {
                let base_offset = same.header().base_offset;
                state.duplicates += 1;
                return frame.answer(&Produced { base_offset, append_time_ms: -1, log_start: 0, duplicate: true });
            }
            let last = known.last().map(|b| (b.header().producer_epoch, b.header().last_sequence()));
            let expected = match last {
                Some((epoch, _)) if stamp.epoch < epoch => {
                    return frame.error_answer(&ErrorInfo::new(ErrorCode::ProducerFenced, "fenced"));
                }
                Some((epoch, last)) if stamp.epoch == epoch => last + 1,
                _ => 0,
            };
            if stamp.base_sequence != expected {
                state.violations.push(format!("sequence {stamp:?}, expected {expected}"));
                return frame.error_answer(&ErrorInfo::new(ErrorCode::OutOfOrderSequence, "gap"));
            }
        }
        let base_offset = state.log.last().map_or(0, |last| last.header().end_offset());
        batch.assign(base_offset, state.epoch as i32);
        state.log.push(batch);
        drop(state);
        self.grew.notify_waiters();
        frame.answer(&Produced { base_offset, append_time_ms: -1, log_start: 0, duplicate: false })
    }

    async fn read(self, mut send: SendStream, open: Frame) -> Option<()> {
        let request: ReadOpen = open.decode_control().unwrap();
        if !self.owns() {
            return write(&mut send, open.error_answer(&self.error(ErrorCode::NotOwner))).await;
        }
        let (epoch, end) = {
            let state = self.state.lock();
            (state.epoch, state.log.last().map_or(0, |last| last.header().end_offset()))
        };
        let start_offset = match request.start.unwrap() {
            Position::Offset(offset) if offset > end => {
                let info = ErrorInfo { from: 0, to: end, ..ErrorInfo::new(ErrorCode::OffsetOutOfRange, "range") };
                return write(&mut send, open.error_answer(&info)).await;
            }
            Position::Offset(offset) => offset,
            Position::Earliest(_) => 0,
            Position::Latest(_) => end,
            Position::TimeMs(ms) => {
                let log = &self.state.lock().log;
                let found = log.iter().find(|b| b.header().largest_ts() >= ms);
                found.map_or(end, |b| b.header().base_offset)
            }
        };
        let opened = ReadOpened { topic_id: vec![7; 16], epoch, start_offset, log_start: 0, high_watermark: end };
        write(&mut send, open.answer(&opened)).await?;
        let fault = self.state.lock().read_faults.pop_front();
        let mut next = start_offset;
        let mut pushes = 0;
        loop {
            let grew = self.grew.notified();
            let found = self.state.lock().log.iter().find(|b| b.header().end_offset() > next).cloned();
            let Some(batch) = found else {
                grew.await;
                continue;
            };
            if !self.owns() {
                let error = ErrorInfo { owner: Some(self.hint(&self.state.lock())), ..self.error(ErrorCode::Moved) };
                return write(&mut send, open.error_answer(&error)).await;
            }
            if matches!(fault, Some(ReadFault::CutAfter(after)) if pushes == after) {
                let _ = send.reset(VarInt::from_u32(3));
                return None;
            }
            let mut payload = batch.bytes().to_vec();
            match fault {
                Some(ReadFault::Repeat) => payload.extend_from_slice(batch.bytes()),
                Some(ReadFault::Hole) => payload[..8].copy_from_slice(&(next + 1000).to_be_bytes()),
                Some(ReadFault::FlipBit) => payload[65] ^= 1,
                _ => {}
            }
            next = batch.header().end_offset();
            if request.end_offset > 0 && batch.header().base_offset >= request.end_offset {
                let _ = send.finish();
                return None;
            }
            let lost = self.state.lock().lost.filter(|_| request.skip_lost).map(|(from, to)| OffsetRange { from, to });
            let high_watermark = self.state.lock().log.last().map_or(0, |last| last.header().end_offset());
            let push =
                ReadBatches { high_watermark, log_start: 0, last_stable: high_watermark, next_offset: next, lost };
            let frame = Frame::new(op::READ_BATCHES, open.request_id, &push).with_payload(Bytes::from(payload));
            write(&mut send, frame).await?;
            pushes += 1;
        }
    }

    fn call(&self, frame: &Frame) -> Frame {
        let mut state = self.state.lock();
        state.calls.push(frame.opcode);
        if let Some(at) = state.call_errors.iter().position(|(opcode, _)| *opcode == frame.opcode) {
            let (_, code) = state.call_errors.remove(at).unwrap();
            return frame.error_answer(&ErrorInfo::new(code, format!("fake {}", code.name())));
        }
        match frame.opcode {
            op::CALL_METADATA => {
                let request: GetMetadata = frame.decode_control().unwrap();
                let gateways = self.servers.iter().zip(1..).map(|(server, id)| GatewayInfo {
                    id,
                    name: format!("gateway-{id}"),
                    addresses: vec![server.clone()],
                    live: true,
                    ..GatewayInfo::default()
                });
                let topics = request.topics.iter().map(|name| match name.as_str() {
                    TOPIC => TopicInfo {
                        name: name.clone(),
                        id: vec![7 + state.remade; 16],
                        partition_count: state.partitions,
                        partitions: (0..state.partitions)
                            .map(|index| PartitionInfo {
                                index,
                                epoch: state.epoch,
                                owner: state.owner as u64 + 1,
                                ..PartitionInfo::default()
                            })
                            .collect(),
                        settings: vec![KeyValue::new("max.message.bytes", "1048588")],
                        ..TopicInfo::default()
                    },
                    _ => {
                        TopicInfo { name: name.clone(), error: ErrorCode::UnknownTopic as u32, ..TopicInfo::default() }
                    }
                });
                frame.answer(&Metadata {
                    cluster_id: vec![9; 16],
                    revision: 1,
                    gateways: gateways.collect(),
                    topics: topics.collect(),
                    next: None,
                })
            }
            op::CALL_INIT_PRODUCER => {
                state.producers += 1;
                frame.answer(&InitializedProducer { producer_id: 100 + state.producers, epoch: 0 })
            }
            op::CALL_LIST_OFFSETS if state.owner != self.me => {
                let owner = Some(self.hint(&state));
                frame.error_answer(&ErrorInfo { owner, ..ErrorInfo::new(ErrorCode::NotOwner, "not here") })
            }
            op::CALL_LIST_OFFSETS => frame.answer(&ListedOffsets { offset: 5, ..ListedOffsets::default() }),
            op::CALL_CREATE_TOPIC => frame.answer(&CreatedTopic { partitions: 1, ..CreatedTopic::default() }),
            _ => frame.error_answer(&ErrorInfo::new(ErrorCode::UnknownOpcode, "unknown")),
        }
    }
}
