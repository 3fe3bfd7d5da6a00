//! Client, relay and connector in one process, each on its own thread, with a load beside them: CPU time per thread and what was moved.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use cloister_core::address::Guard;
use cloister_core::carrier::{RecordIo, RelayPlace};
use cloister_core::client::sessions::Grant;
use cloister_core::client::{self, Client, Settings};
use cloister_core::connector::{Connector, Parts};
use cloister_core::dial::Address;
use cloister_core::flow::{Flows, Local};
use cloister_core::host::{Destination, Protocol};
use cloister_core::ids::{Id, Role};
use cloister_core::lasthop::LastHop;
use cloister_core::record::Spool;
use cloister_core::relay::Relay;
use cloister_core::runtime::Events;
use cloister_core::segment::Segments;
use cloister_core::ticket::TicketKeys;
use cloister_core::tls::{Leg, Trust};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose, SanType};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

const DOMAIN: &str = "0123456789abcdef.cloister";

fn id(n: u64) -> Id {
    Id::from_bytes(n.to_be_bytes())
}

struct Ca {
    root: String,
    issuing: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    fn new() -> Self {
        let ca = |constraint| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.is_ca = IsCa::Ca(constraint);
            params.use_authority_key_identifier_extension = true;
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            params
        };
        let mut params = ca(BasicConstraints::Constrained(1));
        params.distinguished_name.push(rcgen::DnType::CommonName, "root");
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().pem();
        let root_issuer = Issuer::new(params, key);
        let mut params = ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(rcgen::DnType::CommonName, "issuing");
        let key = KeyPair::generate().unwrap();
        let issuing = params.signed_by(&key, &root_issuer).unwrap().pem();
        Self { root, issuing, issuer: Issuer::new(params, key) }
    }

    fn trust(&self, role: Role, id: Id) -> Arc<Trust> {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.subject_alt_names = vec![SanType::URI(format!("spiffe://{DOMAIN}/{}/{id}", role.as_str()).try_into().unwrap())];
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

/// A thread with a single-threaded runtime, as the core makes them.
fn thread(name: &'static str) -> Handle {
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::Builder::new()
        .name(name.into())
        .spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            send.send(runtime.handle().clone()).unwrap();
            runtime.block_on(std::future::pending::<()>());
        })
        .unwrap();
    receive.recv().unwrap()
}

/// (user, system) ticks of the threads of that name.
fn cpu(name: &str) -> (u64, u64) {
    let mut sum = (0, 0);
    for entry in std::fs::read_dir("/proc/self/task").unwrap() {
        let stat = std::fs::read_to_string(entry.unwrap().path().join("stat")).unwrap();
        let (head, tail) = stat.rsplit_once(')').unwrap();
        if head.ends_with(&format!("({name}")) {
            let fields: Vec<&str> = tail.split_whitespace().collect();
            sum = (sum.0 + fields[11].parse::<u64>().unwrap(), sum.1 + fields[12].parse::<u64>().unwrap());
        }
    }
    sum
}

fn rss_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap().trim().trim_end_matches(" kB").trim().parse().unwrap()
}

struct Chain {
    flows: Arc<dyn Flows>,
    entrance: u16,
    _client: Client,
    _connector: Connector,
}

