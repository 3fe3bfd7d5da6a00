#![allow(clippy::unwrap_used, clippy::indexing_slicing)]

use proptest::prelude::*;

use super::*;

fn id(number: u64) -> Id {
    Id::from_bytes(number.to_be_bytes())
}

const CLIENT: u64 = 100;

struct Play {
    table: Table,
    now: Instant,
}

impl Play {
    fn new() -> Play {
        Play { table: Table::new(Limits::default()), now: Instant::now() }
    }

    fn park(&mut self, connector: u64) -> CarrierId {
        self.table.park(id(connector), self.now).unwrap().0
    }

    fn ask(&mut self, client: u64, candidates: &[u64]) -> (JoinId, Vec<Action>) {
        let join = self.table.begin(id(client)).unwrap();
        let candidates: Vec<Id> = candidates.iter().copied().map(id).collect();
        let actions = self.table.ask(join, &candidates, false, self.now);
        (join, actions)
    }

    fn joined(&mut self, client: u64, connector: u64) -> (JoinId, CarrierId) {
        let carrier = self.park(connector);
        let (join, actions) = self.ask(client, &[connector]);
        assert_eq!(actions, [Action::Go { carrier, wrapped: false }]);
        assert_eq!(self.table.ready(carrier), Some((join, id(connector))));
        (join, carrier)
    }
}

#[test]
fn a_join_takes_the_longest_parked_carrier_of_the_preferred_connector() {
    let mut play = Play::new();
    let (other, first, _second) = (play.park(2), play.park(1), play.park(1));
    let (_, actions) = play.ask(CLIENT, &[1, 2]);
    assert_eq!(actions, [Action::Go { carrier: first, wrapped: false }]);
    let (_, actions) = play.ask(CLIENT, &[3, 2]);
    assert_eq!(actions, [Action::Go { carrier: other, wrapped: false }]);
    assert_eq!(play.table.parked(), HashMap::from([(id(1), 1)]));
}

#[test]
fn a_join_waits_for_a_carrier_and_control_is_asked_for_one() {
    let mut play = Play::new();
    let (join, actions) = play.ask(CLIENT, &[1, 2]);
    assert_eq!(actions, [Action::Want { connector: id(1) }, Action::Want { connector: id(2) }]);
    let (carrier, actions) = play.table.park(id(2), play.now).unwrap();
    assert_eq!(actions, [Action::Go { carrier, wrapped: false }]);
    assert_eq!(play.table.ready(carrier), Some((join, id(2))));
}

#[test]
fn the_wait_ends_at_its_deadline_and_not_before() {
    let mut play = Play::new();
    let (join, _) = play.ask(CLIENT, &[1]);
    let until = play.table.waits_until(join).unwrap();
    assert_eq!(until, play.now + PARK_DEADLINE);
    assert_eq!(play.table.expire(join, until - Duration::from_nanos(1)), []);
    assert_eq!(play.table.expire(join, until), [Action::Refuse { join, code: Code::NoCarrier }]);
    assert_eq!(play.table.expire(join, until), []);
}

#[test]
fn a_silent_connector_is_replaced_by_the_next_parked_one() {
    let mut play = Play::new();
    let (first, second) = (play.park(1), play.park(1));
    let (join, _) = play.ask(CLIENT, &[1]);
    assert_eq!(play.table.gone(first, play.now + READY_DEADLINE), [Action::Go { carrier: second, wrapped: false }]);
    assert_eq!(play.table.ready(first), None, "too late");
    assert_eq!(play.table.gone(second, play.now + READY_DEADLINE * 2), [Action::Want { connector: id(1) }]);
    let third = play.table.park(id(1), play.now + READY_DEADLINE * 2).unwrap().0;
    assert_eq!(play.table.gone(third, play.now + PARK_DEADLINE), [Action::Refuse { join, code: Code::NoCarrier }]);
}

#[test]
fn a_carrier_told_to_go_serves_nobody_else() {
    let mut play = Play::new();
    let carrier = play.park(1);
    let (join, _) = play.ask(CLIENT, &[1]);
    assert_eq!(play.table.leave(join), [Action::Drop { carrier }]);
    assert_eq!(play.table.ready(carrier), None);
    assert_eq!(play.ask(CLIENT, &[1]).1, [Action::Want { connector: id(1) }]);
}

