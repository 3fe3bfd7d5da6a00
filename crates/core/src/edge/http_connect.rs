//! HTTP CONNECT (RFC 9110 §9.3.6), and requests in absolute form (RFC 9112 §3.2.2) as an `http_proxy` gets them.
//!
//! A request in absolute form is passed on in origin form, with the authority it was judged by as its only `Host`, and its connection
//! closes after the answer: the next request is judged by itself.

use std::fmt::Write as _;
use std::io;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Shared;
use super::socks::{Caller, Opened, REQUEST_DEADLINE, open_tcp};
use crate::code::Code;
use crate::host::{Host, parse_authority, parse_host, write_authority};

/// Request line and headers.
pub const MAX_HEAD: usize = 16 * 1024;
pub const MAX_HEADERS: usize = 100;

/// What a proxy request asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    pub host: Host,
    pub port: u16,
    /// The password of `Proxy-Authorization: Basic`.
    pub password: Option<Vec<u8>>,
    /// What goes to the destination first: nothing for CONNECT, the rewritten head in absolute form.
    pub head: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// More bytes are needed.
    Short,
    TooLong,
    /// No HTTP/1.1 proxy request; the status says why.
    Status(u16, Code),
}

const BAD_REQUEST: Refused = Refused::Status(400, Code::ProtocolError);
const BAD_HOST: Refused = Refused::Status(400, Code::HostMalformed);

/// The request at the beginning of `bytes`, and how many bytes its head took.
pub fn parse_request(bytes: &[u8]) -> Result<(Request, usize), Refused> {
    let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
        return Err(if bytes.len() > MAX_HEAD { Refused::TooLong } else { Refused::Short });
    };
    if end > MAX_HEAD {
        return Err(Refused::TooLong);
    }
    let head = std::str::from_utf8(bytes.get(..end).unwrap_or_default()).map_err(|_| BAD_REQUEST)?;
    let mut lines = head.split("\r\n");
    let line = lines.next().unwrap_or_default();
    let mut words = line.split(' ');
    let (Some(method), Some(target), Some("HTTP/1.1" | "HTTP/1.0"), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(BAD_REQUEST);
    };
    let headers = parse_headers(lines)?;
    let password = read_password(&headers)?;
    let (host, port, head) = if method == "CONNECT" {
        let (host, port) = parse_authority(target.as_bytes()).map_err(|_| BAD_HOST)?;
        (host, port, Vec::new())
    } else {
        let (host, port, path) = parse_absolute(target)?;
        let head = write_origin(method, &host, port, path, &headers)?;
        (host, port, head)
    };
    Ok((Request { host, port, password, head }, end + 4))
}

fn parse_headers<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<(&'a str, &'a str)>, Refused> {
    let mut headers = Vec::new();
    for line in lines {
        let (name, value) = line.split_once(':').ok_or(BAD_REQUEST)?;
        let value = value.trim_matches([' ', '\t']);
        if !is_token(name) || value.bytes().any(|byte| byte.is_ascii_control() && byte != b'\t') || headers.len() == MAX_HEADERS {
            return Err(BAD_REQUEST);
        }
        headers.push((name, value));
    }
    Ok(headers)
}

/// RFC 9110 §5.6.2.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

fn read_password(headers: &[(&str, &str)]) -> Result<Option<Vec<u8>>, Refused> {
    let mut found = headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("proxy-authorization"));
    let Some((_, value)) = found.next() else { return Ok(None) };
    if found.next().is_some() {
        return Err(BAD_REQUEST);
    }
    let (scheme, credentials) = value.split_once(' ').ok_or(BAD_REQUEST)?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return Ok(None);
    }
    let decoded = STANDARD.decode(credentials.trim()).map_err(|_| BAD_REQUEST)?;
    let colon = decoded.iter().position(|byte| *byte == b':').ok_or(BAD_REQUEST)?;
    Ok(decoded.get(colon + 1..).map(<[u8]>::to_vec))
}

/// `http://host[:port]/path`; what a browser puts into a URL (userinfo, fragment) has no place here.
fn parse_absolute(target: &str) -> Result<(Host, u16, &str), Refused> {
    // a request in origin form comes from a page or a tool that takes this port for a web server
    let rest = match target.split_at_checked(7) {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http://") => rest,
        _ => return Err(BAD_REQUEST),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    if path.contains('#') || path.bytes().any(|byte| !byte.is_ascii_graphic()) {
        return Err(BAD_REQUEST);
    }
    if let Ok((host, port)) = parse_authority(authority.as_bytes()) {
        return Ok((host, port, path));
    }
    let bare = match authority.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')) {
        Some(inner) if inner.contains(':') => inner,
        None if !authority.contains(':') => authority,
        _ => return Err(BAD_HOST),
    };
    parse_host(bare.as_bytes()).map(|host| (host, 80, path)).map_err(|_| BAD_HOST)
}

