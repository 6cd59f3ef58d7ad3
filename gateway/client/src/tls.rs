//! TLS 1.3 towards gateways, and certificate trouble in words that tell which file to pass.

use std::sync::Arc;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::ring::cipher_suite;
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, RootCertStore, SignatureScheme};

use crate::config::Trust;
use crate::error::Error;

const HINT: &str =
    "pass the CA certificate of the cluster with --ca FILE or ESKER_CA (standalone keeps it in DATA/tls/ca.pem)";

/// AES-128-GCM first: the fastest of the three where AES has hardware.
fn provider() -> Arc<CryptoProvider> {
    let cipher_suites = vec![
        cipher_suite::TLS13_AES_128_GCM_SHA256,
        cipher_suite::TLS13_AES_256_GCM_SHA384,
        cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    Arc::new(CryptoProvider { cipher_suites, ..rustls::crypto::ring::default_provider() })
}

pub(crate) fn config(trust: &Trust) -> Result<Arc<QuicClientConfig>, Error> {
    let provider = provider();
    let builder = rustls::ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(|e| Error::Config(format!("TLS is not available: {e}")))?;
    let mut config = match trust {
        Trust::Insecure => {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider))).with_no_client_auth()
        }
        Trust::CaFile(_) | Trust::CaPem(_) => builder.with_root_certificates(roots(trust)?).with_no_client_auth(),
    };
    config.alpn_protocols = vec![esker_wire::native::ALPN.to_vec()];
    // 0-RTT data could be replayed by whoever saw it: never for produce or admin calls.
    config.enable_early_data = false;
    let config = QuicClientConfig::try_from(config).map_err(|e| Error::Config(format!("TLS is not available: {e}")))?;
    Ok(Arc::new(config))
}

fn roots(trust: &Trust) -> Result<RootCertStore, Error> {
    let bad = |why: String| Error::Certificate(format!("{} {why}; {HINT}", describe(trust)));
    let pem = match trust {
        Trust::CaFile(path) => std::fs::read(path).map_err(|e| bad(format!("can't be read: {e}")))?,
        Trust::CaPem(pem) => pem.clone(),
        Trust::Insecure => Vec::new(),
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem) {
        let certificate = certificate.map_err(|e| bad(format!("is not PEM: {e}")))?;
        roots.add(certificate).map_err(|e| bad(format!("holds a certificate that can't be used: {e}")))?;
    }
    if roots.is_empty() {
        return Err(bad("holds no certificate".to_owned()));
    }
    Ok(roots)
}

fn describe(trust: &Trust) -> String {
    match trust {
        Trust::CaFile(path) => format!("CA file {}", path.display()),
        Trust::CaPem(_) => "the given CA".to_owned(),
        Trust::Insecure => "no CA".to_owned(),
    }
}

/// A failed handshake, if it failed over certificates.
pub(crate) fn certificate_error(server: &str, trust: &Trust, failure: &quinn::ConnectionError) -> Option<Error> {
    let quinn::ConnectionError::TransportError(failure) = failure else { return None };
    if !failure.reason.contains("certificate") {
        return None;
    }
    let why = match &failure.reason {
        reason if reason.contains("UnknownIssuer") || reason.contains("BadSignature") => "is of another CA",
        reason if reason.contains("Expired") => "has expired",
        reason if reason.contains("NotValidForName") => "is not for that host name",
        reason => reason,
    };
    Some(Error::Certificate(format!(
        "the certificate of {server} does not verify against {}: it {why}; {HINT}",
        describe(trust)
    )))
}

/// [`Trust::Insecure`]: any certificate will do, but the handshake must still be signed by its key.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
