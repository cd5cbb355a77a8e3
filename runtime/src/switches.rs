//! What operators switch while everything runs: `maintenance_mode` and `feature_flags` of `system_config`. A flag that the row does not
//! have is on, and so is each where there is no row.

use serde_json::{Map, Value};
use sqlx::PgExecutor;

/// A flag of `feature_flags`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    /// Photos are decided by rules; off: every photo goes to a person. Stamped at acceptance.
    AiVerification,
    /// Payments are signed; off: granted rewards wait.
    BlockchainIntegration,
    /// Rewards are paid without a claim to those who want it; off: each waits for its claim. Stamped at acceptance.
    AutoClaim,
    /// A wallet that is new signs in; off: only those who have an account do.
    Registrations,
    /// Event streams of uploads are served; off: clients ask for the status.
    LiveUpdates,
    /// People are told what they want to know; off: notices wait.
    Notifications,
}

impl Flag {
    /// Every flag.
    pub const ALL: [Self; 6] = [
        Self::AiVerification,
        Self::BlockchainIntegration,
        Self::AutoClaim,
        Self::Registrations,
        Self::LiveUpdates,
        Self::Notifications,
    ];

    /// The key in `feature_flags`.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::AiVerification => "ai_verification",
            Self::BlockchainIntegration => "blockchain_integration",
            Self::AutoClaim => "auto_claim",
            Self::Registrations => "registrations",
            Self::LiveUpdates => "live_updates",
            Self::Notifications => "notifications",
        }
    }

    /// What happens while it is off.
    #[must_use]
    pub const fn off(self) -> &'static str {
        match self {
            Self::AiVerification => "every photo goes to a person",
            Self::BlockchainIntegration => "nothing is signed",
            Self::AutoClaim => "every reward waits for its claim",
            Self::Registrations => "no new account is made",
            Self::LiveUpdates => "no event stream is served",
            Self::Notifications => "notices wait",
        }
    }
}

/// What is switched.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Switches {
    /// Whether what drivers and reviewers write is refused, and nothing new is signed.
    pub maintenance: bool,
    flags: Map<String, Value>,
}

impl Switches {
    /// Switches of a row's columns.
    ///
    /// # Errors
    /// The key that is no flag, or whose value is neither true nor false.
    pub fn of(maintenance: bool, flags: Option<Value>) -> Result<Self, String> {
        let flags = match flags {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(flags)) => flags,
            Some(_) => return Err("feature_flags is no object".to_owned()),
        };
        let known = |(key, value): (&String, &Value)| {
            value.is_boolean() && Flag::ALL.iter().any(|flag| flag.label() == key)
        };
        match flags.iter().find(|flag| !known(*flag)) {
            Some((key, value)) => {
                Err(format!("feature_flags.{key} is {value}: it is no flag, or neither true nor false"))
            }
            None => Ok(Self { maintenance, flags }),
        }
    }

    /// Whether a flag is on.
    #[must_use]
    pub fn is_on(&self, flag: Flag) -> bool {
        self.flags.get(flag.label()).and_then(Value::as_bool).unwrap_or(true)
    }

    /// What is switched now; a key that this release does not know switches nothing here.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn load(database: impl PgExecutor<'_>) -> Result<Self, sqlx::Error> {
        let row: Option<(Option<bool>, Option<Value>)> = sqlx::query_as(
            "select maintenance_mode, feature_flags from system_config order by revision desc limit 1",
        )
        .fetch_optional(database)
        .await?;
        let (maintenance, flags) = row.unwrap_or_default();
        let flags = flags.and_then(|flags| flags.as_object().cloned()).unwrap_or_default();
        Ok(Self { maintenance: maintenance.unwrap_or(false), flags })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_flag_is_on_until_it_is_switched_off_and_another_key_is_refused() {
        let switches = Switches::of(false, Some(json!({ "auto_claim": false }))).unwrap();
        assert!(!switches.is_on(Flag::AutoClaim) && switches.is_on(Flag::Registrations));
        assert_eq!(Switches::of(false, None).unwrap(), Switches::default());
        assert!(Switches::of(false, Some(json!({ "autoclaim": false }))).unwrap_err().contains("autoclaim"));
        assert!(Switches::of(false, Some(json!({ "auto_claim": "off" }))).is_err());
    }
}