/// The request as the destination gets it.
fn write_origin(method: &str, host: &Host, port: u16, path: &str, headers: &[(&str, &str)]) -> Result<Vec<u8>, Refused> {
    if !is_token(method) {
        return Err(BAD_REQUEST);
    }
    let authority = write_authority(host, port);
    let authority = if port == 80 { authority.trim_end_matches(":80") } else { &authority };
    let root = if path.starts_with('/') { "" } else { "/" };
    let mut head = format!("{method} {root}{path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n");
    for (name, value) in headers {
        let dropped = ["host", "connection", "proxy-connection", "proxy-authorization", "keep-alive", "upgrade", "te"];
        if !dropped.iter().any(|dropped| name.eq_ignore_ascii_case(dropped)) {
            let _ = write!(head, "{name}: {value}\r\n");
        }
    }
    head.push_str("\r\n");
    Ok(head.into_bytes())
}

/// Read a request, open what it asks for, and answer; a refusal carries one sentence and the reason code.
pub(super) async fn negotiate(
    shared: &Shared,
    stream: &mut TcpStream,
    mut buffer: BytesMut,
    caller: &Caller,
) -> io::Result<Opened> {
    let request = timeout(REQUEST_DEADLINE, read_request(stream, &mut buffer)).await??;
    let request = match request {
        Ok(request) => request,
        Err((status, code)) => return refuse(stream, status, code, None).await,
    };
    let proved = match (caller, &request.password) {
        (Caller::Owner, _) => true,
        (Caller::Stranger(_), Some(password)) => caller.proves(password),
        (Caller::Stranger(_), None) => false,
    };
    if !proved {
        return refuse(stream, 407, Code::NotAuthenticated, None).await;
    }
    let asked = write_authority(&request.host, request.port);
    match open_tcp(shared, request.host, request.port).await {
        Ok(flow) if request.head.is_empty() => {
            stream.write_all(b"HTTP/1.1 200 Connection established\r\n\r\n").await?;
            Ok(Opened::Tcp(flow, buffer.freeze()))
        }
        Ok(flow) => {
            let mut early = request.head;
            early.extend_from_slice(&buffer);
            Ok(Opened::Tcp(flow, Bytes::from(early)))
        }
        Err(code) => refuse(stream, status(code), code, Some(&asked)).await,
    }
}

