//! What is kept about people, and for how long.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;
/// A month, within which people are owed their erasure.
const DAYS_MAX: u32 = 30;

/// What is kept about people.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Privacy {
    /// Days from a person's asking to be erased until it is done; until then they may take it back. At most 30. Under 8 the topic of
    /// log documents, which keeps records for 7 days, may hold their address for some days after it.
    pub erasure_grace_days: u32,
}

impl Default for Privacy {
    fn default() -> Self {
        Self { erasure_grace_days: 14 }
    }
}

impl Privacy {
    /// From asking to be erased until it is done.
    pub fn erasure_grace(&self) -> Duration {
        Duration::from_secs(u64::from(self.erasure_grace_days) * DAY_S)
    }

    /// Refuses what nobody should have.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.erasure_grace_days <= DAYS_MAX {
            return Ok(());
        }
        let complaint = format!("at most {DAYS_MAX}: people are owed their erasure within a month");
        Err(ConfigError::Value { key: "privacy.erasure_grace_days", complaint })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grace_of_more_than_a_month_is_refused() {
        Privacy::default().check().unwrap();
        assert_eq!(Privacy::default().erasure_grace(), Duration::from_secs(1_209_600));
        let refused = Privacy { erasure_grace_days: 31 }.check().unwrap_err().to_string();
        assert!(refused.contains("privacy.erasure_grace_days: at most 30"), "{refused}");
    }
}
