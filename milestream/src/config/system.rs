//! The deployment as a whole.

use std::time::Duration;

use ingest::config::{Rate, Rates};
use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// `system_config_environment`.
const ENVIRONMENTS: [&str; 3] = ["development", "staging", "production"];

/// The deployment as a whole.
#[derive(Clone, Debug, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct System {
    /// `development`, `staging` or `production`: what the row of `system_config` is for.
    pub environment: String,
}

impl Default for System {
    fn default() -> Self {
        Self { environment: "development".to_owned() }
    }
}

impl System {
    /// Refuses another environment.
    ///
    /// # Errors
    /// [`ConfigError::Value`].
    pub(super) fn check(&self) -> Result<(), ConfigError> {
        if ENVIRONMENTS.contains(&self.environment.as_str()) {
            return Ok(());
        }
        let complaint = format!("{:?} is none of {}", self.environment, ENVIRONMENTS.join(", "));
        Err(ConfigError::Value { key: "system.environment", complaint })
    }
}

impl Config {
    /// The limits that a new deployment begins with.
    #[must_use]
    pub fn first_rates(&self) -> Rates {
        let section = &self.ingest;
        let per = |requests: u32, seconds: u64| Rate::new(requests, Duration::from_secs(seconds));
        Rates {
            api_per_user: per(section.requests_per_user_per_minute, 60),
            api_per_address: per(section.requests_per_address_per_minute, 60),
            uploads_per_user: per(section.uploads_per_user_per_day, 86_400),
            uploads_per_address: per(section.uploads_per_address_per_hour, 3_600),
            ..Rates::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_environment_is_one_of_three() {
        System::default().check().unwrap();
        let refused = System { environment: "test".into() }.check().unwrap_err().to_string();
        assert!(refused.contains("system.environment") && refused.contains("staging"), "{refused}");
    }
}
