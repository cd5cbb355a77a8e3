//! What somebody prefers: three documents, of a fixed shape.

use std::str::FromStr as _;

use rust_decimal::Decimal;
use schemas::events::PersonalLimits as Stamped;
use schemas::ids::{Micros, UserId, natural};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use sqlx::types::Json;
use url::Url;
use utoipa::ToSchema;

use crate::http::problem::{ApiError, INVALID_FIELD};

/// Characters of an address that notices go to.
const TO_MAX: usize = 500;
/// An amount of B3TR is below this, and has as many decimals at most as the tables keep.
const AMOUNT_END: Decimal = Decimal::from_parts(1_410_065_408, 2, 0, false, 0);
const AMOUNT_DECIMALS: u32 = 8;

/// What you prefer
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Preferences {
    pub(crate) notification_preferences: Notifications,
    pub(crate) dashboard_settings: Dashboard,
    pub(crate) reward_preferences: RewardPreferences,
}

/// What is told in which way
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Notifications {
    email: Channel,
    sms: Channel,
    push: Channel,
    webhook: Channel,
}

/// A way of telling
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Channel {
    enabled: bool,
    /// An https URL; of e-mail your own proven address, or nothing: e-mails go nowhere else
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(max_length = 500)]
    to: Option<String>,
    events: Vec<Notice>,
}

/// What is told
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Notice {
    UploadSettled,
    RewardPaid,
    ReviewNeeded,
    SecurityEvent,
    RewardExpiring,
    RewardExpired,
    VehicleOffered,
}

/// How pages look, and what others see
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Dashboard {
    theme: Theme,
    /// A language tag (BCP 47), such as en or pt-BR
    #[schema(max_length = 35)]
    language: String,
    privacy: Privacy,
}

/// Light or dark
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
enum Theme {
    Light,
    Dark,
    System,
}

/// What is kept and shown of you
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct Privacy {
    leaderboard: bool,
    keep_exif_location: bool,
    analytics: bool,
}

/// How rewards are paid
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct RewardPreferences {
    /// Whether a reward is paid without being claimed
    pub(crate) auto_claim: bool,
    /// B3TR, a decimal: rewards wait until they come to so much together before they are claimed by themselves; you can claim them before
    min_claim: String,
    personal_limits: PersonalLimits,
}

/// B3TR that you want to earn at most in a day, week and month of UTC, decimals; null where there is no limit of your own
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(crate) struct PersonalLimits {
    daily: Option<String>,
    weekly: Option<String>,
    monthly: Option<String>,
}

impl Default for Dashboard {
    fn default() -> Self {
        let privacy = Privacy { leaderboard: false, keep_exif_location: false, analytics: true };
        Self { theme: Theme::System, language: "en".to_owned(), privacy }
    }
}

impl Default for RewardPreferences {
    fn default() -> Self {
        Self { auto_claim: true, min_claim: "0".to_owned(), personal_limits: PersonalLimits::default() }
    }
}

impl RewardPreferences {
    /// Those of `user_preferences`; those of the beginning for what cannot be read.
    pub(crate) fn of_row(document: Option<&Value>) -> Self {
        let Some(document) = document else { return Self::default() };
        Self::deserialize(document).unwrap_or_else(|_| Self {
            auto_claim: document["auto_claim"].as_bool().unwrap_or(true),
            ..Self::default()
        })
    }

    /// B3TR that rewards come to before they are claimed by themselves; none where each is.
    pub(crate) fn min_claim(&self) -> Option<Decimal> {
        amount(&self.min_claim).filter(|least| !least.is_zero())
    }

    /// What is earned at most; none where there is no limit.
    pub(crate) fn personal_limits(&self) -> Option<Stamped> {
        let PersonalLimits { daily, weekly, monthly } = &self.personal_limits;
        let [daily, weekly, monthly] = [daily, weekly, monthly].map(|text| text.as_deref().and_then(amount));
        let stamped = Stamped { daily, weekly, monthly };
        (stamped != Stamped::default()).then_some(stamped)
    }
}

