use std::sync::Arc;

use hickory_proto::rr::rdata::HTTPS;
use hickory_proto::rr::rdata::opt::{ClientSubnet, EdnsOption};
use hickory_proto::rr::rdata::svcb::{IpHint, SvcParamKey};

use super::super::names::{Names, Pools};
use super::*;
use crate::segment::Segments;

const VISIBLE: &str = r#"[
    {"id": "a", "name": "jupyter", "hosts": ["jupyter.lab.internal"], "ports": [{"first": 8888, "last": 8888}], "protocol": "tcp"},
    {"id": "b", "name": "team", "hosts": ["*.team.example"], "ports": [{"first": 1, "last": 1000}], "protocol": "tcp"},
    {"id": "c", "name": "bare", "hosts": ["bare.example"], "ports": [{"first": 1, "last": 1000}], "protocol": "tcp", "healthy": false}
]"#;
const TYPES: [RecordType; 10] = [
    RecordType::A,
    RecordType::AAAA,
    RecordType::HTTPS,
    RecordType::SVCB,
    RecordType::PTR,
    RecordType::ANY,
    RecordType::TXT,
    RecordType::SOA,
    RecordType::NS,
    RecordType::SRV,
];

struct Zone {
    names: Names,
    suffixes: Vec<Name>,
    now: Instant,
}

impl Zone {
    fn new() -> Self {
        let mut names = Names::new(Pools::parse("100.64.0.0/16", "fd12:3456:789a::/64").unwrap());
        let now = Instant::now();
        names.set_catalogue(Arc::new(Segments::parse(VISIBLE.as_bytes()).unwrap()), now);
        Zone { names, suffixes: vec![parse_name(b"lab.internal").unwrap()], now }
    }

    fn reply(&mut self, query: &Message) -> Reply {
        answer(&query.to_vec().unwrap(), &mut self.names, &self.suffixes, self.now)
    }

    fn ask(&mut self, name: &str, kind: RecordType) -> Reply {
        self.reply(&question(name, kind))
    }

    fn local(&mut self, name: &str, kind: RecordType) -> Message {
        match self.ask(name, kind) {
            Reply::Local(bytes) => Message::from_vec(&bytes).unwrap(),
            other => panic!("{name} {kind}: {other:?}"),
        }
    }
}

fn question(name: &str, kind: RecordType) -> Message {
    let mut message = Message::new(0x1234, MessageType::Query, OpCode::Query);
    message.metadata.recursion_desired = true;
    message.add_query(Query::query(DnsName::from_ascii(name).unwrap(), kind));
    message
}

fn addresses(message: &Message) -> Vec<IpAddr> {
    let address = |record: &Record| match &record.data {
        RData::A(address) => Some(address.0.into()),
        RData::AAAA(address) => Some(address.0.into()),
        _ => None,
    };
    message.answers.iter().filter_map(address).collect()
}

#[test]
fn visible_name_has_its_synthetic_addresses_with_a_short_life() {
    let mut zone = Zone::new();
    let v4 = zone.local("jupyter.lab.internal.", RecordType::A);
    let v6 = zone.local("jupyter.lab.internal.", RecordType::AAAA);
    assert_eq!(addresses(&v4).len() + addresses(&v6).len(), 2);
    assert!(addresses(&v4).iter().chain(&addresses(&v6)).all(|address| zone.names.pools().contains(*address)));
    assert_eq!(v4.answers[0].ttl, TTL);
    assert_eq!((v4.metadata.id, v4.metadata.response_code), (0x1234, ResponseCode::NoError));
    assert_eq!(addresses(&zone.local("any.team.example.", RecordType::A)).len(), 1);
    assert_eq!(addresses(&zone.local("bare.example.", RecordType::A)).len(), 1, "an unhealthy segment resolves");
}

#[test]
fn without_ipv6_names_have_ipv4_addresses_only() {
    let mut zone = Zone::new();
    zone.names.leave_out_ipv6();
    let answer = zone.local("jupyter.lab.internal.", RecordType::AAAA);
    assert_eq!((answer.metadata.response_code, answer.answers.len(), answer.authorities.len()), (ResponseCode::NoError, 0, 1));
    assert!(zone.names.captured().iter().all(|(address, ..)| address.is_ipv4()));
}

#[test]
fn case_70_visible_name_tells_nothing_but_its_synthetic_addresses() {
    let mut zone = Zone::new();
    for kind in TYPES {
        let answer = zone.local("jupyter.lab.internal.", kind);
        assert_eq!(answer.metadata.response_code, ResponseCode::NoError);
        assert_eq!(answer.answers.len(), addresses(&answer).len(), "{kind}");
        assert_eq!(answer.answers.is_empty(), !matches!(kind, RecordType::A | RecordType::AAAA | RecordType::ANY));
    }
}

