use super::*;

fn catalogue(hosts: &[&str]) -> Arc<Segments<Visible>> {
    let segments: Vec<serde_json::Value> = hosts
        .iter()
        .enumerate()
        .map(|(at, host)| {
            serde_json::json!({"id": format!("{at:016x}"), "name": host, "hosts": [host], "ports": [{"first": 443, "last": 443}], "protocol": "tcp"})
        })
        .collect();
    Arc::new(Segments::parse(serde_json::Value::from(segments).to_string().as_bytes()).unwrap())
}

fn names(pool4: &str, hosts: &[&str]) -> (Names, Instant) {
    let mut names = Names::new(Pools::parse(pool4, "fd12:3456:789a::/64").unwrap());
    let now = Instant::now();
    names.set_catalogue(catalogue(hosts), now);
    (names, now)
}

fn name(text: &str) -> Name {
    parse_name(text.as_bytes()).unwrap()
}

fn found(lookup: Lookup) -> Addresses {
    match lookup {
        Lookup::Found(addresses) => addresses,
        other => panic!("{other:?}"),
    }
}

#[test]
fn pools_lie_in_shared_and_unique_local_space() {
    for (v4, v6) in [
        ("100.64.0.0/9", "fd00:1::/64"),
        ("10.0.0.0/16", "fd00:1::/64"),
        ("100.64.0.0/31", "fd00:1::/64"),
        ("100.64.0.1/16", "fd00:1::/64"),
        ("100.128.0.0/16", "fd00:1::/64"),
        ("100.64.0.0/16", "fc00:1::/64"),
        ("100.64.0.0/16", "fd00:1::/121"),
        ("100.64.0.0/16", "2001:db8::/64"),
        ("100.64.0.0", "fd00:1::/64"),
    ] {
        assert!(Pools::parse(v4, v6).is_err(), "{v4} {v6}");
    }
    assert_eq!(Pools::parse("100.64.0.0/30", "fd00:1::/120").unwrap().slots(), 2);
    assert_eq!(Pools::parse("100.64.0.0/10", "fd00:1::/64").unwrap().slots(), MAX_SLOTS);
}

#[test]
fn addresses_of_a_name_stay_and_lead_back_to_it() {
    let (mut names, now) = names("100.64.0.0/16", &["a.internal", "b.internal"]);
    let a = found(names.look_up(&name("a.internal"), now));
    let b = found(names.look_up(&name("b.internal"), now));
    assert_ne!(a, b);
    assert_eq!(found(names.look_up(&name("A.internal."), now)), a);
    assert_eq!(names.name_of(a.v4.into(), now), Some(name("a.internal")));
    assert_eq!(names.name_of(a.v6.into(), now), Some(name("a.internal")));
    assert_eq!(names.look_up(&name("c.internal"), now), Lookup::NotVisible);
    for nobody in ["100.64.0.0", "100.64.255.255", "100.64.99.99", "10.0.0.1", "fd12:3456:789a::", "::1"] {
        assert_eq!(names.name_of(nobody.parse().unwrap(), now), None, "{nobody}");
    }
}

#[test]
fn case_69_address_is_nobody_elses_before_the_quarantine_ends() {
    let (mut names, now) = names("100.64.0.0/30", &["a.internal", "b.internal"]);
    let a = found(names.look_up(&name("a.internal"), now));
    names.set_catalogue(catalogue(&["b.internal", "c.internal"]), now);
    assert_eq!(names.name_of(a.v4.into(), now), None, "an old socket reaches nothing");
    assert_eq!(names.look_up(&name("c.internal"), now), Lookup::Full);
    let last = now + QUARANTINE - Duration::from_millis(1);
    assert_eq!(names.look_up(&name("c.internal"), last), Lookup::Full);
    let c = found(names.look_up(&name("c.internal"), now + QUARANTINE));
    assert_eq!(c, a);
    assert!(QUARANTINE.as_secs() > 60 * u64::from(crate::edge::dns::TTL));
}

#[test]
fn case_69_name_that_returns_within_the_quarantine_gets_its_address_back() {
    let (mut names, now) = names("100.64.0.0/30", &["a.internal", "b.internal"]);
    let a = found(names.look_up(&name("a.internal"), now));
    names.set_catalogue(catalogue(&["b.internal"]), now);
    names.set_catalogue(catalogue(&["a.internal", "b.internal"]), now + QUARANTINE / 2);
    assert_eq!(found(names.look_up(&name("a.internal"), now)), a);
    names.expire(now + QUARANTINE);
    assert_eq!(names.name_of(a.v4.into(), now + QUARANTINE), Some(name("a.internal")), "the old quarantine takes nothing");
}