#[test]
fn bounds_hold_and_only_the_one_beyond_is_refused() {
    let mut play = Play::new();
    let limits = Limits::default();
    for _ in 0..limits.parked_per_connector {
        play.park(1);
    }
    assert_eq!(play.table.park(id(1), play.now).unwrap_err(), Code::LimitReached);
    play.park(2);
    let joins: Vec<JoinId> = (0..limits.joins_per_client).map(|_| play.table.begin(id(CLIENT)).unwrap()).collect();
    assert_eq!(play.table.begin(id(CLIENT)).unwrap_err(), Code::TooManyJoins);
    play.table.begin(id(CLIENT + 1)).unwrap();
    // A finished join is not counted any more.
    let Action::Go { carrier, .. } = play.table.ask(joins[0], &[id(1)], false, play.now)[0] else { panic!("parked") };
    play.table.ready(carrier).unwrap();
    play.table.begin(id(CLIENT)).unwrap();
    assert_eq!(play.table.begin(id(CLIENT)).unwrap_err(), Code::TooManyJoins);
}

#[test]
fn one_client_never_takes_every_place_even_with_joins_that_are_finished() {
    let mut table = Table::new(Limits { carriers_per_client: 2, ..Limits::default() });
    let now = Instant::now();
    for _ in 0..2 {
        let carrier = table.park(id(1), now).unwrap().0;
        let join = table.begin(id(CLIENT)).unwrap();
        table.ask(join, &[id(1)], false, now);
        table.ready(carrier).unwrap();
    }
    assert_eq!(table.begin(id(CLIENT)).unwrap_err(), Code::TooManyJoins);
    table.begin(id(CLIENT + 1)).unwrap();
    table.cut(id(CLIENT), None);
    table.begin(id(CLIENT)).unwrap();
}

#[test]
fn the_bound_on_carriers_counts_a_joined_pair_once() {
    let mut table = Table::new(Limits { carriers: 2, ..Limits::default() });
    let now = Instant::now();
    let carrier = table.park(id(1), now).unwrap().0;
    let join = table.begin(id(CLIENT)).unwrap();
    assert_eq!(table.begin(id(CLIENT)).unwrap_err(), Code::LimitReached);
    assert_eq!(table.park(id(1), now).unwrap_err(), Code::LimitReached);
    table.ask(join, &[id(1)], false, now);
    table.ready(carrier).unwrap();
    table.park(id(1), now).unwrap();
    assert_eq!(table.park(id(1), now).unwrap_err(), Code::LimitReached);
}

#[test]
fn a_cut_ends_what_the_client_has_and_nothing_of_others() {
    let mut play = Play::new();
    let ((_, mine), (_, other), (_, theirs)) = (play.joined(CLIENT, 1), play.joined(CLIENT, 2), play.joined(CLIENT + 1, 1));
    assert_eq!(play.table.cut(id(CLIENT), Some(id(1))), (1, vec![Action::Drop { carrier: mine }]));
    assert!(play.table.is_joined(other) && play.table.is_joined(theirs) && !play.table.is_joined(mine));
    assert_eq!(play.table.cut(id(CLIENT), None), (1, vec![Action::Drop { carrier: other }]));
    assert_eq!(play.table.cut(id(CLIENT), None), (0, vec![]));
}

#[test]
fn a_cut_reaches_a_join_that_waits_for_ready() {
    let mut play = Play::new();
    let carrier = play.park(1);
    let (join, _) = play.ask(CLIENT, &[1]);
    let (count, actions) = play.table.cut(id(CLIENT), Some(id(1)));
    assert_eq!((count, actions), (0, vec![Action::Drop { carrier }, Action::Refuse { join, code: Code::JoinBlocked }]));
    assert_eq!(play.table.ready(carrier), None);
}

