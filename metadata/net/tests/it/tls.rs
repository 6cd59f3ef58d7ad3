//! Certificates decide who may speak as whom.

use esker_net::{ConnectError, Identity, NetConfig, Network, TlsConfig};
use esker_types::{BootId, ErrorCode, Role};

use crate::fixture::Authority;

fn network(role: Role, name: &str, tls: Option<TlsConfig>) -> Network {
    Network::new(Identity::new(role, name, BootId::NIL), NetConfig { tls, ..NetConfig::default() })
}

/// What a dialer with `dialer` gets from a bookie with `listener`.
async fn dial(listener: Network, dialer: Network) -> Result<(), ConnectError> {
    let port = listener.listen(&"127.0.0.1:0".parse().expect("valid")).await.expect("port");
    // In TLS 1.3 the dialer learns of a refused certificate with its first read.
    dialer.connect(port.local_address(), Role::Bookie).await.map(drop)
}

#[tokio::test]
async fn the_right_certificates_connect() {
    let ca = Authority::new();
    let bookie = network(Role::Bookie, "b1", Some(ca.issue("esker://prod/bookie/b1")));
    let gateway = network(Role::Gateway, "g1", Some(ca.issue("esker://prod/gateway/g1")));
    dial(bookie, gateway).await.expect("connected");
}

#[tokio::test]
async fn another_authority_is_refused() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let bookie = network(Role::Bookie, "b1", Some(ours.issue("esker://prod/bookie/b1")));
    let gateway = network(Role::Gateway, "g1", Some(theirs.issue("esker://prod/gateway/g1")));
    let error = dial(bookie, gateway).await.expect_err("refused");
    assert!(matches!(error, ConnectError::Tls { .. }), "{error:?}");
}

#[tokio::test]
async fn a_dialer_whose_authority_only_it_trusts_is_refused_by_the_listener() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    // The dialer trusts both authorities, the listener only its own.
    let both = format!("{}{}", ours.ca_pem, theirs.ca_pem);
    let dialer = theirs.issue_trusting("esker://prod/gateway/g1", &both);
    let bookie = network(Role::Bookie, "b1", Some(ours.issue("esker://prod/bookie/b1")));
    dial(bookie, network(Role::Gateway, "g1", Some(dialer))).await.expect_err("refused");
}

#[tokio::test]
async fn a_role_or_name_that_the_certificate_does_not_grant_is_refused() {
    let ca = Authority::new();
    let cases = [(Role::Gateway, "g1", "esker://prod/bookie/g1"), (Role::Gateway, "g1", "esker://prod/gateway/g2")];
    for (role, name, uri) in cases {
        let bookie = network(Role::Bookie, "b1", Some(ca.issue("esker://prod/bookie/b1")));
        let error = dial(bookie, network(role, name, Some(ca.issue(uri)))).await.expect_err("refused");
        let ConnectError::Rejected { info, .. } = &error else { panic!("{error:?}") };
        assert_eq!(info.error_code(), Some(ErrorCode::NotAuthorized));
    }
    // And the other way round: a listener that is not what it says.
    let impostor = network(Role::Bookie, "b1", Some(ca.issue("esker://prod/gateway/b1")));
    let gateway = network(Role::Gateway, "g1", Some(ca.issue("esker://prod/gateway/g1")));
    let error = dial(impostor, gateway).await.expect_err("refused");
    assert!(matches!(error, ConnectError::WrongPeer { .. }), "{error:?}");
}

#[tokio::test]
async fn a_certificate_of_another_cluster_is_refused() {
    let ca = Authority::new();
    let bookie = network(Role::Bookie, "b1", Some(ca.issue("esker://prod/bookie/b1")));
    let gateway = network(Role::Gateway, "g1", Some(ca.issue("esker://staging/gateway/g1")));
    let error = dial(bookie, gateway).await.expect_err("refused");
    assert!(error.to_string().contains("staging") && error.to_string().contains("prod"), "{error}");
}

#[tokio::test]
async fn plain_tcp_does_not_pass_a_tls_port_nor_tls_a_plain_one() {
    let ca = Authority::new();
    let secure = || network(Role::Bookie, "b1", Some(ca.issue("esker://prod/bookie/b1")));
    let plain = |role| network(role, "n1", None);
    dial(secure(), plain(Role::Gateway)).await.expect_err("refused");
    let gateway = network(Role::Gateway, "g1", Some(ca.issue("esker://prod/gateway/g1")));
    dial(plain(Role::Bookie), gateway).await.expect_err("refused");
}

#[test]
fn unusable_pem_says_which() {
    let error = TlsConfig::from_pem(b"nothing", b"", b"").expect_err("refused");
    assert_eq!(error.what, "ca");
}
