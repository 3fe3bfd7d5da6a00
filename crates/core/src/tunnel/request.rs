//! What a client asks of a connector, and how it is told no: HTTP/2 requests, read once.

use http::header::{HeaderMap, HeaderName, HeaderValue};
use http::{Method, Request, Response, StatusCode};

use crate::code::Code;
use crate::host::{Destination, Host, Protocol};
use crate::ids::Id;

pub const SESSION: HeaderName = HeaderName::from_static("cloister-session");
pub const TICKET: HeaderName = HeaderName::from_static("cloister-ticket");
pub const REASON: HeaderName = HeaderName::from_static("cloister-reason");
const CONNECT_UDP: &str = "connect-udp";
const UDP_PREFIX: &str = "/.well-known/masque/udp/";
const SESSIONS_PREFIX: &str = "/.cloister/sessions/";
/// Bytes of one request's headers: the longest ticket and a name.
pub const MAX_HEADER_LIST: u32 = 16 << 10;

/// Under which session something is asked; at least one of the two is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    pub session: Option<Id>,
    pub ticket: Option<&'a str>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Asked<'a> {
    Flow { destination: Destination, proof: Proof<'a> },
    Renew { session: Id, ticket: &'a str },
}

/// The one value of a header; given twice it is refused, since two readers might pick different ones.
fn single(headers: &HeaderMap, name: HeaderName) -> Result<Option<&str>, Code> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (None, _) => Ok(None),
        (Some(value), None) => value.to_str().map(Some).map_err(|_| Code::MessageMalformed),
        (Some(_), Some(_)) => Err(Code::MessageMalformed),
    }
}

fn proof(headers: &HeaderMap) -> Result<Proof<'_>, Code> {
    let session = single(headers, SESSION)?.map(|text| Id::parse(text).ok_or(Code::MessageMalformed)).transpose()?;
    let ticket = single(headers, TICKET)?;
    if session.is_none() && ticket.is_none() {
        return Err(Code::TicketMissing);
    }
    Ok(Proof { session, ticket })
}

/// The one reading of a request. Errors: `message_malformed`, `host_malformed`, `ticket_missing`, `not_found`.
pub fn read(parts: &http::request::Parts) -> Result<Asked<'_>, Code> {
    let protocol = parts.extensions.get::<h2::ext::Protocol>().map(h2::ext::Protocol::as_str);
    match (&parts.method, protocol) {
        (&Method::CONNECT, None) => {
            let authority = parts.uri.authority().ok_or(Code::HostMalformed)?;
            let destination =
                Destination::parse_authority(authority.as_str().as_bytes(), Protocol::Tcp).map_err(|malformed| malformed.code())?;
            Ok(Asked::Flow { destination, proof: proof(&parts.headers)? })
        }
        (&Method::CONNECT, Some(CONNECT_UDP)) => {
            let destination = udp_destination(parts.uri.path_and_query().map_or("", |path| path.as_str()))?;
            Ok(Asked::Flow { destination, proof: proof(&parts.headers)? })
        }
        (&Method::PUT, None) => {
            let session = parts.uri.path_and_query().and_then(|path| path.as_str().strip_prefix(SESSIONS_PREFIX));
            let session = session.and_then(Id::parse).ok_or(Code::NotFound)?;
            let ticket = single(&parts.headers, TICKET)?.ok_or(Code::TicketMissing)?;
            Ok(Asked::Renew { session, ticket })
        }
        _ => Err(Code::NotFound),
    }
}

/// RFC 9298 §2: `/.well-known/masque/udp/{host}/{port}/`, the colons of an IPv6 address percent-encoded.
fn udp_destination(path: &str) -> Result<Destination, Code> {
    let rest = path.strip_prefix(UDP_PREFIX).and_then(|rest| rest.strip_suffix('/')).ok_or(Code::NotFound)?;
    let (host, port) = rest.split_once('/').ok_or(Code::HostMalformed)?;
    // Nothing else that a host may hold is ever encoded; another percent sign is refused by the parser of hosts.
    let host = host.replace("%3A", ":").replace("%3a", ":");
    let port = crate::host::parse_port(port.as_bytes()).map_err(|malformed| malformed.code())?;
    Destination::parse(&host, port, Protocol::Udp).map_err(|malformed| malformed.code())
}

/// The request for a flow. `ticket` goes along until the tunnel knows the session.
pub fn flow(destination: &Destination, session: Id, ticket: Option<&HeaderValue>) -> Result<Request<()>, Code> {
    let builder = match destination.protocol() {
        Protocol::Tcp => Request::builder().method(Method::CONNECT).uri(destination.authority()),
        Protocol::Udp => {
            let host = match destination.host() {
                Host::Address(address) => address.to_string().replace(':', "%3A"),
                Host::Name(name) => name.as_str().to_owned(),
            };
            Request::builder()
                .method(Method::CONNECT)
                .uri(format!("https://connector.cloister.invalid{UDP_PREFIX}{host}/{}/", destination.port()))
                .extension(h2::ext::Protocol::from_static(CONNECT_UDP))
                .header("capsule-protocol", "?1")
        }
    };
    let mut builder = builder.header(SESSION, session.to_string());
    if let Some(ticket) = ticket {
        builder = builder.header(TICKET, ticket);
    }
    builder.body(()).map_err(|_| Code::Internal)
}

