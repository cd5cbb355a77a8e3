//! Where rewards go.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Seconds of an hour.
const HOUR_S: u64 = 60 * 60;
/// Thirty days: whoever has lost a wallet is paid again some time.
const COOLING_HOURS_MAX: u32 = 720;

/// Where rewards go.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Wallets {
    /// Hours from a driver's asking for another wallet to be paid to until it is; until then they may take it back, and are told of it. At
    /// most 720; 0 changes it at once, and whoever has somebody's session is paid in their place.
    pub cooling_hours: u32,
}

impl Default for Wallets {
    fn default() -> Self {
        Self { cooling_hours: 24 }
    }
}

impl Wallets {
    /// From asking for another primary wallet until it is that.
    pub fn cooling(&self) -> Duration {
        Duration::from_secs(u64::from(self.cooling_hours) * HOUR_S)
    }

    /// Refuses what keeps a driver from being paid.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.cooling_hours <= COOLING_HOURS_MAX {
            return Ok(());
        }
        let complaint = format!("at most {COOLING_HOURS_MAX}: whoever has lost a wallet is to be paid again");
        Err(ConfigError::Value { key: "wallets.cooling_hours", complaint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_is_waited_where_nothing_else_is_set_and_more_than_a_month_is_refused() {
        Wallets::default().check().unwrap();
        assert_eq!(Wallets::default().cooling(), Duration::from_secs(86_400));
        let refused = Wallets { cooling_hours: 721 }.check().unwrap_err().to_string();
        assert!(refused.contains("wallets.cooling_hours: at most 720"), "{refused}");
    }
}