fn chain(target: u16) -> Chain {
    let ca = Ca::new();
    let key = Ed25519KeyPair::generate().unwrap();
    let keys = || TicketKeys::new([("k1".to_owned(), key.public_key().as_ref())]).unwrap();
    let (at_client, at_relay, at_connector) = (thread("client"), thread("relay"), thread("connector"));

    let trust = ca.trust(Role::Relay, id(0xe1));
    trust.set_ticket_keys(keys());
    let relay = Relay::new(Arc::clone(&trust), Default::default(), |_| {});
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    listener.set_nonblocking(true).unwrap();
    at_relay.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let (relay, config) = (Arc::clone(&relay), trust.server_config(Leg::Carrier).unwrap());
            tokio::spawn(async move {
                if let Ok(tls) = tokio_rustls::TlsAcceptor::from(config).accept(RecordIo::new(tcp)).await {
                    relay.serve(tls).await;
                }
            });
        }
    });
    let place = RelayPlace { id: Some(id(0xe1)), address: Address::parse(&address).unwrap() };

    let trust = ca.trust(Role::Connector, id(0xc1));
    trust.set_ticket_keys(keys());
    let directory = std::env::temp_dir().join(format!("chain-{}", std::process::id()));
    std::fs::create_dir_all(&directory).unwrap();
    let connector = Connector::new(Parts {
        trust,
        dialer: Arc::default(),
        events: Arc::new(Events::new(1000).unwrap()),
        stats: Arc::default(),
        last_hop: LastHop::system(Guard::default()),
        spool: Some(Arc::new(Spool::open(&directory, id(0xc1), 256 << 20).unwrap())),
        runtime: at_connector,
    })
    .unwrap();
    connector.link_up();
    let hosts = json!({"id": id(0xa1).to_string(), "hosts": ["127.0.0.1"], "ports": [[1, 65535]], "protocol": "tcp"});
    let mut assigned = hosts.clone();
    assigned["allow"] = json!(["127.0.0.1/32"]);
    connector.assign(json!([assigned]).to_string().as_bytes()).unwrap();
    connector.snapshot(1, []);
    connector.set_relays(vec![(id(0xe1), place.clone())], 2).unwrap();

    let trust = ca.trust(Role::Client, id(0xd1));
    let jkt = trust.own(Role::Client).unwrap().thumbprint.to_string();
    let now = trust.now();
    let client = Client::new(client::Parts {
        trust,
        dialer: Arc::default(),
        events: Arc::new(Events::new(1000).unwrap()),
        stats: Arc::default(),
        runtime: at_client.clone(),
        settings: Settings::default(),
    });
    let mut visible = hosts;
    visible["name"] = json!("all");
    client.set_catalogue(Arc::new(Segments::parse(json!([visible]).to_string().as_bytes()).unwrap()));
    client.set_relays(vec![(id(0xe1), place)]);
    let claims = json!({
        "iss": DOMAIN, "jti": "j1", "sid": id(0x51).to_string(), "sub": "user:alice", "dev": id(0xd1).to_string(),
        "seg": id(0xa1).to_string(), "con": [id(0xc1).to_string()],
        "aud": [format!("segment:{}", id(0xa1)), format!("connector:{}", id(0xc1))],
        "cnf": {"jkt": jkt}, "iat": now, "exp": now + 300, "gen": 5, "cty": 0, "rul": ["r1"],
    });
    let header = json!({"alg": "EdDSA", "typ": "cloister-ticket+jwt", "kid": "k1"});
    let signed = format!("{}.{}", URL_SAFE_NO_PAD.encode(header.to_string()), URL_SAFE_NO_PAD.encode(claims.to_string()));
    let ticket = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(key.sign(signed.as_bytes()).as_ref()));
    let grant = Grant {
        session: id(0x51),
        segment: id(0xa1),
        ticket: ticket.parse().unwrap(),
        connectors: vec![id(0xc1)],
        relays: vec![id(0xe1)],
        expires: now + 300,
    };
    client.grant(None, grant).unwrap();

    // An entrance as `forward` is one.
    let flows = client.flows();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let entrance = listener.local_addr().unwrap().port();
    listener.set_nonblocking(true).unwrap();
    let opening = Arc::clone(&flows);
    at_client.spawn(async move {
        let listener = TcpListener::from_std(listener).unwrap();
        while let Ok((tcp, _)) = listener.accept().await {
            tcp.set_nodelay(true).unwrap();
            let flows = Arc::clone(&opening);
            tokio::spawn(async move {
                let destination = Destination::parse("127.0.0.1", target, Protocol::Tcp).unwrap();
                match flows.open_tcp(destination).await {
                    Ok(flow) => drop(flow.run(Local::Tcp(tcp), Bytes::new()).await),
                    Err(code) => eprintln!("{code}"),
                }
            });
        }
    });
    std::thread::sleep(Duration::from_millis(300));
    Chain { flows, entrance, _client: client, _connector: connector }
}

