#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use std::sync::Arc;
use std::time::Duration;

use rcgen::{ExtendedKeyUsagePurpose, KeyPair};
use rustls::{ClientConnection, ServerConnection};
use rustls_pki_types::ServerName;

use super::*;
use crate::testing_ca::{Ca, Clock, DAY, DOMAIN, EPOCH, Leaf, id, uri};

const LEGS: [Leg; 4] = [Leg::Link, Leg::Enrol, Leg::Carrier, Leg::Tunnel];

/// Runs a handshake in memory; what each side makes of it.
fn shake(mut client: ClientConnection, mut server: ServerConnection) -> (Result<(), Code>, Result<(), Code>) {
    let mut results = (Ok(()), Ok(()));
    for _ in 0..8 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() && results.1.is_ok() {
            server.read_tls(&mut read).unwrap();
            results.1 = server.process_new_packets().map(|_| ()).map_err(|error| code_of_tls(&error));
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() && results.0.is_ok() {
            client.read_tls(&mut read).unwrap();
            results.0 = client.process_new_packets().map(|_| ()).map_err(|error| code_of_tls(&error));
        }
    }
    if client.is_handshaking() && results.0.is_ok() {
        results.0 = Err(Code::HandshakeFailed);
    }
    if server.is_handshaking() && results.1.is_ok() {
        results.1 = Err(Code::HandshakeFailed);
    }
    results
}

fn connect(config: Arc<rustls::ClientConfig>, server: Arc<rustls::ServerConfig>) -> (Result<(), Code>, Result<(), Code>) {
    let client = ClientConnection::new(config, ServerName::try_from("exchange.test").unwrap()).unwrap();
    shake(client, ServerConnection::new(server).unwrap())
}

/// A server that answers `leg` with a leaf of any role, right or wrong.
fn server_showing(trust: &Arc<Trust>, leg: Leg, leaf: &Leaf) -> Arc<rustls::ServerConfig> {
    let mut config = (*trust.server_config(leg).unwrap()).clone();
    config.cert_resolver = resolver(leaf);
    Arc::new(config)
}

fn client_showing(trust: &Arc<Trust>, leg: Leg, leaf: &Leaf) -> Arc<rustls::ClientConfig> {
    let role = leg.client_roles()[0];
    let mut config = (*trust.client_config(leg, role, None).unwrap()).clone();
    config.client_auth_cert_resolver = resolver(leaf);
    Arc::new(config)
}

fn resolver(leaf: &Leaf) -> Arc<legs::Shown> {
    let chain = certificates_of(leaf.chain.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.as_bytes()).unwrap();
    let signing = legs::our_provider().key_provider.load_private_key(key).unwrap();
    Arc::new(legs::Shown(Some(Arc::new(CertifiedKey::new(chain, signing)))))
}

/// Everybody of one exchange, in one trust.
fn everybody(ca: &Ca) -> (Vec<(Role, Leaf)>, Arc<Trust>) {
    let leaves: Vec<(Role, Leaf)> =
        Role::ALL.into_iter().zip(1u64..).map(|(role, number)| (role, ca.leaf(role, id(number)))).collect();
    let pairs: Vec<(Role, &Leaf)> = leaves.iter().map(|(role, leaf)| (*role, leaf)).collect();
    let trust = ca.trust(&pairs);
    (leaves, trust)
}

#[test]
fn case_25_every_pair_of_role_and_port() {
    let ca = Ca::new(DOMAIN);
    let (leaves, trust) = everybody(&ca);
    for leg in LEGS {
        for (role, leaf) in &leaves {
            // As a server.
            let dialling = if leg == Leg::Enrol {
                trust.enrol_config(ca.root_sha256()).unwrap()
            } else {
                trust.client_config(leg, leg.client_roles()[0], None).unwrap()
            };
            let shown = Leaf { chain: format!("{}{}", leaf.chain, ca.root.pem()), key: leaf.key.clone(), der: leaf.der.clone() };
            let (client, _) = connect(dialling, server_showing(&trust, leg, &shown));
            let right = *role == leg.server_role();
            assert_eq!(client, if right { Ok(()) } else { Err(Code::RoleMismatch) }, "{leg:?} answered by {role}");
            // As a client.
            if leg == Leg::Enrol {
                continue;
            }
            let (client, server) = connect(client_showing(&trust, leg, leaf), trust.server_config(leg).unwrap());
            let right = leg.client_roles().contains(role);
            assert_eq!(server, if right { Ok(()) } else { Err(Code::RoleMismatch) }, "{leg:?} dialled by {role}");
            assert_eq!(client, server, "the client is told the reason, {leg:?} dialled by {role}");
        }
    }
}

