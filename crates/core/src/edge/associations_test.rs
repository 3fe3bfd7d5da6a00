use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

use super::*;
use crate::flow::{TcpFlow, Waiting};
use crate::host::Protocol;

/// Echoes every datagram, opens when told, and counts what is open.
#[derive(Default)]
struct Echo {
    gate: Option<Arc<Notify>>,
    refuse: bool,
    opened: Mutex<usize>,
    live: Arc<Mutex<usize>>,
}

struct Flow {
    waiting: Mutex<VecDeque<Bytes>>,
    arrived: Notify,
    live: Arc<Mutex<usize>>,
}

impl Drop for Flow {
    fn drop(&mut self) {
        *self.live.lock().unwrap() -= 1;
    }
}

impl Flows for Echo {
    fn open_tcp(&self, _: Destination) -> Waiting<'_, Result<Box<dyn TcpFlow>, Code>> {
        Box::pin(async { Err(Code::Internal) })
    }

    fn open_udp(&self, _: Destination) -> Waiting<'_, Result<Box<dyn UdpFlow>, Code>> {
        Box::pin(async move {
            if let Some(gate) = &self.gate {
                gate.notified().await;
            }
            if self.refuse {
                return Err(Code::NotFound);
            }
            *self.opened.lock().unwrap() += 1;
            *self.live.lock().unwrap() += 1;
            let flow = Flow { waiting: Mutex::default(), arrived: Notify::new(), live: self.live.clone() };
            Ok(Box::new(flow) as Box<dyn UdpFlow>)
        })
    }
}

impl UdpFlow for Flow {
    fn send(&self, datagram: Bytes) -> bool {
        self.waiting.lock().unwrap().push_back(datagram);
        self.arrived.notify_one();
        true
    }

    fn receive(&self) -> Waiting<'_, Result<Bytes, Code>> {
        Box::pin(async move {
            loop {
                if let Some(datagram) = self.waiting.lock().unwrap().pop_front() {
                    return Ok(datagram);
                }
                self.arrived.notified().await;
            }
        })
    }
}

struct Inbox(mpsc::UnboundedSender<Vec<u8>>);

impl Answer for Inbox {
    fn answer(&self, datagram: &[u8]) {
        let _ = self.0.send(datagram.to_vec());
    }
}

fn to(host: &str) -> Destination {
    Destination::parse(host, 53, Protocol::Udp).unwrap()
}

fn peer(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Let every task that can run do so.
async fn settle() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn each_peer_and_destination_has_its_own_flow() {
    let flows = Arc::new(Echo::default());
    let associations = Associations::new(flows.clone());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for (port, host, text) in
        [(1, "a.internal", "one"), (1, "b.internal", "two"), (2, "a.internal", "three"), (1, "a.internal", "four")]
    {
        assert!(associations.pass(peer(port), to(host), text.into(), || Some(Inbox(sender.clone()))));
    }
    let mut texts = Vec::new();
    for _ in 0..4 {
        texts.push(String::from_utf8(receiver.recv().await.unwrap()).unwrap());
    }
    texts.sort();
    assert_eq!(texts, ["four", "one", "three", "two"]);
    assert_eq!((*flows.opened.lock().unwrap(), associations.len()), (3, 3));
}

#[tokio::test(start_paused = true)]
async fn association_ends_after_idle_time_and_not_before() {
    let flows = Arc::new(Echo::default());
    let associations = Associations::bounded(flows.clone(), 10, Duration::from_secs(60));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for _ in 0..3 {
        associations.pass(peer(1), to("a.internal"), "x".into(), || Some(Inbox(sender.clone())));
        receiver.recv().await.unwrap();
        tokio::time::sleep(Duration::from_secs(59)).await;
        assert_eq!(associations.len(), 1);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    settle().await;
    assert!(associations.is_empty());
    assert_eq!((*flows.opened.lock().unwrap(), *flows.live.lock().unwrap()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn table_is_bounded_and_live_associations_stay() {
    let associations = Associations::bounded(Arc::new(Echo::default()), 2, IDLE);
    let (sender, _receiver) = mpsc::unbounded_channel();
    let pass = |port| associations.pass(peer(port), to("a.internal"), "x".into(), || Some(Inbox(sender.clone())));
    assert!(pass(1) && pass(2));
    assert!(!pass(3), "bound + 1");
    assert!(pass(1));
    assert_eq!(associations.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn datagrams_wait_for_the_flow_up_to_their_bound() {
    let gate = Arc::new(Notify::new());
    let associations = Associations::new(Arc::new(Echo { gate: Some(gate.clone()), ..Echo::default() }));
    let (sender, mut receiver) = mpsc::unbounded_channel();
    for _ in 0..MAX_WAITING + 5 {
        associations.pass(peer(1), to("a.internal"), "x".into(), || Some(Inbox(sender.clone())));
    }
    settle().await;
    gate.notify_one();
    for _ in 0..MAX_WAITING {
        receiver.recv().await.unwrap();
    }
    settle().await;
    assert!(receiver.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn refused_flow_leaves_no_association() {
    let associations = Associations::new(Arc::new(Echo { refuse: true, ..Echo::default() }));
    let (sender, _receiver) = mpsc::unbounded_channel();
    associations.pass(peer(1), to("a.internal"), "x".into(), || Some(Inbox(sender.clone())));
    settle().await;
    assert!(associations.is_empty());
}

#[tokio::test(start_paused = true)]
async fn closing_the_entrance_ends_its_flows() {
    let flows = Arc::new(Echo::default());
    let associations = Associations::new(flows.clone());
    let (sender, mut receiver) = mpsc::unbounded_channel();
    associations.pass(peer(1), to("a.internal"), "x".into(), || Some(Inbox(sender.clone())));
    receiver.recv().await.unwrap();
    drop(associations);
    settle().await;
    assert_eq!(*flows.live.lock().unwrap(), 0);
}

#[tokio::test]
async fn way_back_that_cannot_be_made_opens_nothing() {
    let used = AtomicBool::new(false);
    let associations = Associations::new(Arc::new(Echo::default()));
    let passed = associations.pass(peer(1), to("a.internal"), "x".into(), || {
        used.store(true, Ordering::SeqCst);
        None::<Inbox>
    });
    assert!(!passed && used.load(Ordering::SeqCst) && associations.is_empty());
}
