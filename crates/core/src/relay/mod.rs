//! The relay: takes carriers from the front, parks or joins them by [`table`], then moves bytes by [`splice`].

pub mod splice;
pub mod table;
mod turns;

use std::collections::HashMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};
use tokio::time::{sleep_until, timeout};
use tokio_rustls::server::TlsStream;

use crate::carrier::{Carried, Framed, RecordIo};
use crate::code::Code;
use crate::frame::{FromClient, FromConnector};
use crate::ids::{Id, Role};
use crate::sys::PipePool;
use crate::ticket::{LinkState, Ticket};
use crate::tls::{PeerIdentity, Trust};
use splice::{PIPE_BYTES, PIPES_KEPT, Pair, reset};
pub use table::Limits;
use table::{Action, CarrierId, JoinId, Table};
use turns::{go, keep_parked, refuse, welcome};

/// Time for the first frame, and for any write of ours to a peer.
const FRAME_DEADLINE: Duration = Duration::from_secs(5);
/// Told to a parked carrier's task.
#[derive(Debug)]
enum Order {
    Go { wrapped: bool },
    Drop,
}

/// What a join waits for.
#[derive(Debug)]
enum Answer {
    Ready { carrier: CarrierId, connector: Id, carried: Carried },
    Refused(Code),
}

/// How to end a joined carrier from outside its task.
#[derive(Debug)]
enum Ending {
    Raw(Arc<Pair>),
    Wrapped([OwnedFd; 2]),
}

#[derive(Debug)]
struct State {
    table: Table,
    orders: HashMap<CarrierId, mpsc::Sender<Order>>,
    answers: HashMap<JoinId, oneshot::Sender<Answer>>,
    endings: HashMap<CarrierId, Ending>,
    link: LinkState,
}

/// One relay. `wanted` is told of connectors that joins wait for; it must not block.
pub struct Relay {
    trust: Arc<Trust>,
    state: Mutex<State>,
    pipes: PipePool,
    moved: AtomicU64,
    wanted: Box<dyn Fn(Id) + Send + Sync>,
}

impl std::fmt::Debug for Relay {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Relay")
    }
}

/// Counts of one relay.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayStats {
    pub parked: usize,
    pub joined: usize,
    /// Bytes moved between joined carriers, both ways.
    pub moved: u64,
}

impl Relay {
    pub fn new(trust: Arc<Trust>, limits: Limits, wanted: impl Fn(Id) + Send + Sync + 'static) -> Arc<Relay> {
        let state = State {
            table: Table::new(limits),
            orders: HashMap::new(),
            answers: HashMap::new(),
            endings: HashMap::new(),
            link: LinkState::Up { since: 0 },
        };
        Arc::new(Relay {
            trust,
            state: Mutex::new(state),
            pipes: PipePool::new(PIPES_KEPT, PIPE_BYTES),
            moved: AtomicU64::new(0),
            wanted: Box::new(wanted),
        })
    }

    /// Whether this relay's own link to control is up: while it is not, tickets are judged with their continuity.
    pub fn set_link(&self, link: LinkState) {
        self.lock().link = link;
    }

    /// Ends carriers of this client (to this connector) at once; how many joined ones.
    pub fn cut(&self, client: Id, connector: Option<Id>) -> usize {
        self.act(|table| table.cut(client, connector))
    }

    /// Cuts the pair, and refuses its joins until `unblock`.
    pub fn block(&self, client: Id, connector: Id) -> usize {
        self.act(|table| table.block(client, connector))
    }

    pub fn unblock(&self, client: Id, connector: Id) {
        self.lock().table.unblock(client, connector);
    }

    /// Ends every parked, waiting and joined carrier of this agent; how many.
    pub fn drop_agent(&self, agent: Id) -> usize {
        self.act(|table| table.drop_agent(agent, Instant::now()))
    }

    pub fn drain(&self) {
        self.act(|table| ((), table.drain()));
    }

    pub fn close(&self) {
        self.act(|table| ((), table.close()));
    }

    pub fn parked(&self) -> HashMap<Id, usize> {
        self.lock().table.parked()
    }

    pub fn stats(&self) -> RelayStats {
        let state = self.lock();
        RelayStats {
            parked: state.table.parked_count(),
            joined: state.table.joined_count(),
            moved: self.moved.load(Ordering::Relaxed),
        }
    }

