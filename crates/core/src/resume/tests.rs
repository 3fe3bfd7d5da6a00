use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

fn id() -> TunnelId {
    TunnelId([7; 16])
}

/// Move up to `limit` plaintext bytes from one end to the wire.
fn transmit(from: &mut Machine, wire: &mut VecDeque<u8>, limit: usize, now: Instant) -> usize {
    let mut moved = 0;
    while moved < limit {
        let output = from.output();
        let take = output.len().min(limit - moved);
        if take == 0 {
            break;
        }
        wire.extend(&output[..take]);
        from.sent(take, now);
        moved += take;
    }
    moved
}

/// Feed bytes; payload goes to `sink`.
fn feed(to: &mut Machine, bytes: &[u8], sink: &mut Vec<u8>, now: Instant) -> Result<Option<Input>, Violation> {
    let mut at = 0;
    while at < bytes.len() {
        let (used, input) = to.input(&bytes[at..], now)?;
        match input {
            Input::More => at += used,
            Input::Data { skip, len } => {
                sink.extend_from_slice(&bytes[at + skip..at + skip + len]);
                to.delivered(len, now);
                at += skip + len;
            }
            other => return Ok(Some(other)),
        }
    }
    Ok(None)
}

fn hello_of(wire: &mut VecDeque<u8>) -> Hello {
    let frame: Vec<u8> = wire.drain(..HELLO_BYTES).collect();
    Hello::decode(frame.as_slice().try_into().unwrap()).unwrap()
}

struct Pair {
    client: Machine,
    connector: Option<Machine>,
    up: VecDeque<u8>,
    down: VecDeque<u8>,
    at_client: Vec<u8>,
    at_connector: Vec<u8>,
    now: Instant,
}

impl Pair {
    fn new() -> Self {
        let mut client = Machine::client(id());
        client.attach().unwrap();
        Self {
            client,
            connector: None,
            up: VecDeque::new(),
            down: VecDeque::new(),
            at_client: Vec::new(),
            at_connector: Vec::new(),
            now: Instant::now(),
        }
    }

    /// Move at most so many bytes each way, one end after the other.
    fn step(&mut self, up: usize, down: usize) -> Result<(), Violation> {
        transmit(&mut self.client, &mut self.up, up, self.now);
        if self.client.epoch() > self.connector.as_ref().map_or(0, Machine::epoch) {
            if self.up.len() < HELLO_BYTES {
                return Ok(());
            }
            let hello = hello_of(&mut self.up);
            match &mut self.connector {
                None => self.connector = Some(Machine::accept(&hello).unwrap()),
                Some(machine) => machine.resume(&hello).unwrap(),
            }
        }
        let connector = self.connector.as_mut().unwrap();
        let bytes: Vec<u8> = self.up.drain(..).collect();
        feed(connector, &bytes, &mut self.at_connector, self.now)?;
        transmit(connector, &mut self.down, down, self.now);
        let bytes: Vec<u8> = self.down.drain(..).collect();
        feed(&mut self.client, &bytes, &mut self.at_client, self.now)?;
        Ok(())
    }

    fn settle(&mut self) {
        for _ in 0..10_000 {
            self.step(usize::MAX, usize::MAX).unwrap();
            self.now += ACK_DELAY;
            assert!(self.client.tick(self.now));
            assert!(self.connector.as_mut().unwrap().tick(self.now));
            if self.client.replay_memory() == 0 && self.connector.as_ref().unwrap().replay_memory() == 0 {
                return;
            }
        }
        panic!("did not settle");
    }

    fn cut(&mut self, keep_up: usize) {
        // The connector may still read what was on its way; the rest is lost.
        if let Some(connector) = &mut self.connector {
            let bytes: Vec<u8> = self.up.drain(..keep_up.min(self.up.len())).collect();
            feed(connector, &bytes, &mut self.at_connector, self.now).unwrap();
        }
        self.up.clear();
        self.down.clear();
        self.client.attach().unwrap();
    }
}

fn write_all(machine: &mut Machine, bytes: &[u8]) -> usize {
    machine.write(&[IoSlice::new(bytes)])
}

#[test]
fn bytes_arrive_once_and_replay_memory_is_given_back() {
    let mut pair = Pair::new();
    assert_eq!(write_all(&mut pair.client, b"hello"), 5);
    pair.settle();
    assert_eq!(pair.at_connector, b"hello");
    assert_eq!(write_all(pair.connector.as_mut().unwrap(), b"there"), 5);
    pair.settle();
    assert_eq!(pair.at_client, b"there");
    assert_eq!(pair.client.deadline(), None);
}

