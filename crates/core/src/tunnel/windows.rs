//! How much each flow of a tunnel may have under way, so that memory stays bounded and no stalled flow slows another.
//!
//! The connection window covers the sum of what flows can hold when they stall; their windows shrink as flows grow in number. Windows
//! larger than the path needs only make bulk flows queue in front of interactive ones, so they grow with the round-trip time.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// Flows of one tunnel.
pub const MAX_FLOWS: usize = 8192;
/// What the stream windows of a tunnel add up to, down to the smallest window.
const SHARED: u32 = 32 << 20;
/// For round trips of 10 ms and more.
const MAX_WINDOW: u32 = 1 << 20;
/// At the start, and for short round trips.
pub const FIRST_WINDOW: u32 = 128 << 10;
const MIN_WINDOW: u32 = 4 << 10;
/// Bytes per microsecond that one flow shall reach.
const PACE: u64 = 100;
/// The hard bound on a tunnel's memory per direction. Flows that stall while others are still to come hold what their windows were then:
/// this is what all flows together hold at most, so that a tunnel never stops.
pub const CONNECTION_WINDOW: u32 = 5 * SHARED;
/// The largest DATA frame that is taken.
pub const MAX_FRAME: u32 = 128 << 10;
/// Round trips are measured this often while there are flows. It is also how a peer that is silent is noticed: the ping is not acknowledged.
const PING_EVERY: Duration = Duration::from_secs(5);
/// The shortest of so many round trips counts: the others have waited behind bulk.
const ROUND_TRIPS: usize = 8;

const _: () = assert!(MIN_WINDOW as usize * MAX_FLOWS <= CONNECTION_WINDOW as usize);

/// What the windows of a tunnel depend on.
#[derive(Debug)]
pub struct Load {
    pub flows: AtomicUsize,
    round_trip_us: AtomicU64,
    /// The window of flows that are opened now.
    announced: AtomicU32,
    shrunk: Notify,
    /// How often a smaller window has come into force, and who wants to know.
    shrinks: AtomicUsize,
    in_force: Notify,
    /// Whoever polls the connection.
    turn: Mutex<Option<Waker>>,
}

impl Default for Load {
    fn default() -> Self {
        Self {
            flows: AtomicUsize::new(0),
            round_trip_us: AtomicU64::new(0),
            announced: AtomicU32::new(FIRST_WINDOW),
            shrunk: Notify::new(),
            shrinks: AtomicUsize::new(0),
            in_force: Notify::new(),
            turn: Mutex::default(),
        }
    }
}

impl Load {
    pub fn flows(&self) -> usize {
        self.flows.load(Ordering::Relaxed)
    }

    /// Wait until the window in force is not too large for the flows there are, this one counted: HTTP/2 announces one change at a time,
    /// and each must be acknowledged before the next. At most a round trip, and only for flows that come by the hundred.
    pub async fn borne(&self) {
        loop {
            let mut shrunk = pin!(self.shrunk.notified());
            shrunk.as_mut().enable();
            if self.is_borne() {
                return;
            }
            if let Some(turn) = self.turn.lock().unwrap_or_else(PoisonError::into_inner).take() {
                turn.wake();
            }
            shrunk.await;
        }
    }

    fn is_borne(&self) -> bool {
        let (flows, announced) = (self.flows() as u64, self.announced.load(Ordering::Relaxed));
        announced <= MIN_WINDOW || flows * u64::from(announced) <= u64::from(SHARED)
    }

    /// How often a smaller window has come into force. Then every flow has to look whether its peer may still send: HTTP/2 says what a flow has
    /// taken once that is half a window, and half of the larger one may be all of the smaller.
    pub fn shrinks(&self) -> usize {
        self.shrinks.load(Ordering::Acquire)
    }

    /// What `poll` gives; it is polled again whenever that number has changed.
    pub async fn follow<T>(&self, mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>) -> T {
        let mut changed = pin!(self.in_force.notified());
        poll_fn(|cx| {
            while changed.as_mut().poll(cx).is_ready() {
                changed.set(self.in_force.notified());
            }
            poll(cx)
        })
        .await
    }

    /// A flow has ended.
    pub fn leave(&self) {
        self.flows.fetch_sub(1, Ordering::Relaxed);
        self.shrunk.notify_waiters();
    }

