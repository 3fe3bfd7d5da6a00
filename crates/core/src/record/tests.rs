#![allow(clippy::unwrap_used, clippy::indexing_slicing)]
use super::spool::MIN_SPOOL_BYTES;
use super::*;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(10);

struct Room(PathBuf);

impl Room {
    fn new() -> Room {
        let mut name = [0u8; 8];
        aws_lc_rs::rand::fill(&mut name).unwrap();
        let path = std::env::temp_dir().join(format!("cloister-record-{}", Id::from_bytes(name)));
        std::fs::create_dir(&path).unwrap();
        Room(path)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn me() -> Id {
    Id::from_bytes([0xc1; 8])
}

fn record(host: &str) -> Record<'_> {
    Record {
        at: 0,
        kind: Kind::Open,
        flow: me(),
        ticket: None,
        device: me(),
        protocol: Protocol::Tcp,
        host,
        port: 80,
        bytes_in: 0,
        bytes_out: 0,
        stages: Stages::default(),
        duration_us: 0,
        code: Code::Ok,
        leaf: "",
    }
}

fn spool(room: &Room, max_bytes: u64) -> Spool {
    let spool = Spool::open(&room.path("spool"), me(), max_bytes).unwrap();
    assert_eq!(spool.status().max_bytes, max_bytes.max(MIN_SPOOL_BYTES));
    spool
}

/// Ships into a channel.
fn attach(spool: &Spool) -> Receiver<Batch> {
    let (sender, receiver) = channel();
    spool.attach(Box::new(move |batch| sender.send(batch).is_ok()));
    receiver
}

fn receive(batches: &Receiver<Batch>) -> Batch {
    batches.recv_timeout(WAIT).unwrap()
}

fn hosts(batch: &Batch) -> Vec<String> {
    let host =
        |line: &[u8]| serde_json::from_slice::<serde_json::Value>(line).unwrap()["host"].as_str().unwrap_or("gap").to_owned();
    batch.lines().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()).map(host).collect()
}

fn write(journal: &Journal, connector: Id, batch: Batch) -> Option<Written> {
    let (sender, receiver) = channel();
    assert!(journal.write(connector, batch, move |written| sender.send(written).unwrap()));
    receiver.recv_timeout(WAIT).unwrap()
}

fn ask(journal: &Journal, connector: Id) -> Written {
    let (sender, receiver) = channel();
    assert!(journal.ask(connector, move |written| sender.send(written).unwrap()));
    receiver.recv_timeout(WAIT).unwrap().unwrap()
}

fn batch(first: u64, count: u32) -> Batch {
    let mut lines = Vec::new();
    for n in first..first + u64::from(count) {
        format::write_record(&mut lines, n, me(), &record("h"));
    }
    Batch::of_lines(first, count, lines.into()).unwrap()
}

#[test]
fn records_leave_in_order_once_and_numbered_across_restarts() {
    let room = Room::new();
    let first = {
        let spool = spool(&room, 1 << 20);
        spool.push(&record("a"));
        spool.push(&record("b"));
        let last = spool.status().last;
        last - 1
    };
    let spool = spool(&room, 1 << 20);
    assert_eq!(spool.status().last, first + 1);
    spool.push(&record("c"));
    let batches = attach(&spool);
    spool.acknowledge(0);
    let mut seen = Vec::new();
    while seen.len() < 3 {
        let batch = receive(&batches);
        assert_eq!(batch.first(), first + seen.len() as u64);
        seen.extend(hosts(&batch));
    }
    assert_eq!(seen, ["a", "b", "c"]);
}

#[test]
fn nothing_is_shipped_before_the_exchange_has_said_what_it_has() {
    let room = Room::new();
    let spool = spool(&room, 1 << 20);
    spool.push(&record("a"));
    spool.push(&record("b"));
    let batches = attach(&spool);
    assert!(batches.recv_timeout(Duration::from_millis(300)).is_err());
    spool.acknowledge(spool.status().last - 1);
    assert_eq!(hosts(&receive(&batches)), ["b"]);
}

#[test]
fn what_was_not_acknowledged_is_shipped_again_after_a_reconnect() {
    let room = Room::new();
    let spool = spool(&room, 1 << 20);
    spool.push(&record("a"));
    let batches = attach(&spool);
    spool.acknowledge(0);
    assert_eq!(hosts(&receive(&batches)), ["a"]);
    spool.detach();
    let batches = attach(&spool);
    spool.acknowledge(spool.status().last - 1);
    assert_eq!(hosts(&receive(&batches)), ["a"]);
}

