#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::*;
use crate::testing::{Issuer, claims};
use proptest::prelude::*;
use serde_json::{Value, json};
use std::sync::LazyLock;

static ISSUER: LazyLock<Issuer> = LazyLock::new(|| Issuer::new("k1"));

fn id(n: u8) -> Id {
    Id::from_bytes([0, 0, 0, 0, 0, 0, 0, n])
}

fn ticket_with(change: impl FnOnce(&mut Value)) -> Ticket {
    let mut value = claims();
    change(&mut value);
    Ticket::verify(&ISSUER.sign(&value), &ISSUER.keys()).unwrap()
}

const SESSION: u8 = 0x51;
const NOW: u64 = 1010;

/// A connector with its link up, segment …a1 assigned, a snapshot of generation 5 that holds the session.
fn grants() -> Grants {
    let ticket = ticket_with(|_| ());
    let mut grants = Grants::new(id(0xc1), ticket.issuer);
    grants.link_up(1000);
    grants.assign([id(0xa1)]);
    grants.snapshot(5, [id(SESSION)]);
    grants
}

fn admit(grants: &mut Grants, ticket: &Ticket, now: u64) -> Result<(), Code> {
    grants.admit(ticket, ticket.device, ticket.jkt, now)
}

#[test]
fn a_good_ticket_admits_and_serves_further_flows() {
    let (mut grants, ticket) = (grants(), ticket_with(|_| ()));
    assert_eq!(grants.check(ticket.session, ticket.device, ticket.jkt, NOW), Err(Code::TicketMissing));
    assert_eq!(admit(&mut grants, &ticket, NOW), Ok(()));
    assert_eq!(grants.check(ticket.session, ticket.device, ticket.jkt, NOW).unwrap(), &ticket);
}

#[test]
fn nothing_is_admitted_before_the_first_snapshot_since_start() {
    let ticket = ticket_with(|_| ());
    let mut grants = Grants::new(id(0xc1), ticket.issuer);
    grants.assign([id(0xa1)]);
    grants.link_up(1000);
    assert_eq!(admit(&mut grants, &ticket, NOW), Err(Code::SnapshotMissing));
    grants.snapshot(5, [id(SESSION)]);
    assert_eq!(admit(&mut grants, &ticket, NOW), Ok(()));
}

#[test]
fn case_18_a_ticket_serves_its_key_its_connector_and_its_segment_only() {
    let (mut grants, ticket) = (grants(), ticket_with(|_| ()));
    let thief = Thumbprint::parse("BBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBBA").unwrap();
    assert_eq!(grants.admit(&ticket, ticket.device, thief, NOW), Err(Code::TicketNotYours));
    assert_eq!(grants.admit(&ticket, id(0xd2), ticket.jkt, NOW), Err(Code::TicketNotYours));
    let elsewhere = ticket_with(|c| {
        c["con"] = json!(["00000000000000c2"]);
        c["aud"] = json!(["segment:00000000000000a1", "connector:00000000000000c2"]);
    });
    assert_eq!(admit(&mut grants, &elsewhere, NOW), Err(Code::TicketAudience));
    let unassigned = ticket_with(|c| {
        c["seg"] = json!("00000000000000a2");
        c["aud"] = json!(["segment:00000000000000a2", "connector:00000000000000c1", "connector:00000000000000c2"]);
    });
    assert_eq!(admit(&mut grants, &unassigned, NOW), Err(Code::NotInSegment));
    assert_eq!(admit(&mut grants, &ticket, ticket.exp + LEEWAY + 1), Err(Code::TicketExpired));
    assert_eq!(admit(&mut grants, &ticket, NOW), Ok(()));
    assert_eq!(grants.check(ticket.session, ticket.device, thief, NOW), Err(Code::TicketNotYours));
    assert_eq!(grants.check(ticket.session, id(0xd2), ticket.jkt, NOW), Err(Code::TicketNotYours));
    grants.assign([id(0xa1), id(0xa2)]);
    assert_eq!(admit(&mut grants, &unassigned, NOW), Err(Code::TicketNotYours), "a session never changes its segment");
}

#[test]
fn case_3_another_exchanges_ticket_is_refused() {
    let mut grants = grants();
    let other = ticket_with(|c| c["iss"] = json!("ffffffffffffffff.cloister"));
    assert_eq!(admit(&mut grants, &other, NOW), Err(Code::TicketAudience));
}