#[test]
fn case_70_name_below_a_private_suffix_does_not_exist_in_any_type_or_case() {
    let mut zone = Zone::new();
    for name in [
        "secret.lab.internal.",
        "SECRET.Lab.Internal.",
        "a.b.c.lab.internal.",
        "_http._tcp.jupyter.lab.internal.",
        "*.lab.internal.",
        "lab.internal.",
    ] {
        for kind in TYPES {
            let answer = zone.local(name, kind);
            assert_eq!(answer.metadata.response_code, ResponseCode::NXDomain, "{name} {kind}");
            assert!(answer.answers.is_empty() && answer.additionals.is_empty());
            let [soa] = answer.authorities.as_slice() else { panic!("one SOA") };
            assert_eq!(soa.ttl, NEGATIVE_TTL);
            assert!(matches!(&soa.data, RData::SOA(soa) if soa.mname.to_ascii() == "cloister.invalid."));
        }
    }
}

#[test]
fn case_68_invisible_and_nonexistent_names_have_the_same_answer() {
    let mut zone = Zone::new();
    let shape = |message: Message| {
        (message.metadata.response_code, message.answers.len(), message.authorities.len(), message.authorities[0].ttl)
    };
    let exists = shape(zone.local("secret.lab.internal.", RecordType::A));
    assert_eq!(shape(zone.local("nowhere.lab.internal.", RecordType::A)), exists);
}

#[test]
fn case_70_private_names_do_not_leave_with_a_search_domain_or_below_visible_names() {
    let mut zone = Zone::new();
    for name in [
        "secret.lab.internal.corp.example.",
        "_8443._https.bare.example.",
        "x_y.team.example.",
        "xlab.internal.lab.internal.corp.example.",
    ] {
        assert!(matches!(zone.ask(name, RecordType::HTTPS), Reply::Local(_)), "{name}");
    }
    for name in ["www.example.", "internal.example.", "lab.internals.example.", "xlab.internal.", "team.example.", "."] {
        assert!(matches!(zone.ask(name, RecordType::A), Reply::Forward(_)), "{name}");
    }
}

#[test]
fn question_comes_back_letter_by_letter() {
    let mut zone = Zone::new();
    let answer = zone.local("JuPyTeR.lAb.InTeRnAl.", RecordType::A);
    assert!(answer.queries[0].name.eq_case(&DnsName::from_ascii("JuPyTeR.lAb.InTeRnAl.").unwrap()));
    assert!(answer.answers[0].name.eq_case(&answer.queries[0].name));
}

#[test]
fn pool_is_reversed_here_and_never_elsewhere() {
    let mut zone = Zone::new();
    let [IpAddr::V4(address)] = addresses(&zone.local("jupyter.lab.internal.", RecordType::A))[..] else { panic!() };
    let [a, b, c, d] = address.octets();
    let known = zone.local(&format!("{d}.{c}.{b}.{a}.in-addr.arpa."), RecordType::PTR);
    assert!(matches!(&known.answers[0].data, RData::PTR(name) if name.0.to_ascii() == "jupyter.lab.internal."));
    for name in [
        "200.255.64.100.in-addr.arpa.",
        "64.100.in-addr.arpa.",
        "1.0.0.0.0.0.0.0.0.0.0.0.0.0.f.f.0.0.0.0.a.9.8.7.6.5.4.3.2.1.d.f.ip6.arpa.",
    ] {
        assert_eq!(zone.local(name, RecordType::PTR).metadata.response_code, ResponseCode::NXDomain, "{name}");
    }
    assert!(matches!(zone.ask("1.2.0.192.in-addr.arpa.", RecordType::PTR), Reply::Forward(_)));
}

#[test]
fn case_70_client_subnet_does_not_leave() {
    let mut zone = Zone::new();
    let mut query = question("www.example.", RecordType::A);
    let mut edns = Edns::new();
    edns.options_mut().insert(EdnsOption::Subnet(ClientSubnet::new("192.0.2.0".parse().unwrap(), 24, 0)));
    query.set_edns(edns);
    let Reply::Forward(bytes) = zone.reply(&query) else { panic!() };
    let forwarded = Message::from_vec(&bytes).unwrap();
    assert!(forwarded.edns.as_ref().unwrap().option(EdnsCode::Subnet).is_none());
    assert_eq!((forwarded.metadata.id, &forwarded.queries), (query.metadata.id, &query.queries));
    let plain = question("www.example.", RecordType::A).to_vec().unwrap();
    assert_eq!(answer(&plain, &mut zone.names, &[], zone.now), Reply::Forward(plain.clone()), "other queries pass as they are");
}

