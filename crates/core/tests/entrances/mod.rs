//! Entrances in front of flows that echo.
#![allow(dead_code, reason = "each test uses its part")]

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use cloister_core::code::Code;
use cloister_core::edge::Edge;
use cloister_core::flow::{Flows, Local, TcpFlow, UdpFlow, Waiting};
use cloister_core::host::Destination;
use cloister_core::segment::Segments;
use tokio::io::AsyncWriteExt;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

/// Opens what is in `codes` as told and everything else as an echo; remembers what was asked for.
#[derive(Default)]
pub struct Echo {
    codes: HashMap<&'static str, Code>,
    asked: Mutex<Vec<String>>,
}

impl Echo {
    fn open(&self, destination: &Destination) -> Result<(), Code> {
        self.asked.lock().unwrap().push(destination.to_string());
        match self.codes.get(destination.host().to_string().as_str()) {
            Some(code) => Err(*code),
            None => Ok(()),
        }
    }

    pub fn asked(&self) -> Vec<String> {
        self.asked.lock().unwrap().clone()
    }
}

impl Flows for Echo {
    fn open_tcp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn TcpFlow>, Code>> {
        Box::pin(async move { self.open(&destination).map(|()| Box::new(EchoTcp) as Box<dyn TcpFlow>) })
    }

    fn open_udp(&self, destination: Destination) -> Waiting<'_, Result<Box<dyn UdpFlow>, Code>> {
        Box::pin(async move {
            let (sender, receiver) = mpsc::unbounded_channel();
            self.open(&destination)
                .map(|()| Box::new(EchoUdp { sender, receiver: tokio::sync::Mutex::new(receiver) }) as Box<dyn UdpFlow>)
        })
    }
}

struct EchoTcp;

impl TcpFlow for EchoTcp {
    fn run(self: Box<Self>, local: Local, early: Bytes) -> Waiting<'static, Code> {
        Box::pin(async move {
            let Local::Tcp(mut stream) = local else { return Code::Internal };
            let (mut read, mut write) = stream.split();
            write.write_all(&early).await.unwrap();
            tokio::io::copy(&mut read, &mut write).await.unwrap();
            // after the end of what is sent: shows that half-close passes
            write.write_all(b"<end>").await.unwrap();
            Code::Ok
        })
    }
}

struct EchoUdp {
    sender: mpsc::UnboundedSender<Bytes>,
    receiver: tokio::sync::Mutex<mpsc::UnboundedReceiver<Bytes>>,
}

impl UdpFlow for EchoUdp {
    fn send(&self, datagram: Bytes) -> bool {
        self.sender.send(datagram).is_ok()
    }

    fn receive(&self) -> Waiting<'_, Result<Bytes, Code>> {
        Box::pin(async move { self.receiver.lock().await.recv().await.ok_or(Code::ServiceReset) })
    }
}

pub const STRANGER: u32 = 4_000_000_001;
const HOSTS: &str = r#"[
    {"id": "00000000000000aa", "name": "jupyter", "hosts": ["jupyter.lab.internal"], "ports": [{"first": 8888, "last": 8888}], "protocol": "tcp"},
    {"id": "00000000000000ab", "name": "team", "hosts": ["*.team.internal"], "ports": [{"first": 1, "last": 1000}], "protocol": "tcp"}
]"#;

pub fn edge(flows: &Arc<Echo>) -> Edge {
    edge_of(flows, None)
}

pub fn edge_of(flows: &Arc<Echo>, owner: Option<u32>) -> Edge {
    let edge = Edge::new(flows.clone(), owner, Handle::current()).unwrap();
    edge.set_catalogue(Arc::new(Segments::parse(HOSTS.as_bytes()).unwrap()));
    edge
}

pub fn refusing(codes: &[(&'static str, Code)]) -> Arc<Echo> {
    Arc::new(Echo { codes: codes.iter().copied().collect(), ..Echo::default() })
}
