//! What one user may take of something that all share: nobody can take all of it.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Amounts that keys hold, each up to its share. Takes memory for keys that hold something, and for no other.
#[derive(Clone, Debug)]
pub(crate) struct Shares<K> {
    held: Arc<Mutex<HashMap<K, u64>>>,
    each: u64,
}

/// What a key holds until this is dropped.
#[derive(Debug)]
pub(crate) struct Share<K: Copy + Eq + Hash> {
    shares: Shares<K>,
    key: K,
    amount: u64,
}

impl<K: Copy + Eq + Hash> Shares<K> {
    /// Shares of `each`.
    pub(crate) fn new(each: u64) -> Self {
        Self { held: Arc::default(), each }
    }

    /// Takes `amount` of the key's share, and all of it for a larger amount; none where less is left.
    pub(crate) fn take(&self, key: K, amount: u64) -> Option<Share<K>> {
        let amount = amount.min(self.each);
        let mut held = self.lock();
        let before = held.get(&key).copied().unwrap_or_default();
        if before + amount > self.each {
            return None;
        }
        held.insert(key, before + amount);
        Some(Share { shares: self.clone(), key, amount })
    }

    /// A key's share.
    pub(crate) fn each(&self) -> u64 {
        self.each
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<K, u64>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<K: Copy + Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut held = self.shares.lock();
        match held.get_mut(&self.key) {
            Some(amount) if *amount > self.amount => *amount -= self.amount,
            _ => {
                held.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_takes_its_share_and_no_other_keys() {
        let shares = Shares::new(3);
        let held = (shares.take("a", 2).unwrap(), shares.take("a", 1).unwrap());
        assert!(shares.take("a", 1).is_none());
        let other = shares.take("b", 100).unwrap();
        drop(held);
        assert!(shares.take("a", 3).is_some());
        drop(other);
        assert!(shares.lock().is_empty(), "keys that hold nothing are forgotten");
    }
}
