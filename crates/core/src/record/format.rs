//! Records as JSON lines, written by hand: one pass into one buffer, no allocation.

use std::io::Write;

use super::Record;
use crate::ids::Id;

/// Appends one line, `\n` included.
pub fn write_record(out: &mut Vec<u8>, n: u64, connector: Id, record: &Record<'_>) {
    begin(out, n, record.at, record.kind.as_str());
    field(out, b",\"flow\":", |out| id(out, record.flow));
    if let Some(ticket) = record.ticket {
        field(out, b",\"session\":", |out| id(out, ticket.session));
        field(out, b",\"principal\":", |out| string(out, &ticket.principal));
        field(out, b",\"segment\":", |out| id(out, ticket.segment));
        out.extend_from_slice(b",\"rules\":[");
        for (at, rule) in ticket.rules.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            string(out, rule);
        }
        out.push(b']');
    }
    field(out, b",\"device\":", |out| id(out, record.device));
    field(out, b",\"connector\":", |out| id(out, connector));
    field(out, b",\"protocol\":", |out| string(out, record.protocol.as_str()));
    field(out, b",\"host\":", |out| string(out, record.host));
    number(out, b",\"port\":", u64::from(record.port));
    number(out, b",\"in\":", record.bytes_in);
    number(out, b",\"out\":", record.bytes_out);
    number(out, b",\"stages\":{\"ticket_us\":", record.stages.ticket_us);
    number(out, b",\"resolve_us\":", record.stages.resolve_us);
    number(out, b",\"dial_us\":", record.stages.dial_us);
    number(out, b",\"first_byte_us\":", record.stages.first_byte_us);
    number(out, b"},\"duration_us\":", record.duration_us);
    field(out, b",\"code\":", |out| string(out, record.code.as_str()));
    field(out, b",\"leaf\":", |out| string(out, record.leaf));
    out.extend_from_slice(b"}\n");
}

/// `lost` records were not kept since the gap before.
pub fn write_gap(out: &mut Vec<u8>, n: u64, at: u64, connector: Id, lost: u64) {
    begin(out, n, at, "gap");
    field(out, b",\"connector\":", |out| id(out, connector));
    number(out, b",\"lost\":", lost);
    out.extend_from_slice(b",\"code\":\"records_full\"}\n");
}

/// The `n` of a line, which stands first.
pub fn number_of(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(b"{\"n\":")?;
    let end = digits.iter().position(|byte| *byte == b',')?;
    let digits = digits.get(..end)?;
    if digits.first() == Some(&b'0') || digits.len() > 16 || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn begin(out: &mut Vec<u8>, n: u64, at: u64, kind: &str) {
    number(out, b"{\"n\":", n);
    out.extend_from_slice(b",\"at\":\"");
    time(out, at);
    out.extend_from_slice(b"\",\"kind\":");
    string(out, kind);
}

fn field(out: &mut Vec<u8>, name: &[u8], value: impl FnOnce(&mut Vec<u8>)) {
    out.extend_from_slice(name);
    value(out);
}

fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    decimal(out, value);
}

fn decimal(out: &mut Vec<u8>, mut value: u64) {
    let start = out.len();
    loop {
        out.push(b'0' + (value % 10) as u8);
        value /= 10;
        if value == 0 {
            break;
        }
    }
    if let Some(digits) = out.get_mut(start..) {
        digits.reverse();
    }
}

fn id(out: &mut Vec<u8>, id: Id) {
    const HEX: &[u8; 16] = b"0123456789abcdef";
    out.push(b'"');
    for byte in id.as_bytes() {
        out.extend([byte >> 4, byte & 15].into_iter().filter_map(|digit| HEX.get(usize::from(digit))));
    }
    out.push(b'"');
}

/// RFC 8259 §7: quotes, backslashes and control characters are escaped; all else stands as UTF-8.
fn string(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    if text.bytes().any(|byte| byte < 0x20 || byte == b'"' || byte == b'\\') {
        for byte in text.bytes() {
            match byte {
                b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
                0..0x20 => {
                    // Writing to a Vec cannot fail.
                    let _ = write!(out, "\\u{byte:04x}");
                }
                _ => out.push(byte),
            }
        }
    } else {
        out.extend_from_slice(text.as_bytes());
    }
    out.push(b'"');
}