#[test]
fn a_blocked_pair_is_apart_until_unblocked() {
    let mut play = Play::new();
    let (_, joined) = play.joined(CLIENT, 1);
    assert_eq!(play.table.block(id(CLIENT), id(1)), (1, vec![Action::Drop { carrier: joined }]));
    let carrier = play.park(1);
    let (join, actions) = play.ask(CLIENT, &[1]);
    assert_eq!(actions, [Action::Refuse { join, code: Code::JoinBlocked }]);
    // Another connector of the same ticket, and another client, are not concerned.
    let second = play.park(2);
    assert_eq!(play.ask(CLIENT, &[1, 2]).1, [Action::Go { carrier: second, wrapped: false }]);
    assert_eq!(play.ask(CLIENT + 1, &[1]).1, [Action::Go { carrier, wrapped: false }]);
    play.table.unblock(id(CLIENT), id(1));
    let again = play.park(1);
    assert_eq!(play.ask(CLIENT, &[1]).1, [Action::Go { carrier: again, wrapped: false }]);
}

#[test]
fn beyond_the_bound_on_blocks_every_join_is_refused() {
    let mut play = Play::new();
    for number in 0..=MAX_BLOCKS as u64 {
        play.table.block(id(number), id(1));
    }
    play.park(2);
    let (join, actions) = play.ask(CLIENT, &[2]);
    assert_eq!(actions, [Action::Refuse { join, code: Code::JoinBlocked }]);
    play.table.unblock(id(0), id(1));
    assert!(matches!(play.ask(CLIENT + 1, &[2]).1[..], [Action::Refuse { code: Code::JoinBlocked, .. }] | [Action::Go { .. }]));
}

#[test]
fn a_dropped_agent_has_nothing_left() {
    let mut play = Play::new();
    let (_, joined) = play.joined(CLIENT, 1);
    let parked = play.park(1);
    let spare = play.park(2);
    let (join, _) = play.ask(CLIENT + 1, &[1, 2]);
    let (count, actions) = play.table.drop_agent(id(1), play.now);
    assert_eq!(count, 2);
    assert!(actions.contains(&Action::Drop { carrier: joined }) && actions.contains(&Action::Drop { carrier: parked }));
    assert!(actions.contains(&Action::Go { carrier: spare, wrapped: false }), "the join of another moves on");
    assert_eq!(play.table.parked(), HashMap::new());
    let (count, actions) = play.table.drop_agent(id(CLIENT + 1), play.now);
    assert_eq!((count, actions), (1, vec![Action::Drop { carrier: spare }, Action::Refuse { join, code: Code::AgentRevoked }]));
}

#[test]
fn case_42_draining_takes_nothing_new_and_keeps_what_is_joined() {
    let mut play = Play::new();
    let (_, joined) = play.joined(CLIENT, 1);
    let parked = play.park(1);
    let (waiting, _) = play.ask(CLIENT, &[2]);
    assert_eq!(play.table.drain(), [Action::Drop { carrier: parked }, Action::Refuse { join: waiting, code: Code::Draining }]);
    assert_eq!(play.table.park(id(1), play.now).unwrap_err(), Code::Draining);
    assert_eq!(play.table.begin(id(CLIENT)).unwrap_err(), Code::Draining);
    assert!(play.table.is_joined(joined));
}

/// What must hold after every step, whatever happened.
fn check(table: &Table) {
    let joined = table.carriers.values().filter(|carrier| matches!(carrier.place, Place::Joined { .. })).count();
    assert_eq!(joined, table.joined);
    assert_eq!(joined, table.joins.values().filter(|join| matches!(join.phase, Phase::Joined(_))).count());
    for (carrier, entry) in &table.carriers {
        let parked = table.parked.get(&entry.connector).is_some_and(|parked| parked.contains(carrier));
        match entry.place {
            Place::Parked => assert!(parked),
            Place::Picked { join } => {
                assert!(!parked && matches!(table.joins[&join].phase, Phase::Picking(other) if other == *carrier))
            }
            Place::Joined { join } => {
                assert!(!parked && matches!(table.joins[&join].phase, Phase::Joined(other) if other == *carrier))
            }
        }
    }
    for (join, entry) in &table.joins {
        assert!(table.by_client[&entry.client].contains(join));
        let waits = table.waiting.values().any(|waiting| waiting.contains(join));
        assert_eq!(waits, matches!(entry.phase, Phase::Waiting));
        if let Phase::Picking(carrier) | Phase::Joined(carrier) = entry.phase {
            assert!(!table.blocks.contains(&(entry.client, table.carriers[&carrier].connector)), "blocked pairs are apart");
        }
        if let Phase::Waiting = entry.phase {
            assert!(
                entry.candidates.iter().all(|connector| !table.parked.contains_key(connector)),
                "nobody waits beside a parked carrier"
            );
        }
    }
    assert_eq!(table.by_client.values().map(BTreeSet::len).sum::<usize>(), table.joins.len());
    assert!(table.parked.values().all(|parked| !parked.is_empty()) && table.waiting.values().all(|waiting| !waiting.is_empty()));
}

