//! The UDP socket and the limits of QUIC. Nothing is left to a default that somebody else may change: what one
//! client can make us hold is `connection_window` received + `send_window` sent + `ingress_per_connection` of frames.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use quinn::{EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt};
use quinn_proto::HashedConnectionIdGenerator;
use ring::hmac;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

use esker_wire::native::ALPN;

use crate::config::QuicConfig;

/// Why the door could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum EndpointError {
    #[error("quic.{key}: can't read {path}: {reason}; `esker tls issue --role gateway` makes certificates")]
    Pem { key: &'static str, path: PathBuf, reason: String },
    #[error("quic.cert and quic.key don't make a usable identity: {0}")]
    Tls(String),
    #[error("quic.listen: can't listen on {address}: {source}; is another process using the port?")]
    Bind { address: String, source: io::Error },
}

/// Opens the door's socket. Connections are accepted by whoever holds the endpoint.
pub fn open(config: &QuicConfig) -> Result<quinn::Endpoint, EndpointError> {
    let bind = |source| EndpointError::Bind { address: config.listen.clone(), source };
    let address: SocketAddr =
        config.listen.parse().map_err(|_| bind(io::Error::new(io::ErrorKind::InvalidInput, "not an ip:port")))?;
    let socket = bind_socket(address, config.socket_buffer.as_usize()).map_err(bind)?;
    let mut endpoint = endpoint_config(config)?;
    // Validated to lie within what the stack takes.
    endpoint.max_udp_payload_size(config.mtu_max).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let runtime = Arc::new(quinn::TokioRuntime);
    quinn::Endpoint::new(endpoint, Some(server_config(config)?), socket, runtime).map_err(bind)
}

/// After a restart we hold no state of the connections that clients still believe in. Because the secrets behind
/// connection ids and reset tokens are the same again, we can tell those clients so in one packet (stateless reset, RFC
/// 9000, 10.3); else they would wait for a time-out. Derived from the TLS key: nothing more to keep, and no two
/// addresses share them.
fn endpoint_config(config: &QuicConfig) -> Result<EndpointConfig, EndpointError> {
    let key = private_key(&config.key)?;
    let derive = |purpose: &str| {
        let root = hmac::Key::new(hmac::HMAC_SHA256, key.secret_der());
        hmac::sign(&root, format!("esker quic {purpose} {}", config.listen).as_bytes())
    };
    let mut endpoint = EndpointConfig::new(Arc::new(hmac::Key::new(hmac::HMAC_SHA256, derive("reset").as_ref())));
    let ids = derive("connection ids");
    let mut seed = [0; 8];
    seed.copy_from_slice(&ids.as_ref()[..8]);
    endpoint.cid_generator(move || Box::new(HashedConnectionIdGenerator::from_key(u64::from_le_bytes(seed))));
    Ok(endpoint)
}

fn bind_socket(address: SocketAddr, buffer: usize) -> io::Result<std::net::UdpSocket> {
    use socket2::{Domain, Protocol, Socket, Type};
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    // The system may grant less; that costs speed and nothing else.
    let _ = socket.set_recv_buffer_size(buffer);
    let _ = socket.set_send_buffer_size(buffer);
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn server_config(config: &QuicConfig) -> Result<ServerConfig, EndpointError> {
    let mut tls = tls_config(&config.cert, &config.key)?;
    tls.alpn_protocols = vec![ALPN.to_vec()];
    // 0-RTT data can be replayed by whoever saw it: an append must not be.
    tls.max_early_data_size = 0;
    let crypto =
        quinn::crypto::rustls::QuicServerConfig::try_from(tls).map_err(|e| EndpointError::Tls(e.to_string()))?;
    let mut server = ServerConfig::with_crypto(Arc::new(crypto));
    server
        .max_incoming(config.incoming_max as usize)
        .incoming_buffer_size(64 << 10)
        .incoming_buffer_size_total(8 << 20);
    server.retry_token_lifetime(Duration::from_secs(15));
    server.transport_config(Arc::new(transport_config(config)));
    Ok(server)
}

fn transport_config(config: &QuicConfig) -> TransportConfig {
    let window = |bytes: u64| VarInt::from_u64(bytes).unwrap_or(VarInt::MAX);
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(config.streams_max.into())
        .max_concurrent_uni_streams(0u8.into())
        .stream_receive_window(window(config.stream_window.0))
        .receive_window(window(config.connection_window.0))
        .send_window(config.send_window.0)
        .datagram_receive_buffer_size(None)
        .max_idle_timeout(IdleTimeout::try_from(config.idle_timeout.0).ok())
        .crypto_buffer_size(16 << 10);
    let mut discovery = MtuDiscoveryConfig::default();
    discovery.upper_bound(config.mtu_max);
    transport.mtu_discovery_config(Some(discovery));
    transport
}

fn pem(key: &'static str, path: &Path, reason: String) -> EndpointError {
    EndpointError::Pem { key, path: path.to_owned(), reason }
}

fn private_key(path: &Path) -> Result<PrivateKeyDer<'static>, EndpointError> {
    PrivateKeyDer::from_pem_file(path).map_err(|e| pem("key", path, e.to_string()))
}

fn tls_config(cert: &Path, key: &Path) -> Result<rustls::ServerConfig, EndpointError> {
    let certs: Vec<CertificateDer<'static>> = CertificateDer::pem_file_iter(cert)
        .and_then(Iterator::collect)
        .map_err(|e| pem("cert", cert, e.to_string()))?;
    if certs.is_empty() {
        return Err(pem("cert", cert, "it holds no certificate".to_owned()));
    }
    let key_der = private_key(key)?;
    let provider = Arc::new(fast_first(rustls::crypto::ring::default_provider()));
    rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| EndpointError::Tls(e.to_string()))?
        .with_no_client_auth()
        .with_single_cert(certs, key_der)
        .map_err(|e| EndpointError::Tls(e.to_string()))
}

/// AES-128-GCM seals half again as fast as AES-256-GCM on hardware that has AES, and is as good here.
fn fast_first(mut provider: rustls::crypto::CryptoProvider) -> rustls::crypto::CryptoProvider {
    provider.cipher_suites.sort_by_key(|s| s.suite() != rustls::CipherSuite::TLS13_AES_128_GCM_SHA256);
    provider
}
