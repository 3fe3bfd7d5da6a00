//! Laws of the one destination parser, the forbidden addresses and segment matching.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use cloister_core::address::{Forbidden, Guard, beyond_wildcards, forbidden, forbidden_name};
use cloister_core::code::Code;
use cloister_core::host::{
    Destination, Host, Malformed, Protocol, parse_authority, parse_host, parse_name, parse_port, write_authority,
};
use cloister_core::segment::{Assignment, MAX_HOSTS, Pattern, PortRange, Segments, Visible};
use proptest::prelude::*;

fn host(text: &str) -> Result<Host, Malformed> {
    parse_host(text.as_bytes())
}

#[test]
fn accepted_forms_and_what_they_mean() {
    for (text, canonical) in [
        ("jupyter.lab.internal", "jupyter.lab.internal"),
        ("Jupyter.LAB.internal.", "jupyter.lab.internal"),
        ("a", "a"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("0x.example", "0x.example"),
        ("1.2.3.example", "1.2.3.example"),
        ("10.20.30.40", "10.20.30.40"),
        ("2001:db8::7", "2001:db8::7"),
    ] {
        assert_eq!(host(text).unwrap().to_string(), canonical, "{text}");
    }
}

#[test]
fn refused_forms_and_why() {
    let long_label = "a".repeat(64);
    let long_name = format!("{}.example", ["a"; 124].join("."));
    for (text, why) in [
        ("", Malformed::Empty),
        (".", Malformed::Label),
        ("a..b", Malformed::Label),
        ("a..", Malformed::Label),
        (".a", Malformed::Label),
        (&long_label, Malformed::Label),
        (&long_name, Malformed::TooLong),
        ("-a.example", Malformed::Hyphen),
        ("a-.example", Malformed::Hyphen),
        ("my_db.example", Malformed::Character),
        ("a b", Malformed::Character),
        ("a\0b", Malformed::Character),
        ("bücher.example", Malformed::Character),
        ("*.example", Malformed::Character),
        ("user@host", Malformed::Character),
        ("%31", Malformed::Character),
        ("[2001:db8::7]", Malformed::Ipv6),
        ("2001:DB8::7", Malformed::Ipv6),
        ("2001:db8:0:0:0:0:0:7", Malformed::Ipv6),
        ("fe80::1%eth0", Malformed::Ipv6),
        ("1.2.3", Malformed::Numeric),
        ("1.2.3.4.", Malformed::Numeric),
        ("01.2.3.4", Malformed::Numeric),
        ("1.2.3.256", Malformed::Numeric),
        ("example.0x7f", Malformed::Numeric),
        ("0x", Malformed::Numeric),
        ("2001-db8--7.ipv6-literal.net", Malformed::LiteralName),
    ] {
        assert_eq!(host(text).unwrap_err(), why, "{text:?}");
    }
}

#[test]
fn authority_is_host_and_port_and_nothing_else() {
    for (text, printed) in [
        ("a.example:443", "a.example:443"),
        ("10.0.0.1:1", "10.0.0.1:1"),
        ("[2001:db8::7]:65535", "[2001:db8::7]:65535"),
        ("A.example.:80", "a.example:80"),
    ] {
        let (host, port) = parse_authority(text.as_bytes()).unwrap();
        assert_eq!(write_authority(&host, port), printed);
    }
    for text in [
        "",
        ":",
        ":443",
        "a",
        "a:",
        "a:0",
        "a:00",
        "a:080",
        "a:65536",
        "a:99999",
        "a:+1",
        "a: 1",
        "a:1 ",
        "a:1:2",
        "[a]:1",
        "[10.0.0.1]:1",
        "2001:db8::7:443",
        "[2001:db8::7]",
        "[2001:db8::7]1",
        "u@a:1",
        "a:1/",
        "a:1?",
        "a:1#",
        "a\\b:1",
        "//a:1",
        "http://a:1",
    ] {
        assert!(parse_authority(text.as_bytes()).is_err(), "{text:?}");
    }
    assert!(parse_authority(&[b'a'; 300]).is_err());
}

#[test]
fn case_66_port_0_and_65536_are_refused() {
    assert_eq!(parse_port(b"0"), Err(Malformed::Port));
    assert_eq!(parse_port(b"65536"), Err(Malformed::Port));
    assert_eq!(parse_port(b"65535"), Ok(65535));
    assert!(Destination::parse("a.example", 0, Protocol::Tcp).is_err());
    assert!(PortRange::new(0, 1).is_none() && PortRange::new(2, 1).is_none());
}

proptest! {
    #[test]
    fn parse_of_print_is_identity_for_addresses(bits: u128, port in 1u16..) {
        for address in [IpAddr::V6(Ipv6Addr::from_bits(bits)), IpAddr::V4(Ipv4Addr::from_bits(bits as u32))] {
            let parsed = Host::Address(address);
            prop_assert_eq!(&host(&parsed.to_string()).unwrap(), &parsed);
            prop_assert_eq!(parse_authority(write_authority(&parsed, port).as_bytes()).unwrap(), (parsed, port));
        }
    }

    #[test]
    fn parse_of_print_is_identity_for_names(text in "[a-zA-Z0-9.-]{1,40}", port in 1u16..) {
        if let Ok(parsed) = host(&text) {
            prop_assert_eq!(&host(&parsed.to_string()).unwrap(), &parsed);
            prop_assert_eq!(parse_authority(write_authority(&parsed, port).as_bytes()).unwrap(), (parsed, port));
        }
    }

    #[test]
    fn parsers_take_any_bytes(bytes: Vec<u8>) {
        let _ = parse_authority(&bytes);
        let _ = parse_name(&bytes);
        if let Ok(parsed) = parse_host(&bytes) {
            prop_assert!(parsed.to_string().is_ascii());
        }
    }

    /// What a lenient parser reads as a number never passes as a name: only `Host::Address` can hold four numbers.
    #[test]
    fn numerals_are_addresses_or_malformed(parts in prop::collection::vec(prop_oneof!["[0-9]{1,12}", "0[xX][0-9a-fA-F]{1,8}", "0[0-7]{1,11}"], 1..6)) {
        let text = parts.join(".");
        if let Ok(parsed) = host(&text) {
            prop_assert!(matches!(parsed, Host::Address(IpAddr::V4(address)) if address.to_string() == text));
        }
    }
}

#[test]
fn case_55_every_ipv6_form_of_a_forbidden_address_is_forbidden() {
    for v4 in ["127.0.0.1", "169.254.169.254", "100.100.100.200", "10.96.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255"] {
        let [a, b, c, d] = v4.parse::<Ipv4Addr>().unwrap().octets();
        let (high, low) = (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
        for segments in [
            [0, 0, 0, 0, 0, 0xffff, high, low],
            [0, 0, 0, 0, 0, 0, high, low],
            [0, 0, 0, 0, 0xffff, 0, high, low],
            [0x64, 0xff9b, 0, 0, 0, 0, high, low],
            [0x64, 0xff9b, 1, 0, 0, 0, high, low],
            [0x64, 0xff9b, 1, high, low >> 8, low << 8, 0, 0],
            [0x2002, high, low, 0, 0, 0, 0, 1],
            [0x2001, 0, 0xcb00, 0x7101, 0, 0, !high, !low],
            [0x2001, 0xdb8, 1, 2, 0, 0x5efe, high, low],
            [0x2001, 0xdb8, 1, 2, 0x200, 0x5efe, high, low],
            [0xfe80, 0, 0, 0, 0x200, 0x5efe, high, low],
        ] {
            let address = IpAddr::V6(Ipv6Addr::from(segments));
            assert!(forbidden(address).is_some(), "{address} for {v4}");
        }
    }
}

#[test]
fn case_66_addresses_at_the_edge() {
    for (text, why) in [
        ("0.0.0.0", Forbidden::Unspecified),
        ("0.255.255.255", Forbidden::Unspecified),
        ("127.255.255.255", Forbidden::Loopback),
        ("169.254.0.1", Forbidden::LinkLocal),
        ("169.254.169.254", Forbidden::Metadata),
        ("224.0.0.0", Forbidden::Multicast),
        ("239.255.255.255", Forbidden::Multicast),
        ("240.0.0.0", Forbidden::Reserved),
        ("255.255.255.255", Forbidden::Broadcast),
        ("192.0.0.9", Forbidden::Reserved),
        ("fe80::1", Forbidden::LinkLocal),
        ("febf::1", Forbidden::LinkLocal),
        ("fec0::1", Forbidden::Reserved),
        ("ff02::1", Forbidden::Multicast),
        ("100::1", Forbidden::Reserved),
        ("4000::1", Forbidden::Reserved),
        ("2001:20::1", Forbidden::Reserved),
        ("64:ff9b::7f00:1", Forbidden::Loopback),
    ] {
        assert_eq!(forbidden(text.parse().unwrap()), Some(why), "{text}");
    }
    for text in [
        "1.0.0.0",
        "10.0.0.1",
        "100.64.0.1",
        "126.255.255.255",
        "128.0.0.1",
        "169.253.255.255",
        "169.255.0.0",
        "192.168.1.1",
        "223.255.255.255",
        "2000::1",
        "2003::1",
        "3fff::1",
        "fc00::1",
        "fdff::1",
        "64:ff9b::a01:203",
    ] {
        assert_eq!(forbidden(text.parse().unwrap()), None, "{text}");
    }
}

#[test]
fn own_addresses_are_forbidden_in_both_families_until_spelled_out() {
    let guard = Guard::new(["198.51.100.7".parse().unwrap()]);
    let own: IpAddr = "198.51.100.7".parse().unwrap();
    assert_eq!(guard.judge(own, &[]), Some(Forbidden::Own));
    assert_eq!(guard.judge("64:ff9b::c633:6407".parse().unwrap(), &[]), Some(Forbidden::Own));
    assert_eq!(guard.judge(own, &["198.51.100.7/32".parse().unwrap()]), None);
    assert_eq!(guard.judge("198.51.100.8".parse().unwrap(), &[]), None);
}

#[test]
fn names_of_this_host_metadata_and_the_api_server_are_forbidden() {
    for (text, why) in [
        ("localhost", Some(Forbidden::Loopback)),
        ("app.localhost", Some(Forbidden::Loopback)),
        ("localhost.localdomain", Some(Forbidden::Loopback)),
        ("metadata.google.internal", Some(Forbidden::Metadata)),
        ("metadata.goog", Some(Forbidden::Metadata)),
        ("kubernetes", Some(Forbidden::ControlPlane)),
        ("kubernetes.default", Some(Forbidden::ControlPlane)),
        ("kubernetes.default.svc.cluster.local", Some(Forbidden::ControlPlane)),
        ("localhost-docs.allowed.example", None),
        ("metadata.allowed.example", None),
        ("kubernetes.example", None),
        ("kubernetes.default.example", None),
    ] {
        assert_eq!(forbidden_name(&parse_name(text.as_bytes()).unwrap()), why, "{text}");
    }
}

fn segments(json: &str) -> Segments<Assignment> {
    Segments::parse(json.as_bytes()).unwrap()
}

fn find<'a>(segments: &'a Segments<Assignment>, host: &str, port: u16) -> Option<&'a str> {
    let destination = Destination::parse(host, port, Protocol::Tcp).unwrap();
    segments.find(&destination).map(|segment| segment.id.as_str())
}

