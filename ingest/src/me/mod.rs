//! `/v1/me` and what belongs to an account: its e-mail address, preferences, wallets, vehicles and their transfers. Each change is in the
//! audit log, with the values before and after.

pub(crate) mod audit;
pub(crate) mod email;
pub(crate) mod preferences;
pub(crate) mod profile;
pub(crate) mod transfers;
pub(crate) mod vehicles;
pub(crate) mod wallets;

use std::sync::Arc;
use std::time::Duration;

use runtime::clock::Clock;
use serde::{Deserialize, Deserializer};
use sqlx::PgPool;

use crate::live::LiveSettings;

/// What changing an account works with.
pub(crate) struct Account {
    pub(crate) pool: PgPool,
    pub(crate) clock: Arc<dyn Clock>,
    /// How many codes are sent.
    pub(crate) live: Arc<LiveSettings>,
    /// From asking to be erased until it is done.
    pub(crate) erasure_grace: Duration,
    /// From asking for another primary wallet until it is that.
    pub(crate) wallet_cooling: Duration,
}

/// A member of a change that may be null: left out and null are different things.
#[expect(clippy::option_option, reason = "left out, null, or a value")]
fn given<'de, D: Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}