/// The request that brings a renewed ticket.
pub fn renewal(session: Id, ticket: &HeaderValue) -> Result<Request<()>, Code> {
    Request::builder()
        .method(Method::PUT)
        .uri(format!("https://connector.cloister.invalid{SESSIONS_PREFIX}{session}"))
        .header(TICKET, ticket)
        .body(())
        .map_err(|_| Code::Internal)
}

/// How a refusal is answered.
pub fn refusal(code: Code) -> Response<()> {
    let status = match code {
        Code::MessageMalformed | Code::HostMalformed => StatusCode::BAD_REQUEST,
        Code::NotFound | Code::NotInSegment => StatusCode::NOT_FOUND,
        Code::DialTimeout => StatusCode::GATEWAY_TIMEOUT,
        Code::NameUnresolved | Code::DialRefused | Code::DialUnreachable => StatusCode::BAD_GATEWAY,
        Code::TooManyFlows | Code::LimitReached | Code::RecordsFull | Code::Draining | Code::SnapshotMissing => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::FORBIDDEN,
    };
    let mut response = Response::new(());
    *response.status_mut() = status;
    response.headers_mut().insert(REASON, HeaderValue::from_static(code.as_str()));
    response
}

/// The reason in an answer that is not a success.
pub fn reason(headers: &HeaderMap) -> Code {
    single(headers, REASON).ok().flatten().and_then(Code::parse).unwrap_or(Code::ProtocolError)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(request: Request<()>) -> http::request::Parts {
        request.into_parts().0
    }

    fn id(text: &str) -> Id {
        Id::parse(text).unwrap()
    }

    #[test]
    fn what_a_client_writes_a_connector_reads() {
        let session = id("0000000000000051");
        let ticket = HeaderValue::from_static("a.b.c");
        for (host, protocol) in [
            ("jupyter.lab.internal", Protocol::Tcp),
            ("10.0.0.1", Protocol::Tcp),
            ("fd00::1", Protocol::Tcp),
            ("dns.lab.internal", Protocol::Udp),
            ("fd00::1", Protocol::Udp),
        ] {
            let destination = Destination::parse(host, 8888, protocol).unwrap();
            for ticket in [None, Some(&ticket)] {
                let parts = parts(flow(&destination, session, ticket).unwrap());
                let proof = Proof { session: Some(session), ticket: ticket.map(|_| "a.b.c") };
                assert_eq!(read(&parts), Ok(Asked::Flow { destination: destination.clone(), proof }));
            }
        }
        let parts = parts(renewal(session, &ticket).unwrap());
        assert_eq!(read(&parts), Ok(Asked::Renew { session, ticket: "a.b.c" }));
    }

    #[test]
    fn case_20_a_header_given_twice_is_refused() {
        let destination = Destination::parse("a.internal", 1, Protocol::Tcp).unwrap();
        for name in [SESSION, TICKET] {
            let mut request = flow(&destination, id("0000000000000051"), Some(&HeaderValue::from_static("a.b.c"))).unwrap();
            request.headers_mut().append(name, HeaderValue::from_static("0000000000000052"));
            assert_eq!(read(&parts(request)), Err(Code::MessageMalformed));
        }
    }

    #[test]
    fn requests_outside_the_grammar_are_refused() {
        let request = |method: Method, uri: &str, session: Option<&str>| {
            let mut builder = Request::builder().method(method).uri(uri);
            if let Some(session) = session {
                builder = builder.header(SESSION, session);
            }
            parts(builder.body(()).unwrap())
        };
        let s = Some("0000000000000051");
        assert_eq!(read(&request(Method::CONNECT, "a.internal:1", None)), Err(Code::TicketMissing));
        assert_eq!(read(&request(Method::CONNECT, "a.internal:1", Some("51"))), Err(Code::MessageMalformed));
        assert_eq!(read(&request(Method::CONNECT, "user@a.internal:1", s)), Err(Code::HostMalformed));
        assert_eq!(read(&request(Method::CONNECT, "a.internal", s)), Err(Code::HostMalformed));
        assert_eq!(read(&request(Method::CONNECT, "a.internal:0", s)), Err(Code::HostMalformed));
        assert_eq!(read(&request(Method::GET, "https://a.internal/", s)), Err(Code::NotFound));
        assert_eq!(read(&request(Method::PUT, "https://a/.cloister/sessions/0000000000000051/x", s)), Err(Code::NotFound));
        assert_eq!(read(&request(Method::PUT, "https://a/.cloister/sessions/0000000000000051", s)), Err(Code::TicketMissing));
        for path in ["a.internal/53", "a.internal/053/", "a%2einternal/53/", "a.internal/53/?x", "../53/", "/53/", "a/b/53/"] {
            assert!(udp_destination(&format!("{UDP_PREFIX}{path}")).is_err(), "{path}");
        }
        assert!(udp_destination(&format!("{UDP_PREFIX}a.internal/53/")).is_ok());
    }

    #[test]
    fn a_refusal_carries_its_code() {
        for &code in Code::ALL {
            let response = refusal(code);
            assert!(!response.status().is_success());
            assert_eq!(reason(response.headers()), code);
        }
    }
}