#[test]
fn a_ticket_newer_than_the_snapshot_needs_the_link() {
    let mut grants = grants();
    let newer = ticket_with(|c| {
        c["sid"] = json!("0000000000000052");
        c["gen"] = json!(6);
    });
    grants.link_down();
    assert_eq!(admit(&mut grants, &newer, NOW), Err(Code::ExchangeUnreachable));
    grants.link_up(NOW);
    assert_eq!(admit(&mut grants, &newer, NOW), Ok(()));
    assert_eq!(grants.snapshot(5, [id(SESSION)]), [], "made after generation 5: the snapshot of 5 cannot name it");
    assert_eq!(grants.snapshot(6, [id(SESSION)]), [Ended { session: id(0x52), code: EndCode::Revoked }]);
    assert_eq!(grants.snapshot(5, [id(0x52)]), [], "older than the one held");
    assert_eq!(admit(&mut grants, &newer, NOW), Err(Code::TicketRevoked));
}

#[test]
fn a_revoked_session_ends_and_stays_out() {
    let (mut grants, ticket) = (grants(), ticket_with(|_| ()));
    admit(&mut grants, &ticket, NOW).unwrap();
    assert_eq!(grants.revoke(6, [id(SESSION), id(0x77)], NOW), [Ended { session: id(SESSION), code: EndCode::Revoked }]);
    assert_eq!(grants.revoke(6, [id(SESSION)], NOW), []);
    for generation in [5, 9] {
        assert_eq!(admit(&mut grants, &ticket_with(|c| c["gen"] = json!(generation)), NOW), Err(Code::TicketRevoked));
    }
    grants.snapshot(9, [id(SESSION)]);
    assert_eq!(admit(&mut grants, &ticket, NOW), Err(Code::TicketRevoked), "not even when a snapshot names it");
    grants.tick(NOW + REVOCATION_LIFE + 1);
    assert!(grants.revoked.is_empty() && grants.revocations.is_empty());
}

#[test]
fn revocations_forgotten_at_the_bound_still_refuse() {
    let (mut grants, ticket) = (grants(), ticket_with(|_| ()));
    let wide = |n: u32| Id::from_bytes([[1, 0, 0, 0], n.to_be_bytes()].concat().try_into().unwrap());
    grants.revoke(6, [id(SESSION)], NOW);
    grants.revoke(7, (1..MAX_REVOKED as u32).map(wide), NOW);
    assert_eq!(grants.floor, None);
    grants.revoke(7, [wide(0)], NOW);
    assert_eq!((grants.floor, grants.revoked.len()), (Some(6), MAX_REVOKED));
    assert_eq!(admit(&mut grants, &ticket, NOW), Err(Code::TicketRevoked));
    let fresh = ticket_with(|c| {
        c["sid"] = json!("0000000000000052");
        c["gen"] = json!(8);
    });
    assert_eq!(admit(&mut grants, &fresh, NOW), Ok(()));
}

#[test]
fn sessions_are_bounded() {
    let mut grants = grants();
    let ticket = ticket_with(|c| c["gen"] = json!(6));
    for n in 0..MAX_SESSIONS as u64 {
        let session = Id::from_bytes((n + (1 << 32)).to_be_bytes());
        grants.held.insert(session, ticket.clone());
    }
    assert_eq!(admit(&mut grants, &ticket, NOW), Err(Code::LimitReached));
    grants.held.remove(&Id::from_bytes((1u64 << 32).to_be_bytes()));
    assert_eq!(admit(&mut grants, &ticket, NOW), Ok(()));
}

#[test]
fn a_session_ends_with_its_newest_ticket() {
    let mut grants = grants();
    let first = ticket_with(|_| ());
    let renewed = ticket_with(|c| {
        c["iat"] = json!(1150);
        c["exp"] = json!(1450);
    });
    admit(&mut grants, &first, 1010).unwrap();
    assert_eq!(grants.next_deadline(), Some(1331));
    admit(&mut grants, &renewed, 1150).unwrap();
    admit(&mut grants, &first, 1160).unwrap();
    assert_eq!(grants.next_deadline(), Some(1481), "an older ticket changes nothing");
    assert_eq!(grants.tick(1480), []);
    assert_eq!(grants.tick(1481), [Ended { session: id(SESSION), code: EndCode::Expired }]);
    assert_eq!(grants.next_deadline(), None);
}

