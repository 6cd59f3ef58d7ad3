//! The Kafka door with TLS.

use std::sync::Arc;

use esker_kafka::{Api, Request, Response, api_versions, code};
use esker_types::Quorum;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::kafka_client::address;
use crate::world::{World, within};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_certificate_the_door_speaks_tls_only() {
    let mut world = World::new(1, Quorum { write: 1, ack: 1 }).await;
    let (cert, key) = (world.path("cert.pem"), world.path("key.pem"));
    world
        .start_gateway_with("gateway-1", |config| {
            config.kafka.listen = "127.0.0.1:0".to_owned();
            (config.kafka.cert, config.kafka.key) = (cert, key);
        })
        .await;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(world.ca()).expect("pem")).expect("a root");
    let config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let plain = TcpStream::connect(address(&world, "gateway-1")).await.expect("connects");
    let name = ServerName::try_from("localhost").expect("a name");
    let mut stream = within(connector.connect(name, plain)).await.expect("a handshake");
    let request = Request::ApiVersions(api_versions::Request::default()).encode(0, 5, None).concat();
    stream.write_all(&(request.len() as u32).to_be_bytes()).await.expect("taken");
    stream.write_all(&request).await.expect("taken");
    let mut len = [0; 4];
    within(stream.read_exact(&mut len)).await.expect("answered");
    let mut body = vec![0; u32::from_be_bytes(len) as usize];
    within(stream.read_exact(&mut body)).await.expect("whole");
    let (id, Response::ApiVersions(answer)) = Response::decode(Api::ApiVersions, 0, body.into()).expect("valid") else {
        panic!("another answer");
    };
    assert_eq!((id, answer.error_code), (5, code::NONE));

    let mut plain = TcpStream::connect(address(&world, "gateway-1")).await.expect("connects");
    plain.write_all(&(request.len() as u32).to_be_bytes()).await.expect("taken");
    plain.write_all(&request).await.expect("taken");
    let mut rest = Vec::new();
    // An alert, perhaps, and the end; never an answer.
    let _ = within(plain.read_to_end(&mut rest)).await;
    assert!(rest.len() < 16, "{rest:?}");
}