/// RFC 3339 in UTC with milliseconds. Civil date from days since 1970: H. Hinnant, "chrono-compatible low-level date algorithms".
fn time(out: &mut Vec<u8>, at: u64) {
    let (seconds, millis) = (at / 1000, at % 1000);
    let (days, second) = (seconds / 86400, seconds % 86400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    padded(out, year, 4);
    for (mark, value) in [(b'-', month), (b'-', day), (b'T', second / 3600), (b':', second / 60 % 60), (b':', second % 60)] {
        out.push(mark);
        padded(out, value, 2);
    }
    out.push(b'.');
    padded(out, millis, 3);
    out.push(b'Z');
}

fn padded(out: &mut Vec<u8>, value: u64, width: u32) {
    for place in (0..width).rev() {
        out.push(b'0' + (value / 10u64.pow(place) % 10) as u8);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::code::Code;
    use crate::host::Protocol;
    use crate::record::{Kind, Stages};
    use crate::testing::{Issuer, claims};
    use crate::ticket::Ticket;
    use serde_json::{Value, json};

    #[test]
    fn a_line_is_json_with_every_field_of_the_contract() {
        let issuer = Issuer::new("k1");
        let mut claims = claims();
        claims["sub"] = json!("user:\"a\\b\u{1}\u{7f}é\n");
        claims["rul"] = json!(["r1", "r\"2"]);
        let ticket = Ticket::verify(&issuer.sign(&claims), &issuer.keys()).unwrap();
        let record = Record {
            at: 1_709_210_096_007,
            kind: Kind::Close,
            flow: Id::from_bytes([0xab; 8]),
            ticket: Some(&ticket),
            device: ticket.device,
            protocol: Protocol::Tcp,
            host: "jupyter.lab.internal",
            port: 8888,
            bytes_in: 0,
            bytes_out: u64::MAX,
            stages: Stages { ticket_us: 1, resolve_us: 22, dial_us: 333, first_byte_us: 0 },
            duration_us: 1_000_000,
            code: Code::SessionRevoked,
            leaf: "00ff",
        };
        let mut line = Vec::new();
        write_record(&mut line, 1 << 52, Id::from_bytes([0xc1; 8]), &record);
        assert_eq!(number_of(&line), Some(1 << 52));
        assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
        assert_eq!(
            serde_json::from_slice::<Value>(&line).unwrap(),
            json!({
                "n": 1u64 << 52, "at": "2024-02-29T12:34:56.007Z", "kind": "close", "flow": "abababababababab",
                "session": "0000000000000051", "principal": "user:\"a\\b\u{1}\u{7f}é\n", "device": "00000000000000d1",
                "segment": "00000000000000a1", "rules": ["r1", "r\"2"], "connector": "c1c1c1c1c1c1c1c1", "protocol": "tcp",
                "host": "jupyter.lab.internal", "port": 8888, "in": 0, "out": u64::MAX,
                "stages": {"ticket_us": 1, "resolve_us": 22, "dial_us": 333, "first_byte_us": 0},
                "duration_us": 1_000_000, "code": "session_revoked", "leaf": "00ff",
            })
        );
    }

    #[test]
    fn a_gap_says_how_much_is_missing() {
        let mut line = Vec::new();
        write_gap(&mut line, 7, 0, Id::from_bytes([1; 8]), 12);
        let expected = json!({"n": 7, "at": "1970-01-01T00:00:00.000Z", "kind": "gap", "connector": "0101010101010101", "lost": 12,
            "code": "records_full"});
        assert_eq!(serde_json::from_slice::<Value>(&line).unwrap(), expected);
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (line, number) in [
            ("{\"n\":1,", Some(1)),
            ("{\"n\":01,", None),
            ("{\"n\":0,", None),
            ("{\"n\":-1,", None),
            ("{\"n\":1", None),
            ("{\"n\": 1,", None),
            ("{\"n\":,", None),
            ("{\"n\":99999999999999999,", None),
        ] {
            assert_eq!(number_of(line.as_bytes()), number, "{line}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_text_survives(text in ".{0,40}") {
            let mut out = Vec::new();
            string(&mut out, &text);
            proptest::prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }
    }
}