    /// Serves one carrier from its finished handshake to its end.
    pub async fn serve(self: &Arc<Self>, tls: TlsStream<RecordIo>) {
        let framed = Framed::new(tls);
        match framed.peer() {
            Ok(peer) if peer.role == Role::Connector => self.serve_connector(framed, &peer).await,
            Ok(peer) if peer.role == Role::Client => self.serve_client(framed, &peer).await,
            _ => {}
        }
    }

    async fn serve_connector(&self, mut framed: Framed, peer: &PeerIdentity) {
        let Ok(Ok(FromConnector::Park {})) = timeout(FRAME_DEADLINE, framed.read()).await else { return };
        let (sender, mut orders) = mpsc::channel(2);
        let Ok(carrier) = self.park(peer.id, sender) else { return framed.close().await };
        let picked = keep_parked(&self.trust, &mut framed, &mut orders, peer).await;
        let carried = match picked {
            Ok(wrapped) => go(framed, wrapped, &mut orders).await,
            Err(code) => Err(code),
        };
        match carried {
            Ok(carried) => self.deliver(carrier, carried),
            Err(_) => {
                let mut state = self.lock();
                state.orders.remove(&carrier);
                let actions = state.table.gone(carrier, Instant::now());
                self.perform(&mut state, actions);
            }
        }
    }

    fn park(&self, connector: Id, sender: mpsc::Sender<Order>) -> Result<CarrierId, Code> {
        let mut state = self.lock();
        // Revocation and parking meet under this lock: whoever comes second sees the first.
        if self.trust.is_revoked(connector) {
            return Err(Code::AgentRevoked);
        }
        let (carrier, actions) = state.table.park(connector, Instant::now())?;
        state.orders.insert(carrier, sender);
        self.perform(&mut state, actions);
        Ok(carrier)
    }

    fn deliver(&self, carrier: CarrierId, carried: Carried) {
        let mut state = self.lock();
        state.orders.remove(&carrier);
        let Some((join, connector)) = state.table.ready(carrier) else { return reset(carried.tcp()) };
        match state.answers.remove(&join) {
            Some(answer) => drop(answer.send(Answer::Ready { carrier, connector, carried })),
            None => drop(state.table.gone(carrier, Instant::now())),
        }
    }

    async fn serve_client(self: &Arc<Self>, mut framed: Framed, peer: &PeerIdentity) {
        let begun = self.lock().table.begin(peer.id);
        let join = match begun {
            Ok(join) => join,
            Err(code) => return refuse(framed, code).await,
        };
        let left = Leave { relay: self, join };
        let (answer, wrapped) = match self.ask(&mut framed, peer, join).await {
            Ok(asked) => asked,
            Err(code) => {
                drop(left);
                return refuse(framed, code).await;
            }
        };
        let waiting = self.wait(&mut framed, answer, join).await;
        match waiting {
            Ok((carrier, connector, far)) => {
                if let Ok(near) = welcome(framed, connector, wrapped).await {
                    self.join(carrier, near, far).await;
                }
            }
            Err(code) => {
                drop(left);
                refuse(framed, code).await;
            }
        }
    }

    /// Reads and judges the join; then the table has it.
    async fn ask(&self, framed: &mut Framed, peer: &PeerIdentity, join: JoinId) -> Result<(oneshot::Receiver<Answer>, bool), Code> {
        let frame = timeout(FRAME_DEADLINE, framed.read()).await.map_err(|_| Code::HandshakeTimeout)??;
        let FromClient::Join { ticket, connector, wrapped } = frame;
        let ticket = Ticket::verify(&ticket, &self.trust.ticket_keys())?;
        let issuer = self.trust.trust_domain().ok_or(Code::Internal)?;
        let (sender, answer) = oneshot::channel();
        let mut state = self.lock();
        ticket.judge_join(issuer, peer.id, peer.thumbprint, connector, self.trust.now(), state.link)?;
        if self.trust.is_revoked(peer.id) {
            return Err(Code::AgentRevoked);
        }
        let only = connector.map(|connector| [connector]);
        let candidates = only.as_ref().map_or(ticket.connectors.as_slice(), <[Id; 1]>::as_slice);
        state.answers.insert(join, sender);
        let actions = state.table.ask(join, candidates, wrapped, Instant::now());
        self.perform(&mut state, actions);
        Ok((answer, wrapped))
    }

