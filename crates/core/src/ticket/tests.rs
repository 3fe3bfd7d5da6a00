#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::testing::{Issuer, claims};
use serde_json::{Value, json};

fn with(change: impl FnOnce(&mut Value)) -> Value {
    let mut value = claims();
    change(&mut value);
    value
}

#[test]
fn a_good_ticket_says_what_was_signed() {
    let issuer = Issuer::new("k1");
    let ticket = Ticket::verify(&issuer.sign(&claims()), &issuer.keys()).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&ticket.to_json()).unwrap(), claims());
    assert_eq!(ticket.kid(), "k1");
}

#[test]
fn case_2_algorithm_comes_from_configuration() {
    let issuer = Issuer::new("k1");
    for alg in ["none", "HS256", "ES256", "eddsa", "EdDSA ", "Ed25519", ""] {
        let token = issuer.sign_with(&json!({"alg": alg, "typ": TICKET_TYPE, "kid": "k1"}).to_string(), &claims().to_string());
        assert_eq!(Ticket::verify(&token, &issuer.keys()), Err(Code::TicketMalformed), "{alg}");
    }
}

#[test]
fn case_5_a_key_named_by_the_token_is_never_used() {
    let (issuer, thief) = (Issuer::new("k1"), Issuer::new("../../etc/passwd"));
    assert_eq!(Ticket::verify(&thief.sign(&claims()), &issuer.keys()), Err(Code::TicketKeyUnknown));
    assert_eq!(Ticket::verify(&Issuer::new("k1").sign(&claims()), &issuer.keys()), Err(Code::TicketSignature));
    for extra in ["jku", "jwk", "x5u", "x5c", "crit", "b64", "zip"] {
        let mut header = json!({"alg": "EdDSA", "typ": TICKET_TYPE, "kid": "k1"});
        header[extra] = json!(["b64"]);
        let token = issuer.sign_with(&header.to_string(), &claims().to_string());
        assert_eq!(Ticket::verify(&token, &issuer.keys()), Err(Code::TicketMalformed), "{extra}");
    }
}

#[test]
fn case_17_another_kind_of_token_is_no_ticket() {
    let issuer = Issuer::new("k1");
    for header in [
        json!({"alg": "EdDSA", "kid": "k1"}),
        json!({"alg": "EdDSA", "kid": "k1", "typ": "JWT"}),
        json!({"alg": "EdDSA", "kid": "k1", "typ": "logout+jwt"}),
        json!({"alg": "EdDSA", "kid": "k1", "typ": "application/cloister-ticket+jwt"}),
    ] {
        let token = issuer.sign_with(&header.to_string(), &claims().to_string());
        assert_eq!(Ticket::verify(&token, &issuer.keys()), Err(Code::TicketMalformed));
    }
}