#[test]
fn case_73_live_mapping_is_never_evicted() {
    let (mut names, now) = names("100.64.0.0/28", &["a.internal", "*.lab.internal"]);
    let a = found(names.look_up(&name("a.internal"), now));
    let first = found(names.look_up(&name("first.lab.internal"), now));
    let answers: Vec<Lookup> = (0..1000).map(|at| names.look_up(&name(&format!("r{at}.lab.internal")), now)).collect();
    assert_eq!(answers.last(), Some(&Lookup::Full));
    assert!(names.fill().0 <= 14);
    assert_eq!(found(names.look_up(&name("a.internal"), now)), a);
    assert_eq!(names.name_of(first.v4.into(), now), Some(name("first.lab.internal")));
}

#[test]
fn wildcard_names_are_captured_before_they_are_asked_for() {
    let (mut names, now) = names("100.64.0.0/16", &["*.lab.internal"]);
    let before: HashSet<IpAddr> = names.captured().into_iter().map(|(address, ..)| address).collect();
    for at in 0..SPARES {
        let addresses = found(names.look_up(&name(&format!("n{at}.lab.internal")), now));
        assert!(before.contains(&addresses.v4.into()) && before.contains(&addresses.v6.into()));
    }
    let some = *before.iter().next().unwrap();
    assert!(names.name_of(some, now).is_some());
    names.set_catalogue(catalogue(&[]), now);
    assert!(names.captured().is_empty());
}

#[test]
fn spare_is_no_name() {
    let (mut names, now) = names("100.64.0.0/16", &["*.lab.internal"]);
    let (spare, ..) = names.captured()[0];
    assert_eq!(names.name_of(spare, now), None);
}

#[test]
fn idle_wildcard_names_give_their_slot_back_after_quarantine() {
    let (mut names, now) = names("100.64.0.0/16", &["a.internal", "*.lab.internal"]);
    let x = found(names.look_up(&name("x.lab.internal"), now));
    names.release_idle(now + IDLE - Duration::from_secs(1));
    assert!(names.name_of(x.v4.into(), now).is_some());
    names.release_idle(now + IDLE);
    assert_eq!(names.name_of(x.v4.into(), now + IDLE), None);
    assert_eq!(names.fill().0, 2, "x rests, a stays");
    names.expire(now + IDLE + QUARANTINE);
    assert_eq!(names.fill().0, 1);
}

#[test]
fn case_74_metadata_addresses_in_the_pool_are_left_out() {
    let mut names = Names::new(Pools::parse("100.100.100.192/27", "fd12:3456:789a::/64").unwrap());
    let now = Instant::now();
    let hosts: Vec<String> = (0..30).map(|at| format!("h{at}.internal")).collect();
    let hosts: Vec<&str> = hosts.iter().map(String::as_str).collect();
    names.set_catalogue(catalogue(&hosts), now);
    assert_eq!(names.fill().0, 29);
    assert!(!names.captured().iter().any(|(address, ..)| forbidden(*address).is_some()));
}

#[test]
fn unhealthy_ports_leave_the_capture_and_named_addresses_join_it() {
    let segments = r#"[
        {"id": "wide", "name": "w", "hosts": ["a.internal"], "ports": [{"first": 1, "last": 65535}], "protocol": "tcp"},
        {"id": "sick", "name": "s", "hosts": ["a.internal"], "ports": [{"first": 80, "last": 80}], "protocol": "tcp", "healthy": false},
        {"id": "well", "name": "v", "hosts": ["a.internal"], "ports": [{"first": 90, "last": 95}], "protocol": "tcp"},
        {"id": "udp", "name": "u", "hosts": ["10.20.30.40", "127.0.0.1"], "ports": [{"first": 53, "last": 53}], "protocol": "udp"}
    ]"#;
    let (mut names, now) = names("100.64.0.0/16", &[]);
    names.set_catalogue(Arc::new(Segments::parse(segments.as_bytes()).unwrap()), now);
    let address: IpAddr = "100.64.0.1".parse().unwrap();
    let captured: Vec<_> = names.captured().into_iter().filter(|(address, ..)| address.is_ipv4()).collect();
    let named: IpAddr = "10.20.30.40".parse().unwrap();
    assert_eq!(captured, [(named, Protocol::Udp, 53, 53), (address, Protocol::Tcp, 1, 79), (address, Protocol::Tcp, 81, 65535)]);
}
