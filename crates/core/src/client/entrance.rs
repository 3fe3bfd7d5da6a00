//! A local end's way in: each flow is entered in its session for as long as it lives.

use std::sync::Arc;

use bytes::Bytes;

use super::Plane;
use super::sessions::Grant;
use crate::code::Code;
use crate::flow::datagrams::Datagrams;
use crate::flow::live::{Endable, Live};
use crate::flow::pump::{End, Pump};
use crate::flow::{Flows, Local, TcpFlow, UdpFlow, Waiting};
use crate::host::Destination;
use crate::ids::Id;
use crate::tunnel::client::{FlowGuard, Opened};
use crate::tunnel::stream::code_of_end;

/// Where flows come in.
pub(super) struct Entrance(pub(super) Arc<Plane>);

impl Flows for Entrance {
    fn open_tcp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn TcpFlow>, Code>> {
        Box::pin(async move {
            let (grant, opened, guard) = self.0.open(&destination).await?;
            let live = Live::new();
            let place = Place::enter(&self.0, &grant, live.clone(), guard)?;
            Ok(Box::new(Tcp { live, opened, place }) as Box<dyn TcpFlow>)
        })
    }

    fn open_udp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn UdpFlow>, Code>> {
        Box::pin(async move {
            let (grant, opened, guard) = self.0.open(&destination).await?;
            let datagrams = Arc::new(Datagrams::new(End::Client, opened.send, opened.receive, Arc::clone(guard.tunnel().load())));
            let place = Place::enter(&self.0, &grant, datagrams.clone(), guard)?;
            Ok(Box::new(Udp { datagrams, place }) as Box<dyn UdpFlow>)
        })
    }
}

/// A flow entered in its session; leaves it when dropped.
struct Place {
    plane: Arc<Plane>,
    session: Id,
    number: u64,
    guard: FlowGuard,
}

impl Place {
    fn enter(plane: &Arc<Plane>, grant: &Grant, flow: Arc<dyn Endable>, guard: FlowGuard) -> Result<Place, Code> {
        let number = plane.lock().enter(grant.session, flow).ok_or(Code::SessionRevoked)?;
        plane.stats.flows.add(1);
        plane.stats.flows_opened.add(1);
        Ok(Place { plane: Arc::clone(plane), session: grant.session, number, guard })
    }

    fn code_of_end(&self, code: Code) -> Code {
        code_of_end(code, Some(&self.guard.tunnel().handle()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let moved = self.plane.lock().leave(self.session, self.number);
        self.plane.stats.flows.sub(1);
        self.plane.stats.bytes_in.add(moved.received);
        self.plane.stats.bytes_out.add(moved.sent);
    }
}

struct Tcp {
    live: Arc<Live>,
    opened: Opened,
    place: Place,
}

impl TcpFlow for Tcp {
    fn run(self: Box<Self>, local: Local, early: Bytes) -> Waiting<'static, Code> {
        let Tcp { live, opened, place } = *self;
        let started = live.start(Pump::new(End::Client, local, opened.send, opened.receive, early));
        Box::pin(async move {
            match started {
                Ok(()) => place.code_of_end(live.run(place.guard.tunnel().load()).await.0),
                Err(code) => code,
            }
        })
    }
}

struct Udp {
    datagrams: Arc<Datagrams>,
    place: Place,
}

impl UdpFlow for Udp {
    fn send(&self, datagram: Bytes) -> bool {
        self.datagrams.send(&datagram)
    }

    fn receive(&self) -> Waiting<'_, Result<Bytes, Code>> {
        Box::pin(async { self.datagrams.receive().await.map_err(|code| self.place.code_of_end(code)) })
    }
}