#[test]
fn most_specific_host_wins_then_the_narrowest_range() {
    let set = segments(
        r#"[
        {"id": "wide", "hosts": ["*.internal"], "ports": [{"first": 1, "last": 65535}], "protocol": "tcp"},
        {"id": "lab", "hosts": ["*.lab.internal"], "ports": [{"first": 1, "last": 10000}], "protocol": "tcp"},
        {"id": "lab-web", "hosts": ["*.lab.internal"], "ports": [{"first": 8000, "last": 8999}], "protocol": "tcp"},
        {"id": "jupyter", "hosts": ["jupyter.lab.internal"], "ports": [{"first": 8888, "last": 8888}], "protocol": "tcp"},
        {"id": "udp", "hosts": ["jupyter.lab.internal"], "ports": [{"first": 53, "last": 53}], "protocol": "udp"},
        {"id": "address", "hosts": ["10.20.30.40"], "ports": [{"first": 22, "last": 22}], "protocol": "tcp"}
    ]"#,
    );
    for (host, port, id) in [
        ("jupyter.lab.internal", 8888, Some("jupyter")),
        ("JUPYTER.lab.internal.", 8888, Some("jupyter")),
        ("jupyter.lab.internal", 8889, Some("lab-web")),
        ("jupyter.lab.internal", 22, Some("lab")),
        ("jupyter.lab.internal", 10001, Some("wide")),
        ("jupyter.lab.internal", 53, Some("lab")),
        ("deep.er.lab.internal", 8000, Some("lab-web")),
        ("lab.internal", 8000, Some("wide")),
        ("internal", 8000, None),
        ("xlab.internal.example", 8000, None),
        ("10.20.30.40", 22, Some("address")),
        ("10.20.30.40", 23, None),
    ] {
        assert_eq!(find(&set, host, port), id, "{host}:{port}");
    }
    let udp = Destination::parse("jupyter.lab.internal", 53, Protocol::Udp).unwrap();
    assert_eq!(set.find(&udp).unwrap().id, "udp");
    assert!(set.names(&host("anything.internal").unwrap()) && !set.names(&host("internal").unwrap()));
}

