//! What the section of reviews says, as those who work by it want it.

use std::time::Duration;

use super::{ConfigError, Reviews};

/// Seconds of a day.
const DAY_S: u64 = 24 * 60 * 60;

impl Reviews {
    /// How long a review waits for a person.
    pub fn time_out(&self) -> Duration {
        Duration::from_secs(u64::from(self.time_out_days) * DAY_S)
    }

    /// Refuses what cannot work.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if self.time_out_days < 1 {
            let complaint = "at least 1: nobody could decide anything".to_owned();
            return Err(ConfigError::Value { key: "reviews.time_out_days", complaint });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reviews_that_end_as_they_begin_are_refused() {
        assert_eq!(Reviews::default().time_out(), Duration::from_secs(1_209_600));
        Reviews::default().check().unwrap();
        let refused = Reviews { time_out_days: 0 }.check().unwrap_err().to_string();
        assert!(refused.contains("reviews.time_out_days: at least 1"), "{refused}");
    }
}
