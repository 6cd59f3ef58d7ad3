use std::time::Duration;

use esker_client::{Client, ClientConfig, Error, ErrorClass, ErrorCode, Start, Trust};
use esker_types::opcode::client as op;

use crate::fake::{Fake, TOPIC};

#[tokio::test(flavor = "multi_thread")]
async fn certificate_trouble_is_one_line_that_names_the_file() {
    let (fake, other) = (Fake::start(1), Fake::start(1));
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, &other.ca).unwrap();
    let connect = |trust| Client::connect(ClientConfig::new(fake.servers.clone(), trust));

    let error = connect(Trust::CaFile(ca.clone())).await.unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Certificate(_)), "{error:?}");
    assert!(text.contains(&ca.display().to_string()) && text.contains("--ca FILE"), "{text}");
    assert!(!text.contains('\n'));

    let missing = folder.path().join("missing.pem");
    let text = connect(Trust::CaFile(missing.clone())).await.unwrap_err().to_string();
    assert!(text.contains(&missing.display().to_string()) && text.contains("can't be read"), "{text}");

    std::fs::write(&ca, "not a certificate").unwrap();
    let text = connect(Trust::CaFile(ca.clone())).await.unwrap_err().to_string();
    assert!(text.contains("holds no certificate"), "{text}");

    connect(Trust::Insecure).await.unwrap();
    std::fs::write(&ca, &fake.ca).unwrap();
    connect(Trust::CaFile(ca)).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_that_do_not_answer_are_named() {
    let silent = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let config = ClientConfig {
        connect_timeout: Duration::from_millis(200),
        ..ClientConfig::new([address.clone()], Trust::Insecure)
    };
    let error = Client::connect(config).await.unwrap_err();
    assert!(error.to_string().contains(&address) && error.retryable(), "{error}");

    let fake = Fake::start(1);
    let servers = vec![address, fake.servers[0].clone()];
    // The one that does answer gets all the time that it needs.
    Client::connect(ClientConfig::new(servers, Trust::CaPem(fake.ca.clone()))).await.unwrap();

    for bad in ["nohost", ":1", "host:port", ""] {
        let error = Client::connect(ClientConfig::new([bad], Trust::Insecure)).await.unwrap_err();
        assert_eq!(error.class(), ErrorClass::Fatal, "{bad}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_are_repeated_while_that_is_safe() {
    let fake = Fake::start(2);
    let admin = fake.client().await.admin();
    let again = [ErrorCode::MetadataUnavailable, ErrorCode::ShuttingDown, ErrorCode::TimedOutUnknown];
    fake.state.lock().call_errors.extend(again.map(|code| (op::CALL_CREATE_TOPIC, code)));
    admin.create_topic("new", 3, &[("retention.ms", "1000")]).await.unwrap();
    let tries = fake.state.lock().calls.iter().filter(|opcode| **opcode == op::CALL_CREATE_TOPIC).count();
    assert_eq!(tries, 4);

    fake.state.lock().call_errors.push_back((op::CALL_CREATE_TOPIC, ErrorCode::TopicExists));
    let error = admin.create_topic("new", 3, &[]).await.unwrap_err();
    assert_eq!((error.code(), error.retryable()), (Some(ErrorCode::TopicExists), false));

    fake.state.lock().call_errors.push_back((op::CALL_MOVE_PARTITION, ErrorCode::TimedOutUnknown));
    let error = admin.move_partition(TOPIC, 0, "gateway-2").await.unwrap_err();
    assert_eq!(error.class(), ErrorClass::UnknownOutcome, "a move is not repeated blindly");
}

#[tokio::test(flavor = "multi_thread")]
async fn owner_calls_follow_redirects() {
    let fake = Fake::start(2);
    let admin = fake.client().await.admin();
    assert_eq!(admin.list_offsets(TOPIC, 0, Start::Earliest).await.unwrap().offset, 5);
    {
        let mut state = fake.state.lock();
        (state.owner, state.epoch) = (1, 2);
    }
    assert_eq!(admin.list_offsets(TOPIC, 0, Start::Latest).await.unwrap().offset, 5);
    let error = admin.list_offsets("nosuch", 0, Start::Latest).await.unwrap_err();
    assert_eq!(error.code(), Some(ErrorCode::UnknownTopic));
    assert_eq!(admin.describe_topic(TOPIC).await.unwrap().partition_count, 1);
}
