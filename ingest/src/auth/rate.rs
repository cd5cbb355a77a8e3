//! Rate limits in memory: per gateway, in memory that is fixed and that no crowd of keys can flush.
//!
//! What is counted is an instant, the generic cell rate algorithm's "theoretical arrival time" (ITU-T I.371): equal to a token bucket of
//! `burst` tokens refilled at `requests / window`, without floats. A table that forgets its oldest keys is flushed by whoever owns an
//! IPv6 network of 32 bits: 4 billion subscribers. So nothing is forgotten here: a key has a slot in each of four rows, by a hash that is
//! secret, and its instant is the least of them (a count-min sketch with conservative update). A stranger who shares a slot can only make
//! it too late, and all four have to for somebody to be refused: with 1,000 keys at their limits each slot is taken with a chance of
//! 1,000 / 32,768, all four of one key with (1 / 33)⁴, one in a million.

use std::hash::{BuildHasher as _, Hash, RandomState};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Mutex, PoisonError};

use chain::Address;
use schemas::ids::{Micros, UserId};

use super::rates::{Rate, Rates};

/// Rows of a sketch, and the slots of each: 4 x 32,768 x 8 bytes = 1 MiB for each of seven kinds of keys.
const ROWS: usize = 4;
const SLOT_BITS: usize = 15;
const SLOTS: usize = 1 << SLOT_BITS;
/// Kinds of keys.
const KINDS: usize = 7;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    ApiUser(UserId),
    ApiAddress(IpAddr),
    UploadAddress(IpAddr),
    Claim(UserId),
    LoginAddress(IpAddr),
    LoginWallet(Address),
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

    /// Its kind, and the rate of that. Kinds have sketches of their own: an instant that is far for one window is near for another.
    fn counted(&self, rates: &Rates) -> (usize, Rate) {
        match self {
            Self::ApiUser(_) => (0, rates.api_per_user),
            Self::ApiAddress(_) => (1, rates.api_per_address),
            Self::UploadAddress(_) => (2, rates.uploads_per_address),
            Self::Claim(_) => (3, rates.claims_per_user),
            Self::LoginAddress(_) => (4, rates.login_per_address),
            Self::LoginWallet(_) => (5, rates.login_per_wallet),
            Self::Export(_) => (6, rates.exports_per_user),
        }
    }
}

/// Counts requests by key.
#[derive(Debug)]
pub(crate) struct Limiter {
    /// Secret, so that nobody chooses whose slots to share.
    hashing: RandomState,
    kinds: [Mutex<Sketch>; KINDS],
}

impl Default for Limiter {
    fn default() -> Self {
        Self { hashing: RandomState::new(), kinds: std::array::from_fn(|_| Mutex::default()) }
    }
}

/// The instants of a kind of keys, in microseconds.
#[derive(Debug)]
struct Sketch(Vec<i64>);

impl Default for Sketch {
    fn default() -> Self {
        Self(vec![0; ROWS * SLOTS])
    }
}

impl Sketch {
    /// Takes one request, or returns how many microseconds it is early.
    fn take(&mut self, hash: u64, rate: Rate, now: i64) -> Result<(), i64> {
        let window = i64::try_from(rate.window.as_micros()).unwrap_or(i64::MAX);
        let spacing = (window / i64::from(rate.requests.max(1))).max(1);
        let tolerance = spacing.saturating_mul(i64::from(rate.burst.max(1)) - 1);
        let slot = |row: usize| {
            // Masked, so that it fits.
            let bits = usize::try_from(hash >> (row * SLOT_BITS) & (SLOTS as u64 - 1)).unwrap_or(0);
            row * SLOTS + bits
        };
        let slots: [usize; ROWS] = std::array::from_fn(slot);
        // What a longer window has left, before an operator has shortened it, counts no more than this one can.
        let latest = now.saturating_add(tolerance).saturating_add(spacing);
        slots.iter().for_each(|slot| self.0[*slot] = self.0[*slot].min(latest));
        let arrival = slots.iter().map(|slot| self.0[*slot]).min().unwrap_or(now).max(now);
        let early = arrival.saturating_sub(tolerance).saturating_sub(now);
        if early > 0 {
            return Err(early);
        }
        // Only what is behind is moved: a stranger's slot keeps its own instant.
        slots.iter().for_each(|slot| self.0[*slot] = self.0[*slot].max(arrival.saturating_add(spacing)));
        Ok(())
    }
}

