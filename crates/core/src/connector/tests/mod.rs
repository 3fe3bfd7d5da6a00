//! Client plane, relay and connector plane in one process, over loopback sockets.

mod flows;
mod sessions;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::address::Guard;
use crate::carrier::RecordIo;
use crate::client::sessions::Grant;
use crate::client::{self, Client, Settings};
use crate::dial::Address;
use crate::flow::{Local, TcpFlow, UdpFlow};
use crate::relay::Relay;
use crate::secure::tests::tcp_pair;
use crate::testing::Issuer;
use crate::testing_ca::{Ca, Clock, DOMAIN, EPOCH, id};
use crate::tls::Leg;

pub(crate) const SESSION: u64 = 0x51;
pub(crate) const SEGMENT: u64 = 0xa1;
const CLIENT: u64 = 0xd1;
const RELAY: u64 = 0xe1;

/// One relay, connectors …c1 and on, one client with a granted session.
pub(crate) struct World {
    pub client: Client,
    pub connectors: Vec<Connector>,
    pub relay: Arc<Relay>,
    pub events: Arc<Events>,
    pub stats: Arc<Stats>,
    pub connector_stats: Arc<Stats>,
    pub trust: Arc<Trust>,
    pub at_relay: RelayPlace,
    clock: Arc<Clock>,
    issuer: Issuer,
    key: crate::ticket::Thumbprint,
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::with(1, Settings::default()).await
    }

    pub(crate) async fn with(connectors: usize, settings: Settings) -> Self {
        let ca = Ca::new(DOMAIN);
        let issuer = Issuer::new("k1");
        let leaf = ca.leaf(Role::Client, id(CLIENT));
        let clock = Clock::new(EPOCH + 60);
        let trust = ca.trust_at(Arc::clone(&clock), &[(Role::Client, &leaf)]);
        let key = trust.own(Role::Client).unwrap().thumbprint;
        let relay_trust = ca.trust_at(Arc::clone(&clock), &[(Role::Relay, &ca.leaf(Role::Relay, id(RELAY)))]);
        relay_trust.set_ticket_keys(issuer.keys());
        let (relay, address) = serve_relay(relay_trust).await;
        let at_relay = RelayPlace { id: Some(id(RELAY)), address: Address::parse(&address).unwrap() };

        let connector_stats = Arc::new(Stats::default());
        let connectors: Vec<_> = (0..connectors as u64)
            .map(|n| {
                let own = ca.trust_at(Arc::clone(&clock), &[(Role::Connector, &ca.leaf(Role::Connector, id(0xc1 + n)))]);
                own.set_ticket_keys(issuer.keys());
                let connector = Connector::new(Parts {
                    trust: own,
                    dialer: Arc::default(),
                    events: Arc::new(Events::new(1000).unwrap()),
                    stats: Arc::clone(&connector_stats),
                    last_hop: LastHop::system(Guard::default()),
                    spool: None,
                    runtime: Tokio::current(),
                })
                .unwrap();
                connector.link_up();
                let segments = json!([
                    {"id": id(SEGMENT).to_string(), "hosts": ["127.0.0.1"], "ports": [[1, 65535]], "protocol": "tcp", "allow": ["127.0.0.1/32"]},
                    {"id": id(SEGMENT + 1).to_string(), "hosts": ["127.0.0.1"], "ports": [[1, 65535]], "protocol": "udp", "allow": ["127.0.0.1/32"]},
                ]);
                connector.assign(segments.to_string().as_bytes()).unwrap();
                connector.snapshot(1, []);
                connector.set_relays(vec![(id(RELAY), at_relay.clone())], 2).unwrap();
                connector
            })
            .collect();

        let events = Arc::new(Events::new(1000).unwrap());
        let stats = Arc::new(Stats::default());
        let client = Client::new(client::Parts {
            trust: Arc::clone(&trust),
            dialer: Arc::default(),
            events: Arc::clone(&events),
            stats: Arc::clone(&stats),
            runtime: Tokio::current(),
            settings,
        });
        let catalogue = json!([
            {"id": id(SEGMENT).to_string(), "name": "tcp", "hosts": ["127.0.0.1"], "ports": [[1, 65535]], "protocol": "tcp"},
            {"id": id(SEGMENT + 1).to_string(), "name": "udp", "hosts": ["127.0.0.1"], "ports": [[1, 65535]], "protocol": "udp"},
        ]);
        client.set_catalogue(Arc::new(Segments::parse(catalogue.to_string().as_bytes()).unwrap()));
        client.set_relays(vec![(id(RELAY), at_relay.clone())]);
        let world = Self { client, connectors, relay, events, stats, connector_stats, trust, at_relay, clock, issuer, key };
        world.grant(SESSION, SEGMENT, 60);
        world.grant(SESSION + 1, SEGMENT + 1, 60);
        for n in 0..world.connectors.len() as u64 {
            until(|| world.relay.parked().get(&id(0xc1 + n)).copied() == Some(2)).await;
        }
        world
    }

    pub(crate) fn ticket(&self, session: u64, segment: u64, from: u64) -> String {
        self.ticket_for(session, segment, from, &self.key.to_string())
    }

    pub(crate) fn ticket_for(&self, session: u64, segment: u64, from: u64, key: &str) -> String {
        let connectors: Vec<_> = (0..self.connectors.len() as u64).map(|n| id(0xc1 + n).to_string()).collect();
        let audience: Vec<_> = std::iter::once(format!("segment:{}", id(segment)))
            .chain(connectors.iter().map(|id| format!("connector:{id}")))
            .collect();
        self.issuer.sign(&json!({
            "iss": DOMAIN, "jti": format!("j{from}"), "sid": id(session).to_string(), "sub": "user:alice",
            "dev": id(CLIENT).to_string(), "seg": id(segment).to_string(), "con": connectors, "aud": audience,
            "cnf": {"jkt": key}, "iat": EPOCH + from, "exp": EPOCH + from + 300, "gen": 5, "cty": 0, "rul": ["r1"],
        }))
    }

    pub(crate) fn grant(&self, session: u64, segment: u64, from: u64) {
        self.grant_at(session, segment, from, (0..self.connectors.len() as u64).map(|n| id(0xc1 + n)).collect());
    }

    pub(crate) fn grant_at(&self, session: u64, segment: u64, from: u64, connectors: Vec<Id>) {
        self.client.grant(None, self.make_grant(session, segment, from, connectors)).unwrap();
    }

    pub(crate) fn make_grant(&self, session: u64, segment: u64, from: u64, connectors: Vec<Id>) -> Grant {
        Grant {
            session: id(session),
            segment: id(segment),
            ticket: HeaderValue::from_str(&self.ticket(session, segment, from)).unwrap(),
            connectors,
            relays: vec![id(RELAY)],
            expires: EPOCH + from + 300,
        }
    }

    pub(crate) async fn open(&self, port: u16) -> Result<Box<dyn TcpFlow>, Code> {
        self.client.flows().open_tcp(Destination::parse("127.0.0.1", port, Protocol::Tcp).unwrap()).await
    }

    pub(crate) async fn open_udp(&self, port: u16) -> Result<Box<dyn UdpFlow>, Code> {
        self.client.flows().open_udp(Destination::parse("127.0.0.1", port, Protocol::Udp).unwrap()).await
    }

    /// An application's socket whose bytes go through the tunnel to this port, and the flow's end.
    pub(crate) async fn connect(&self, port: u16) -> (TcpStream, tokio::task::JoinHandle<Code>) {
        let flow = self.open(port).await.unwrap();
        let (app, entrance) = tcp_pair().await;
        (app, tokio::spawn(flow.run(Local::Tcp(entrance), Bytes::new())))
    }

    /// Seconds after the epoch of the tests.
    pub(crate) fn set_clock(&self, seconds: u64) {
        self.clock.set(EPOCH + seconds);
    }

    fn cut_carriers(&self) {
        assert!(self.relay.cut(id(CLIENT), None) > 0);
    }
}