impl Preferences {
    /// Puts them in the place of what a user had.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn store(
        &self,
        tx: &mut PgConnection,
        user: UserId,
        now: Micros,
    ) -> Result<(), sqlx::Error> {
        self.write(tx, user, now, true).await
    }

    /// Puts them in where a user has none.
    ///
    /// # Errors
    /// The database.
    pub(crate) async fn store_first(
        &self,
        tx: &mut PgConnection,
        user: UserId,
        now: Micros,
    ) -> Result<(), sqlx::Error> {
        self.write(tx, user, now, false).await
    }

    async fn write(
        &self,
        tx: &mut PgConnection,
        user: UserId,
        now: Micros,
        replace: bool,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "insert into user_preferences (id, user_id, notification_preferences, dashboard_settings, reward_preferences,
               created_at, updated_at) values ($1, $2, $3, $4, $5, $6, $6)
             on conflict (user_id) do update set notification_preferences = excluded.notification_preferences,
               dashboard_settings = excluded.dashboard_settings, reward_preferences = excluded.reward_preferences,
               updated_at = excluded.updated_at where $7",
        )
        .bind(natural(&format!("user_preferences/{user}")))
        .bind(user.0)
        .bind(Json(&self.notification_preferences))
        .bind(Json(&self.dashboard_settings))
        .bind(Json(&self.reward_preferences))
        .bind(now.to_utc())
        .bind(replace)
        .execute(tx)
        .await?;
        Ok(())
    }

    /// Refuses values that cannot be meant.
    ///
    /// # Errors
    /// [`INVALID_FIELD`] with the field's name.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        let Notifications { email, sms, push, webhook } = &self.notification_preferences;
        if !email.to.as_deref().is_none_or(is_email) {
            return Err(unusable("notification_preferences.email.to", "an e-mail address is wanted"));
        }
        for (name, channel) in [("sms", sms), ("push", push), ("webhook", webhook)] {
            if !channel.to.as_deref().is_none_or(is_https) {
                return Err(unusable(
                    format!("notification_preferences.{name}.to"),
                    "an https URL is wanted",
                ));
            }
        }
        for (name, channel) in [("email", email), ("sms", sms), ("push", push), ("webhook", webhook)] {
            let distinct: std::collections::BTreeSet<_> = channel.events.iter().collect();
            if distinct.len() != channel.events.len() {
                return Err(unusable(
                    format!("notification_preferences.{name}.events"),
                    "each event once is wanted",
                ));
            }
        }
        if !is_language(&self.dashboard_settings.language) {
            return Err(unusable(
                "dashboard_settings.language",
                "a language tag such as en or pt-BR is wanted",
            ));
        }
        let rewards = &self.reward_preferences;
        let limits = &rewards.personal_limits;
        for (name, text) in [
            ("min_claim", Some(&rewards.min_claim)),
            ("personal_limits.daily", limits.daily.as_ref()),
            ("personal_limits.weekly", limits.weekly.as_ref()),
            ("personal_limits.monthly", limits.monthly.as_ref()),
        ] {
            if text.is_some_and(|text| amount(text).is_none()) {
                let wanted =
                    "a decimal from 0 to below 10,000,000,000 with at most 8 decimal places is wanted";
                return Err(unusable(format!("reward_preferences.{name}"), wanted));
            }
        }
        Ok(())
    }
}

fn unusable(field: impl Into<String>, wanted: &str) -> ApiError {
    let field = field.into();
    INVALID_FIELD.because(format!("the field {field} is not usable: {wanted}")).field(field)
}

/// An address with one `@`, a name before it and a dotted host behind it; whether it exists, only a message can show.
pub(crate) fn is_email(text: &str) -> bool {
    let plain = |part: &str| {
        !part.is_empty()
            && !part.chars().any(|c| c.is_whitespace() || c.is_control() || "<>(),;:\"[]\\".contains(c))
    };
    let Some((name, host)) = text.split_once('@') else { return false };
    text.len() <= 254
        && plain(name)
        && plain(host)
        && !host.contains('@')
        && host.contains('.')
        && host.split('.').all(|label| !label.is_empty())
}