    fn polled_by(&self, cx: &Context<'_>) {
        let mut turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
        if turn.as_ref().is_none_or(|waker| !waker.will_wake(cx.waker())) {
            *turn = Some(cx.waker().clone());
        }
    }
}

/// Measure round trips until the tunnel is gone.
pub async fn measure(mut pings: PingPong, load: Weak<Load>) {
    let mut seen = std::collections::VecDeque::new();
    loop {
        let begun = Instant::now();
        if pings.ping(Ping::opaque()).await.is_err() {
            return;
        }
        seen.push_back(begun.elapsed().as_micros() as u64);
        if seen.len() > ROUND_TRIPS {
            seen.pop_front();
        }
        match load.upgrade() {
            Some(load) => load.round_trip_us.store(seen.iter().copied().min().unwrap_or(0), Ordering::Relaxed),
            None => return,
        }
        loop {
            sleep(PING_EVERY).await;
            match load.upgrade() {
                Some(load) if load.flows() == 0 => {}
                Some(_) => break,
                None => return,
            }
        }
    }
}

/// The stream window in force.
#[derive(Debug)]
pub struct Windows {
    current: u32,
    /// The last change made it smaller, and is not known to be in force.
    shrinking: bool,
}

impl Default for Windows {
    fn default() -> Self {
        Self { current: FIRST_WINDOW, shrinking: false }
    }
}

fn window_for(flows: usize, round_trip_us: u64) -> u32 {
    // A flow that is alone has no other to queue in front of, and fewer messages go back for it.
    let least = if flows <= 1 { MAX_WINDOW } else { FIRST_WINDOW };
    let flows = u32::try_from(flows.max(1).next_power_of_two()).unwrap_or(u32::MAX);
    let path = u32::try_from(round_trip_us.saturating_mul(PACE)).unwrap_or(u32::MAX).clamp(least, MAX_WINDOW);
    // Powers of two, so that small changes change nothing.
    let path = if path.is_power_of_two() { path } else { path.next_power_of_two() / 2 };
    (SHARED / flows).clamp(MIN_WINDOW, path)
}