#[test]
fn case_25_a_leaf_is_only_what_its_key_usage_says() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    let key = KeyPair::generate().unwrap();
    let server_only =
        ca.leaf_with(Role::Client, id(9), &key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth]);
    let client_only =
        ca.leaf_with(Role::Control, id(9), &key, |params| params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth]);
    let (_, server) = connect(client_showing(&trust, Leg::Link, &server_only), trust.server_config(Leg::Link).unwrap());
    assert_eq!(server, Err(Code::HandshakeFailed));
    let (client, _) =
        connect(trust.client_config(Leg::Link, Role::Client, None).unwrap(), server_showing(&trust, Leg::Link, &client_only));
    assert_eq!(client, Err(Code::HandshakeFailed));
}

#[test]
fn case_26_only_the_proved_leaf_is_read() {
    let ca = Ca::new(DOMAIN);
    let (leaves, trust) = everybody(&ca);
    let victim = ca.leaf(Role::Connector, id(0xbad));
    let own_key = KeyPair::generate().unwrap();
    let own = ca.leaf_with(Role::Client, id(77), &own_key, |_| {});

    // One's own leaf first, the victim's as filler: one is oneself, with one's own role.
    let filled = Leaf { chain: format!("{}{}", own.chain, victim.chain), key: own.key.clone(), der: own.der.clone() };
    for leg in [Leg::Link, Leg::Carrier, Leg::Tunnel] {
        let client = ClientConnection::new(client_showing(&trust, leg, &filled), ServerName::try_from("x.test").unwrap()).unwrap();
        let mut server = ServerConnection::new(trust.server_config(leg).unwrap()).unwrap();
        pump(client, &mut server);
        let seen = peer_identity(server.peer_certificates().unwrap()).unwrap();
        assert_eq!((seen.role, seen.id), (Role::Client, id(77)), "{leg:?}");
    }
    // As a server likewise: a client that shows a control leaf as filler is still no control.
    for leg in [Leg::Link, Leg::Carrier, Leg::Tunnel] {
        let right = leaves.iter().find(|(role, _)| *role == leg.server_role()).unwrap();
        let filled = Leaf { chain: format!("{}{}", own.chain, right.1.chain), key: own.key.clone(), der: own.der.clone() };
        let (client, _) =
            connect(trust.client_config(leg, leg.client_roles()[0], None).unwrap(), server_showing(&trust, leg, &filled));
        assert_eq!(client, Err(Code::RoleMismatch), "{leg:?}");
    }
    // The victim's leaf first, with one's own key: nothing is proved.
    let stolen = Leaf { chain: victim.chain.clone(), key: own.key.clone(), der: victim.der.clone() };
    for leg in [Leg::Link, Leg::Carrier] {
        let (_, server) = connect(client_showing(&trust, leg, &stolen), trust.server_config(leg).unwrap());
        assert_eq!(server, Err(Code::HandshakeFailed), "{leg:?}");
    }
    // Odd order: the issuing certificate as leaf.
    let mut parts = own.chain.split_inclusive("-----END CERTIFICATE-----\n");
    let (leaf, issuing) = (parts.next().unwrap(), parts.next().unwrap());
    let odd = Leaf { chain: format!("{issuing}{leaf}"), key: own.key.clone(), der: own.der.clone() };
    let (_, server) = connect(client_showing(&trust, Leg::Link, &odd), trust.server_config(Leg::Link).unwrap());
    assert!(server.is_err());
    // Control: without tricks the same leaf is accepted.
    assert_eq!(connect(client_showing(&trust, Leg::Link, &own), trust.server_config(Leg::Link).unwrap()), (Ok(()), Ok(())));
}

fn pump(mut client: ClientConnection, server: &mut ServerConnection) {
    for _ in 0..4 {
        let mut wire = Vec::new();
        while client.wants_write() {
            client.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            server.read_tls(&mut read).unwrap();
            server.process_new_packets().unwrap();
        }
        let mut wire = Vec::new();
        while server.wants_write() {
            server.write_tls(&mut wire).unwrap();
        }
        let mut read = wire.as_slice();
        while !read.is_empty() {
            client.read_tls(&mut read).unwrap();
            client.process_new_packets().unwrap();
        }
    }
}