async fn serve_relay(trust: Arc<Trust>) -> (Arc<Relay>, String) {
    let relay = Relay::new(Arc::clone(&trust), crate::relay::Limits::default(), |_| {});
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = Arc::clone(&relay);
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let (relay, config) = (Arc::clone(&serving), trust.server_config(Leg::Carrier).unwrap());
            tokio::spawn(async move {
                if let Ok(tls) = TlsAcceptor::from(config).accept(RecordIo::new(tcp)).await {
                    relay.serve(tls).await;
                }
            });
        }
    });
    (relay, address)
}

pub(crate) async fn until(mut holds: impl FnMut() -> bool) {
    for _ in 0..10_000 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    panic!("does not come to hold");
}

/// Serve one connection after the other with `service`.
pub(crate) async fn service<F: Future<Output = ()> + Send + 'static>(serve: impl Fn(TcpStream) -> F + Send + 'static) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        while let Ok((tcp, _)) = listener.accept().await {
            tokio::spawn(serve(tcp));
        }
    });
    port
}

pub(crate) async fn echo() -> u16 {
    service(|mut tcp| async move {
        let (mut read, mut write) = tcp.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        let _ = write.shutdown().await;
    })
    .await
}

fn byte(i: usize) -> u8 {
    (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]
}

async fn exchange(app: &mut TcpStream, total: usize) {
    let sent: Vec<u8> = (0..total).map(byte).collect();
    let (mut read, mut write) = app.split();
    let mut got = vec![0; total];
    let (wrote, read) = tokio::join!(write.write_all(&sent), read.read_exact(&mut got));
    wrote.unwrap();
    read.unwrap();
    assert!(got == sent);
}
