use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::ids::{Id, Role};
use crate::tls::{Leg, Trust};

/// A certificate authority for tests.
pub(crate) struct Authority {
    root: String,
    issuing: String,
    issuer: Issuer<'static, KeyPair>,
}

pub(crate) const DOMAIN: &str = "0123456789abcdef.cloister";
pub(crate) const CLIENT: Id = Id::from_bytes([0xd1; 8]);
pub(crate) const CONNECTOR: Id = Id::from_bytes([0xc1; 8]);

impl Authority {
    pub(crate) fn new() -> Self {
        let ca = |name: &str, constraint| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = IsCa::Ca(constraint);
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let key = KeyPair::generate().unwrap();
        let params = ca("root", BasicConstraints::Unconstrained);
        let root = params.self_signed(&key).unwrap().pem();
        let root_issuer = Issuer::new(params, key);
        let key = KeyPair::generate().unwrap();
        let params = ca("issuing", BasicConstraints::Constrained(0));
        let issuing = params.signed_by(&key, &root_issuer).unwrap().pem();
        Self { root, issuing, issuer: Issuer::new(params, key) }
    }

    /// The trust of a process with one identity.
    pub(crate) fn trust(&self, role: Role, id: Id) -> Arc<Trust> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        let uri = format!("spiffe://{DOMAIN}/{}/{id}", role.as_str());
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        if role == Role::Connector {
            params.subject_alt_names.push(SanType::DnsName("connector.cloister.invalid".try_into().unwrap()));
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth, ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap().pem();
        let trust = Trust::new();
        trust.set_roots(self.root.as_bytes(), []).unwrap();
        trust.set_identity(role, format!("{leaf}{}", self.issuing).as_bytes(), key.serialize_pem().as_bytes()).unwrap();
        Arc::new(trust)
    }
}

/// Two ends of a loopback TCP connection.
pub(crate) async fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (dialled, accepted) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (dialled, accepted) = (dialled.unwrap(), accepted.unwrap().0);
    dialled.set_nodelay(true).unwrap();
    accepted.set_nodelay(true).unwrap();
    (dialled, accepted)
}

async fn secure_pair() -> (Secure, Secure) {
    let authority = Authority::new();
    let client = authority.trust(Role::Client, CLIENT).client_config(Leg::Tunnel, Role::Client, Some(CONNECTOR)).unwrap();
    let connector = authority.trust(Role::Connector, CONNECTOR).server_config(Leg::Tunnel).unwrap();
    let (a, b) = tcp_pair().await;
    let (client, connector) = tokio::join!(Secure::connect(Carried::Raw(a), client), Secure::accept(Carried::Raw(b), connector));
    (client.unwrap(), connector.unwrap())
}

#[tokio::test]
async fn bytes_of_every_size_pass_both_ways() {
    let (mut client, mut connector) = secure_pair().await;
    assert_eq!(client.peer().id, CONNECTOR);
    assert_eq!((connector.peer().id, connector.peer().role), (CLIENT, Role::Client));
    assert_eq!(client.alpn(), PeerAlpn::Resumable);
    for size in [1, 2, 100, MAX_PLAINTEXT, MAX_PLAINTEXT + 1, LARGE, 3_000_000] {
        let sent: Vec<u8> = (0..size).map(|i| (i * 7 % 251) as u8).collect();
        let mut got = vec![0; size];
        let write = async {
            client.write_all(&sent).await.unwrap();
            client.flush().await.unwrap();
        };
        let ((), _) = tokio::join!(write, async { connector.read_exact(&mut got).await.unwrap() });
        assert!(got == sent);
        let write = async {
            connector.write_all(&sent).await.unwrap();
            connector.flush().await.unwrap();
        };
        let ((), _) = tokio::join!(write, async { client.read_exact(&mut got).await.unwrap() });
        assert!(got == sent);
    }
    assert!(client.outbox.buffer.is_none() && connector.outbox.buffer.is_none());
    client.shutdown().await.unwrap();
    assert_eq!(connector.read(&mut [0; 8]).await.unwrap(), 0);
}