impl Limiter {
    /// Takes one request of `key`, or returns after how many seconds there is one again.
    pub(crate) fn take(&self, key: Key, rates: &Rates, now: Micros) -> Result<(), u64> {
        let (kind, rate) = key.counted(rates);
        let hash = self.hashing.hash_one(key);
        let mut sketch = self.kinds[kind].lock().unwrap_or_else(PoisonError::into_inner);
        let taken = sketch.take(hash, rate, now.0);
        taken.map_err(|early| u64::try_from(early).unwrap_or(0).div_ceil(1_000_000))
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

    fn rates(requests: u32, seconds: u64) -> Rates {
        Rates { api_per_user: Rate::new(requests, Duration::from_secs(seconds)), ..Rates::default() }
    }

    fn at(seconds: i64) -> Micros {
        Micros(1_700_000_000_000_000 + seconds * 1_000_000)
    }

    #[test]
    fn a_burst_passes_then_one_request_for_each_spacing() {
        let limiter = Limiter::default();
        let rates = rates(3, 60);
        for _ in 0..3 {
            limiter.take(user(1), &rates, at(0)).unwrap();
        }
        assert_eq!(limiter.take(user(1), &rates, at(0)), Err(20));
        limiter.take(user(2), &rates, at(0)).unwrap();
        assert_eq!(limiter.take(user(1), &rates, at(19)), Err(1));
        limiter.take(user(1), &rates, at(20)).unwrap();
        assert!(limiter.take(user(1), &rates, at(20)).is_err());
    }

    #[test]
    fn a_crowd_of_keys_flushes_nobodys_count_and_costs_no_memory() {
        let limiter = Limiter::default();
        let rates = rates(3, 3_600);
        for _ in 0..3 {
            limiter.take(user(0), &rates, at(0)).unwrap();
        }
        for n in 1..500_000 {
            let _ = limiter.take(user(n), &rates, at(1));
        }
        assert!(limiter.take(user(0), &rates, at(2)).is_err(), "the count of before is forgotten");
        assert_eq!(limiter.kinds[0].lock().unwrap().0.len(), ROWS * SLOTS);
    }

    #[test]
    fn a_thousand_keys_at_their_limits_refuse_none_of_a_thousand_others() {
        let limiter = Limiter::default();
        let rates = rates(10, 60);
        for n in 0..10_000 {
            limiter.take(user(n % 1_000), &rates, at(0)).unwrap();
        }
        let refused = (1_000..2_000).filter(|n| limiter.take(user(*n), &rates, at(0)).is_err()).count();
        // One in a million each: two of a thousand once in a million years of runs.
        assert!(refused <= 1, "{refused}");
    }

    #[test]
    fn a_window_that_is_shortened_keeps_nobody_waiting_for_the_longer_one() {
        let limiter = Limiter::default();
        let (day, minute) = (rates(2, 86_400), rates(2, 60));
        for _ in 0..2 {
            limiter.take(user(1), &day, at(0)).unwrap();
        }
        assert_eq!(limiter.take(user(1), &minute, at(1)), Err(30));
        limiter.take(user(1), &minute, at(31)).unwrap();
    }

    #[test]
    fn an_ipv6_subscriber_is_one_key_and_a_mapped_ipv4_is_itself() {
        let network = |text: &str| Key::network(text.parse().unwrap());
        assert_eq!(network("2001:db8::1"), network("2001:db8::ffff:2"));
        assert_eq!(network("::ffff:10.0.0.1"), network("10.0.0.1"));
    }
}