async fn read_request(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Result<Request, (u16, Code)>> {
    loop {
        match parse_request(buffer) {
            Ok((request, used)) => {
                let _ = buffer.split_to(used);
                return Ok(Ok(request));
            }
            Err(Refused::Short) => {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            Err(Refused::TooLong) => return Ok(Err((431, Code::TooLarge))),
            Err(Refused::Status(status, code)) => return Ok(Err((status, code))),
        }
    }
}

/// The status for the end of an attempt: 403 for what is visible but not allowed, 504 for what took too long, 502 for the rest.
pub fn status(code: Code) -> u16 {
    match code {
        Code::HostMalformed => 400,
        Code::DeniedByDefault
        | Code::ForbiddenByRule
        | Code::ConditionFailed
        | Code::StepUpRequired
        | Code::NotInSegment
        | Code::AddressForbidden
        | Code::SessionRevoked
        | Code::SessionExpired
        | Code::KillSwitch => 403,
        Code::DialTimeout => 504,
        Code::TooManyFlows | Code::Draining => 503,
        _ => 502,
    }
}

fn phrase(status: u16) -> &'static str {
    match status {
        400 => "Bad Request",
        403 => "Forbidden",
        407 => "Proxy Authentication Required",
        431 => "Request Header Fields Too Large",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => "Bad Gateway",
    }
}

async fn refuse(stream: &mut TcpStream, status: u16, code: Code, asked: Option<&str>) -> io::Result<Opened> {
    let body = match (status, asked) {
        (407, _) => "this proxy serves its owner: give its secret as the password\n".to_string(),
        (_, Some(asked)) if code == Code::NotFound => format!("`{asked}` is not known here ({code})\n"),
        (_, Some(asked)) => format!("`{asked}` was not reached ({code}): run `cloister explain {asked}`\n"),
        (_, None) => format!("this is a proxy, and that was no proxy request ({code})\n"),
    };
    let challenge = if status == 407 { "Proxy-Authenticate: Basic realm=\"cloister\"\r\n" } else { "" };
    let head = format!(
        "HTTP/1.1 {status} {}\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\nCloister-Reason: {code}\r\n{challenge}Connection: close\r\n\r\n",
        phrase(status),
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).await?;
    Ok(Opened::Refused)
}

#[cfg(test)]
mod test {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<Request, Refused> {
        parse_request(text.as_bytes()).map(|(request, _)| request)
    }

    fn head(text: &str) -> String {
        String::from_utf8(parse(text).unwrap().head).unwrap()
    }

    #[test]
    fn head_is_whole_before_it_is_judged() {
        let text = "CONNECT a.internal:443 HTTP/1.1\r\nHost: a.internal\r\n\r\nrest";
        let end = text.len() - 4;
        for length in 0..end {
            assert_eq!(parse_request(&text.as_bytes()[..length]).unwrap_err(), Refused::Short);
        }
        let (request, used) = parse_request(text.as_bytes()).unwrap();
        assert_eq!((request.host.to_string().as_str(), request.port, used), ("a.internal", 443, end));
        assert_eq!(parse_request(&[b'A'; MAX_HEAD + 1]).unwrap_err(), Refused::TooLong);
    }

    #[test]
    fn case_20_facts_given_twice_or_oddly_are_refused_or_replaced() {
        let two = "CONNECT a:1 HTTP/1.1\r\nProxy-Authorization: Basic dTpw\r\nproxy-authorization: Basic dTpx\r\n\r\n";
        assert_eq!(parse(two).unwrap_err(), BAD_REQUEST);
        for line in ["Host : a", " folded", "a\tb: c", "x: y\u{1}z", ": none", "no colon"] {
            assert_eq!(parse(&format!("CONNECT a:1 HTTP/1.1\r\n{line}\r\n\r\n")).unwrap_err(), BAD_REQUEST, "{line:?}");
        }
        let replaced = head(
            "GET http://a.internal/x HTTP/1.1\r\nHost: b.internal\r\nhost: c.internal\r\nConnection: Host\r\nUpgrade: h2c\r\n\r\n",
        );
        assert_eq!(replaced, "GET /x HTTP/1.1\r\nHost: a.internal\r\nConnection: close\r\n\r\n");
    }

    #[test]
    fn case_59_target_is_read_in_one_way_or_not_at_all() {
        for target in [
            "http://a.internal\\@b/",
            "http://u@a.internal/",
            "http://a.internal#x",
            "http://a.internal:0/",
            "http://a.internal:/",
            "http://[::1/",
            "http://::1/",
            "http://2130706433/",
            "http://a.internal/x#y",
            "https://a.internal/",
            "//a.internal/",
            "/x",
            "*",
            "a.internal:80",
            "http:///x",
            "http://[a.internal]/",
        ] {
            assert!(parse(&format!("GET {target} HTTP/1.1\r\n\r\n")).is_err(), "{target}");
        }
        for (target, line, host) in [
            ("http://a.internal", "/", "a.internal"),
            ("HTTP://A.internal.:80/?q", "/?q", "a.internal"),
            ("http://a.internal?q=//b/", "/?q=//b/", "a.internal"),
            ("http://[2001:db8::7]:8080/a/../b", "/a/../b", "[2001:db8::7]:8080"),
            ("http://[2001:db8::7]/", "/", "[2001:db8::7]"),
        ] {
            let expected = format!("GET {line} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            assert_eq!(head(&format!("GET {target} HTTP/1.1\r\n\r\n")), expected, "{target}");
        }
    }

    #[test]
    fn headers_are_bounded() {
        let request = |count: usize| format!("CONNECT a:1 HTTP/1.1\r\n{}\r\n", "x: y\r\n".repeat(count));
        assert!(parse(&request(MAX_HEADERS)).is_ok());
        assert!(parse(&request(MAX_HEADERS + 1)).is_err());
    }

    proptest! {
        #[test]
        fn any_bytes_are_parsed_or_refused(mut bytes: Vec<u8>) {
            let _ = parse_request(&bytes);
            bytes.extend(b"\r\n\r\n");
            let _ = parse_request(&bytes);
        }

        #[test]
        fn rewritten_head_is_one_head(target in "http://[a-z]{1,8}(:[0-9]{1,5})?(/[!-~]{0,20})?", value in "[ -~\t]{0,30}") {
            if let Ok((request, _)) = parse_request(format!("GET {target} HTTP/1.1\r\nX: {value}\r\n\r\n").as_bytes()) {
                let head = String::from_utf8(request.head).unwrap();
                prop_assert_eq!(head.matches("\r\n\r\n").count(), 1);
                prop_assert_eq!(head.matches("Host: ").count() - value.matches("Host: ").count(), 1);
            }
        }
    }
}