#[tokio::test]
async fn idle_connection_holds_no_buffer() {
    let (mut client, mut connector) = secure_pair().await;
    client.write_all(b"x").await.unwrap();
    client.flush().await.unwrap();
    connector.read_exact(&mut [0; 1]).await.unwrap();
    std::future::poll_fn(|cx| {
        assert!(connector.poll_plaintext(cx).is_pending());
        Poll::Ready(())
    })
    .await;
    assert!(connector.inbox.buffer.is_none() && client.outbox.buffer.is_none());
}

#[tokio::test]
async fn end_of_file_without_close_notify_is_an_error() {
    let (client, mut connector) = secure_pair().await;
    drop(client);
    assert_eq!(connector.read(&mut [0; 8]).await.unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
}

#[tokio::test]
async fn keys_are_renewed_before_they_wear_out_and_on_request() {
    let (mut client, mut connector) = secure_pair().await;
    for round in 0..5u8 {
        client.answer_key_update = true; // as if the peer had asked
        client.write_all(&[round]).await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(client.tx.sequence(), 1);
        let mut got = [0];
        connector.read_exact(&mut got).await.unwrap();
        assert_eq!(got, [round]);
    }
}

#[tokio::test]
async fn flood_of_records_without_data_ends_the_connection() {
    for (count, good) in [(MAX_IDLE_RECORDS, true), (MAX_IDLE_RECORDS + 1, false)] {
        let (mut client, mut connector) = secure_pair().await;
        for _ in 0..count {
            client.seal_record(Kind::Data, b"").unwrap();
        }
        client.write_all(b"x").await.unwrap();
        client.flush().await.unwrap();
        assert_eq!(connector.read(&mut [0; 8]).await.is_ok(), good);
    }
}

#[tokio::test]
async fn case_34_handshake_message_or_alert_after_the_handshake_ends_the_connection() {
    for (kind, content) in [(Kind::Handshake, &[4, 0, 0, 0][..]), (Kind::Handshake, &[24, 0, 0, 1, 2]), (Kind::Alert, &[2, 40])] {
        let (mut client, mut connector) = secure_pair().await;
        client.seal_record(kind, content).unwrap();
        client.flush().await.unwrap();
        assert!(connector.read(&mut [0; 8]).await.is_err());
    }
}

#[tokio::test]
async fn case_35_altered_or_replayed_record_ends_the_connection() {
    let (mut client, mut connector) = secure_pair().await;
    client.seal(b"hello").unwrap();
    let bytes = client.outbox.buffer.as_ref().unwrap()[..client.outbox.end].to_vec();
    for at in [0, 3, 4, 5, bytes.len() - 1] {
        let mut altered = bytes.clone();
        altered[at] ^= 1;
        assert!(connector.rx.open(&mut altered).is_err() || record_length(&altered).is_err(), "{at}");
        connector.rx.rewind();
    }
    assert!(connector.rx.open(&mut bytes.clone()).is_ok());
    assert!(connector.rx.open(&mut bytes.clone()).is_err());
}

#[tokio::test]
async fn case_26_client_accepts_only_the_connector_it_asked_for() {
    let authority = Authority::new();
    let other = Id::from_bytes([0xc2; 8]);
    let client = authority.trust(Role::Client, CLIENT).client_config(Leg::Tunnel, Role::Client, Some(other)).unwrap();
    let connector = authority.trust(Role::Connector, CONNECTOR).server_config(Leg::Tunnel).unwrap();
    let (a, b) = tcp_pair().await;
    let (client, connector) = tokio::join!(Secure::connect(Carried::Raw(a), client), Secure::accept(Carried::Raw(b), connector));
    assert_eq!(client.unwrap_err(), Code::RoleMismatch);
    assert!(connector.is_err());
}

#[tokio::test(start_paused = true)]
async fn case_33_handshake_that_never_finishes_is_cut_at_the_deadline() {
    let authority = Authority::new();
    let connector = authority.trust(Role::Connector, CONNECTOR).server_config(Leg::Tunnel).unwrap();
    let (a, b) = tcp_pair().await;
    let started = tokio::time::Instant::now();
    assert_eq!(Secure::accept(Carried::Raw(b), connector).await.unwrap_err(), Code::HandshakeTimeout);
    assert_eq!(started.elapsed(), HANDSHAKE_DEADLINE);
    drop(a);
}