/// First byte says what the service does: `e` echo, `s` sink (answers one byte at the end), `g` give until closed, `q` one byte and close.
async fn serve(mut tcp: TcpStream) {
    let _ = tcp.set_nodelay(true);
    let mut what = [0];
    if tcp.read_exact(&mut what).await.is_err() {
        return;
    }
    let mut buffer = vec![0; if what[0] == b'e' { 4 << 10 } else { 256 << 10 }];
    match what[0] {
        b'e' => loop {
            match tcp.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => drop(tcp.write_all(&buffer[..count]).await),
            }
        },
        b's' => {
            while !matches!(tcp.read(&mut buffer).await, Ok(0) | Err(_)) {}
            let _ = tcp.write_all(b"k").await;
        }
        b'g' => while tcp.write_all(&buffer).await.is_ok() {},
        _ => drop(tcp.write_all(b"k").await),
    }
}

async fn connect(port: u16, what: u8) -> TcpStream {
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    tcp.set_nodelay(true).unwrap();
    tcp.write_all(&[what]).await.unwrap();
    tcp
}

static LEAST: AtomicU64 = AtomicU64::new(0);

struct Meter {
    begun: Instant,
    cpu: Vec<(u64, u64)>,
}

const PARTS: [&str; 3] = ["client", "relay", "connector"];

impl Meter {
    fn start() -> Self {
        Self { begun: Instant::now(), cpu: PARTS.iter().map(|name| cpu(name)).collect() }
    }

    /// `units` done; prints units per second and CPU per unit (in `scale`-ths of a second).
    fn report(&self, title: &str, units: f64, unit: &str, scale: f64) {
        let seconds = self.begun.elapsed().as_secs_f64();
        let mut line = format!("{title:<14} {:>12.1} {unit}/s", units / seconds);
        let mut total = 0.0;
        for (name, before) in PARTS.iter().zip(&self.cpu) {
            let after = cpu(name);
            let (user, system) = ((after.0 - before.0) as f64 / 100.0, (after.1 - before.1) as f64 / 100.0);
            total += user + system;
            line += &format!("  {name} {:.3}+{:.3}", user / units * scale, system / units * scale);
        }
        println!("{line}  all {:.3} per {unit}", total / units * scale);
    }
}

async fn bulk(port: u16, up: bool, streams: usize, time: Duration) {
    let moved = Arc::new(AtomicU64::new(0));
    let mut tasks = Vec::new();
    let meter = Meter::start();
    for _ in 0..streams {
        let moved = Arc::clone(&moved);
        tasks.push(tokio::spawn(async move {
            let mut tcp = connect(port, if up { b's' } else { b'g' }).await;
            let mut buffer = vec![7; 256 << 10];
            let begun = Instant::now();
            while begun.elapsed() < time {
                let count = if up { tcp.write(&buffer).await.unwrap() } else { tcp.read(&mut buffer).await.unwrap() };
                moved.fetch_add(count as u64, Relaxed);
            }
            if up {
                tcp.shutdown().await.unwrap();
                tcp.read_exact(&mut [0]).await.unwrap();
            }
        }));
    }
    let sampled = Arc::clone(&moved);
    let sampling = tokio::spawn(async move {
        let mut least = u64::MAX;
        let mut last = 0;
        loop {
            tokio::time::sleep(Duration::from_millis(250)).await;
            let now = sampled.load(Relaxed);
            least = least.min(now - last);
            last = now;
            LEAST.store(least, Relaxed);
        }
    });
    for task in tasks {
        task.await.unwrap();
    }
    sampling.abort();
    println!("    least in 250 ms: {} MB", LEAST.load(Relaxed) / 1_000_000);
    meter.report(&format!("bulk {} {streams}", if up { "up" } else { "down" }), moved.load(Relaxed) as f64 / 1e9, "GB", 1.0);
}

