//! Peers that mean harm or are broken: none may hurt the others, panic us, or make us hold much.

use std::time::Duration;

use bytes::BytesMut;
use esker_net::{ConnectError, Identity, NetConfig, Network, Rpc};
use esker_types::error::ErrorInfo;
use esker_types::{BootId, ErrorCode, Frame, FrameLimits, Hello, Role, opcode};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::fixture::{ECHO, Server, Transport, World, frame};

async fn raw(server: &Server) -> TcpStream {
    TcpStream::connect(server.address.to_string()).await.expect("connect")
}

/// All that the server says until it closes.
async fn rest(mut stream: TcpStream) -> BytesMut {
    let mut said = BytesMut::new();
    while !matches!(stream.read_buf(&mut said).await, Ok(0) | Err(_)) {}
    said
}

async fn still_serves(world: &World, server: &Server) {
    let rpc = Rpc::without_pushes(world.gateway.connect(&server.address, Role::Bookie).await.expect("link"));
    rpc.call(ECHO, &(), Vec::new(), Duration::from_secs(20)).await.expect("answer");
}

fn hello() -> Hello {
    Hello::new(Role::Gateway, None, "raw", BootId([9; 16]))
}

/// A raw connection that has passed the handshake.
async fn greeted(server: &Server) -> TcpStream {
    let mut stream = raw(server).await;
    stream.write_all(&Frame::new(opcode::HELLO, 1, &hello()).encode()).await.expect("write");
    let mut buf = BytesMut::new();
    loop {
        stream.read_buf(&mut buf).await.expect("read");
        if let Some(answer) = Frame::decode(&mut buf, FrameLimits::PEER).expect("frame") {
            assert!(!answer.is_error());
            return stream;
        }
    }
}

#[tokio::test]
async fn garbage_instead_of_hello_closes_the_connection() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let http = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n".to_vec();
    let tls_hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..], &[0; 40]].concat();
    for garbage in [http, tls_hello, vec![0; 64], vec![0xff; 64]] {
        let mut stream = raw(&server).await;
        stream.write_all(&garbage).await.expect("write");
        assert!(rest(stream).await.is_empty());
    }
    still_serves(&world, &server).await;
}

#[tokio::test]
async fn a_hello_of_many_bytes_is_not_buffered() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let large = Hello { name: "x".repeat(5000), ..hello() };
    let mut stream = raw(&server).await;
    stream.write_all(&Frame::new(opcode::HELLO, 1, &large).encode()[..24]).await.expect("write");
    assert!(rest(stream).await.is_empty());
    still_serves(&world, &server).await;
}

#[tokio::test]
async fn silence_before_hello_is_cut_off() {
    let world = World::with(Transport::Tcp, |config| config.hello_timeout = Duration::from_millis(20));
    let server = world.echo().await;
    assert!(rest(raw(&server).await).await.is_empty());
    let mut half = raw(&server).await;
    half.write_all(&Frame::new(opcode::HELLO, 1, &hello()).encode()[..20]).await.expect("write");
    assert!(rest(half).await.is_empty());
}

#[tokio::test]
async fn silent_connections_do_not_hold_up_the_others() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let mut silent = Vec::new();
    for _ in 0..50 {
        silent.push(raw(&server).await);
    }
    still_serves(&world, &server).await;
    drop(silent);
}

#[tokio::test]
async fn refusals_say_why() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let future = Hello { version_min: 900, version_max: 901, ..hello() };
    let bad_role = Hello { role: 77, ..hello() };
    let bad_cluster = Hello { cluster: vec![1, 2, 3], ..hello() };
    let cases = [
        (Frame::new(opcode::HELLO, 1, &future), ErrorCode::UnsupportedVersion),
        (Frame::new(opcode::HELLO, 1, &bad_role), ErrorCode::InvalidRequest),
        (Frame::new(opcode::HELLO, 1, &bad_cluster), ErrorCode::InvalidRequest),
        (Frame::new(ECHO, 1, &hello()), ErrorCode::InvalidRequest),
    ];
    for (first, expected) in cases {
        let mut stream = raw(&server).await;
        stream.write_all(&first.encode()).await.expect("write");
        let mut said = rest(stream).await;
        let answer = Frame::decode(&mut said, FrameLimits::PEER).expect("frame").expect("whole");
        assert!(answer.is_error());
        let info: ErrorInfo = answer.decode_control().expect("control");
        assert_eq!(info.error_code(), Some(expected));
        assert!(said.is_empty());
    }
}

