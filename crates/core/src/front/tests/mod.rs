//! The front and the relay over real loopback sockets.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

mod door;
mod handshakes;
mod joined;
mod joins;
mod webs;

use std::sync::Mutex as StdMutex;

use serde_json::json;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener as TokioListener, UnixListener};
use tokio::sync::mpsc;

use super::*;
use crate::carrier::{Carried, Framed, JoinRequest, RelayPlace, join, park};
use crate::dial::{Address, Dialer, Exemptions, Proxy, handshake};
use crate::frame::{CarrierFrame, FromClient, FromConnector, ToClient, ToConnector};
use crate::ids::{Id, Role};
use crate::relay::Limits as RelayLimits;
use crate::testing::{Issuer, claims};
use crate::testing_ca::{Ca, Clock, DOMAIN, EPOCH, Leaf, id};

const NOW: u64 = EPOCH + 60;
const CONTROL: u64 = 1;
const RELAY: u64 = 2;
const CONNECTOR: u64 = 0xc1;
const CLIENT: u64 = 0xd1;

/// One exchange with links, a relay and a web socket, a connector and a client.
struct World {
    ca: Ca,
    issuer: Issuer,
    exchange: Arc<Trust>,
    front: Arc<Front>,
    relay: Arc<Relay>,
    connector: Arc<Trust>,
    client: Arc<Trust>,
    client_thumbprint: String,
    dialer: Dialer,
    links: StdMutex<mpsc::UnboundedReceiver<AcceptedLink>>,
    wanted: StdMutex<mpsc::UnboundedReceiver<Id>>,
    web: UnixListener,
    _web_directory: Scratch,
}

/// A directory removed in the end.
struct Scratch(PathBuf);

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

impl World {
    fn new() -> World {
        World::with(Limits::default())
    }

    fn with(limits: Limits) -> World {
        let (ca, issuer) = (Ca::new(DOMAIN), Issuer::new("k1"));
        let (control, relay_leaf) = (ca.leaf(Role::Control, id(CONTROL)), ca.leaf(Role::Relay, id(RELAY)));
        let exchange = ca.trust(&[(Role::Control, &control), (Role::Relay, &relay_leaf)]);
        exchange.set_ticket_keys(issuer.keys());
        exchange.set_web(control.chain.as_bytes(), control.key.as_bytes()).unwrap();
        let (wanted_sender, wanted) = mpsc::unbounded_channel();
        let relay = Relay::new(Arc::clone(&exchange), RelayLimits::default(), move |connector| _ = wanted_sender.send(connector));
        let (link_sender, links) = mpsc::unbounded_channel();
        let directory = std::env::temp_dir().join(format!("cloister-front-{}-{:p}", std::process::id(), Arc::as_ptr(&exchange)));
        std::fs::create_dir_all(&directory).unwrap();
        let web = UnixListener::bind(directory.join("web")).unwrap();
        let config = Config {
            address: SocketAddr::from(([127, 0, 0, 1], 0)),
            links: Some(Box::new(move |link| drop(link_sender.send(link)))),
            relay: Some(Arc::clone(&relay)),
            web: Some(directory.join("web")),
            limits,
        };
        let front = Front::listen(Arc::clone(&exchange), config, &[Handle::current()]).unwrap();
        let (connector_leaf, client_leaf) = (ca.leaf(Role::Connector, id(CONNECTOR)), ca.leaf(Role::Client, id(CLIENT)));
        let connector = ca.trust(&[(Role::Connector, &connector_leaf)]);
        let client = ca.trust(&[(Role::Client, &client_leaf)]);
        World {
            client_thumbprint: client.own(Role::Client).unwrap().thumbprint.to_string(),
            dialer: Dialer::default(),
            links: StdMutex::new(links),
            wanted: StdMutex::new(wanted),
            web,
            _web_directory: Scratch(directory),
            ca,
            issuer,
            exchange,
            front,
            relay,
            connector,
            client,
        }
    }

    fn place(&self) -> RelayPlace {
        RelayPlace { id: Some(id(RELAY)), address: Address { host: "127.0.0.1".into(), port: self.front.address().port() } }
    }

    fn ticket(&self, edit: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut claims = claims();
        claims["iss"] = json!(DOMAIN);
        claims["iat"] = json!(NOW);
        claims["exp"] = json!(NOW + 300);
        claims["cnf"]["jkt"] = json!(self.client_thumbprint);
        edit(&mut claims);
        self.issuer.sign(&claims)
    }

    async fn join_with(&self, ticket: String, connector: Option<Id>, wrapped: bool) -> Result<Carried, Code> {
        let joined = join(&self.client, &self.dialer, &self.place(), JoinRequest { ticket, connector, wrapped }).await?;
        assert_eq!(joined.connector, id(CONNECTOR));
        Ok(joined.io)
    }

    async fn join(&self) -> Result<Carried, Code> {
        self.join_with(self.ticket(|_| {}), Some(id(CONNECTOR)), false).await
    }

    /// Parks one carrier; the task ends with what became of it.
    async fn park(&self) -> tokio::task::JoinHandle<Result<Carried, Code>> {
        let before = self.relay.stats().parked;
        let parked = park(&self.connector, &self.dialer, &self.place()).await.unwrap();
        let task = tokio::spawn(parked.wait());
        until(|| self.relay.stats().parked > before || task.is_finished()).await;
        task
    }

    async fn pair(&self, wrapped: bool) -> (Carried, Carried) {
        let parked = self.park().await;
        let near = self.join_with(self.ticket(|_| {}), Some(id(CONNECTOR)), wrapped).await.unwrap();
        (near, parked.await.unwrap().unwrap())
    }

    async fn framed(&self, trust: &Arc<Trust>, role: Role) -> Result<Framed, Code> {
        let config = trust.client_config(Leg::Carrier, role, None)?;
        let tcp = TcpStream::connect(self.front.address()).await.unwrap();
        Ok(Framed::new(handshake(RecordIo::new(tcp), "127.0.0.1", Leg::Carrier, config, soon()).await?))
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(5)
}

/// Waits for a condition that another task brings about.
async fn until(mut holds: impl FnMut() -> bool) {
    while !holds() {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed | 1;
    (0..length)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            (state >> 32) as u8
        })
        .collect()
}

/// Sends all of it, ends this direction, and reads until the other side ended its own.
async fn talk(io: Carried, data: Vec<u8>) -> Vec<u8> {
    let (mut read, mut write) = tokio::io::split(io);
    let sending = async {
        write.write_all(&data).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut got = Vec::new();
    let (_, result) = tokio::join!(sending, read.read_to_end(&mut got));
    result.unwrap();
    got
}

async fn ends(mut io: impl AsyncRead + Unpin) -> bool {
    let mut buffer = vec![0; 1 << 16];
    loop {
        match io.read(&mut buffer).await {
            Ok(0) | Err(_) => return true,
            Ok(_) => {}
        }
    }
}