async fn ping(port: u16, connections: usize, time: Duration) {
    let mut tasks = Vec::new();
    let meter = Meter::start();
    for _ in 0..connections {
        tasks.push(tokio::spawn(async move {
            let mut tcp = connect(port, b'e').await;
            let begun = Instant::now();
            let mut buffer = [7; 64];
            let mut count = 0;
            let mut times = Vec::new();
            while begun.elapsed() < time {
                let at = Instant::now();
                tcp.write_all(&buffer).await.unwrap();
                tcp.read_exact(&mut buffer).await.unwrap();
                times.push(at.elapsed());
                count += 1;
            }
            (count, times)
        }));
    }
    let mut total = 0;
    let mut times = Vec::new();
    for task in tasks {
        let (count, some) = task.await.unwrap();
        total += count;
        times.extend(some);
    }
    times.sort();
    meter.report(&format!("ping {connections}"), f64::from(total), "req", 1e6);
    println!("    p50 {:?} p99 {:?}", times[times.len() / 2], times[times.len() * 99 / 100]);
}

async fn churn(port: u16, workers: usize, time: Duration) {
    let mut tasks = Vec::new();
    let meter = Meter::start();
    for _ in 0..workers {
        tasks.push(tokio::spawn(async move {
            let begun = Instant::now();
            let mut count = 0;
            while begun.elapsed() < time {
                let mut tcp = connect(port, b'q').await;
                let mut rest = Vec::new();
                tcp.read_to_end(&mut rest).await.unwrap();
                assert_eq!(rest, b"k");
                count += 1;
            }
            count
        }));
    }
    let mut total = 0;
    for task in tasks {
        total += task.await.unwrap();
    }
    meter.report(&format!("new {workers}"), f64::from(total), "conn", 1e6);
}

async fn idle(port: u16, flows: usize) {
    let before = rss_kib();
    let mut open = Vec::new();
    for _ in 0..flows {
        let mut tcp = connect(port, b'e').await;
        tcp.write_all(b"x").await.unwrap();
        tcp.read_exact(&mut [0]).await.unwrap();
        open.push(tcp);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    println!("idle {flows}: {:.2} KiB of client and connector (and load) per flow", (rss_kib() - before) as f64 / flows as f64);
}

fn main() {
    let wanted: Vec<String> = std::env::args().skip(1).collect();
    let time = Duration::from_secs(std::env::var("SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(3));
    let load = tokio::runtime::Builder::new_multi_thread().worker_threads(2).thread_name("load").enable_all().build().unwrap();
    load.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                tokio::spawn(serve(tcp));
            }
        });
        let chain = tokio::task::spawn_blocking(move || chain(target)).await.unwrap();
        let port = chain.entrance;
        let _ = &chain.flows;
        let has = |name: &str| wanted.is_empty() || wanted.iter().any(|word| word == name);
        if has("bulk") {
            for (up, streams) in [(true, 1), (false, 1), (true, 8), (false, 8)] {
                bulk(port, up, streams, time).await;
            }
        }
        if has("ping") {
            ping(port, 1, time).await;
            ping(port, 64, time).await;
        }
        if has("stalled") {
            tokio::join!(bulk(port, false, 1, time), ping(port, 1, time));
            let mut stalled = Vec::new();
            for _ in 0..200 {
                let tcp = connect(port, b'g').await;
                stalled.push(tcp);
            }
            tokio::time::sleep(Duration::from_secs(6)).await;
            println!("  beside 200 stalled flows:");
            tokio::join!(bulk(port, false, 1, time), ping(port, 1, time));
            drop(stalled);
        }
        if has("new") {
            churn(port, 32, time).await;
        }
        if has("idle") {
            idle(port, 2000).await;
        }
    });
    std::process::exit(0);
}