    /// Until a connector is ready; the client must keep still meanwhile.
    async fn wait(
        &self,
        framed: &mut Framed,
        mut answer: oneshot::Receiver<Answer>,
        join: JoinId,
    ) -> Result<(CarrierId, Id, Carried), Code> {
        let until = self.lock().table.waits_until(join).map(tokio::time::Instant::from_std);
        let mut expire = std::pin::pin!(async {
            match until {
                Some(until) => sleep_until(until).await,
                None => std::future::pending().await,
            }
        });
        let mut expired = false;
        loop {
            tokio::select! {
                biased;
                answer = &mut answer => return match answer {
                    Ok(Answer::Ready { carrier, connector, carried }) => Ok((carrier, connector, carried)),
                    Ok(Answer::Refused(code)) => Err(code),
                    Err(_) => Err(Code::Stopped),
                },
                frame = framed.read::<FromClient>() => return Err(frame.map_or_else(|code| code, |_| Code::ProtocolError)),
                () = &mut expire, if !expired => {
                    expired = true;
                    self.act(|table| ((), table.expire(join, Instant::now())));
                }
            }
        }
    }

    /// Moves bytes until the carrier ends. A cut that came meanwhile is found under the lock.
    async fn join(&self, carrier: CarrierId, near: Carried, far: Carried) {
        match (near, far) {
            (Carried::Raw(client), Carried::Raw(connector)) => {
                let pair = Arc::new(Pair { client, connector });
                if self.attach(carrier, Ending::Raw(Arc::clone(&pair))) {
                    let _ = pair.run(&self.pipes, &self.moved).await;
                } else {
                    pair.cut();
                }
            }
            (mut near, mut far) => {
                let copies = (near.tcp().as_fd().try_clone_to_owned(), far.tcp().as_fd().try_clone_to_owned());
                let (Ok(client), Ok(connector)) = copies else { return };
                if self.attach(carrier, Ending::Wrapped([client, connector])) {
                    match tokio::io::copy_bidirectional_with_sizes(&mut near, &mut far, WRAPPED_BUFFER, WRAPPED_BUFFER).await {
                        Ok((up, down)) => drop(self.moved.fetch_add(up + down, Ordering::Relaxed)),
                        Err(_) => [near.tcp(), far.tcp()].into_iter().for_each(reset),
                    }
                } else {
                    [near.tcp(), far.tcp()].into_iter().for_each(reset);
                }
            }
        }
        let mut state = self.lock();
        state.endings.remove(&carrier);
        let actions = state.table.gone(carrier, Instant::now());
        self.perform(&mut state, actions);
    }

    fn attach(&self, carrier: CarrierId, ending: Ending) -> bool {
        let mut state = self.lock();
        let lives = state.table.is_joined(carrier);
        if lives {
            state.endings.insert(carrier, ending);
        }
        lives
    }

    fn act<T>(&self, verb: impl FnOnce(&mut Table) -> (T, Vec<Action>)) -> T {
        let mut state = self.lock();
        let (value, actions) = verb(&mut state.table);
        self.perform(&mut state, actions);
        value
    }

    fn perform(&self, state: &mut State, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Go { carrier, wrapped } => {
                    if let Some(orders) = state.orders.get(&carrier) {
                        let _ = orders.try_send(Order::Go { wrapped });
                    }
                }
                Action::Want { connector } => (self.wanted)(connector),
                Action::Refuse { join, code } => {
                    if let Some(answer) = state.answers.remove(&join) {
                        let _ = answer.send(Answer::Refused(code));
                    }
                }
                Action::Drop { carrier } => {
                    if let Some(orders) = state.orders.remove(&carrier) {
                        let _ = orders.try_send(Order::Drop);
                    }
                    match state.endings.remove(&carrier) {
                        Some(Ending::Raw(pair)) => pair.cut(),
                        Some(Ending::Wrapped(both)) => both.iter().for_each(reset),
                        None => {}
                    }
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Buffer per direction of a wrapped carrier: one TLS record.
const WRAPPED_BUFFER: usize = 16 << 10;

/// A client that goes away, for whatever reason, leaves the table.
struct Leave<'a> {
    relay: &'a Relay,
    join: JoinId,
}

impl Drop for Leave<'_> {
    fn drop(&mut self) {
        let mut state = self.relay.lock();
        state.answers.remove(&self.join);
        let actions = state.table.leave(self.join);
        self.relay.perform(&mut state, actions);
    }
}
