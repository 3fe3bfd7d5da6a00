//! What the client answers to a DNS query: pure, one query in, one reply out. The sockets are in `resolver.rs`.
//!
//! Visible names get synthetic addresses. Below a private suffix, below a visible name, and in the pool's reverse zones nobody else is asked.
//! Everything else is for the upstreams.

use std::net::IpAddr;
use std::time::Instant;

use hickory_proto::op::{Edns, Message, MessageType, OpCode, Query, ResponseCode};
use hickory_proto::rr::rdata::opt::EdnsCode;
use hickory_proto::rr::rdata::svcb::SvcParamValue;
use hickory_proto::rr::rdata::{A, AAAA, PTR, SOA, SVCB};
use hickory_proto::rr::{DNSClass, Name as DnsName, RData, Record, RecordType};

use super::names::{Lookup, Names};
use crate::host::{Name, parse_name};

/// Seconds that an answer may be kept.
pub const TTL: u32 = 10;
/// Seconds that a negative answer may be kept.
pub const NEGATIVE_TTL: u32 = 5;
/// Longest query taken, over UDP and TCP: one question and a few options.
pub const MAX_QUERY: usize = 4096;
/// UDP payload that fits every path (DNS flag day 2020).
const MAX_PAYLOAD: u16 = 1232;

#[derive(Debug, PartialEq, Eq)]
pub enum Reply {
    /// Send this.
    Local(Vec<u8>),
    /// Ask an upstream this (the query without client-subnet option) and pass its answer on.
    Forward(Vec<u8>),
    /// Not even a query.
    Drop,
}

/// The answer to one query.
pub fn answer(query: &[u8], names: &mut Names, suffixes: &[Name], now: Instant) -> Reply {
    if query.len() < 12 || query.len() > MAX_QUERY || query.get(2).is_some_and(|flags| flags & 0x80 != 0) {
        return Reply::Drop;
    }
    let Ok(message) = Message::from_vec(query) else {
        let id = query.first_chunk().map_or(0, |id| u16::from_be_bytes(*id));
        return write(&Message::error_msg(id, OpCode::Query, ResponseCode::FormErr));
    };
    let mut reply = respond(&message);
    if message.metadata.op_code != OpCode::Query {
        reply.metadata.response_code = ResponseCode::NotImp;
        return write(&reply);
    }
    let [question] = message.queries.as_slice() else {
        reply.metadata.response_code = ResponseCode::FormErr;
        return write(&reply);
    };
    reply.add_query(question.clone());
    if message.version() > 0 {
        reply.metadata.response_code = ResponseCode::BADVERS;
        return write(&reply);
    }
    if question.query_class != DNSClass::IN && question.query_class != DNSClass::ANY {
        reply.metadata.response_code = ResponseCode::Refused;
        return write(&reply);
    }
    if let Some(address) = reverse(&question.name).filter(|address| names.pools().contains(*address)) {
        return answer_reverse(reply, question, names.name_of(address, now));
    }
    let text = lower(&question.name);
    let host = parse_name(text.as_bytes()).ok();
    match host.as_ref().map_or(Lookup::NotVisible, |host| names.look_up(host, now)) {
        Lookup::Found(addresses) => {
            if matches!(question.query_type, RecordType::A | RecordType::ANY) {
                reply.add_answer(Record::from_rdata(question.name.clone(), TTL, RData::A(A(addresses.v4))));
            }
            if matches!(question.query_type, RecordType::AAAA | RecordType::ANY) && names.has_ipv6() {
                reply.add_answer(Record::from_rdata(question.name.clone(), TTL, RData::AAAA(AAAA(addresses.v6))));
            }
            if reply.answers.is_empty() {
                reply.add_authority(authority(&question.name));
            }
            write(&reply)
        }
        Lookup::Full => {
            reply.metadata.response_code = ResponseCode::ServFail;
            write(&reply)
        }
        Lookup::NotVisible if is_private(&text, names, suffixes) => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(authority(&question.name));
            write(&reply)
        }
        Lookup::NotVisible => Reply::Forward(without_subnet(query, message)),
    }
}

/// Whether an upstream's answer may be passed on: it answers this question and does not point into the pool (rebinding).
pub fn passes(answer: &[u8], question: &[u8], names: &Names) -> bool {
    let (Ok(answer), Ok(question)) = (Message::from_vec(answer), Message::from_vec(question)) else { return false };
    let same = |a: &Query, b: &Query| a.name.eq_case(&b.name) && a.query_type == b.query_type && a.query_class == b.query_class;
    let answers_it = answer.metadata.message_type == MessageType::Response
        && answer.metadata.id == question.metadata.id
        && answer.queries.len() == question.queries.len()
        && answer.queries.iter().zip(&question.queries).all(|(a, b)| same(a, b));
    let pools = names.pools();
    // what an application dials for an IPv4-mapped address is the IPv4 one
    let is_here = |address: IpAddr| pools.contains(address.to_canonical());
    answers_it && !answer.all_sections().flat_map(|record| addresses(&record.data)).any(is_here)
}