#[tokio::test]
async fn garbage_and_length_lies_after_hello_close_only_that_connection() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let mut lies = vec![vec![0xaa; 100]];
    for (len, control_len) in [(u32::MAX, 0), (20 << 20, 0), (10, 11), (2 << 20, (1 << 20) + 1)] {
        let mut bytes = frame(ECHO, "").encode().to_vec();
        bytes[0..4].copy_from_slice(&u32::to_le_bytes(len));
        bytes[20..24].copy_from_slice(&u32::to_le_bytes(control_len));
        lies.push(bytes);
    }
    let mut flipped = frame(ECHO, "").encode().to_vec();
    flipped[9] ^= 1;
    lies.push(flipped);
    for bytes in lies {
        let mut stream = greeted(&server).await;
        stream.write_all(&bytes).await.expect("write");
        assert!(rest(stream).await.is_empty());
    }
    still_serves(&world, &server).await;
}

#[tokio::test]
async fn a_peer_that_never_reads_is_cut_off_and_holds_little() {
    let world = World::with(Transport::Tcp, |config| config.write_stall = Duration::from_millis(50));
    let server = world.echo().await;
    let mut stream = greeted(&server).await;
    let mut request = frame(ECHO, vec![5; 1 << 20]);
    request.request_id = 1;
    let bytes = request.encode();
    // The server stops reading when its queue to us is full, and then gives up on us: the write fails.
    let mut sent = 0usize;
    while stream.write_all(&bytes).await.is_ok() {
        sent += bytes.len();
    }
    assert!(sent < 600 << 20, "the server took {sent} bytes from a peer that reads nothing");
    server.service.reached(&server.service.closed, 1).await;
    still_serves(&world, &server).await;
}

#[tokio::test]
async fn a_silent_peer_is_found_by_pings() {
    let adjust = |config: &mut NetConfig| {
        config.ping_interval = Duration::from_millis(5);
        config.ping_misses = 3;
    };
    let world = World::with(Transport::Tcp, adjust);
    let server = world.echo().await;
    // A raw peer that answers no PING is closed; it sees the PINGs come.
    let mut said = rest(greeted(&server).await).await;
    let ping = Frame::decode(&mut said, FrameLimits::PEER).expect("frame").expect("whole");
    assert_eq!(ping.opcode, opcode::PING);
}

#[tokio::test]
async fn a_ping_is_answered_with_hello() {
    let world = World::new(Transport::Tcp);
    let server = world.echo().await;
    let mut stream = greeted(&server).await;
    stream.write_all(&Frame::new(opcode::PING, 7, &hello()).encode()).await.expect("write");
    let mut said = BytesMut::new();
    let answer = loop {
        stream.read_buf(&mut said).await.expect("read");
        if let Some(answer) = Frame::decode(&mut said, FrameLimits::PEER).expect("frame") {
            break answer;
        }
    };
    assert!(answer.is_answer() && (answer.opcode, answer.request_id) == (opcode::PING, 7));
    assert_eq!(answer.decode_control::<Hello>().expect("control").name, "bookie-1");
}

#[tokio::test]
async fn connections_beyond_the_limit_are_closed() {
    let world = World::with(Transport::Tcp, |config| config.connections_max = 2);
    let server = world.echo().await;
    let connect = || world.gateway.connect(&server.address, Role::Bookie);
    let (first, second) = (connect().await.expect("link"), connect().await.expect("link"));
    server.service.reached(&server.service.opened, 2).await;
    let mut third = connect().await.expect("handshake");
    assert_eq!(third.rx.recv().await, None);
    assert!(!first.tx.is_closed() && !second.tx.is_closed());
}

#[tokio::test]
async fn without_tls_only_loopback_is_bound() {
    let identity = Identity::new(Role::Bookie, "b", BootId::NIL);
    let network = Network::new(identity, NetConfig::default());
    let error = network.listen(&"0.0.0.0:0".parse().expect("valid")).await.err().expect("refused");
    assert!(error.to_string().contains("insecure-internal"), "{error}");
}

#[tokio::test]
async fn a_listener_that_accepts_and_stays_silent_times_out() {
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("port");
    let address = silent.local_addr().expect("bound").into();
    let world = World::with(Transport::Tcp, |config| config.connect_timeout = Duration::from_millis(20));
    let error = world.gateway.connect(&address, Role::Bookie).await.expect_err("silent");
    assert!(matches!(error, ConnectError::Timeout { .. }), "{error:?}");
}