#[test]
fn at_the_end_what_is_pending_is_shipped_and_acknowledged() {
    let room = Room::new();
    let spool = std::sync::Arc::new(spool(&room, 1 << 20));
    spool.push(&record("a"));
    let exchange = spool.clone();
    spool.attach(Box::new(move |batch| {
        // Acknowledged by another thread, as a link does.
        let (exchange, last) = (exchange.clone(), batch.last());
        std::thread::spawn(move || exchange.acknowledge(last));
        true
    }));
    spool.acknowledge(0);
    spool.push(&record("b"));
    let begun = std::time::Instant::now();
    spool.finish(WAIT);
    assert!(begun.elapsed() < WAIT);
    assert_eq!(spool.status().acknowledged, spool.status().last);
    spool.detach();
    let offline = self::spool(&Room::new(), 1 << 20);
    offline.push(&record("c"));
    offline.finish(WAIT);
    assert!(begun.elapsed() < WAIT, "without a link nobody is waited for");
}

#[test]
fn a_torn_last_line_is_cut_off() {
    let room = Room::new();
    drop({
        let spool = spool(&room, 1 << 20);
        spool.push(&record("a"));
        spool
    });
    let (first, _) = spool::files::list(&room.path("spool")).unwrap()[0];
    let path = spool::files::piece_path(&room.path("spool"), first);
    let mut text = std::fs::read(&path).unwrap();
    text.extend_from_slice(b"{\"n\":17,\"at\":\"20");
    std::fs::write(&path, &text).unwrap();
    let spool = spool(&room, 1 << 20);
    assert_eq!(spool.status().last, first);
    spool.push(&record("b"));
    let batches = attach(&spool);
    spool.acknowledge(0);
    let mut seen = hosts(&receive(&batches));
    if seen.len() < 2 {
        seen.extend(hosts(&receive(&batches)));
    }
    assert_eq!(seen, ["a", "b"]);
}

#[test]
fn a_full_spool_says_so_loses_visibly_and_empties_when_acknowledged() {
    let room = Room::new();
    let spool = spool(&room, MIN_SPOOL_BYTES);
    let long = "h".repeat(900);
    let mut pushed = 0u64;
    while !spool.full() {
        spool.push(&record(&long));
        pushed += 1;
    }
    let status = spool.status();
    assert!(status.bytes < MIN_SPOOL_BYTES && status.lost == 0, "full is said before anything is lost");
    for _ in 0..100 {
        spool.push(&record(&long));
        pushed += 1;
    }
    let lost = spool.status().lost;
    assert!(lost > 0 && spool.status().bytes < MIN_SPOOL_BYTES + 2048);

    let batches = attach(&spool);
    spool.acknowledge(0);
    let (mut kept, mut gaps, mut last) = (0, Vec::new(), 0);
    let mut take = |batch: Batch| {
        for line in batch.lines().split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let value: serde_json::Value = serde_json::from_slice(line).unwrap();
            match value["kind"].as_str() {
                Some("gap") => gaps.push(value["lost"].as_u64().unwrap()),
                _ => kept += 1,
            }
        }
        spool.acknowledge(batch.last());
        batch.last()
    };
    while spool.full() {
        last = take(receive(&batches));
        if last == spool.status().last {
            while spool.full() {
                std::thread::yield_now();
            }
        }
    }
    spool.push(&record("after"));
    while last < spool.status().last {
        last = take(receive(&batches));
    }
    assert_eq!(gaps, [0, lost]);
    assert_eq!(kept, pushed - lost + 1);
}

#[test]
fn a_spool_behind_the_exchange_numbers_above_it_and_says_what_is_missing() {
    let room = Room::new();
    let spool = spool(&room, 1 << 20);
    spool.push(&record("a"));
    let batches = attach(&spool);
    let ahead = spool.status().last + 1000;
    spool.acknowledge(ahead);
    while spool.status().acknowledged < ahead {
        std::thread::yield_now();
    }
    spool.push(&record("b"));
    let mut seen = Vec::new();
    let mut first = None;
    while seen.len() < 2 {
        let batch = receive(&batches);
        first = first.or(Some(batch.first()));
        seen.extend(hosts(&batch));
    }
    assert_eq!((first, seen), (Some(ahead + 1), vec!["gap".to_owned(), "b".to_owned()]));
}

#[test]
fn the_journal_keeps_each_number_once_and_remembers_across_restarts() {
    let room = Room::new();
    let journal = Journal::open(&room.path("journal"), 1 << 30).unwrap();
    assert_eq!(ask(&journal, me()), Written { last: 0, count: 0 });
    assert_eq!(write(&journal, me(), batch(10, 5)), Some(Written { last: 14, count: 5 }));
    assert_eq!(write(&journal, me(), batch(10, 5)), Some(Written { last: 14, count: 0 }));
    assert_eq!(write(&journal, me(), batch(12, 5)), Some(Written { last: 16, count: 2 }));
    let other = Id::from_bytes([2; 8]);
    assert_eq!(write(&journal, other, batch(1, 1)), Some(Written { last: 1, count: 1 }));
    drop(journal);
    let path = spool::files::piece_path(&room.path("journal").join(me().to_string()), 10);
    let mut text = std::fs::read(&path).unwrap();
    assert_eq!(text, batch(10, 7).lines());
    text.extend_from_slice(b"{\"n\":17,");
    std::fs::write(&path, &text).unwrap();
    let journal = Journal::open(&room.path("journal"), 1 << 30).unwrap();
    assert_eq!(ask(&journal, me()), Written { last: 16, count: 0 });
    assert_eq!(write(&journal, me(), batch(17, 1)), Some(Written { last: 17, count: 1 }));
    assert_eq!(std::fs::read(&path).unwrap(), batch(10, 8).lines());
}