#[test]
fn what_is_no_query_is_answered_by_its_error_or_not_at_all() {
    let mut zone = Zone::new();
    let mut response = question("jupyter.lab.internal.", RecordType::A);
    response.metadata.message_type = MessageType::Response;
    assert_eq!(zone.reply(&response), Reply::Drop, "answers are never answered: no loops");
    let code = |reply: Reply| match reply {
        Reply::Local(bytes) => Some(Message::from_vec(&bytes).unwrap().metadata.response_code),
        _ => None,
    };
    let mut update = question("jupyter.lab.internal.", RecordType::A);
    update.metadata.op_code = OpCode::Notify;
    assert_eq!(code(zone.reply(&update)), Some(ResponseCode::NotImp));
    let mut two = question("jupyter.lab.internal.", RecordType::A);
    two.add_query(two.queries[0].clone());
    assert_eq!(code(zone.reply(&two)), Some(ResponseCode::FormErr));
    let mut chaos = question("version.bind.", RecordType::TXT);
    chaos.queries[0].query_class = DNSClass::CH;
    assert_eq!(code(zone.reply(&chaos)), Some(ResponseCode::Refused));
    let mut future = question("jupyter.lab.internal.", RecordType::A);
    let mut edns = Edns::new();
    edns.set_version(1);
    future.set_edns(edns);
    assert!(matches!(zone.reply(&future), Reply::Local(_)));
    for bytes in [&b""[..], &[0; 11], &[0; MAX_QUERY + 1]] {
        assert_eq!(answer(bytes, &mut zone.names, &zone.suffixes, zone.now), Reply::Drop);
    }
}

/// A header for one question, then raw bytes.
fn raw(question: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
    bytes.extend_from_slice(question);
    bytes
}

#[test]
fn case_73_loops_long_names_and_cut_messages_are_form_errors() {
    let mut zone = Zone::new();
    let long: Vec<u8> = (0..140).flat_map(|_| [1, b'a']).chain([0, 0, 1, 0, 1]).collect();
    let huge: Vec<u8> = (0..5).flat_map(|_| std::iter::once(63).chain([b'a'; 63])).chain([0, 0, 1, 0, 1]).collect();
    for question in [
        &[0xc0, 12, 0, 1, 0, 1][..],       // points to itself
        &[0xc0, 14, 0xc0, 12, 0, 1, 0, 1], // two that point to each other
        &[1, b'a', 0xc0, 12, 0, 1, 0, 1],  // grows for ever
        &[0xc0, 200, 0, 1, 0, 1],          // points beyond the end
        &[0x80, 1, 0, 1, 0, 1],            // reserved label type
        &[5, b'a'],                        // cut label
        &[1, b'a', 0],                     // cut type
        &long,
        &huge,
    ] {
        let Reply::Local(bytes) = answer(&raw(question), &mut zone.names, &zone.suffixes, zone.now) else { panic!("{question:?}") };
        let reply = Message::from_vec(&bytes).unwrap();
        assert_eq!((reply.metadata.id, reply.metadata.response_code), (0x1234, ResponseCode::FormErr), "{question:?}");
    }
}

#[test]
fn case_75_odd_bytes_in_labels_are_no_host() {
    let mut zone = Zone::new();
    // a dot inside of a label must not read as `jupyter.lab.internal`
    let mut dotted = vec![11];
    dotted.extend(b"jupyter.lab");
    dotted.push(8);
    dotted.extend(b"internal");
    dotted.extend([0, 0, 1, 0, 1]);
    let reply = answer(&raw(&dotted), &mut zone.names, &zone.suffixes, zone.now);
    assert!(matches!(reply, Reply::Forward(_)));
    for label in [&b"jupyter\0"[..], b"jupyter ", "jupytér".as_bytes()] {
        let mut question = vec![u8::try_from(label.len()).unwrap()];
        question.extend(label);
        question.extend([3, b'l', b'a', b'b', 8]);
        question.extend(b"internal");
        question.extend([0, 0, 1, 0, 1]);
        let Reply::Local(bytes) = answer(&raw(&question), &mut zone.names, &zone.suffixes, zone.now) else { panic!() };
        assert_eq!(Message::from_vec(&bytes).unwrap().metadata.response_code, ResponseCode::NXDomain);
    }
}