#[test]
fn replay_buffer_is_bounded_and_fills_up_to_back_pressure() {
    let mut machine = Machine::client(id());
    machine.attach().unwrap();
    let block = vec![1; 1 << 20];
    let mut taken = 0;
    loop {
        let n = write_all(&mut machine, &block);
        if n == 0 {
            break;
        }
        taken += n;
    }
    assert!(!machine.has_room());
    assert!(machine.replay_memory() <= MAX_REPLAY);
    assert!(taken > MAX_REPLAY * 9 / 10);
    // One-byte writes cost headers: the bound is on memory, not on payload.
    let mut machine = Machine::client(id());
    while write_all(&mut machine, b"x") == 1 {}
    assert!(machine.replay_memory() <= MAX_REPLAY);
}

#[test]
fn acknowledgement_comes_after_a_quarter_or_after_the_delay() {
    let mut pair = Pair::new();
    write_all(&mut pair.client, &vec![3; ACK_EVERY as usize - 1]);
    pair.step(usize::MAX, usize::MAX).unwrap();
    let connector = pair.connector.as_mut().unwrap();
    assert!(connector.output().is_empty());
    assert!(connector.deadline().is_some_and(|at| at == pair.now + ACK_DELAY));
    write_all(&mut pair.client, b"x");
    pair.step(usize::MAX, 0).unwrap();
    assert_eq!(pair.connector.as_mut().unwrap().output().first(), Some(&2));
}

#[test]
fn acknowledgement_goes_along_with_data_before_it_goes_alone() {
    for (count, first) in [(ACK_ALONG - 1, 1), (ACK_ALONG, 2)] {
        let mut pair = Pair::new();
        write_all(&mut pair.client, &vec![3; count as usize]);
        pair.step(usize::MAX, usize::MAX).unwrap();
        let connector = pair.connector.as_mut().unwrap();
        assert!(connector.output().is_empty(), "not alone");
        write_all(connector, b"x");
        assert_eq!(connector.output().first(), Some(&first));
        pair.settle();
        assert_eq!(pair.at_client, b"x");
    }
}

#[test]
fn silent_carrier_is_given_up() {
    let mut pair = Pair::new();
    write_all(&mut pair.client, b"x");
    transmit(&mut pair.client, &mut pair.up, usize::MAX, pair.now);
    assert!(pair.client.tick(pair.now + ACK_PATIENCE - Duration::from_millis(1)));
    assert!(!pair.client.tick(pair.now + ACK_PATIENCE));
}

#[test]
fn older_epoch_is_refused_and_newer_fences() {
    let mut pair = Pair::new();
    write_all(&mut pair.client, b"abc");
    pair.step(usize::MAX, usize::MAX).unwrap();
    let connector = pair.connector.as_mut().unwrap();
    let hello = |epoch, received| Hello { tunnel: id(), epoch, received };
    assert_eq!(connector.resume(&hello(1, 0)), Err(Refusal::StaleEpoch));
    assert_eq!(connector.resume(&hello(5, 0)), Ok(()));
    assert_eq!(connector.resume(&hello(5, 0)), Err(Refusal::StaleEpoch));
    assert_eq!(connector.resume(&hello(4, 0)), Err(Refusal::StaleEpoch));
    assert_eq!(connector.resume(&hello(6, 1)), Err(Refusal::UnknownTunnel));
    assert_eq!(connector.resume(&Hello { tunnel: TunnelId([8; 16]), epoch: 9, received: 0 }), Err(Refusal::UnknownTunnel));
    assert_eq!(Machine::accept(&hello(2, 0)).err(), Some(Refusal::UnknownTunnel));
    assert_eq!(Machine::accept(&hello(1, 1)).err(), Some(Refusal::UnknownTunnel));
}

#[test]
fn close_follows_the_last_byte_and_survives_a_cut() {
    let mut pair = Pair::new();
    write_all(&mut pair.client, b"last words");
    pair.client.close(3);
    assert_eq!(write_all(&mut pair.client, b"more"), 0);
    pair.step(HELLO_BYTES + 8, 0).unwrap();
    assert!(!pair.client.close_is_sent());
    pair.cut(0);
    pair.step(HELLO_BYTES, usize::MAX).unwrap();
    transmit(&mut pair.client, &mut pair.up, usize::MAX, pair.now);
    assert!(pair.client.close_is_sent());
    let bytes: Vec<u8> = pair.up.drain(..).collect();
    let end = feed(pair.connector.as_mut().unwrap(), &bytes, &mut pair.at_connector, pair.now).unwrap();
    assert_eq!(end, Some(Input::Close(3)));
    assert_eq!(pair.at_connector, b"last words");
    assert!(pair.connector.as_mut().unwrap().input(b"x", pair.now).is_err());
}

#[test]
fn refusal_ends_a_resumption() {
    let mut machine = Machine::client(id());
    machine.attach().unwrap();
    let mut wire = Vec::new();
    Refusal::UnknownTunnel.encode(&mut wire);
    assert_eq!(machine.input(&wire, Instant::now()).unwrap().1, Input::Refused(Refusal::UnknownTunnel));
}