#[test]
fn the_journal_stays_within_its_size_at_the_cost_of_who_wrote_most() {
    let room = Room::new();
    let quiet = Id::from_bytes([2; 8]);
    let journal = Journal::open(&room.path("journal"), 40 << 20).unwrap();
    write(&journal, quiet, batch(1, 1)).unwrap();
    let mut first = 1;
    for _ in 0..220 {
        write(&journal, me(), batch(first, 800)).unwrap();
        first += 800;
    }
    let size = |connector: Id| {
        spool::files::list(&room.path("journal").join(connector.to_string())).unwrap().iter().map(|piece| piece.1).sum::<u64>()
    };
    drop(journal);
    assert!(size(me()) <= 40 << 20 && size(me()) > 16 << 20);
    assert_eq!(size(quiet), batch(1, 1).lines().len() as u64);
}

#[test]
fn batches_that_are_not_numbered_as_they_say_are_refused() {
    let good = batch(5, 3);
    assert_eq!(Batch::new(5, 3, good.lines.clone()), Ok(good.clone()));
    let text = String::from_utf8(good.lines().to_vec()).unwrap();
    for (first, count, lines) in [
        (5, 2, text.clone()),
        (5, 4, text.clone()),
        (6, 3, text.clone()),
        (5, 3, text.trim_end().to_owned()),
        (5, 3, text.replace("\"n\":6", "\"n\":7")),
        (5, 3, text.replacen('\n', "\r", 1)),
        (5, 0, String::new()),
        (5, 3, text.replacen("}\n", "\n", 1)),
        (u64::MAX, 1, text.clone()),
    ] {
        assert_eq!(Batch::new(first, count, lines.clone().into()), Err(Code::ProtocolError), "{first} {count} {lines}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    /// Restarts, lost links and repeated batches in any order: the journal ends up with every record, once, in order.
    #[test]
    fn nothing_is_lost_and_nothing_doubled(steps in proptest::collection::vec(0u8..5, 1..25)) {
        let room = Room::new();
        let mut spool = Some(spool(&room, 1 << 20));
        let mut journal = Some(Journal::open(&room.path("journal"), 1 << 30).unwrap());
        let mut pushed = 0u32;
        let mut batches = None;
        for step in steps.into_iter().chain([3]) {
            match step {
                0 | 1 => {
                    for _ in 0..3 {
                        spool.as_ref().unwrap().push(&record(&pushed.to_string()));
                        pushed += 1;
                    }
                }
                2 => {
                    batches = None;
                    drop(spool.take());
                    spool = Some(Spool::open(&room.path("spool"), me(), 1 << 20).unwrap());
                }
                3 => {
                    drop(journal.take());
                    journal = Some(Journal::open(&room.path("journal"), 1 << 30).unwrap());
                    let receiver = attach(spool.as_ref().unwrap());
                    spool.as_ref().unwrap().acknowledge(ask(journal.as_ref().unwrap(), me()).last);
                    batches = Some(receiver);
                }
                _ => {
                    if let Some(batch) = batches.as_ref().and_then(|batches: &Receiver<Batch>| batches.try_recv().ok()) {
                        write(journal.as_ref().unwrap(), me(), batch).unwrap();
                    }
                }
            }
        }
        let (spool, journal, batches) = (spool.unwrap(), journal.unwrap(), batches.unwrap());
        let mut last = ask(&journal, me()).last;
        while last < spool.status().last && pushed > 0 {
            last = write(&journal, me(), receive(&batches)).unwrap().last;
            spool.acknowledge(last);
        }
        drop(journal);
        let directory = room.path("journal").join(me().to_string());
        let mut seen = Vec::new();
        for (first, _) in spool::files::list(&directory).unwrap_or_default() {
            let text = Bytes::from(std::fs::read(spool::files::piece_path(&directory, first)).unwrap());
            let count = text.iter().filter(|byte| **byte == b'\n').count() as u32;
            seen.extend(hosts(&Batch::of_lines(first, count, text).unwrap()));
        }
        prop_assert_eq!(seen, (0..pushed).map(|n| n.to_string()).collect::<Vec<_>>());
    }
}