#[test]
fn case_19_only_one_spelling_is_read() {
    let issuer = Issuer::new("k1");
    let token = issuer.sign(&claims());
    let (keys, text) = (issuer.keys(), claims().to_string());
    let header = format!(r#"{{"alg":"EdDSA","typ":"{TICKET_TYPE}","kid":"k1"}}"#);
    let signed = |header: &str, payload: &str| Ticket::verify(&issuer.sign_with(header, payload), &keys);
    assert!(signed(&header, &text).is_ok());

    for odd in [
        format!("{token}."),
        format!(".{token}"),
        format!("{token}="),
        format!("{token} "),
        format!(" {token}"),
        format!("{token}\n"),
        token.replacen('.', "..", 1),
        token.replacen('.', "", 1),
        token.rsplit_once('.').unwrap().0.to_owned(),
        String::new(),
        "..".to_owned(),
    ] {
        assert!(Ticket::verify(&odd, &keys).is_err(), "{odd:?}");
    }
    // The last base64 digit of a 64-byte signature carries four loose bits.
    let mut loose = token.clone().into_bytes();
    let last = loose.last_mut().unwrap();
    *last = match *last {
        b'A' => b'B',
        b'Q' => b'R',
        b'g' => b'h',
        _ => b'x',
    };
    assert_eq!(Ticket::verify(&String::from_utf8(loose).unwrap(), &keys), Err(Code::TicketMalformed));

    for (header, payload) in [
        (header.replace(r#""kid":"k1""#, r#""kid":"k2","kid":"k1""#), text.clone()),
        (header.clone(), text.replacen('{', r#"{"sid":"00000000000000ff","#, 1)),
        (header.clone(), text.replacen('{', r#"{"scope":"all","#, 1)),
        (header.clone(), text.replace(r#""cnf":{"#, r#""cnf":{"jkt":"x","#)),
        (header.clone(), format!("{text} {text}")),
        (header.clone(), format!("[{text}]")),
        (r#"["EdDSA","cloister-ticket+jwt","k1"]"#.to_owned(), text.clone()),
        (header.clone(), "null".to_owned()),
        (header.clone(), String::new()),
    ] {
        assert_eq!(signed(&header, &payload).unwrap_err(), Code::TicketMalformed, "{header} {payload}");
    }
}

#[test]
fn claims_out_of_bounds_refuse() {
    let issuer = Issuer::new("k1");
    let many: Vec<String> = (0..=MAX_CONNECTORS).map(|n| format!("{n:016x}")).collect();
    let audience = |connectors: &[String]| {
        std::iter::once("segment:00000000000000a1".to_owned())
            .chain(connectors.iter().map(|id| format!("connector:{id}")))
            .collect::<Vec<_>>()
    };
    let at_bound = with(|c| {
        c["con"] = json!(many[..MAX_CONNECTORS]);
        c["aud"] = json!(audience(&many[..MAX_CONNECTORS]));
    });
    assert!(Ticket::verify(&issuer.sign(&at_bound), &issuer.keys()).is_ok());
    let bad: Vec<Value> = vec![
        with(|c| {
            c["con"] = json!(many);
            c["aud"] = json!(audience(&many));
        }),
        with(|c| c["exp"] = json!(c["iat"].as_u64().unwrap() + MAX_LIFE + 1)),
        with(|c| c["exp"] = c["iat"].clone()),
        with(|c| c["exp"] = json!(1e9)),
        with(|c| c["exp"] = json!("1")),
        with(|c| c["iat"] = json!(-1)),
        with(|c| c["cty"] = json!(MAX_CONTINUITY + 1)),
        with(|c| c["sid"] = json!("00000000000000AA")),
        with(|c| c["con"] = json!([])),
        with(|c| c["con"] = json!(["00000000000000c1", "00000000000000c1"])),
        with(|c| c["aud"] = json!(["segment:00000000000000a1"])),
        with(|c| c["aud"] = json!(["segment:00000000000000a2", "connector:00000000000000c1", "connector:00000000000000c2"])),
        with(|c| c["aud"] = json!(["segment:00000000000000a1", "connector:00000000000000c1", "connector:00000000000000c3"])),
        with(|c| c["aud"] = json!(["segment:00000000000000a1", "connector:00000000000000c1", "connector:00000000000000c1"])),
        with(|c| c["aud"] = json!("segment:00000000000000a1")),
        with(|c| c["cnf"] = json!({})),
        with(|c| c["cnf"] = json!([c["cnf"]["jkt"]])),
        with(|c| c["cnf"]["jkt"] = json!("AAAA")),
        with(|c| c["sub"] = json!("x".repeat(MAX_TEXT + 1))),
        with(|c| c["sub"] = json!("")),
        with(|c| c["rul"] = json!(vec!["r"; MAX_RULES + 1])),
        with(|c| c["iss"] = json!("evil")),
        with(|c| {
            c.as_object_mut().unwrap().remove("cty");
        }),
    ];
    for claims in bad {
        assert_eq!(Ticket::verify(&issuer.sign(&claims), &issuer.keys()), Err(Code::TicketMalformed), "{claims}");
    }
    let long = with(|c| c["jti"] = json!("j".repeat(MAX_TOKEN_BYTES)));
    assert_eq!(Ticket::verify(&issuer.sign(&long), &issuer.keys()), Err(Code::TicketMalformed));
}

#[test]
fn case_3_and_18_a_relay_takes_a_ticket_only_from_its_holder_for_its_exchange_and_connectors() {
    let issuer = Issuer::new("k1");
    let ticket = Ticket::verify(&issuer.sign(&claims()), &issuer.keys()).unwrap();
    let (mine, other) = (ticket.issuer, TrustDomain::parse("ffffffffffffffff.cloister").unwrap());
    let (client, key, up) = (ticket.device, ticket.jkt, LinkState::Up { since: 0 });
    let thief = Thumbprint([7; 32]);
    let id = |text: &str| Id::parse(text).unwrap();
    let (now, named) = (ticket.iat, Some(id("00000000000000c1")));
    assert_eq!(ticket.judge_join(mine, client, key, named, now, up), Ok(()));
    assert_eq!(ticket.judge_join(mine, client, key, None, now, up), Ok(()));
    assert_eq!(ticket.judge_join(other, client, key, named, now, up), Err(Code::TicketAudience));
    assert_eq!(ticket.judge_join(mine, client, key, Some(id("00000000000000c9")), now, up), Err(Code::TicketAudience));
    assert_eq!(ticket.judge_join(mine, id("00000000000000d9"), key, named, now, up), Err(Code::TicketNotYours));
    assert_eq!(ticket.judge_join(mine, client, thief, named, now, up), Err(Code::TicketNotYours));
    assert_eq!(ticket.judge_join(mine, client, key, named, ticket.exp + LEEWAY, up), Ok(()));
    assert_eq!(ticket.judge_join(mine, client, key, named, ticket.exp + LEEWAY + 1, up), Err(Code::TicketExpired));
    assert_eq!(ticket.judge_join(mine, client, key, named, ticket.iat - LEEWAY - 1, up), Err(Code::TicketMalformed));
}

#[test]
fn continuity_holds_while_the_link_is_down_and_one_leeway_after_it_returned() {
    let issuer = Issuer::new("k1");
    let ticket = Ticket::verify(&issuer.sign(&with(|c| c["cty"] = json!(3600))), &issuer.keys()).unwrap();
    let end = ticket.exp + LEEWAY;
    assert_eq!(ticket.valid_until(LinkState::Up { since: 0 }), end);
    assert_eq!(ticket.valid_until(LinkState::Down), end + 3600);
    assert_eq!(ticket.valid_until(LinkState::Up { since: end + 100 }), end + 100 + LEEWAY);
    assert_eq!(ticket.valid_until(LinkState::Up { since: end + 5000 }), end + 3600);
    let strict = Ticket::verify(&issuer.sign(&claims()), &issuer.keys()).unwrap();
    assert_eq!(strict.valid_until(LinkState::Down), strict.exp + LEEWAY);
    assert_eq!(strict.valid_until(LinkState::Up { since: end + 100 }), strict.exp + LEEWAY);
}

#[test]
fn thumbprint_is_that_of_rfc_7638() {
    // The EC key of RFC 7517, appendix A.1; its thumbprint computed with another implementation.
    let x = URL_SAFE_NO_PAD.decode("MKBCTNIcKUSDii11ySs3526iDZ8AiTo7Tu6KPAqv7D4").unwrap();
    let y = URL_SAFE_NO_PAD.decode("4Etl6SRW2YiLUrN5vfvVHuhp7x8PxltmWWlbbM4IFyM").unwrap();
    let point = [vec![4], x, y].concat();
    assert_eq!(Thumbprint::of_point(&point).unwrap().to_string(), "cn-I_WNMClehiVp51i_0VpOENW1upEerA8sEam5hn-s");
    assert_eq!(Thumbprint::of_point(&point[1..]), None);
}

#[test]
fn wycheproof_ed25519_agrees() {
    let text =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/data/wycheproof/ed25519_test.json")).unwrap();
    let file: Value = serde_json::from_str(&text).unwrap();
    let mut seen = 0;
    for group in file["testGroups"].as_array().unwrap() {
        let key: [u8; 32] = hex(group["publicKey"]["pk"].as_str().unwrap()).try_into().unwrap();
        for test in group["tests"].as_array().unwrap() {
            let holds = verify_ed25519(&key, &hex(test["msg"].as_str().unwrap()), &hex(test["sig"].as_str().unwrap()));
            assert_eq!(holds, test["result"] == "valid", "tcId {}", test["tcId"]);
            seen += 1;
        }
    }
    assert_eq!(seen, file["numberOfTests"]);
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn bounded_keys() {
    let key = [0; 32];
    let keys = |n: usize| TicketKeys::new((0..n).map(|i| (i.to_string(), key.as_slice())));
    assert!(keys(MAX_KEYS).is_ok());
    assert_eq!(keys(MAX_KEYS + 1).err(), Some(Code::ArgumentInvalid));
    assert_eq!(TicketKeys::new([("k".to_owned(), [0u8; 31].as_slice())]).err(), Some(Code::ArgumentInvalid));
}

proptest::proptest! {
    #[test]
    fn case_19_no_other_bytes_verify(at in 0usize..2000, flip in 1u8..128) {
        let issuer = Issuer::new("k1");
        let mut token = issuer.sign(&claims()).into_bytes();
        let at = at % token.len();
        token[at] ^= flip;
        if let Ok(text) = String::from_utf8(token) {
            proptest::prop_assert!(Ticket::verify(&text, &issuer.keys()).is_err());
        }
    }

    #[test]
    fn anything_else_is_refused_without_a_crash(text in ".{0,300}") {
        proptest::prop_assert!(Ticket::verify(&text, &Issuer::new("k1").keys()).is_err());
    }
}
