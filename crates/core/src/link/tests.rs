#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]
use super::*;
use crate::ids::AgentUri;
use crate::runtime::Runtime;
use crate::ticket::Thumbprint;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::task::JoinHandle;
use tokio::time::Instant;

fn links(capacity: usize) -> Arc<Links> {
    let events = Arc::new(Events::new(capacity).unwrap());
    Arc::new(Links::new(events, Arc::default(), Arc::new(Trust::new()), Arc::default()))
}

fn peer(role: &str) -> PeerIdentity {
    let uri = AgentUri::parse(&format!("spiffe://0123456789abcdef.cloister/{role}/00000000000000c1")).unwrap();
    PeerIdentity {
        role: uri.role,
        id: uri.id,
        trust_domain: uri.trust_domain,
        uri,
        fingerprint: "f".into(),
        thumbprint: Thumbprint::parse(&"A".repeat(43)).unwrap(),
        not_after: 0,
    }
}

/// The far end of a served link.
struct Far {
    io: DuplexStream,
    input: BytesMut,
    served: JoinHandle<()>,
}

fn serve(links: &Arc<Links>, peer: Option<PeerIdentity>, buffer: usize) -> Far {
    serve_from(links, peer, buffer, "192.0.2.1:9")
}

fn serve_from(links: &Arc<Links>, peer: Option<PeerIdentity>, buffer: usize, address: &str) -> Far {
    let (near, far) = duplex(buffer);
    let (links, address) = (links.clone(), address.parse().unwrap());
    let served = tokio::spawn(async move { links.serve(near, peer, address).await });
    Far { io: far, input: BytesMut::new(), served }
}

impl Far {
    async fn send(&mut self, frame: LinkFrame) {
        let mut out = BytesMut::new();
        frame.encode(&mut out).unwrap();
        self.raw(&out).await;
    }

    async fn raw(&mut self, bytes: &[u8]) {
        self.io.write_all(bytes).await.unwrap();
    }

    /// The next frame, None at the end.
    async fn receive(&mut self) -> Option<LinkFrame> {
        loop {
            if let Some(frame) = LinkFrame::decode(&mut self.input).unwrap() {
                return Some(frame);
            }
            if self.io.read_buf(&mut self.input).await.unwrap() == 0 {
                return None;
            }
        }
    }

    /// Everything up to the end, and the end.
    async fn finish(mut self) -> Vec<LinkFrame> {
        let mut frames = Vec::new();
        while let Some(frame) = self.receive().await {
            frames.push(frame);
        }
        self.served.await.unwrap();
        frames
    }
}

fn down(links: &Links) -> (Code, String) {
    match links.events.take(100).pop() {
        Some(Event::LinkDown { reason, detail, retry_in: None, .. }) => (reason, detail),
        other => panic!("{other:?}"),
    }
}

fn message(text: &'static str) -> LinkFrame {
    LinkFrame::Message(Bytes::from_static(text.as_bytes()))
}

#[tokio::test(start_paused = true)]
async fn messages_pass_both_ways_in_order_and_the_end_is_told_once() {
    let links = links(100);
    let mut far = serve(&links, Some(peer("client")), 1 << 16);
    far.send(message("{\"a\":1}")).await;
    far.send(message("{\"b\":2}")).await;
    far.send(LinkFrame::Ping([7; 8])).await;
    assert_eq!(far.receive().await, Some(LinkFrame::Pong([7; 8])));
    let events = links.events.take(100);
    let [Event::LinkUp { link, peer: Some(peer), address }, Event::LinkMessage { body: a, .. }, Event::LinkMessage { body: b, .. }] =
        events.as_slice()
    else {
        panic!("{events:?}")
    };
    assert_eq!((peer.role, address.as_str(), &a[..], &b[..]), (Role::Client, "192.0.2.1:9", &b"{\"a\":1}"[..], &b"{\"b\":2}"[..]));
    assert!(links.send(*link, Bytes::from_static(b"{}")));
    assert_eq!(far.receive().await, Some(message("{}")));
    assert_eq!(links.stats.links.get(), 1);
    links.close(*link, Code::Draining);
    assert!(!links.send(*link, Bytes::from_static(b"{}")));
    assert_eq!(far.finish().await, [LinkFrame::Close(Code::Draining)]);
    assert_eq!(down(&links).0, Code::Draining);
    assert_eq!((links.stats.links.get(), links.lock().len()), (0, 0));
    assert!(!links.send(*link, Bytes::from_static(b"{}")));
}