#[test]
fn case_35_broken_frames_end_the_carrier() {
    let now = Instant::now();
    let open = || {
        let mut machine = Machine::accept(&Hello { tunnel: id(), epoch: 1, received: 0 }).unwrap();
        machine.write(&[IoSlice::new(b"sent")]);
        while !machine.output().is_empty() {
            machine.sent(1, now);
        }
        machine
    };
    let ack = |n: u64| [&[2, 0, 0, 8][..], &n.to_be_bytes()].concat();
    for broken in [
        vec![1, 0, 0, 0],          // DATA of length 0
        vec![2, 0, 0, 7, 0],       // wrong length
        vec![2, 0xff, 0xff, 0xff], // the longest length
        vec![5, 0, 0, 1, 0],       // unknown type
        vec![255, 255, 255, 255],  // all ones
        vec![3, 0, 0, 2, 0, 0],    // CLOSE too long
        vec![4, 0, 0, 1, 0],       // REFUSE from a client
        vec![0, 0, 0, 27],         // HELLO too short
        ack(5),                    // never sent
        ack(u64::MAX),
        {
            let mut hello = Vec::new();
            Hello { tunnel: id(), epoch: 2, received: 0 }.encode(&mut hello);
            hello // HELLO twice
        },
    ] {
        assert!(open().input(&broken, now).is_err(), "{broken:?}");
    }
    // Negative control: the same frames with good values pass.
    for good in [vec![1, 0, 0, 1, 9], ack(4), ack(0), vec![3, 0, 0, 1, 0]] {
        assert!(open().input(&good, now).is_ok(), "{good:?}");
    }
    let mut greeting = Machine::client(id());
    greeting.attach().unwrap();
    for early in [vec![1, 0, 0, 1, 9], ack(0), vec![3, 0, 0, 1, 0]] {
        assert!(greeting.input(&early, now).is_err());
    }
}

#[derive(Clone, Debug)]
enum Act {
    Up(usize),
    Down(usize),
    Step(usize, usize),
    Cut(usize),
    Wait,
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        3 => (1usize..200_000).prop_map(Act::Up),
        3 => (1usize..200_000).prop_map(Act::Down),
        2 => (1usize..10).prop_map(Act::Up),
        4 => (0usize..300_000, 0usize..300_000).prop_map(|(a, b)| Act::Step(a, b)),
        3 => (0usize..40, 0usize..40).prop_map(|(a, b)| Act::Step(a, b)),
        2 => (0usize..100_000).prop_map(Act::Cut),
        1 => Just(Act::Wait),
    ]
}

/// Bytes that differ at every place a cut could confuse.
fn pattern(from: usize, count: usize) -> Vec<u8> {
    (from..from + count).map(|i| (i as u32).wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn nothing_is_lost_or_doubled_whatever_is_cut(acts in prop::collection::vec(act(), 1..60)) {
        let mut pair = Pair::new();
        let (mut up, mut down) = (0, 0);
        for act in acts {
            match act {
                Act::Up(n) => up += write_all(&mut pair.client, &pattern(up, n)),
                Act::Down(n) => if let Some(connector) = &mut pair.connector {
                    down += write_all(connector, &pattern(down, n));
                },
                Act::Step(a, b) => pair.step(a, b).unwrap(),
                Act::Cut(keep) => {
                    let now = pair.now;
                    transmit(&mut pair.client, &mut pair.up, keep, now);
                    if pair.connector.as_ref().is_some_and(|connector| connector.epoch() == pair.client.epoch()) {
                        pair.cut(keep);
                    }
                }
                Act::Wait => {
                    pair.now += ACK_DELAY;
                    let _ = pair.client.tick(pair.now);
                    if let Some(connector) = &mut pair.connector { let _ = connector.tick(pair.now); }
                }
            }
            prop_assert!(pair.client.replay_memory() <= MAX_REPLAY);
        }
        pair.settle();
        prop_assert_eq!(&pair.at_connector, &pattern(0, up));
        prop_assert_eq!(&pair.at_client, &pattern(0, down));
        prop_assert_eq!(pair.client.received(), down as u64);
    }

    #[test]
    fn case_35_no_bytes_make_the_machine_panic(bytes in prop::collection::vec(any::<u8>(), 0..400), cut in 1usize..50) {
        let now = Instant::now();
        let mut machine = Machine::accept(&Hello { tunnel: id(), epoch: 1, received: 0 }).unwrap();
        let mut sink = Vec::new();
        for part in bytes.chunks(cut) {
            if !matches!(feed(&mut machine, part, &mut sink, now), Ok(None)) { break; }
        }
        prop_assert!(sink.len() <= bytes.len());
    }
}