#[derive(Clone, Debug)]
enum Step {
    Park(u64),
    Begin(u64),
    Ask(usize, Vec<u64>),
    Expire(usize),
    Ready(usize),
    Gone(usize),
    Leave(usize),
    Cut(u64, Option<u64>),
    Block(u64, u64),
    Unblock(u64, u64),
    DropAgent(u64),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let (connector, client, index) = (1..4u64, 100..103u64, 0..64usize);
    prop_oneof![
        4 => connector.clone().prop_map(Step::Park),
        4 => client.clone().prop_map(Step::Begin),
        4 => (index.clone(), prop::collection::vec(connector.clone(), 0..3)).prop_map(|(at, candidates)| Step::Ask(at, candidates)),
        1 => index.clone().prop_map(Step::Expire),
        4 => index.clone().prop_map(Step::Ready),
        2 => index.clone().prop_map(Step::Gone),
        1 => index.prop_map(Step::Leave),
        1 => (client.clone(), prop::option::of(connector.clone())).prop_map(|(client, connector)| Step::Cut(client, connector)),
        1 => (client.clone(), connector.clone()).prop_map(|(client, connector)| Step::Block(client, connector)),
        1 => (client, connector.clone()).prop_map(|(client, connector)| Step::Unblock(client, connector)),
        1 => connector.prop_map(Step::DropAgent),
        1 => (0..2000u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, ..ProptestConfig::default() })]

    #[test]
    fn every_carrier_is_in_one_place_whatever_happens(steps in prop::collection::vec(step(), 1..200)) {
        let mut play = Play::new();
        let (mut carriers, mut joins) = (Vec::new(), Vec::new());
        for step in steps {
            let now = play.now;
            let table = &mut play.table;
            let pick = |all: &Vec<JoinId>, at: usize| (!all.is_empty()).then(|| all[at % all.len()]);
            let pick_carrier = |all: &Vec<CarrierId>, at: usize| (!all.is_empty()).then(|| all[at % all.len()]);
            match step {
                Step::Park(connector) => carriers.extend(table.park(id(connector), now).map(|(carrier, _)| carrier)),
                Step::Begin(client) => joins.extend(table.begin(id(client))),
                Step::Ask(at, candidates) => if let Some(join) = pick(&joins, at) {
                    table.ask(join, &candidates.into_iter().map(id).collect::<Vec<_>>(), false, now);
                },
                Step::Expire(at) => if let Some(join) = pick(&joins, at) { table.expire(join, now); },
                Step::Ready(at) => if let Some(carrier) = pick_carrier(&carriers, at) { table.ready(carrier); },
                Step::Gone(at) => if let Some(carrier) = pick_carrier(&carriers, at) { table.gone(carrier, now); },
                Step::Leave(at) => if let Some(join) = pick(&joins, at) { table.leave(join); },
                Step::Cut(client, connector) => { table.cut(id(client), connector.map(id)); }
                Step::Block(client, connector) => { table.block(id(client), id(connector)); }
                Step::Unblock(client, connector) => table.unblock(id(client), id(connector)),
                Step::DropAgent(connector) => { table.drop_agent(id(connector), now); }
                Step::Wait(ms) => play.now += Duration::from_millis(ms),
            }
            check(&play.table);
        }
    }
}