#[test]
fn case_41_continuity_carries_sessions_over_an_outage_and_strict_ones_end() {
    let mut grants = grants();
    grants.snapshot(5, [id(SESSION), id(0x52)]);
    let lasting = ticket_with(|c| c["cty"] = json!(3600));
    let strict = ticket_with(|c| c["sid"] = json!("0000000000000052"));
    admit(&mut grants, &lasting, NOW).unwrap();
    admit(&mut grants, &strict, NOW).unwrap();
    grants.link_down();
    assert_eq!(grants.tick(1331), [Ended { session: id(0x52), code: EndCode::Expired }]);
    assert!(grants.check(lasting.session, lasting.device, lasting.jkt, 3000).is_ok());
    grants.link_up(3000);
    assert_eq!(grants.tick(3030), []);
    assert_eq!(grants.tick(3031), [Ended { session: id(SESSION), code: EndCode::Expired }]);
}

#[test]
fn a_compromised_key_or_device_ends_what_it_vouched_for() {
    let (mut grants, ticket) = (grants(), ticket_with(|_| ()));
    admit(&mut grants, &ticket, NOW).unwrap();
    assert_eq!(grants.retain_keys(&ISSUER.keys()), []);
    assert_eq!(grants.retain_keys(&Issuer::new("k2").keys()).len(), 1);
    admit(&mut grants, &ticket, NOW).unwrap();
    assert_eq!(grants.drop_devices(&[id(0xd2)].into()), []);
    assert_eq!(grants.drop_devices(&[id(0xd1)].into()).len(), 1);
    admit(&mut grants, &ticket, NOW).unwrap();
    assert_eq!(grants.assign([]), [Ended { session: id(SESSION), code: EndCode::SegmentChanged }]);
}

// ------------------------------------------------------------------ the model

/// What the rules say, by looking through everything that ever happened.
#[derive(Default)]
struct Reference {
    generation: Option<u64>,
    listed: Vec<u8>,
    revoked: Vec<u8>,
    segments: Vec<u8>,
    up: Option<u64>,
    /// Newest ticket of each session admitted: (session, ticket).
    held: Vec<(u8, Paper)>,
}

#[derive(Clone, Copy, Debug, PartialEq, PartialOrd)]
struct Paper {
    generation: u64,
    iat: u64,
    life: u64,
    continuity: u64,
    segment: u8,
}

impl Reference {
    fn until(&self, paper: Paper) -> u64 {
        let end = paper.iat + paper.life + 30;
        match self.up {
            None => end + paper.continuity,
            Some(since) => end.max((end + paper.continuity).min(since + 30)),
        }
    }

    fn admits(&self, session: u8, paper: Paper, now: u64) -> bool {
        let Some(generation) = self.generation else { return false };
        let known = if paper.generation <= generation { self.listed.contains(&session) } else { self.up.is_some() };
        let same = self.held.iter().all(|(held, older)| *held != session || older.segment == paper.segment);
        known && same && now <= self.until(paper) && !self.revoked.contains(&session) && self.segments.contains(&paper.segment)
    }

    /// Removes and returns what must not live on.
    fn end(&mut self, over: impl Fn(&Reference, u8, Paper) -> bool) -> Vec<Id> {
        let (gone, kept) = std::mem::take(&mut self.held).into_iter().partition(|(session, paper)| over(self, *session, *paper));
        self.held = kept;
        let mut gone: Vec<Id> = Vec::from_iter::<Vec<(u8, Paper)>>(gone).into_iter().map(|(session, _)| id(session)).collect();
        gone.sort();
        gone
    }
}