impl Windows {
    /// Announce another window if it has to change: smaller at once, larger only when half the flows are gone. Called before each turn of
    /// the connection, so that a flow is never opened under a window that is too large for it, and after it: an `announce` that fails
    /// (the last change was not acknowledged yet) is tried again once it is. Nothing else tells that a smaller window is in force, so it is
    /// announced once more. True if there is something to send now.
    pub fn change(&mut self, cx: &Context<'_>, load: &Load, announce: impl FnOnce(u32) -> bool) -> bool {
        load.polled_by(cx);
        let (flows, round_trip) = (load.flows(), load.round_trip_us.load(Ordering::Relaxed));
        let (least, most) = (window_for(flows, round_trip), window_for(flows.saturating_mul(2), round_trip));
        let next = if self.current > least { least } else { self.current.max(most) };
        if (next == self.current && !self.shrinking) || !announce(next) {
            return false;
        }
        if std::mem::replace(&mut self.shrinking, next < self.current) {
            load.shrinks.fetch_add(1, Ordering::Release);
            load.in_force.notify_waiters();
        }
        self.current = next;
        load.announced.store(next, Ordering::Relaxed);
        load.shrunk.notify_waiters();
        true
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn load(flows: usize, round_trip_us: u64) -> Load {
        Load { flows: flows.into(), round_trip_us: round_trip_us.into(), ..Load::default() }
    }

    fn turn(windows: &mut Windows, load: &Load, announce: impl FnOnce(u32) -> bool) -> bool {
        windows.change(&Context::from_waker(Waker::noop()), load, announce)
    }

    /// Flows that still get the first window.
    const FEW: usize = (SHARED / FIRST_WINDOW) as usize;

    #[test]
    fn windows_shrink_at_once_and_grow_with_delay() {
        let mut windows = Windows::default();
        for (flows, parts) in [(FEW, 1), (FEW + 1, 2), (FEW, 2), (FEW / 2 + 1, 2), (FEW / 2, 1), (4 * FEW, 4)] {
            turn(&mut windows, &load(flows, 0), |_| true);
            assert_eq!(windows.current, FIRST_WINDOW / parts, "{flows}");
        }
        assert!(!turn(&mut windows, &load(MAX_FLOWS, 0), |_| false));
        assert_eq!(windows.current, FIRST_WINDOW / 4);
        assert!(turn(&mut windows, &load(MAX_FLOWS, 0), |window| window == MIN_WINDOW));
        assert_eq!(windows.current, MIN_WINDOW);
        assert!(turn(&mut windows, &load(MAX_FLOWS, 0), |window| window == MIN_WINDOW), "whether it is in force");
        assert!(!turn(&mut windows, &load(MAX_FLOWS, 0), |_| true), "nothing changed");
    }

    #[test]
    fn smaller_window_is_told_once_it_is_in_force() {
        let load = load(FEW + 1, 0);
        let mut windows = Windows::default();
        assert!(turn(&mut windows, &load, |_| true));
        assert!(!turn(&mut windows, &load, |_| false), "not acknowledged");
        assert_eq!(load.shrinks(), 0);
        assert!(turn(&mut windows, &load, |_| true));
        assert_eq!(load.shrinks(), 1);
        // A larger one takes nothing from anybody.
        load.flows.store(1, Ordering::Relaxed);
        assert!(turn(&mut windows, &load, |_| true) && !turn(&mut windows, &load, |_| true));
        assert_eq!(load.shrinks(), 1);
    }

    #[test]
    fn windows_follow_the_round_trip() {
        for (round_trip_us, window) in [(0, 128), (2000, 128), (6000, 512), (11_000, 1024), (u64::MAX, 1024)] {
            assert_eq!(window_for(2, round_trip_us), window << 10, "{round_trip_us}");
        }
    }

    #[test]
    fn a_flow_that_is_alone_gets_the_largest_window_once_none_was_there() {
        let mut windows = Windows::default();
        for (flows, window) in [(1, FIRST_WINDOW), (0, MAX_WINDOW), (1, MAX_WINDOW), (2, FIRST_WINDOW), (1, FIRST_WINDOW)] {
            turn(&mut windows, &load(flows, 0), |_| true);
            assert_eq!(windows.current, window, "{flows}");
        }
    }

    #[test]
    fn connection_window_holds_flows_that_stalled_one_after_the_other() {
        for round_trip_us in [0, 100_000] {
            let held: u64 = (1..=MAX_FLOWS).map(|flows| u64::from(window_for(flows, round_trip_us))).sum();
            assert!(held <= u64::from(CONNECTION_WINDOW), "{held}");
        }
    }

    #[tokio::test]
    async fn flows_wait_until_the_window_in_force_bears_them() {
        let load = Arc::new(load(FEW + 1, 0));
        let mut windows = Windows::default();
        let mut opening = by_hand(load.borne());
        assert!(opening.is_pending());
        assert!(!turn(&mut windows, &load, |_| false), "the last change is not acknowledged");
        assert!(opening.is_pending());
        assert!(turn(&mut windows, &load, |_| true));
        assert!(!opening.is_pending());
        // Or until enough of the others have ended.
        load.flows.store(2 * FEW + 1, Ordering::Relaxed);
        let mut opening = by_hand(load.borne());
        assert!(opening.is_pending());
        load.leave();
        assert!(!opening.is_pending());
    }

    #[tokio::test]
    async fn what_waits_wakes_whoever_polls_the_connection() {
        let load = load(FEW + 1, 0);
        let mut woken = false;
        let mut windows = Windows::default();
        let connection = std::future::poll_fn(|cx| {
            if std::mem::replace(&mut woken, true) {
                windows.change(cx, &load, |_| true);
                return Poll::Ready(());
            }
            load.polled_by(cx);
            Poll::Pending
        });
        tokio::time::timeout(Duration::from_secs(5), async { tokio::join!(connection, load.borne()) }).await.ok();
        assert!(load.is_borne());
    }

    /// A future that is polled by hand.
    fn by_hand(future: impl Future<Output = ()>) -> ByHand<impl Future<Output = ()>> {
        ByHand(Box::pin(future))
    }

    struct ByHand<F>(std::pin::Pin<Box<F>>);

    impl<F: Future<Output = ()>> ByHand<F> {
        fn is_pending(&mut self) -> bool {
            self.0.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending()
        }
    }
}
