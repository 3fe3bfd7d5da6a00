//! When to ping, when to give up, when to dial again. Takes the time and a seed; does nothing by itself.

use std::time::{Duration, Instant};

/// Without anything received for this long, ping.
pub const PING_AFTER: Duration = Duration::from_secs(5);
/// Without anything received for this long after a ping, the peer is silent.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(5);
const FIRST_DELAY: f64 = 0.2;
const MAX_DELAY: f64 = 15.0;
/// A link that lasted this long was a good one: the next attempt starts from the shortest delay again.
const GOOD_AFTER: Duration = Duration::from_secs(30);

/// Is the peer there?
#[derive(Debug)]
pub struct Keeper {
    heard: Instant,
    /// Since when a ping is unanswered.
    asked: Option<Instant>,
    pings: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    /// Nothing to do until the next deadline.
    Wait,
    Ping([u8; 8]),
    Silent,
}

impl Keeper {
    pub fn new(now: Instant) -> Keeper {
        Keeper { heard: now, asked: None, pings: 0 }
    }

    /// Any byte of the peer is a sign of life.
    pub fn heard(&mut self, now: Instant) {
        self.heard = now;
        self.asked = None;
    }

    pub fn beat(&mut self, now: Instant) -> Beat {
        if now < self.next_deadline() {
            return Beat::Wait;
        }
        match self.asked {
            Some(_) => Beat::Silent,
            None => {
                self.asked = Some(now);
                self.pings += 1;
                Beat::Ping(self.pings.to_be_bytes())
            }
        }
    }

    pub fn next_deadline(&self) -> Instant {
        match self.asked {
            Some(asked) => asked + ANSWER_WITHIN,
            None => self.heard + PING_AFTER,
        }
    }
}

/// Full jitter: a uniform share of a delay that doubles from 0.2 s to 15 s.
#[derive(Debug)]
pub struct Backoff {
    attempts: i32,
    random: u64,
}

impl Backoff {
    pub fn new(seed: u64) -> Backoff {
        Backoff { attempts: 0, random: seed }
    }

    /// The wait before the next attempt; `lasted` is how long the link was up, if it was.
    pub fn next_delay(&mut self, lasted: Option<Duration>) -> Duration {
        if lasted.is_some_and(|lasted| lasted >= GOOD_AFTER) {
            self.attempts = 0;
        }
        let most = (FIRST_DELAY * 2f64.powi(self.attempts.min(16))).min(MAX_DELAY);
        self.attempts = self.attempts.saturating_add(1);
        Duration::from_secs_f64(most * self.uniform())
    }

    /// In [0, 1): splitmix64.
    fn uniform(&mut self) -> f64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((mixed ^ (mixed >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn case_49_a_silent_peer_is_noticed_ten_seconds_after_its_last_byte() {
        let start = Instant::now();
        let mut keeper = Keeper::new(start);
        assert_eq!(keeper.beat(start + 4 * SECOND), Beat::Wait);
        assert!(matches!(keeper.beat(start + 5 * SECOND), Beat::Ping(_)));
        assert_eq!(keeper.beat(start + 9 * SECOND), Beat::Wait);
        assert_eq!(keeper.beat(start + 10 * SECOND), Beat::Silent);
    }

    #[test]
    fn a_peer_that_sends_anything_lives() {
        let start = Instant::now();
        let mut keeper = Keeper::new(start);
        for second in 1..100 {
            let now = start + second * SECOND;
            assert_ne!(keeper.beat(now), Beat::Silent);
            if second % 7 == 0 {
                keeper.heard(now);
            }
        }
    }

    #[test]
    fn delays_double_to_their_bound_and_start_over_after_a_good_link() {
        let longest = |attempt: i32| {
            (0..200)
                .map(|seed| {
                    let mut backoff = Backoff::new(seed);
                    (0..attempt).for_each(|_| {
                        backoff.next_delay(None);
                    });
                    backoff.next_delay(Some(SECOND))
                })
                .max()
        };
        let near = |attempt, most: f64| longest(attempt).is_some_and(|delay| (most * 0.9..most).contains(&delay.as_secs_f64()));
        assert!(near(0, 0.2) && near(1, 0.4) && near(3, 1.6) && near(7, 15.0) && near(1000, 15.0));
        let mut backoff = Backoff::new(1);
        (0..20).for_each(|_| {
            backoff.next_delay(None);
        });
        assert!(backoff.next_delay(Some(GOOD_AFTER)) < Duration::from_millis(200));
    }

    proptest! {
        /// Whatever is heard when, silence is never noticed later than 10 s nor earlier.
        #[test]
        fn silence_is_ten_seconds(heard in proptest::collection::vec(0u64..20_000, 0..20)) {
            let start = Instant::now();
            let mut keeper = Keeper::new(start);
            let (mut now, mut last) = (0u64, 0u64);
            for wait in heard {
                let until = now + wait;
                while let due = keeper.next_deadline().duration_since(start).as_millis() as u64 && due <= until {
                    if keeper.beat(start + Duration::from_millis(due)) == Beat::Silent {
                        prop_assert_eq!(due - last, 10_000);
                        return Ok(());
                    }
                }
                now = until;
                prop_assert!(now - last < 10_000);
                last = now;
                keeper.heard(start + Duration::from_millis(now));
            }
        }
    }
}