#[test]
fn full_pool_is_a_failure_and_no_lie() {
    let mut zone = Zone::new();
    zone.names = Names::new(Pools::parse("100.64.0.0/30", "fd12:3456:789a::/64").unwrap());
    zone.names.set_catalogue(Arc::new(Segments::parse(VISIBLE.as_bytes()).unwrap()), zone.now);
    assert_eq!(zone.local("x.team.example.", RecordType::A).metadata.response_code, ResponseCode::ServFail);
}

#[test]
fn upstream_answer_must_fit_its_question_and_stay_out_of_the_pool() {
    let zone = Zone::new();
    let asked = question("www.example.", RecordType::A).to_vec().unwrap();
    let reply = |change: &dyn Fn(&mut Message)| {
        let mut reply = Message::response(0x1234, OpCode::Query);
        reply.add_query(Query::query(DnsName::from_ascii("www.example.").unwrap(), RecordType::A));
        change(&mut reply);
        passes(&reply.to_vec().unwrap(), &asked, &zone.names)
    };
    let add = |address: [u8; 4]| {
        move |reply: &mut Message| {
            reply.add_answer(Record::from_rdata(DnsName::from_ascii("www.example.").unwrap(), 60, RData::A(A(address.into()))));
        }
    };
    assert!(reply(&add([192, 0, 2, 1])));
    assert!(!reply(&add([100, 64, 3, 4])), "rebinding into the pool");
    let add_six = |address: &str| {
        let data = RData::AAAA(AAAA(address.parse().unwrap()));
        move |reply: &mut Message| {
            reply.add_answer(Record::from_rdata(DnsName::from_ascii("www.example.").unwrap(), 60, data.clone()));
        }
    };
    assert!(reply(&add_six("2001:db8::1")));
    assert!(reply(&add_six("::ffff:192.0.2.1")));
    assert!(!reply(&add_six("fd12:3456:789a::7")));
    assert!(!reply(&add_six("::ffff:100.64.3.4")), "dialled as 100.64.3.4");
    let hint = |value: SvcParamValue, key: SvcParamKey| {
        let service = SVCB::new(1, DnsName::root(), vec![(key, value)]);
        move |reply: &mut Message| {
            let name = DnsName::from_ascii("www.example.").unwrap();
            reply.add_answer(Record::from_rdata(name, 60, RData::HTTPS(HTTPS(service.clone()))));
        }
    };
    let four = |address: [u8; 4]| hint(SvcParamValue::Ipv4Hint(IpHint(vec![A(address.into())])), SvcParamKey::Ipv4Hint);
    let six = |address: &str| hint(SvcParamValue::Ipv6Hint(IpHint(vec![AAAA(address.parse().unwrap())])), SvcParamKey::Ipv6Hint);
    assert!(reply(&four([192, 0, 2, 1])));
    assert!(!reply(&four([100, 64, 3, 4])));
    assert!(reply(&six("2001:db8::1")));
    assert!(!reply(&six("fd12:3456:789a::7")));
    assert!(!reply(&|reply| reply.metadata.id = 1));
    assert!(!reply(&|reply| reply.metadata.message_type = MessageType::Query));
    assert!(!reply(&|reply| reply.queries.clear()));
    assert!(!reply(&|reply| reply.queries[0].query_type = RecordType::TXT));
    assert!(!reply(&|reply| reply.queries[0].name = DnsName::from_ascii("WWW.example.").unwrap()), "letters as asked (0x20)");
    assert!(!passes(b"junk", &asked, &zone.names));
}

proptest::proptest! {
    #[test]
    fn any_bytes_are_answered_dropped_or_forwarded(bytes: Vec<u8>, body: Vec<u8>) {
        let mut zone = Zone::new();
        let _ = answer(&bytes, &mut zone.names, &zone.suffixes, zone.now);
        let _ = answer(&raw(&body), &mut zone.names, &zone.suffixes, zone.now);
    }

    #[test]
    fn no_name_with_a_private_suffix_is_ever_forwarded(labels in proptest::collection::vec("[a-zA-Z0-9_*-]{1,10}", 0..6), kind: u16) {
        let mut zone = Zone::new();
        let labels = labels.iter().map(String::as_bytes).chain([&b"lab"[..], b"internal"]);
        let mut query = question("x.", RecordType::from(kind));
        query.queries[0].name = DnsName::from_labels(labels).unwrap();
        proptest::prop_assert!(!matches!(zone.reply(&query), Reply::Forward(_)));
    }
}