/// Every address that a record tells an application to dial.
fn addresses(data: &RData) -> Vec<IpAddr> {
    let hints = |service: &SVCB| {
        let hints = service.svc_params.iter().map(|(_, value)| match value {
            SvcParamValue::Ipv4Hint(hint) => hint.0.iter().map(|address| address.0.into()).collect(),
            SvcParamValue::Ipv6Hint(hint) => hint.0.iter().map(|address| address.0.into()).collect(),
            _ => Vec::new(),
        });
        hints.flatten().collect()
    };
    match data {
        RData::A(address) => vec![address.0.into()],
        RData::AAAA(address) => vec![address.0.into()],
        RData::HTTPS(service) => hints(service),
        RData::SVCB(service) => hints(service),
        _ => Vec::new(),
    }
}

/// SERVFAIL to a query that no upstream answered.
pub fn failure(query: &[u8]) -> Option<Vec<u8>> {
    let message = Message::from_vec(query).ok()?;
    let mut reply = respond(&message);
    reply.metadata.authoritative = false;
    reply.metadata.response_code = ResponseCode::ServFail;
    reply.add_queries(message.queries.iter().cloned());
    reply.to_vec().ok()
}

/// Names that must not leave: at or below a private suffix, at or below a visible name, and either of these with a search domain appended.
fn is_private(text: &str, names: &Names, suffixes: &[Name]) -> bool {
    let inside = |suffix: &Name| {
        let suffix = suffix.as_str();
        // a suffix of one label, such as `internal`, is an ordinary label elsewhere
        let appended = suffix.contains('.') && contains_labels(text, suffix);
        text == suffix || text.strip_suffix(suffix).is_some_and(|rest| rest.ends_with('.')) || appended
    };
    if suffixes.iter().any(inside) {
        return true;
    }
    text.match_indices('.').any(|(dot, _)| {
        let parent = text.get(dot + 1..).and_then(|parent| parse_name(parent.as_bytes()).ok());
        parent.is_some_and(|parent| names.is_parent(&parent))
    })
}

fn contains_labels(text: &str, labels: &str) -> bool {
    text.match_indices(labels).any(|(at, _)| {
        let before = at == 0 || text.as_bytes().get(at - 1) == Some(&b'.');
        let after = text.as_bytes().get(at + labels.len()).is_none_or(|byte| *byte == b'.');
        before && after
    })
}

fn respond(query: &Message) -> Message {
    let mut reply = Message::response(query.metadata.id, query.metadata.op_code);
    reply.metadata.authoritative = true;
    reply.metadata.recursion_desired = query.metadata.recursion_desired;
    reply.metadata.recursion_available = true;
    reply.metadata.checking_disabled = query.metadata.checking_disabled;
    if query.edns.is_some() {
        let mut edns = Edns::new();
        edns.set_max_payload(MAX_PAYLOAD);
        reply.set_edns(edns);
    }
    reply
}

fn write(reply: &Message) -> Reply {
    reply.to_vec().map_or(Reply::Drop, Reply::Local)
}

/// The SOA of a negative answer (RFC 2308 §3): the name itself is the zone, so it tells nothing.
fn authority(name: &DnsName) -> Record {
    let server = DnsName::from_ascii("cloister.invalid.").unwrap_or_default();
    let soa = SOA::new(server.clone(), server, 1, 3600, 600, 86400, NEGATIVE_TTL);
    Record::from_rdata(name.clone(), NEGATIVE_TTL, RData::SOA(soa))
}

fn answer_reverse(mut reply: Message, question: &Query, name: Option<Name>) -> Reply {
    match name.and_then(|name| DnsName::from_ascii(format!("{name}.")).ok()) {
        Some(name) if matches!(question.query_type, RecordType::PTR | RecordType::ANY) => {
            reply.add_answer(Record::from_rdata(question.name.clone(), TTL, RData::PTR(PTR(name))));
        }
        Some(_) => {
            reply.add_authority(authority(&question.name));
        }
        None => {
            reply.metadata.response_code = ResponseCode::NXDomain;
            reply.add_authority(authority(&question.name));
        }
    }
    write(&reply)
}

/// The address, or the first address of the network, that a name below `in-addr.arpa` or `ip6.arpa` stands for.
fn reverse(name: &DnsName) -> Option<IpAddr> {
    let mut name = name.clone();
    name.set_fqdn(true);
    name.parse_arpa_name().ok().map(|net| net.addr())
}

/// Labels joined by dots in lower case; a byte that is no printable ASCII, or a dot inside of a label, becomes `?`, which is no host.
fn lower(name: &DnsName) -> String {
    let label = |label: &[u8]| -> String {
        label
            .iter()
            .map(|byte| if byte.is_ascii_graphic() && *byte != b'.' { char::from(byte.to_ascii_lowercase()) } else { '?' })
            .collect()
    };
    name.iter().map(label).collect::<Vec<_>>().join(".")
}

fn without_subnet(query: &[u8], mut message: Message) -> Vec<u8> {
    let Some(edns) = message.edns.as_mut().filter(|edns| edns.option(EdnsCode::Subnet).is_some()) else { return query.to_vec() };
    edns.options_mut().remove(EdnsCode::Subnet);
    message.to_vec().unwrap_or_default()
}

#[cfg(test)]
#[path = "dns_test.rs"]
mod test;
