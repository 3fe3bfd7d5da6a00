//! Spare carriers, parked at every relay, each replaced as soon as it is used.

use std::collections::HashMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tokio::time::sleep;

use super::Plane;
use crate::carrier::{RelayPlace, park};
use crate::code::Code;
use crate::ids::Id;

/// Spare carriers at one relay.
pub const MAX_SPARE: usize = 16;
/// Relays that a connector parks at.
pub const MAX_RELAYS: usize = 64;
/// Carriers parked on request beside the spare ones.
const MAX_EXTRA: usize = 64;
/// A carrier parked on request that nobody takes is given up.
const EXTRA_LIFE: Duration = Duration::from_secs(30);
const BACKOFF_FIRST: Duration = Duration::from_millis(200);
const BACKOFF_MOST: Duration = Duration::from_secs(15);

/// The carriers that wait at relays.
#[derive(Default)]
pub struct Parking {
    spots: HashMap<Id, Spot>,
    spare: usize,
    extra: Arc<std::sync::atomic::AtomicUsize>,
}

struct Spot {
    place: RelayPlace,
    keepers: Vec<AbortHandle>,
}

impl Drop for Spot {
    fn drop(&mut self) {
        self.keepers.iter().for_each(AbortHandle::abort);
    }
}

/// Uniform in 0..=`most` (full jitter).
pub fn jitter(most: Duration) -> Duration {
    let mut random = [0u8; 4];
    // Without randomness the wait is the longest.
    let share = SystemRandom::new().fill(&mut random).map_or(1.0, |()| f64::from(u32::from_be_bytes(random)) / f64::from(u32::MAX));
    most.mul_f64(share)
}

impl Plane {
    /// Park at these relays and no others. What is joined already goes on.
    pub fn set_relays(self: &Arc<Self>, places: Vec<(Id, RelayPlace)>, spare: usize) -> Result<(), Code> {
        if places.len() > MAX_RELAYS || !(1..=MAX_SPARE).contains(&spare) {
            return Err(Code::ArgumentInvalid);
        }
        let mut parking = self.parking.lock().unwrap_or_else(PoisonError::into_inner);
        let mut old = std::mem::take(&mut parking.spots);
        let unchanged = parking.spare == spare;
        parking.spare = spare;
        for (id, place) in places {
            let spot = match old.remove(&id) {
                Some(spot) if unchanged && spot.place == place => spot,
                _ => Spot { keepers: (0..spare).map(|_| self.spawn_keeper(&place)).collect(), place },
            };
            parking.spots.insert(id, spot);
        }
        Ok(())
    }

    /// Park one more carrier there now. Errors: `argument_invalid` for a relay that was not set, `limit_reached`.
    pub fn open_carrier(self: &Arc<Self>, relay: Id) -> Result<(), Code> {
        let parking = self.parking.lock().unwrap_or_else(PoisonError::into_inner);
        let place = parking.spots.get(&relay).ok_or(Code::ArgumentInvalid)?.place.clone();
        let extra = Arc::clone(&parking.extra);
        if extra.fetch_add(1, std::sync::atomic::Ordering::Relaxed) >= MAX_EXTRA {
            extra.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            return Err(Code::LimitReached);
        }
        let plane = Arc::clone(self);
        self.runtime.spawn(async move {
            let parked = async {
                let parked = park(&plane.trust, &plane.dialer, &place).await?;
                parked.wait().await
            };
            let carried = tokio::time::timeout(EXTRA_LIFE, parked).await;
            extra.fetch_sub(1, std::sync::atomic::Ordering::Relaxed);
            if let Ok(Ok(io)) = carried {
                plane.accept(io).await;
            }
        });
        Ok(())
    }

    /// Leave every relay's parking.
    pub fn leave_relays(&self) {
        self.parking.lock().unwrap_or_else(PoisonError::into_inner).spots.clear();
    }

    fn spawn_keeper(self: &Arc<Self>, place: &RelayPlace) -> AbortHandle {
        let (plane, place) = (Arc::clone(self), place.clone());
        let renewed = self.renewed.subscribe();
        self.runtime.spawn(async move { plane.keep_parked(&place, renewed).await }).abort_handle()
    }

    /// Keep one carrier parked, for ever.
    async fn keep_parked(self: Arc<Self>, place: &RelayPlace, mut renewed: watch::Receiver<u64>) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            renewed.mark_unchanged();
            let waited = match park(&self.trust, &self.dialer, place).await {
                Ok(parked) => {
                    self.stats.carriers_parked.add(1);
                    let _parked = Parked(&self);
                    backoff = BACKOFF_FIRST;
                    tokio::select! {
                        carried = parked.wait() => carried,
                        // The relay shall see the certificate that is in force.
                        Ok(()) = renewed.changed() => continue,
                    }
                }
                Err(code) => Err(code),
            };
            match waited {
                Ok(io) => {
                    let plane = Arc::clone(&self);
                    self.runtime.spawn(async move { plane.accept(io).await });
                }
                Err(code) => {
                    tracing::debug!(code = code.as_str(), "parking ended");
                    sleep(jitter(backoff)).await;
                    backoff = (backoff * 2).min(BACKOFF_MOST);
                }
            }
        }
    }
}

struct Parked<'a>(&'a Plane);

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.stats.carriers_parked.sub(1);
    }
}
