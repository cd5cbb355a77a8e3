//! Rate limits in memory: per gateway, bounded, forgetting the least recently seen first.
//!
//! Each key keeps one instant, the generic cell rate algorithm's "theoretical arrival time" (ITU-T I.371): equal to a token
//! bucket of `burst` tokens refilled at `requests / window`, without floats. `governor` keeps every key until it is swept, so
//! that its memory is an attacker's to choose.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use schemas::ids::{Micros, UserId};

use crate::config::Rate;

/// Keys of one generation. Two generations x 32,768 x about 64 bytes = 4 MiB; a key is forgotten only after 32,768 others
/// were seen since.
const GENERATION: usize = 32_768;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    ApiUser(UserId),
    ApiAddress(IpAddr),
    UploadUser(UserId),
    UploadAddress(IpAddr),
    Export(UserId),
}

impl Key {
    /// An address as counted: an IPv6 network of 64 bits is one subscriber.
    pub(crate) fn network(address: IpAddr) -> IpAddr {
        match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        }
    }
}

/// Counts requests by key.
#[derive(Debug, Default)]
pub(crate) struct Limiter(Mutex<Generations<Key>>);

#[derive(Debug)]
struct Generations<K> {
    young: HashMap<K, i64>,
    old: HashMap<K, i64>,
}

impl<K> Default for Generations<K> {
    fn default() -> Self {
        Self { young: HashMap::new(), old: HashMap::new() }
    }
}

impl<K: Eq + Hash> Generations<K> {
    fn put(&mut self, key: K, value: i64) {
        if self.young.len() >= GENERATION {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    fn get(&self, key: &K) -> Option<i64> {
        self.young.get(key).or_else(|| self.old.get(key)).copied()
    }
}

impl Limiter {
    /// Takes one request of `key`, or returns after how many seconds there is one again.
    pub(crate) fn take(&self, key: Key, rate: Rate, now: Micros) -> Result<(), u64> {
        let window = i64::try_from(rate.window.as_micros()).unwrap_or(i64::MAX);
        let spacing = (window / i64::from(rate.requests.max(1))).max(1);
        let tolerance = spacing.saturating_mul(i64::from(rate.burst.max(1)) - 1);
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let arrival = seen.get(&key).unwrap_or(now.0).max(now.0);
        let early = arrival.saturating_sub(tolerance).saturating_sub(now.0);
        if early > 0 {
            return Err(u64::try_from(early).unwrap_or(0).div_ceil(1_000_000));
        }
        seen.put(key, arrival.saturating_add(spacing));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;
    use uuid::Uuid;

    fn user(n: u128) -> Key {
        Key::ApiUser(UserId(Uuid::from_u128(n)))
    }

    #[test]
    fn a_burst_passes_then_one_request_for_each_spacing() {
        let limiter = Limiter::default();
        let rate = Rate::new(3, Duration::from_secs(60));
        let at = |seconds: i64| Micros(seconds * 1_000_000);
        for _ in 0..3 {
            limiter.take(user(1), rate, at(0)).unwrap();
        }
        assert_eq!(limiter.take(user(1), rate, at(0)), Err(20));
        limiter.take(user(2), rate, at(0)).unwrap();
        assert_eq!(limiter.take(user(1), rate, at(19)), Err(1));
        limiter.take(user(1), rate, at(20)).unwrap();
        assert!(limiter.take(user(1), rate, at(20)).is_err());
    }

    #[test]
    fn a_crowd_of_keys_costs_bounded_memory() {
        let limiter = Limiter::default();
        let rate = Rate::new(1, Duration::from_secs(60));
        for n in 0..(3 * GENERATION as u128) {
            limiter.take(user(n), rate, Micros(0)).unwrap();
        }
        let seen = limiter.0.lock().unwrap();
        assert!(seen.young.len() + seen.old.len() <= 2 * GENERATION);
    }

    #[test]
    fn an_ipv6_subscriber_is_one_key_and_a_mapped_ipv4_is_itself() {
        let network = |text: &str| Key::network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
