use rustls::{ClientConfig, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use std::time::Duration;

use super::*;
use crate::carrier::Carried;
use crate::ids::Role;
use crate::resume::{HELLO_BYTES, MAX_REPLAY};
use crate::secure::tests::{Authority, CLIENT, CONNECTOR, tcp_pair};
use crate::tls::Leg;

struct Ends {
    client: Arc<ClientConfig>,
    connector: Arc<ServerConfig>,
}

impl Ends {
    fn new() -> Self {
        let authority = Authority::new();
        Self {
            client: authority.trust(Role::Client, CLIENT).client_config(Leg::Tunnel, Role::Client, Some(CONNECTOR)).unwrap(),
            connector: authority.trust(Role::Connector, CONNECTOR).server_config(Leg::Tunnel).unwrap(),
        }
    }

    /// A carrier through a middle that `cut` ends.
    async fn carrier(&self) -> (Secure, Secure, tokio::task::JoinHandle<()>) {
        let ((a, mut left), (mut right, b)) = (tcp_pair().await, tcp_pair().await);
        let middle = tokio::spawn(async move {
            let _ = tokio::io::copy_bidirectional(&mut left, &mut right).await;
        });
        let (client, connector) = tokio::join!(
            Secure::connect(Carried::Raw(a), Arc::clone(&self.client)),
            Secure::accept(Carried::Raw(b), Arc::clone(&self.connector))
        );
        (client.unwrap(), connector.unwrap(), middle)
    }

    async fn tunnel(&self) -> (Stream, Handle, Stream, Handle, tokio::task::JoinHandle<()>) {
        let (client, mut connector, middle) = self.carrier().await;
        let (mut client, client_handle) = Stream::dial(client, TunnelId([9; 16]));
        client.flush().await.unwrap();
        let hello = hello(&mut connector).await;
        let (connector, connector_handle) = Stream::accept(connector, &hello).unwrap();
        (client, client_handle, connector, connector_handle, middle)
    }
}

async fn hello(connector: &mut Secure) -> Hello {
    let mut frame = [0; HELLO_BYTES];
    connector.read_exact(&mut frame).await.unwrap();
    Hello::decode(&frame).unwrap()
}

fn byte(i: usize) -> u8 {
    (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

#[tokio::test]
async fn carriers_cut_in_mid_transfer_lose_nothing() {
    const TOTAL: usize = 40_000_000;
    let ends = Ends::new();
    let (client, mut client_handle, connector, connector_handle, mut middle) = ends.tunnel().await;
    let (mut from_connector, mut to_connector) = tokio::io::split(client);
    let (mut from_client, mut to_client) = tokio::io::split(connector);
    // One task polls both directions, as HTTP/2 does.
    let upload = async {
        let bytes: Vec<u8> = (0..TOTAL).map(byte).collect();
        to_connector.write_all(&bytes).await.unwrap();
        to_connector.flush().await.unwrap();
    };
    let cut = tokio::sync::Notify::new();
    let download = async {
        let (mut at, mut cuts) = (0, 0);
        let mut buffer = vec![0; 100_000];
        while at < TOTAL {
            let count = from_connector.read(&mut buffer).await.unwrap();
            assert!(count > 0);
            assert!(buffer[..count].iter().enumerate().all(|(i, &got)| got == byte(at + i)), "near {at}");
            at += count;
            if at * 12 / TOTAL > cuts {
                cuts += 1;
                cut.notify_one();
            }
        }
        cuts
    };
    let echo = tokio::spawn(async move {
        tokio::io::copy(&mut from_client, &mut to_client).await.unwrap();
    });
    let redial = async {
        loop {
            cut.notified().await;
            middle.abort();
            assert_eq!(client_handle.changed_from(State::Up).await, State::Suspended);
            let (client, mut connector, next) = ends.carrier().await;
            client_handle.attach(client);
            let hello = hello(&mut connector).await;
            connector_handle.resume(connector, hello);
            assert_eq!(client_handle.changed_from(State::Suspended).await, State::Up);
            middle = next;
        }
    };
    let cuts = tokio::select! {
        ((), cuts) = async { tokio::join!(upload, download) } => cuts,
        () = redial => 0,
    };
    assert!(cuts >= 11);
    echo.abort();
}

#[derive(Default)]
struct Count(std::sync::atomic::AtomicUsize);

impl std::task::Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[tokio::test]
async fn payload_that_came_while_a_write_waited_wakes_whoever_reads() {
    let ends = Ends::new();
    let (mut client, _, mut connector, _, _middle) = ends.tunnel().await;
    // What makes room for the write, an acknowledgement, comes together with payload.
    let answering = tokio::spawn(async move {
        let mut buffer = vec![0; 1 << 20];
        while connector.read(&mut buffer).await.unwrap() > 0 {
            connector.write_all(b"x").await.unwrap();
            connector.flush().await.unwrap();
        }
    });
    let count = Arc::new(Count::default());
    let waker = Waker::from(Arc::clone(&count));
    let (chunk, mut kept) = (vec![0; 1 << 20], 0);
    while kept < 3 {
        let before = count.0.load(Ordering::Relaxed);
        let written = Pin::new(&mut client).poll_write(&mut Context::from_waker(&waker), &chunk);
        let holds = !lock(&client.0).ahead.is_empty();
        if written.is_ready() && holds {
            kept += 1;
            assert!(count.0.load(Ordering::Relaxed) > before);
            assert_eq!(client.read_u8().await.unwrap(), b'x');
            lock(&client.0).ahead.clear();
        }
        tokio::task::yield_now().await;
    }
    answering.abort();
}

#[tokio::test]
async fn in_band_close_is_an_end_and_a_bare_end_of_file_is_not() {
    let ends = Ends::new();
    let (mut client, _, mut connector, mut handle, _middle) = ends.tunnel().await;
    client.write_all(b"bye").await.unwrap();
    client.shutdown().await.unwrap();
    let mut got = Vec::new();
    connector.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"bye");
    assert_eq!(handle.changed_from(State::Up).await, State::Ended(Code::Ok));

    let (client, _, mut connector, mut handle, middle) = ends.tunnel().await;
    middle.abort();
    let mut buffer = [0; 1];
    let read = connector.read(&mut buffer);
    tokio::select! {
        result = read => panic!("{result:?}"),
        state = handle.changed_from(State::Up) => assert_eq!(state, State::Suspended),
    }
    drop(client);
}

#[tokio::test]
async fn newer_carrier_fences_the_older_and_a_stale_one_is_refused() {
    let ends = Ends::new();
    let (mut client, handle, mut connector, connector_handle, _middle) = ends.tunnel().await;
    let (newer, mut at_connector, _second) = ends.carrier().await;
    handle.attach(newer);
    client.write_all(b"new").await.unwrap();
    let fenced = tokio::spawn(async move {
        let mut got = [0; 3];
        client.read_exact(&mut got).await.unwrap();
        (client, got)
    });
    let second = hello(&mut at_connector).await;
    assert_eq!(second.epoch, 2);
    connector_handle.resume(at_connector, second);
    let mut got = [0; 3];
    connector.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"new");
    connector.write_all(b"ok!").await.unwrap();
    connector.flush().await.unwrap();
    assert_eq!(&fenced.await.unwrap().1, b"ok!");
    // A carrier of an older epoch, arriving late.
    let (mut late, at_connector, _third) = ends.carrier().await;
    connector_handle.resume(at_connector, Hello { epoch: 2, ..second });
    let poll = async {
        let mut buffer = [0; 1];
        let _ = tokio::time::timeout(Duration::from_secs(5), connector.read(&mut buffer)).await;
    };
    let mut refusal = [0; 5];
    tokio::select! {
        result = late.read_exact(&mut refusal) => { result.unwrap(); }
        () = poll => panic!("not refused"),
    }
    assert_eq!(refusal, [4, 0, 0, 1, 1]);
}

#[tokio::test]
async fn writes_wait_when_the_peer_takes_nothing() {
    let ends = Ends::new();
    let (mut client, _, connector, _, _middle) = ends.tunnel().await;
    let block = vec![0; 1 << 20];
    let mut total = 0;
    while let Ok(count) = tokio::time::timeout(Duration::from_millis(300), client.write(&block)).await {
        total += count.unwrap();
        assert!(total < MAX_REPLAY + (64 << 20), "no back-pressure");
    }
    drop(connector);
}
