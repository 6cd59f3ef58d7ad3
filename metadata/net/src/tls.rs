//! Mutual TLS: a chain to the cluster's own authority, and an identity in a URI SAN, `esker://CLUSTER/ROLE/NAME`.
//!
//! Host names are not checked: who a node is says its certificate, not where it is reached. The word CLUSTER must be
//! the same in both certificates; it is chosen when the authority is made, before there is a cluster id.

use std::sync::Arc;

use esker_types::Role;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::server::{ParsedCertificate, WebPkiClientVerifier};
use rustls::{ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// The certificates can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{what}: {reason}")]
pub struct BadTls {
    /// Which of the three PEM texts: "ca", "certificate" or "key".
    pub what: &'static str,
    pub reason: String,
}

/// One identity that a certificate grants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Certified {
    cluster: String,
    pub role: Role,
    pub name: String,
}

/// Ready to use on both sides of a connection.
#[derive(Clone)]
pub struct TlsConfig {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
    /// CLUSTER of our own certificate.
    cluster: String,
}

impl std::fmt::Debug for TlsConfig {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TlsConfig").field("cluster", &self.cluster).finish_non_exhaustive()
    }
}

impl TlsConfig {
    /// From PEM texts: the authority that both sides must chain to, our chain (leaf first), our private key.
    pub fn from_pem(ca: &[u8], certificate: &[u8], key: &[u8]) -> Result<Self, BadTls> {
        let bad = |what: &'static str| move |reason: String| BadTls { what, reason };
        let mut roots = RootCertStore::empty();
        for root in certificates(ca).map_err(bad("ca"))? {
            roots.add(root).map_err(|e| bad("ca")(e.to_string()))?;
        }
        let chain = certificates(certificate).map_err(bad("certificate"))?;
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|e| bad("key")(e.to_string()))?;
        let own = parse_identities(&chain[0]).map_err(bad("certificate"))?;
        let roots = Arc::new(roots);
        let provider = Arc::new(ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(roots.clone(), provider.clone())
            .build()
            .map_err(|e| bad("ca")(e.to_string()))?;
        let server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("certificate")(e.to_string()))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(chain.clone(), key.clone_key())
            .map_err(|e| bad("certificate")(e.to_string()))?;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(|e| bad("certificate")(e.to_string()))?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ChainVerifier { roots, provider }))
            .with_client_auth_cert(chain, key)
            .map_err(|e| bad("certificate")(e.to_string()))?;
        let cluster = own[0].cluster.clone();
        Ok(Self { client: Arc::new(client), server: Arc::new(server), cluster })
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        TlsConnector::from(self.client.clone())
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.server.clone())
    }

    /// TLS wants a name; nobody looks at it.
    pub(crate) fn server_name(&self) -> ServerName<'static> {
        ServerName::try_from("esker.internal").expect("a valid DNS name")
    }

    /// The identities that the peer's certificate grants in our cluster; at least one.
    pub(crate) fn identities(&self, chain: Option<&[CertificateDer<'_>]>) -> Result<Vec<Certified>, String> {
        let leaf = chain.and_then(<[_]>::first).ok_or("the peer showed no certificate")?;
        let mut found = parse_identities(leaf)?;
        let theirs = found[0].cluster.clone();
        found.retain(|id| id.cluster == self.cluster);
        if found.is_empty() {
            return Err(format!("the peer's certificate is for cluster {theirs:?}, ours for {:?}", self.cluster));
        }
        Ok(found)
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    let found = found.map_err(|e| e.to_string())?;
    if found.is_empty() { Err("holds no certificate".to_owned()) } else { Ok(found) }
}

/// All `esker://` URIs of a certificate; at least one.
fn parse_identities(leaf: &CertificateDer<'_>) -> Result<Vec<Certified>, String> {
    let (_, parsed) = X509Certificate::from_der(leaf).map_err(|e| format!("does not parse: {e}"))?;
    let names = parsed.subject_alternative_name().map_err(|e| format!("bad alternative names: {e}"))?;
    let names = names.map(|extension| extension.value.general_names.as_slice()).unwrap_or_default();
    let found: Vec<Certified> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => parse_uri(uri),
            _ => None,
        })
        .collect();
    if found.is_empty() { Err("carries no URI esker://CLUSTER/ROLE/NAME".to_owned()) } else { Ok(found) }
}

fn parse_uri(uri: &str) -> Option<Certified> {
    let mut parts = uri.strip_prefix("esker://")?.splitn(3, '/');
    let (cluster, role, name) = (parts.next()?, parts.next()?, parts.next()?);
    let roles = [Role::Client, Role::Gateway, Role::Bookie, Role::Metadata, Role::Admin];
    let role = roles.into_iter().find(|known| known.as_str() == role)?;
    (!cluster.is_empty() && !name.is_empty()).then(|| Certified {
        cluster: cluster.to_owned(),
        role,
        name: name.to_owned(),
    })
}

/// Checks the chain and not the host name; the identity is checked after the handshake, against the Hello.
#[derive(Debug)]
struct ChainVerifier {
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl ChainVerifier {
    fn algorithms(&self) -> &WebPkiSupportedAlgorithms {
        &self.provider.signature_verification_algorithms
    }
}

impl ServerCertVerifier for ChainVerifier {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let leaf = ParsedCertificate::try_from(leaf)?;
        let algorithms = self.algorithms().all;
        rustls::client::verify_server_cert_signed_by_trust_anchor(&leaf, &self.roots, intermediates, now, algorithms)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, signed, self.algorithms())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, signed, self.algorithms())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms().supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_uris() {
        let good = parse_uri("esker://prod/bookie/node-1").expect("valid");
        assert_eq!((good.cluster.as_str(), good.role, good.name.as_str()), ("prod", Role::Bookie, "node-1"));
        for bad in ["", "https://prod/bookie/x", "esker://prod/bookie", "esker:///bookie/x", "esker://p/king/x"] {
            assert_eq!(parse_uri(bad), None, "{bad}");
        }
    }
}
