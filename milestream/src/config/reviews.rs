//! What the section of reviews says, as those who work by it want it.

use std::time::Duration;

use ingest::config::ReviewRules;

use super::{ConfigError, Reviews};

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

impl Reviews {
    /// How long a review waits for a person.
    pub fn time_out(&self) -> Duration {
        Duration::from_secs(u64::from(self.time_out_days) * DAY_S)
    }

    /// Who decides.
    pub fn rules(&self) -> ReviewRules {
        ReviewRules {
            claim: Duration::from_secs(u64::from(self.claim_minutes) * 60),
            second_person_above_km: self.second_person_above_km,
        }
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        let least_one =
            [("reviews.time_out_days", self.time_out_days), ("reviews.claim_minutes", self.claim_minutes)];
        match least_one.into_iter().find(|(_, value)| *value < 1) {
            Some((key, _)) => {
                let complaint = "at least 1: nobody could decide anything".to_owned();
                Err(ConfigError::Value { key, complaint })
            }
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_that_end_as_they_begin_are_refused() {
        assert_eq!(Reviews::default().time_out(), Duration::from_secs(1_209_600));
        Reviews::default().check().unwrap();
        assert_eq!(Reviews::default().rules(), ReviewRules::default());
        let refused = Reviews { time_out_days: 0, ..Reviews::default() }.check().unwrap_err().to_string();
        assert!(refused.contains("reviews.time_out_days: at least 1"), "{refused}");
        let refused = Reviews { claim_minutes: 0, ..Reviews::default() }.check().unwrap_err().to_string();
        assert!(refused.contains("reviews.claim_minutes: at least 1"), "{refused}");
    }
}