#[test]
fn a_leaf_without_exactly_one_agent_uri_is_nobody() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    let good = format!("spiffe://{DOMAIN}/client/{}", id(5));
    let other = format!("spiffe://{DOMAIN}/connector/{}", id(6));
    let dns = || rcgen::SanType::DnsName("connector.cloister.invalid".try_into().unwrap());
    let cases: Vec<(Vec<rcgen::SanType>, Result<(), Code>)> = vec![
        (vec![uri(&good)], Ok(())),
        (vec![dns(), uri(&good)], Ok(())),
        (vec![], Err(Code::HandshakeFailed)),
        (vec![dns()], Err(Code::RoleMismatch)),
        (vec![uri(&good), uri(&other)], Err(Code::RoleMismatch)),
        (vec![uri(&good), uri(&good)], Err(Code::RoleMismatch)),
        (vec![uri(&good.to_uppercase())], Err(Code::RoleMismatch)),
        (vec![uri(&format!("{good}/"))], Err(Code::RoleMismatch)),
        (vec![uri("https://example.test/")], Err(Code::RoleMismatch)),
    ];
    for (names, expected) in cases {
        let shown = format!("{names:?}");
        let leaf = ca.leaf_with(Role::Client, id(5), &KeyPair::generate().unwrap(), |params| params.subject_alt_names = names);
        let (_, server) = connect(client_showing(&trust, Leg::Link, &leaf), trust.server_config(Leg::Link).unwrap());
        assert_eq!(server, expected, "{shown}");
    }
}

#[test]
fn another_exchange_is_refused_both_ways() {
    let (ours, theirs) = (Ca::new(DOMAIN), Ca::new("fedcba9876543210.cloister"));
    let ((_, trust), (_, foreign)) = (everybody(&ours), everybody(&theirs));
    for leg in [Leg::Link, Leg::Carrier, Leg::Tunnel] {
        let role = leg.client_roles()[0];
        let (client, _) = connect(trust.client_config(leg, role, None).unwrap(), foreign.server_config(leg).unwrap());
        assert_eq!(client, Err(Code::RootMismatch));
    }
    // Even if its root were trusted by mistake: another trust domain is not ours.
    trust.set_roots(format!("{}{}", ours.root.pem(), theirs.root.pem()).as_bytes(), []).unwrap();
    let (client, _) =
        connect(trust.client_config(Leg::Link, Role::Client, None).unwrap(), foreign.server_config(Leg::Link).unwrap());
    assert_eq!(client, Err(Code::RootMismatch));
}

#[test]
fn the_very_agent_asked_for_or_none() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    for (leg, role, right) in [(Leg::Carrier, Role::Client, 2u64), (Leg::Tunnel, Role::Client, 3)] {
        let config = trust.client_config(leg, role, Some(id(right))).unwrap();
        assert_eq!(connect(config, trust.server_config(leg).unwrap()), (Ok(()), Ok(())));
        let config = trust.client_config(leg, role, Some(id(99))).unwrap();
        assert_eq!(connect(config, trust.server_config(leg).unwrap()).0, Err(Code::RoleMismatch));
    }
}

#[test]
fn a_revoked_agent_is_refused_on_every_leg_at_once() {
    let ca = Ca::new(DOMAIN);
    let (leaves, trust) = everybody(&ca);
    let configs = |leg: Leg| (trust.client_config(leg, Role::Client, None).unwrap(), trust.server_config(leg).unwrap());
    let before: Vec<_> = [Leg::Link, Leg::Carrier, Leg::Tunnel].map(configs).into();
    for (client, server) in &before {
        assert_eq!(connect(Arc::clone(client), Arc::clone(server)), (Ok(()), Ok(())));
    }
    let revoked = leaves.iter().find(|(role, _)| *role == Role::Client).map(|(role, leaf)| (role, leaf.der.der().clone())).unwrap();
    trust.revoke(read_identity(&revoked.1).unwrap().id);
    // The configurations are the old ones: they judge by what is true now.
    for (client, server) in before {
        assert_eq!(connect(client, server), (Err(Code::AgentRevoked), Err(Code::AgentRevoked)));
    }
}

