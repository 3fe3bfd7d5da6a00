//! What the relay says before it only moves bytes: the hand-over's turns (ARCHITECTURE.md, "Carriers").

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{sleep_until, timeout};

use super::table::READY_DEADLINE;
use super::{FRAME_DEADLINE, Order};
use crate::carrier::{Carried, Framed};
use crate::code::Code;
use crate::frame::{FromConnector, ToClient, ToConnector};
use crate::ids::Id;
use crate::tls::{PeerIdentity, Trust};

const PING_EVERY: Duration = Duration::from_secs(10);
/// An unanswered ping's time until the carrier is dropped.
const PONG_DEADLINE: Duration = Duration::from_secs(5);

/// Pings until the carrier is picked; whether it shall be wrapped.
pub(super) async fn keep_parked(
    trust: &Trust,
    framed: &mut Framed,
    orders: &mut mpsc::Receiver<Order>,
    peer: &PeerIdentity,
) -> Result<bool, Code> {
    let mut number = 0u32;
    let mut asked = None;
    let mut wake = tokio::time::Instant::now() + PING_EVERY;
    loop {
        tokio::select! {
            biased;
            order = orders.recv() => match order {
                Some(Order::Go { wrapped }) => return Ok(wrapped),
                Some(Order::Drop) | None => return Err(Code::Stopped),
            },
            frame = framed.read() => match frame? {
                FromConnector::Pong { n } if asked == Some(n) => {
                    asked = None;
                    wake = tokio::time::Instant::now() + PING_EVERY;
                }
                _ => return Err(Code::ProtocolError),
            },
            () = sleep_until(wake) => {
                if asked.is_some() {
                    return Err(Code::PeerSilent);
                }
                if !trust.still_accepts(peer) {
                    return Err(Code::CertificateExpired);
                }
                number = number.wrapping_add(1);
                asked = Some(number);
                wake = tokio::time::Instant::now() + PONG_DEADLINE;
                timeout(PONG_DEADLINE, framed.write(&ToConnector::Ping { n: number })).await.map_err(|_| Code::PeerSilent)??;
            }
        }
    }
}

/// Says `go` to a picked connector and waits for `ready`; a pong to the last ping may still be under way.
pub(super) async fn go(mut framed: Framed, wrapped: bool, orders: &mut mpsc::Receiver<Order>) -> Result<Carried, Code> {
    let answered = async {
        framed.write(&ToConnector::Go { wrapped }).await?;
        match framed.read().await? {
            FromConnector::Ready {} => Ok(()),
            FromConnector::Pong { .. } if matches!(framed.read().await?, FromConnector::Ready {}) => Ok(()),
            _ => Err(Code::ProtocolError),
        }
    };
    tokio::select! {
        biased;
        _ = orders.recv() => Err(Code::Stopped),
        answered = timeout(READY_DEADLINE, answered) => {
            answered.map_err(|_| Code::PeerSilent)??;
            framed.hand_over(wrapped)
        }
    }
}

pub(super) async fn welcome(mut framed: Framed, connector: Id, wrapped: bool) -> Result<Carried, Code> {
    timeout(FRAME_DEADLINE, framed.write(&ToClient::Go { connector })).await.map_err(|_| Code::PeerSilent)??;
    framed.hand_over(wrapped)
}

pub(super) async fn refuse(mut framed: Framed, code: Code) {
    if let Ok(Ok(())) = timeout(FRAME_DEADLINE, framed.write(&ToClient::Refuse { code })).await {
        framed.close().await;
    }
}