#[tokio::test(start_paused = true)]
async fn case_49_a_silent_peer_is_closed_after_ten_seconds() {
    let links = links(100);
    let start = Instant::now();
    let mut far = serve(&links, Some(peer("client")), 1 << 16);
    assert!(matches!(far.receive().await, Some(LinkFrame::Ping(_))));
    assert_eq!(start.elapsed(), Duration::from_secs(5));
    far.served.await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(10));
    assert_eq!(down(&links).0, Code::PeerSilent);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_answers_pings_stays() {
    let links = links(100);
    let start = Instant::now();
    let mut far = serve(&links, Some(peer("client")), 1 << 16);
    for _ in 0..20 {
        let Some(LinkFrame::Ping(opaque)) = far.receive().await else { panic!("no ping") };
        far.send(LinkFrame::Pong(opaque)).await;
    }
    assert_eq!(start.elapsed(), Duration::from_secs(100));
    assert!(!far.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn case_35_broken_frames_end_the_link_with_a_code() {
    for (bytes, code) in [
        (&b"\0\0\0\0"[..], Code::ProtocolError),
        (b"\xff\xff\xff\xff", Code::TooLarge),
        (b"\0\x10\0\x02", Code::TooLarge),
        (b"\0\0\0\x02\x09x", Code::ProtocolError),
        (b"\0\0\0\x09\x05\0\0\0\0\0\0\0\0", Code::ProtocolError),
        (b"\0\0\0\x12\x04\0\0\0\0\0\0\0\x01\0\0\0\x01{\"n\"\n", Code::ProtocolError),
    ] {
        let links = links(100);
        let mut far = serve(&links, Some(peer("connector")), 1 << 16);
        far.raw(bytes).await;
        assert_eq!(far.finish().await, [LinkFrame::Close(code)], "{bytes:?}");
        assert_eq!(down(&links).0, code);
    }
}

#[tokio::test(start_paused = true)]
async fn an_enrolment_link_is_shorter_in_every_way() {
    let links = links(100);
    let mut far = serve(&links, None, 1 << 20);
    far.send(LinkFrame::Message(vec![b' '; MAX_ENROL_FRAME - 1].into())).await;
    far.send(LinkFrame::Ping([0; 8])).await;
    assert_eq!(far.receive().await, Some(LinkFrame::Pong([0; 8])));
    far.raw(&(MAX_ENROL_FRAME as u32 + 1).to_be_bytes()).await;
    assert_eq!(far.finish().await, [LinkFrame::Close(Code::TooLarge)]);

    let start = Instant::now();
    let mut far = serve(&links, None, 1 << 20);
    while let Some(frame) = far.receive().await {
        if let LinkFrame::Ping(opaque) = frame {
            far.send(LinkFrame::Pong(opaque)).await;
        }
    }
    assert_eq!(start.elapsed(), ENROL_LIFE);
}

#[tokio::test(start_paused = true)]
async fn enrolments_of_one_source_are_bounded_and_agents_are_not_counted_among_them() {
    let links = links(1000);
    let mut open: Vec<Far> = (0..MAX_ENROLMENTS_PER_SOURCE).map(|_| serve(&links, None, 1 << 10)).collect();
    tokio::task::yield_now().await;
    let refused = serve(&links, None, 1 << 10);
    refused.served.await.unwrap();
    assert_eq!(links.stats.links_refused.get(), 1);
    let agent = serve(&links, Some(peer("client")), 1 << 10);
    tokio::task::yield_now().await;
    assert!(!agent.served.is_finished());
    open.pop();
    tokio::time::sleep(Duration::from_millis(1)).await;
    let again = serve(&links, None, 1 << 10);
    tokio::task::yield_now().await;
    assert!(!again.served.is_finished());
    drop((open, again));
    tokio::time::sleep(Duration::from_millis(1)).await;
    assert!(links.enrolments.lock().unwrap().is_empty());
}

#[tokio::test(start_paused = true)]
async fn case_33_an_ipv6_host_is_one_source_whatever_address_of_its_network_it_takes() {
    let links = links(1000);
    let address = |network: u8, host: usize| format!("[2001:db8:0:{network}::{host:x}]:9");
    let _open: Vec<Far> =
        (0..MAX_ENROLMENTS_PER_SOURCE).map(|host| serve_from(&links, None, 1 << 10, &address(1, host + 1))).collect();
    tokio::task::yield_now().await;
    let refused = serve_from(&links, None, 1 << 10, &address(1, 0xffff));
    refused.served.await.unwrap();
    assert_eq!(links.stats.links_refused.get(), 1);
    let neighbour = serve_from(&links, None, 1 << 10, &address(2, 1));
    tokio::task::yield_now().await;
    assert!(!neighbour.served.is_finished());
}

#[tokio::test(start_paused = true)]
async fn more_messages_than_are_handled_close_the_link_that_sent_them() {
    let links = links(3);
    let mut far = serve(&links, Some(peer("client")), 1 << 16);
    for _ in 0..3 {
        far.send(message("{}")).await;
    }
    assert_eq!(far.finish().await, [LinkFrame::Close(Code::QueueFull)]);
    let events = links.events.take(100);
    assert_eq!(events.len(), 4, "up, two messages, down");
    assert!(matches!(events[3], Event::LinkDown { reason: Code::QueueFull, .. }));
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_closed_at_the_bound() {
    let links = links(100);
    let far = serve(&links, Some(peer("client")), 1 << 10);
    tokio::task::yield_now().await;
    let body = Bytes::from(vec![b' '; MAX_LINK_PAYLOAD]);
    let sent = (0..5).filter(|_| links.send(1, body.clone())).count();
    assert_eq!(sent, 3, "four times 1 MiB and their heads are more than 4 MiB");
    far.served.await.unwrap();
    assert_eq!(down(&links).0, Code::QueueFull);
}

#[tokio::test]
async fn records_reach_the_journal_once_and_are_acknowledged() {
    let mut name = [0u8; 8];
    aws_lc_rs::rand::fill(&mut name).unwrap();
    let directory = std::env::temp_dir().join(format!("cloister-link-{}", Id::from_bytes(name)));
    let links = links(100);
    links.set_journal(Some(Journal::open(&directory, 1 << 20).unwrap()));
    let lines = |first: u64, count: u64| -> Bytes {
        (first..first + count).map(|n| format!("{{\"n\":{n},\"x\":1}}\n")).collect::<String>().into()
    };

    let mut far = serve(&links, Some(peer("connector")), 1 << 16);
    assert_eq!(far.receive().await, Some(LinkFrame::RecordsAck { last: 0 }));
    far.send(LinkFrame::Records { first: 1, count: 3, lines: lines(1, 3) }).await;
    assert_eq!(far.receive().await, Some(LinkFrame::RecordsAck { last: 3 }));
    far.send(LinkFrame::Records { first: 2, count: 3, lines: lines(2, 3) }).await;
    assert_eq!(far.receive().await, Some(LinkFrame::RecordsAck { last: 4 }));
    drop(far);

    let mut far = serve(&links, Some(peer("connector")), 1 << 16);
    assert_eq!(far.receive().await, Some(LinkFrame::RecordsAck { last: 4 }));
    far.send(LinkFrame::Records { first: 5, count: 1, lines: lines(6, 1) }).await;
    assert_eq!(far.receive().await, Some(LinkFrame::Close(Code::ProtocolError)));

    let mut client = serve(&links, Some(peer("client")), 1 << 16);
    client.send(LinkFrame::Records { first: 5, count: 1, lines: lines(5, 1) }).await;
    assert_eq!(client.finish().await, [LinkFrame::Close(Code::ProtocolError)]);
    links.set_journal(None);
    let kept = std::fs::read(directory.join("00000000000000c1").join("00000000000000000001.jsonl")).unwrap();
    assert_eq!(kept, lines(1, 4));
    std::fs::remove_dir_all(directory).unwrap();
}

#[tokio::test(start_paused = true)]
async fn links_of_a_revoked_agent_end_at_once() {
    let links = links(100);
    let far = serve(&links, Some(peer("client")), 1 << 16);
    let other = serve(&links, None, 1 << 16);
    tokio::task::yield_now().await;
    assert_eq!(links.drop_agents(&[peer("client").id].into(), Code::AgentRevoked), 1);
    assert_eq!(far.finish().await, [LinkFrame::Close(Code::AgentRevoked)]);
    assert!(!other.served.is_finished());
}

// ------------------------------------------------------------------ over real sockets

mod sockets {
    use super::*;
    use crate::front::{self, AcceptedLink, Front};
    use crate::host::Protocol;
    use crate::record::{Kind, Record, Spool, Stages};
    use crate::testing_ca::{Ca, DOMAIN, id};
    use std::net::SocketAddr;
    use std::path::Path;

    /// One process: its runtime, its links, its events.
    struct Process {
        links: Arc<Links>,
        runtime: Arc<Runtime>,
    }

    impl Process {
        fn new(ca: &Ca, role: Role, number: u64) -> Process {
            let trust = ca.trust(&[(role, &ca.leaf(role, id(number)))]);
            let stats = Arc::new(Stats::default());
            let links = Links::new(Arc::new(Events::new(1000).unwrap()), stats.clone(), trust, Arc::default());
            Process { links: Arc::new(links), runtime: Arc::new(Runtime::start(1, stats).unwrap()) }
        }

        fn listen(&self, address: SocketAddr, journal: &Path) -> Arc<Front> {
            self.links.set_journal(Some(Journal::open(journal, 1 << 30).unwrap()));
            let (links, runtime) = (self.links.clone(), Arc::downgrade(&self.runtime));
            let take = move |accepted: AcceptedLink| {
                let links = links.clone();
                if let Some(runtime) = runtime.upgrade() {
                    runtime.spawn(async move { links.serve(accepted.tls, accepted.peer, accepted.address).await });
                }
            };
            let config =
                front::Config { address, links: Some(Box::new(take)), relay: None, web: None, limits: front::Limits::default() };
            Front::listen(self.links.trust.clone(), config, self.runtime.handles()).unwrap()
        }
    }

    fn push(spool: &Spool, host: &str) {
        spool.push(&Record {
            at: 0,
            kind: Kind::Open,
            flow: id(1),
            ticket: None,
            device: id(2),
            protocol: Protocol::Tcp,
            host,
            port: 80,
            bytes_in: 0,
            bytes_out: 0,
            stages: Stages::default(),
            duration_us: 0,
            code: Code::Ok,
            leaf: "",
        });
    }

    /// The exchange stops twice, once with records on the way; records go on being made all the time.
    #[test]
    fn records_survive_restarts_of_the_exchange_without_loss_or_double() {
        let mut name = [0u8; 8];
        aws_lc_rs::rand::fill(&mut name).unwrap();
        let room = std::env::temp_dir().join(format!("cloister-records-{}", Id::from_bytes(name)));
        let (journal, spool_room) = (room.join("journal"), room.join("spool"));
        let ca = Ca::new(DOMAIN);
        let connector = Process::new(&ca, Role::Connector, 0xc1);
        let spool = Arc::new(Spool::open(&spool_room, id(0xc1), 1 << 30).unwrap());
        let mut address: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut pushed = 0;
        let mut make = |spool: &Spool, count: usize| {
            for _ in 0..count {
                push(spool, &pushed.to_string());
                pushed += 1;
            }
        };
        make(&spool, 500);
        for round in 0..3 {
            let exchange = Process::new(&ca, Role::Control, 0xe1);
            let front = exchange.listen(address, &journal);
            if round == 0 {
                address = front.address();
                let link = connector.links.dial(&connector.runtime, &address.to_string(), Role::Connector).unwrap();
                // Aboard only once the exchange has said what it has.
                while connector.links.get(link).unwrap().lock().written.is_none() {
                    std::thread::sleep(Duration::from_millis(1));
                }
                connector.links.ride(link, spool.clone()).unwrap();
            }
            make(&spool, 2000);
            let enough = spool.status().last - if round == 2 { 0 } else { 1000 };
            while spool.status().acknowledged < enough {
                std::thread::sleep(Duration::from_millis(1));
            }
            // As if killed: nothing is said, what was not acknowledged may or may not be written.
            exchange.runtime.stop();
            front.close();
            exchange.links.set_journal(None);
        }
        let mut hosts = Vec::new();
        let directory = journal.join(id(0xc1).to_string());
        let mut files: Vec<_> = std::fs::read_dir(&directory).unwrap().map(|entry| entry.unwrap().path()).collect();
        files.sort();
        for file in files {
            for line in std::fs::read_to_string(file).unwrap().lines() {
                hosts.push(serde_json::from_str::<serde_json::Value>(line).unwrap()["host"].as_str().unwrap().to_owned());
            }
        }
        assert_eq!(hosts, (0..pushed).map(|n| n.to_string()).collect::<Vec<_>>());
        connector.runtime.stop();
        std::fs::remove_dir_all(room).unwrap();
    }
}