#[test]
fn an_expired_leaf_is_accepted_to_renew_and_nowhere_else() {
    let ca = Ca::new(DOMAIN);
    let clock = Clock::new(EPOCH + 60);
    let control = ca.leaf_with(Role::Control, id(1), &KeyPair::generate().unwrap(), |params| {
        params.not_after = crate::testing_ca::at(EPOCH + 90 * DAY)
    });
    let relay = ca.leaf_with(Role::Relay, id(2), &KeyPair::generate().unwrap(), |params| {
        params.not_after = crate::testing_ca::at(EPOCH + 90 * DAY)
    });
    let (connector, client) = (ca.leaf(Role::Connector, id(3)), ca.leaf(Role::Client, id(4)));
    let trust = ca.trust_at(
        Arc::clone(&clock),
        &[(Role::Control, &control), (Role::Relay, &relay), (Role::Connector, &connector), (Role::Client, &client)],
    );
    trust.set_renewal_grace(Duration::from_secs(30 * DAY));
    let on = |leg: Leg| connect(trust.client_config(leg, Role::Client, None).unwrap(), trust.server_config(leg).unwrap());
    let both = |code: Code| (Err(code), Err(code));

    clock.set(EPOCH + DAY); // the very last second of the leaf
    assert_eq!(on(Leg::Link), (Ok(()), Ok(())));
    assert_eq!(on(Leg::Tunnel), (Ok(()), Ok(())));
    clock.set(EPOCH + 3 * DAY);
    assert_eq!(on(Leg::Link), (Ok(()), Ok(())));
    assert_eq!(on(Leg::Carrier), both(Code::CertificateExpired));
    assert_eq!(on(Leg::Tunnel).0, Err(Code::CertificateExpired));
    clock.set(EPOCH + 31 * DAY);
    assert_eq!(on(Leg::Link), (Ok(()), Ok(())));
    clock.set(EPOCH + 31 * DAY + 1);
    assert_eq!(on(Leg::Link), both(Code::CertificateExpired));

    // While our own link is down, carriers and tunnels go on within the leeway.
    clock.set(EPOCH + 2 * DAY);
    trust.set_link_down_leeway(Duration::from_secs(DAY));
    assert_eq!(on(Leg::Carrier), (Ok(()), Ok(())));
    assert_eq!(on(Leg::Tunnel), (Ok(()), Ok(())));
    clock.set(EPOCH + 2 * DAY + 1);
    assert_eq!(on(Leg::Carrier), both(Code::CertificateExpired));
    trust.set_link_down_leeway(Duration::ZERO);
    clock.set(EPOCH + DAY + 1);
    assert_eq!(on(Leg::Carrier), both(Code::CertificateExpired));
    // Of the server's leaf nothing is forgiven on a link, and an expired CA never.
    clock.set(EPOCH + 400 * DAY);
    trust.set_renewal_grace(Duration::from_secs(1000 * DAY));
    assert_eq!(on(Leg::Link).0, Err(Code::CertificateExpired));
}

#[test]
fn first_contact_sends_nothing_before_the_pinned_root_matched() {
    let (ca, mallory) = (Ca::new(DOMAIN), Ca::new(DOMAIN));
    let (_, trust) = everybody(&ca);
    let (_, false_trust) = everybody(&mallory);
    let bare = Arc::new(Trust::with_clock(Clock::new(EPOCH + 60)));
    let pinned = || bare.enrol_config(ca.root_sha256()).unwrap();
    assert_eq!(connect(pinned(), trust.server_config(Leg::Enrol).unwrap()), (Ok(()), Ok(())));
    assert_eq!(connect(pinned(), false_trust.server_config(Leg::Enrol).unwrap()).0, Err(Code::RootMismatch));
    // The true root as filler behind a false chain.
    let leaf = mallory.leaf(Role::Control, id(1));
    let filled = Leaf { chain: format!("{}{}", leaf.chain, ca.root.pem()), key: leaf.key, der: leaf.der };
    assert_eq!(connect(pinned(), server_showing(&false_trust, Leg::Enrol, &filled)).0, Err(Code::RootMismatch));
    // The true root, shown by an agent of that exchange that is not control.
    let agent = ca.leaf(Role::Connector, id(3));
    let filled = Leaf { chain: format!("{}{}", agent.chain, ca.root.pem()), key: agent.key, der: agent.der };
    assert_eq!(connect(pinned(), server_showing(&trust, Leg::Enrol, &filled)).0, Err(Code::RoleMismatch));
}