/// An https URL without a password in it.
pub(crate) fn is_https(text: &str) -> bool {
    text.len() <= TO_MAX
        && Url::parse(text).is_ok_and(|url| {
            url.scheme() == "https" && url.has_host() && url.username().is_empty() && url.password().is_none()
        })
}

fn is_language(text: &str) -> bool {
    let mut parts = text.split('-');
    let first = parts.next().unwrap_or_default();
    let letters = |part: &str| part.bytes().all(|byte| byte.is_ascii_alphabetic());
    text.len() <= 35
        && (2..=3).contains(&first.len())
        && letters(first)
        && parts.all(|part| {
            (1..=8).contains(&part.len()) && part.bytes().all(|byte| byte.is_ascii_alphanumeric())
        })
}

/// The amount of a text of digits and a point: no sign and no exponent.
fn amount(text: &str) -> Option<Decimal> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.');
    let amount = plain.then(|| Decimal::from_str(text).ok()).flatten();
    let amount = amount.filter(|amount| *amount < AMOUNT_END && amount.scale() <= AMOUNT_DECIMALS);
    amount.map(|amount| amount.normalize())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refused(pointer: &str, value: Value) -> Option<String> {
        let mut document = json!(Preferences::default());
        *document.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer}")) = value;
        let read: Result<Preferences, _> = serde_json::from_value(document);
        match read {
            Ok(preferences) => preferences.check().err().map(|error| error.document()["field"].to_string()),
            Err(error) => Some(error.to_string()),
        }
    }

    #[test]
    fn possible_values_pass_and_others_are_refused_by_name() {
        let rewards = "/reward_preferences/min_claim";
        for good in ["0", "0.5", "9999999999.99999999"] {
            assert_eq!(refused(rewards, json!(good)), None, "{good}");
        }
        for bad in
            [json!("10000000000"), json!("-1"), json!("1e3"), json!("0.123456789"), json!(""), json!(5)]
        {
            assert!(refused(rewards, bad.clone()).is_some(), "{bad}");
        }
        assert_eq!(refused("/reward_preferences/personal_limits/daily", json!("30")), None);
        for good in ["en", "pt-BR", "zh-Hant-TW"] {
            assert_eq!(refused("/dashboard_settings/language", json!(good)), None, "{good}");
        }
        for bad in ["", "e", "english-", "en_GB", "<script>"] {
            let field = "\"dashboard_settings.language\"".to_owned();
            assert_eq!(refused("/dashboard_settings/language", json!(bad)), Some(field), "{bad}");
        }
        let hook = |to: &str| {
            refused(
                "/notification_preferences/webhook",
                json!({ "enabled": true, "to": to, "events": ["reward_paid"] }),
            )
        };
        assert_eq!(hook("https://hooks.example/a"), None);
        for bad in ["http://hooks.example/a", "https://me:secret@hooks.example", "ftp://x", "x", ""] {
            assert!(hook(bad).is_some(), "{bad}");
        }
        let twice = json!({ "enabled": true, "events": ["reward_paid", "reward_paid"] });
        assert!(refused("/notification_preferences/email", twice).is_some());
        assert!(
            refused("/notification_preferences/email", json!({ "enabled": true, "events": [], "cc": "x" }))
                .is_some()
        );
    }

    #[test]
    fn an_email_address_has_a_name_and_a_dotted_host() {
        for good in ["a@b.example", "first.last+tag@sub.example.org"] {
            assert!(is_email(good), "{good}");
        }
        for bad in [
            "",
            "a",
            "@b.example",
            "a@",
            "a@b",
            "a@b..example",
            "a@b@c.example",
            "a b@c.example",
            "a@b.example\r\nbcc: c@d.example",
        ] {
            assert!(!is_email(bad), "{bad}");
        }
    }
}