#[test]
fn tie_belongs_to_nobody() {
    let set = segments(
        r#"[
        {"id": "a", "hosts": ["x.internal"], "ports": [{"first": 1, "last": 10}], "protocol": "tcp"},
        {"id": "b", "hosts": ["x.internal"], "ports": [{"first": 1, "last": 10}], "protocol": "tcp"},
        {"id": "c", "hosts": ["x.internal"], "ports": [{"first": 5, "last": 5}], "protocol": "tcp"}
    ]"#,
    );
    assert_eq!(find(&set, "x.internal", 4), None);
    assert_eq!(find(&set, "x.internal", 5), Some("c"));
}

#[test]
fn case_57_wildcard_never_covers_the_control_plane() {
    let wildcard = segments(
        r#"[{"id": "all", "hosts": ["*.svc.cluster.local", "*.default", "*.cluster.local"], "ports": [{"first": 1, "last": 65535}], "protocol": "tcp"}]"#,
    );
    for name in [
        "kubernetes.default.svc.cluster.local",
        "kubernetes.default",
        "kube-dns.kube-system.svc.cluster.local",
        "10-0-0-1.kube-dns.kube-system.svc.cluster.local",
        "x.kube-public.svc.cluster.local",
        "x.kube-node-lease.svc.cluster.local",
    ] {
        assert_eq!(find(&wildcard, name, 443), None, "{name}");
        assert!(!Pattern::parse("*.svc.cluster.local").unwrap().contains(&host(name).unwrap()));
    }
    assert_eq!(find(&wildcard, "jupyter.team.svc.cluster.local", 443), Some("all"));
    let listed = segments(
        r#"[{"id": "dns", "hosts": ["kube-dns.kube-system.svc.cluster.local"], "ports": [{"first": 53, "last": 53}], "protocol": "tcp"}]"#,
    );
    assert_eq!(find(&listed, "kube-dns.kube-system.svc.cluster.local", 53), Some("dns"));
    assert!(beyond_wildcards(&parse_name(b"localhost").unwrap()));
}