#[test]
fn a_replaced_root_cuts_what_it_vouched_for() {
    let (old, new) = (Ca::new(DOMAIN), Ca::new(DOMAIN));
    let (_, trust) = everybody(&old);
    let (_, renewed) = everybody(&new);
    let dial = |trust: &Arc<Trust>| trust.client_config(Leg::Link, Role::Client, None).unwrap();
    // Overlap: both roots are believed.
    trust.set_roots(format!("{}{}", old.root.pem(), new.root.pem()).as_bytes(), []).unwrap();
    renewed.set_roots(format!("{}{}", old.root.pem(), new.root.pem()).as_bytes(), []).unwrap();
    assert_eq!(connect(dial(&renewed), trust.server_config(Leg::Link).unwrap()), (Ok(()), Ok(())));
    assert_eq!(connect(dial(&trust), renewed.server_config(Leg::Link).unwrap()), (Ok(()), Ok(())));
    // Compromised: the old one is gone.
    renewed.set_roots(new.root.pem().as_bytes(), []).unwrap();
    assert_eq!(connect(dial(&trust), renewed.server_config(Leg::Link).unwrap()).1, Err(Code::RootMismatch));
}

#[test]
fn case_24_other_keys_than_p256_are_refused() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    for algorithm in [&rcgen::PKCS_ECDSA_P384_SHA384, &rcgen::PKCS_ED25519] {
        let leaf = ca.leaf_with(Role::Client, id(5), &KeyPair::generate_for(algorithm).unwrap(), |_| {});
        assert_eq!(
            trust.set_identity(Role::Client, leaf.chain.as_bytes(), leaf.key.as_bytes()).unwrap_err(),
            Code::ArgumentInvalid
        );
        let (client, server) = connect(client_showing(&trust, Leg::Link, &leaf), trust.server_config(Leg::Link).unwrap());
        assert!(client.is_err() && server.is_err());
    }
}

#[test]
fn an_identity_is_only_taken_for_its_own_role_and_key() {
    let ca = Ca::new(DOMAIN);
    let trust = ca.trust(&[]);
    let (leaf, other) = (ca.leaf(Role::Connector, id(1)), ca.leaf(Role::Connector, id(1)));
    assert_eq!(trust.set_identity(Role::Relay, leaf.chain.as_bytes(), leaf.key.as_bytes()).unwrap_err(), Code::RoleMismatch);
    assert_eq!(
        trust.set_identity(Role::Connector, leaf.chain.as_bytes(), other.key.as_bytes()).unwrap_err(),
        Code::ArgumentInvalid
    );
    assert_eq!(trust.set_identity(Role::Connector, b"", leaf.key.as_bytes()).unwrap_err(), Code::ArgumentInvalid);
    assert_eq!(trust.set_roots(b"nothing", []).unwrap_err(), Code::ArgumentInvalid);
    let peer = trust.set_identity(Role::Connector, leaf.chain.as_bytes(), leaf.key.as_bytes()).unwrap();
    assert_eq!((peer.fingerprint, peer.not_after), (identity::sha256_hex(leaf.der.der()), i64::try_from(EPOCH + DAY).unwrap()));
}

#[test]
fn a_chain_longer_than_the_bound_is_refused() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    let leaf = ca.leaf(Role::Client, id(5));
    for (fillers, expected) in [(verify::MAX_CHAIN - 2, Ok(())), (verify::MAX_CHAIN - 1, Err(Code::HandshakeFailed))] {
        let chain = format!("{}{}", leaf.chain, ca.root.pem().repeat(fillers));
        let long = Leaf { chain, key: leaf.key.clone(), der: leaf.der.clone() };
        let (_, server) = connect(client_showing(&trust, Leg::Link, &long), trust.server_config(Leg::Link).unwrap());
        assert_eq!(server, expected, "{fillers} fillers");
    }
}

#[test]
fn case_34_nothing_is_resumed_and_no_early_data_is_taken() {
    let ca = Ca::new(DOMAIN);
    let (_, trust) = everybody(&ca);
    for leg in LEGS {
        let server = trust.server_config(leg).unwrap();
        assert_eq!((server.send_tls13_tickets, server.max_early_data_size, server.ticketer.enabled()), (0, 0, false), "{leg:?}");
        assert!(!server.session_storage.can_cache(), "{leg:?}");
    }
    // The same client configuration twice, revoked in between: a full handshake both times.
    let (client, server) = (trust.client_config(Leg::Link, Role::Client, None).unwrap(), trust.server_config(Leg::Link).unwrap());
    assert_eq!(connect(Arc::clone(&client), Arc::clone(&server)), (Ok(()), Ok(())));
    trust.revoke(id(4));
    assert_eq!(connect(client, server).1, Err(Code::AgentRevoked));
}
