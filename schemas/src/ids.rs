//! Newtypes for ids and instants, so that a vehicle cannot be passed where a user is meant.

use std::fmt;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl std::str::FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

id! {
    /// An upload: UUIDv7, made when the photo's hash is reserved.
    UploadId
}
id! {
    /// A driver's account. Its lower-case text is the key of every `uploads.*` record.
    UserId
}
id! {
    /// A vehicle; belongs to one user at a time.
    VehicleId
}
id! {
    /// A reward: UUIDv5 of its upload, see [`RewardId::of`].
    RewardId
}
id! {
    /// An event. UUIDv7 at the gateway, [`derived`] everywhere behind it.
    EventId
}

/// Namespace of every derived id: UUIDv5 of the DNS name `milestream.invalid`, so that no other system makes the same ids.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1c_9c0e_5e0b_5a5e_8a37_1d1f_4f1a_9b52);

/// The id of a stage's `ordinal`-th output for an input event: the same input gives the same id in every
/// redelivery and replay, so consumers can drop repeats by id.
#[must_use]
pub fn derived(input: EventId, stage: &str, ordinal: u32) -> EventId {
    EventId(natural(&format!("{input}/{stage}/{ordinal}")))
}

/// UUIDv5 of a natural key: a rebuild gives a row the same id again.
#[must_use]
pub fn natural(key: &str) -> Uuid {
    Uuid::new_v5(&NAMESPACE, key.as_bytes())
}

impl RewardId {
    /// The reward of an upload: there is one at most.
    #[must_use]
    pub fn of(upload: UploadId) -> Self {
        Self(natural(&format!("reward/{upload}")))
    }
}

/// Microseconds since 1970-01-01T00:00:00Z; the precision of Postgres' `timestamptz`, so nothing is cut on the way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Micros(pub i64);

impl Micros {
    /// The instant as chrono's type. Out-of-range values (beyond the year 262142) saturate at the epoch's far ends.
    #[must_use]
    pub fn to_utc(self) -> DateTime<Utc> {
        DateTime::from_timestamp_micros(self.0).unwrap_or(if self.0 < 0 {
            DateTime::<Utc>::MIN_UTC
        } else {
            DateTime::<Utc>::MAX_UTC
        })
    }

    /// Milliseconds from this instant to a later one, as documents give times; 0 where it is earlier.
    #[must_use]
    pub fn milliseconds_to(self, later: Self) -> f64 {
        // Microseconds that anything here takes are far below 2^52: exact.
        #[allow(clippy::cast_precision_loss, reason = "see above")]
        let micros = later.0.saturating_sub(self.0).max(0) as f64;
        micros / 1_000.0
    }
}

impl From<DateTime<Utc>> for Micros {
    fn from(at: DateTime<Utc>) -> Self {
        Self(at.timestamp_micros())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_input_stage_and_ordinal_give_the_same_id_and_any_difference_another() {
        let input = EventId(Uuid::from_u128(7));
        assert_eq!(derived(input, "quality_check", 0), derived(input, "quality_check", 0));
        assert_ne!(derived(input, "quality_check", 0), derived(input, "quality_check", 1));
        assert_ne!(derived(input, "quality_check", 0), derived(input, "fraud_check", 0));
        assert_ne!(
            derived(input, "quality_check", 0),
            derived(EventId(Uuid::from_u128(8)), "quality_check", 0)
        );
    }
}
