//! Configurations of rustls, made once and kept until an identity, a root or another part of what they were made from changes.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};

use rustls::{ClientConfig, ServerConfig};

use super::{Leg, State};
use crate::code::Code;
use crate::ids::{Id, Role};

/// Configurations for dialling name a peer: beyond so many, all are made anew.
const KEPT: usize = 1024;

/// What a configuration for dialling is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Dialling {
    pub leg: Leg,
    pub role: Role,
    pub peer: Option<Id>,
}

/// What a configuration for answering is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Answering {
    Leg(Leg),
    Web,
}

#[derive(Default)]
pub(super) struct Configurations {
    dialling: Kept<Dialling, ClientConfig>,
    answering: Kept<Answering, ServerConfig>,
}

impl Configurations {
    pub(super) fn dialling(
        &self,
        what: Dialling,
        state: &State,
        make: impl FnOnce() -> Result<Arc<ClientConfig>, Code>,
    ) -> Result<Arc<ClientConfig>, Code> {
        self.dialling.get(what, state.generation, make)
    }

    pub(super) fn answering(
        &self,
        what: Answering,
        state: &State,
        make: impl FnOnce() -> Result<Arc<ServerConfig>, Code>,
    ) -> Result<Arc<ServerConfig>, Code> {
        self.answering.get(what, state.generation, make)
    }
}

/// Values made from one generation of the state.
struct Kept<K, V>(Mutex<(u64, HashMap<K, Arc<V>>)>);

impl<K, V> Default for Kept<K, V> {
    fn default() -> Self {
        Self(Mutex::new((0, HashMap::new())))
    }
}

impl<K: Hash + Eq, V> Kept<K, V> {
    /// A value made from an older generation is never handed out, not even one that is being made while the state changes.
    fn get(&self, key: K, generation: u64, make: impl FnOnce() -> Result<Arc<V>, Code>) -> Result<Arc<V>, Code> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (of, values) = &mut *kept;
        if *of < generation || values.len() > KEPT {
            *of = generation.max(*of);
            values.clear();
        }
        if *of > generation {
            return make();
        }
        if let Some(value) = values.get(&key) {
            return Ok(Arc::clone(value));
        }
        let value = make()?;
        values.insert(key, Arc::clone(&value));
        Ok(value)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn values_are_made_once_per_generation() {
        let kept: Kept<u8, u64> = Kept::default();
        let get = |key, generation, made| *kept.get(key, generation, || Ok(Arc::new(made))).unwrap();
        assert_eq!([get(1, 0, 10), get(1, 0, 11), get(2, 0, 12)], [10, 10, 12]);
        assert_eq!([get(1, 1, 13), get(1, 1, 14)], [13, 13]);
        assert_eq!([get(1, 0, 15), get(1, 1, 16)], [15, 13], "what is late neither gets nor leaves anything");
        assert_eq!(kept.get(3, 1, || Err(Code::Internal)), Err(Code::Internal));
        assert_eq!(get(3, 1, 17), 17, "an error is not kept");
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let kept: Kept<usize, usize> = Kept::default();
        for key in 0..3 * KEPT {
            kept.get(key, 0, || Ok(Arc::new(key))).unwrap();
            assert!(kept.0.lock().unwrap().1.len() <= KEPT + 1);
        }
    }
}
