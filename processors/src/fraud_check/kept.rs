//! What one table keeps, as a batch reads it and moves it.

use std::collections::{BTreeMap, BTreeSet};

/// Rows of one table, as far as there are any, and which of them have changed.
#[derive(Debug)]
pub struct Kept<K, T> {
    of: BTreeMap<K, T>,
    /// Those that have a row.
    stored: BTreeSet<K>,
    changed: BTreeSet<K>,
}

impl<K, T> Default for Kept<K, T> {
    fn default() -> Self {
        Self { of: BTreeMap::new(), stored: BTreeSet::new(), changed: BTreeSet::new() }
    }
}

impl<K: Copy + Ord, T> Kept<K, T> {
    /// What is kept now: after what was decided earlier in this batch.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&T> {
        self.of.get(key)
    }

    /// Keeps something else.
    pub fn set(&mut self, key: K, value: T) {
        self.of.insert(key, value);
        self.changed.insert(key);
    }

    /// Keeps what a row holds.
    pub(super) fn read(&mut self, key: K, value: T) {
        self.of.insert(key, value);
        self.stored.insert(key);
    }

    pub(super) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    pub(super) fn is_stored(&self, key: &K) -> bool {
        self.stored.contains(key)
    }

    /// A column of what has changed, in the order of the keys.
    pub(super) fn column<'a, C>(&'a self, of: impl Fn(&'a K, &'a T) -> C) -> Vec<C> {
        self.changed.iter().filter_map(|key| Some(of(key, self.of.get(key)?))).collect()
    }
}