#[test]
fn malformed_segments_are_refused_as_a_whole() {
    for json in [
        "",
        "{}",
        "[{}]",
        r#"[{"id": "a", "hosts": ["a_b"], "ports": [], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [{"first": 2, "last": 1}], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [{"first": 0, "last": 1}], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [{"first": 1, "last": 65536}], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [], "protocol": "icmp"}]"#,
        r#"[{"id": "a", "hosts": ["*"], "ports": [], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a.*.b"], "ports": [], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["*.1.2.3.4"], "ports": [], "protocol": "tcp"}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [], "protocol": "tcp", "alow": []}]"#,
        r#"[{"id": "a", "hosts": ["a"], "ports": [], "protocol": "tcp", "allow": ["10.0.0.1/33"]}]"#,
    ] {
        assert_eq!(Segments::<Assignment>::parse(json.as_bytes()).unwrap_err().code(), Code::MessageMalformed, "{json}");
    }
    let visible = r#"[{"id": "a", "name": "A", "hosts": ["a.internal"], "ports": [{"first": 1, "last": 2}], "protocol": "udp", "healthy": false, "labels": {"k": "v"}}]"#;
    assert!(!Segments::<Visible>::parse(visible.as_bytes()).unwrap().get("a").unwrap().healthy);
}

#[test]
fn hosts_of_a_segment_are_bounded() {
    let json = |count: usize| {
        let hosts: Vec<String> = (0..count).map(|at| format!("h{at}.internal")).collect();
        serde_json::json!([{"id": "a", "hosts": hosts, "ports": [], "protocol": "tcp"}]).to_string()
    };
    assert!(Segments::<Assignment>::parse(json(MAX_HOSTS).as_bytes()).is_ok());
    assert_eq!(Segments::<Assignment>::parse(json(MAX_HOSTS + 1).as_bytes()).unwrap_err().code(), Code::TooLarge);
}
