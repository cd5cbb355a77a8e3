//! Until when a reward can be claimed.

use std::time::Duration;

use processors::chain_submission::expire::ClaimTerms;
use serde::{Deserialize, Serialize};

use super::ConfigError;

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

/// Until when a reward can be claimed by a driver whose rewards are not paid by themselves.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Claims {
    /// Days from its grant after which a reward that nobody has claimed is cancelled, and its budgets get back what it was
    /// charged. 0: never.
    pub expire_after_days: u32,
    /// Days before, from which its driver is told. At least 1, and not more than `expire_after_days` where that is set. A reward that is
    /// older when this is first set ends so many days later.
    pub notice_days: u32,
}

impl Default for Claims {
    fn default() -> Self {
        Self { expire_after_days: 0, notice_days: 14 }
    }
}

impl Claims {
    /// How long a reward waits; none where it waits for good.
    pub fn terms(&self) -> Option<ClaimTerms> {
        let days = |days: u32| Duration::from_secs(u64::from(days) * DAY_S);
        (self.expire_after_days > 0).then(|| ClaimTerms {
            expires_after: days(self.expire_after_days),
            notice: days(self.notice_days),
        })
    }

    /// Refuses what ends untold.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let off = self.expire_after_days == 0;
        if self.notice_days < 1 || (!off && self.notice_days > self.expire_after_days) {
            let complaint = "from 1 up to claims.expire_after_days: nobody could claim in time".to_owned();
            return Err(ConfigError::Value { key: "claims.notice_days", complaint });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rewards_wait_for_good_unless_it_is_set_otherwise_and_never_end_untold() {
        Claims::default().check().unwrap();
        assert_eq!(Claims::default().terms(), None);
        let set = |expire_after_days, notice_days| Claims { expire_after_days, notice_days };
        set(14, 14).check().unwrap();
        assert_eq!(set(2, 1).terms().unwrap().notice, Duration::from_secs(86_400));
        for (after, notice) in [(0, 0), (90, 0), (13, 14)] {
            let refused = set(after, notice).check().unwrap_err().to_string();
            assert!(refused.contains("claims.notice_days: from 1 up to"), "{refused}");
        }
    }
}