#[derive(Clone, Debug)]
enum Step {
    Snapshot(u64, Vec<u8>),
    Revoke(Vec<u8>),
    Assign(Vec<u8>),
    Admit { session: u8, generation: u64, life: u64, continuity: u64, segment: u8 },
    Up,
    Down,
    Clock(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let some = || proptest::collection::vec(0u8..6, 0..5);
    let step = prop_oneof![
        2 => (0u64..12, some()).prop_map(|(generation, sessions)| Step::Snapshot(generation, sessions)),
        1 => proptest::collection::vec(0u8..6, 1..2).prop_map(Step::Revoke),
        1 => proptest::collection::vec(0u8..3, 1..4).prop_map(Step::Assign),
        8 => (0u8..6, 0u64..12, 1u64..=300, prop_oneof![Just(0u64), 1u64..600], prop_oneof![4 => Just(None), 1 => (0u8..3).prop_map(Some)])
            .prop_map(|(session, generation, life, continuity, segment)| Step::Admit {
                session, generation, life, continuity, segment: segment.unwrap_or(session % 3),
            }),
        1 => Just(Step::Up),
        1 => Just(Step::Down),
        4 => (0u64..200).prop_map(Step::Clock),
    ];
    proptest::collection::vec(step, 0..60)
}

fn sorted(ended: Vec<Ended>) -> Vec<Id> {
    let mut sessions: Vec<Id> = ended.into_iter().map(|end| end.session).collect();
    sessions.sort();
    sessions
}

fn paper_ticket(session: u8, paper: Paper) -> Ticket {
    ticket_with(|c| {
        let segment = id(paper.segment);
        c["sid"] = json!(id(session));
        c["seg"] = json!(segment);
        c["aud"] = json!([format!("segment:{segment}"), "connector:00000000000000c1", "connector:00000000000000c2"]);
        (c["gen"], c["cty"]) = (json!(paper.generation), json!(paper.continuity));
        (c["iat"], c["exp"]) = (json!(paper.iat), json!(paper.iat + paper.life));
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]
    #[test]
    fn the_machine_and_the_rules_agree_after_every_step(steps in steps()) {
        let mut grants = Grants::new(id(0xc1), claims()["iss"].as_str().and_then(TrustDomain::parse).unwrap());
        let mut reference = Reference::default();
        let mut now = 1000;
        for step in steps {
            match step {
                Step::Snapshot(generation, listed) => {
                    let ended = grants.snapshot(generation, listed.iter().map(|n| id(*n)));
                    if reference.generation.is_none_or(|held| generation >= held) {
                        (reference.generation, reference.listed) = (Some(generation), listed);
                    }
                    let newest = reference.generation.unwrap();
                    let expected = reference.end(|r, session, paper| paper.generation <= newest && !r.listed.contains(&session));
                    prop_assert_eq!(sorted(ended), expected);
                }
                Step::Revoke(sessions) => {
                    let ended = grants.revoke(12, sessions.iter().map(|n| id(*n)), now);
                    reference.revoked.extend(&sessions);
                    prop_assert_eq!(sorted(ended), reference.end(|_, session, _| sessions.contains(&session)));
                }
                Step::Assign(segments) => {
                    let ended = grants.assign(segments.iter().map(|n| id(*n)));
                    reference.segments = segments;
                    prop_assert_eq!(sorted(ended), reference.end(|r, _, paper| !r.segments.contains(&paper.segment)));
                }
                Step::Admit { session, generation, life, continuity, segment } => {
                    let paper = Paper { generation, iat: now, life, continuity, segment };
                    let ticket = paper_ticket(session, paper);
                    let admitted = admit(&mut grants, &ticket, now).is_ok();
                    prop_assert_eq!(admitted, reference.admits(session, paper, now));
                    if admitted {
                        match reference.held.iter_mut().find(|(held, _)| *held == session) {
                            Some((_, newest)) if *newest < paper => *newest = paper,
                            Some(_) => {}
                            None => reference.held.push((session, paper)),
                        }
                    }
                }
                Step::Up => {
                    grants.link_up(now);
                    reference.up = reference.up.or(Some(now));
                }
                Step::Down => {
                    grants.link_down();
                    reference.up = None;
                }
                Step::Clock(seconds) => now += seconds,
            }
            let deadline = grants.next_deadline();
            let ended = grants.tick(now);
            prop_assert!(ended.is_empty() || deadline.is_some_and(|at| at <= now));
            prop_assert_eq!(sorted(ended), reference.end(|r, _, paper| r.until(paper) < now));
            let mut live: Vec<Id> = grants.held.keys().copied().collect();
            let mut expected: Vec<Id> = reference.held.iter().map(|(session, _)| id(*session)).collect();
            live.sort();
            expected.sort();
            prop_assert_eq!(live, expected, "a survivor, or one ended too early");
            prop_assert_eq!(grants.deadlines.len(), grants.held.len());
        }
    }
}
