//! Case 55: no spelling of a forbidden address leads a connector there. Runs any file of the form of `tests/data/attacks/ssrf.json`:
//! `make test-ssrf FORMS=FILE`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use cloister_core::address::{Guard, forbidden};
use cloister_core::code::Code;
use cloister_core::host::{Destination, Host, Name, Protocol, parse_authority, parse_host};
use cloister_core::lasthop::{Connect, LastHop, Resolve};
use cloister_core::segment::{Assignment, Pattern, Segments};
use tokio::net::{TcpListener, TcpStream};

#[derive(serde::Deserialize)]
struct File {
    cases: Vec<Case>,
}

#[derive(serde::Deserialize)]
struct Case {
    target: Option<String>,
    kind: String,
    form: String,
    text: String,
    must: String,
    #[serde(default)]
    resolves_to: Option<Answers>,
}

#[derive(Clone, serde::Deserialize)]
#[serde(untagged)]
enum Answers {
    One(String),
    Many(Vec<String>),
}

impl Answers {
    fn addresses(&self) -> Vec<IpAddr> {
        match self {
            Answers::One(text) => vec![text.parse().unwrap()],
            Answers::Many(texts) => texts.iter().map(|text| text.parse().unwrap()).collect(),
        }
    }
}

const ALLOWED: &str = "10.20.30.41";

/// Answers with what the case says, and `allowed.example` with an ordinary address.
struct Names(HashMap<Name, Vec<IpAddr>>);

impl Resolve for Names {
    fn resolve(&self, name: &Name) -> Pin<Box<dyn Future<Output = io::Result<Vec<IpAddr>>> + Send + '_>> {
        let answer = self.0.get(name).cloned().unwrap_or_default();
        Box::pin(async move { Ok(answer) })
    }
}

/// Remembers what is dialled and leads all of it to a listener here.
struct Network {
    dialled: Mutex<Vec<SocketAddr>>,
    listener: SocketAddr,
}

impl Connect for Network {
    fn connect(&self, address: SocketAddr) -> Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'static>> {
        self.dialled.lock().unwrap().push(address);
        Box::pin(TcpStream::connect(self.listener))
    }
}

/// What became of one text: malformed, or the result of the dial and the addresses dialled.
struct Outcome {
    result: Result<(), Code>,
    host: Option<Host>,
    dialled: Vec<IpAddr>,
}

async fn attempt(case: &Case, text: &str, own: &[IpAddr], listener: SocketAddr) -> Outcome {
    let parsed = match case.kind.as_str() {
        "authority" => parse_authority(text.as_bytes()),
        _ => parse_host(text.as_bytes()).map(|host| (host, 443)),
    };
    let Ok((host, port)) = parsed else {
        assert!(case.kind == "authority" || Pattern::parse(text).is_err(), "a segment may name {text:?}, and the dial may not");
        return Outcome { result: Err(Code::HostMalformed), host: None, dialled: Vec::new() };
    };
    // the segment names this very text, as an operator would write it
    let named = if case.kind == "authority" { host.to_string() } else { text.to_owned() };
    let assignment = serde_json::json!([{"id": "0123456789abcdef", "hosts": [named], "ports": [{"first": port, "last": port}], "protocol": "tcp"}]);
    let segments: Segments<Assignment> = Segments::parse(assignment.to_string().as_bytes()).unwrap();
    let destination = Destination::new(host.clone(), port, Protocol::Tcp).unwrap();
    let segment = segments.find(&destination).expect("a segment contains what it names");
    let mut names = HashMap::new();
    names.insert(cloister_core::host::parse_name(b"allowed.example").unwrap(), vec![ALLOWED.parse().unwrap()]);
    if let (Host::Name(name), Some(answers)) = (&host, &case.resolves_to) {
        names.insert(name.clone(), answers.addresses());
    }
    let network = Arc::new(Network { dialled: Mutex::default(), listener });
    let hop = LastHop::new(Arc::new(Names(names)), network.clone(), Guard::new(own.iter().copied()));
    let result = hop.dial_tcp(&destination, &segment.allow).await.result.map(|_| ());
    let dialled = network.dialled.lock().unwrap().iter().map(SocketAddr::ip).collect();
    Outcome { result, host: Some(host), dialled }
}

fn is_right(case: &Case, outcome: &Outcome) -> bool {
    if case.must == "allow" {
        return outcome.result.is_ok() && !outcome.dialled.is_empty();
    }
    if outcome.dialled.is_empty() {
        return matches!(outcome.result, Err(Code::HostMalformed | Code::AddressForbidden));
    }
    // only an authority that begins with the allowed name, and ends with a port, has that name in the host's place
    case.kind == "authority"
        && outcome.host.as_ref().is_some_and(|host| host.to_string() == "allowed.example")
        && case.text.split(':').next().is_some_and(|host| host.trim_end_matches('.').eq_ignore_ascii_case("allowed.example"))
}

#[tokio::test]
async fn case_55_every_spelling_is_refused_and_every_control_connects() {
    let path = std::env::var("FORMS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/attacks/ssrf.json").to_string());
    let file: File =
        serde_json::from_slice(&std::fs::read(&path).unwrap_or_else(|error| panic!("cannot read `{path}`: {error}"))).unwrap();
    // targets that are forbidden for what they are to this site (an API server, the exchange), not for their form
    let own: Vec<IpAddr> = file
        .cases
        .iter()
        .filter_map(|case| case.target.as_deref()?.parse().ok())
        .filter(|address| forbidden(*address).is_none())
        .collect();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { while listener.accept().await.is_ok() {} });

    let mut wrong = Vec::new();
    let (mut refused, mut connected) = (0, 0);
    for case in &file.cases {
        let mut outcomes = vec![attempt(case, &case.text, &own, address).await];
        if case.kind == "authority" {
            // a URL may leave the port out
            outcomes.push(attempt(case, &format!("{}:443", case.text), &own, address).await);
        }
        let right = match case.must.as_str() {
            "allow" => outcomes.iter().any(|outcome| is_right(case, outcome)),
            "refuse" => outcomes.iter().all(|outcome| is_right(case, outcome)),
            other => panic!("unknown `must`: `{other}`"),
        };
        match (right, case.must.as_str()) {
            (true, "allow") => connected += 1,
            (true, _) => refused += 1,
            (false, must) => wrong.push(format!("{} {} {must} {:?}", case.kind, case.form, case.text)),
        }
    }
    println!("{} cases: {refused} refused, {connected} connected, {} wrong", file.cases.len(), wrong.len());
    assert!(wrong.is_empty(), "wrong:\n{}", wrong.join("\n"));
    assert!(!file.cases.is_empty());
}
