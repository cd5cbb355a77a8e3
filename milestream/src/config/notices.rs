//! How people are told what they want to know.

use std::time::Duration;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sinks::notices::{NoticesConfig, Smtp};

use super::Config;
use super::sections::redacted;

/// Longest wait for a receiver or the mail server.
const TIMEOUT: Duration = Duration::from_secs(10);

/// How people are told what they want to know.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[cfg_attr(test, derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, default)]
pub struct Notices {
    /// The mail server: `smtps://host`, or `smtp://host?tls=required`; `smtp://host:port` alone is for one on this machine. Empty: nobody
    /// is told by e-mail.
    pub smtp_url: String,
    /// The mail server's user; empty where it asks for none.
    pub smtp_username: String,
    /// Its password.
    #[serde(serialize_with = "redacted")]
    #[cfg_attr(test, schemars(with = "String"))]
    pub smtp_password: SecretString,
    /// Whom e-mails are from, such as `Milestream <notices@example.org>`.
    pub from: String,
    /// Whether webhooks may go to private addresses and without TLS. Only where all who sign in are trusted: they could reach what is
    /// inside.
    pub private_webhooks: bool,
}

impl Config {
    /// The settings of the sink `notices`.
    #[must_use]
    pub fn notices_sink(&self) -> NoticesConfig {
        let section = &self.notices;
        let credentials = (!section.smtp_username.is_empty())
            .then(|| (section.smtp_username.clone(), section.smtp_password.clone()));
        let smtp = Smtp { url: section.smtp_url.clone(), credentials, from: section.from.clone() };
        NoticesConfig {
            smtp: (!section.smtp_url.is_empty()).then_some(smtp),
            private_webhooks: section.private_webhooks,
            public_url: self.ingest.public_url.trim_end_matches('/').to_owned(),
            timeout: TIMEOUT,
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret as _;

    use super::*;

    #[test]
    fn nobody_is_told_by_mail_where_no_server_is_set_and_a_password_is_never_shown() {
        let mut config = Config::default();
        assert_eq!(config.notices_sink().channels(), ["webhook", "sms", "push"]);
        config.notices.smtp_url = "smtps://mail.example.org".into();
        config.notices.smtp_username = "milestream".into();
        config.notices.smtp_password = SecretString::from("hunter2");
        let sink = config.notices_sink();
        assert_eq!(sink.channels(), ["email", "webhook", "sms", "push"]);
        let (_, password) = sink.smtp.clone().unwrap().credentials.unwrap();
        assert_eq!(password.expose_secret(), "hunter2");
        let shown = format!("{}{sink:?}", serde_json::to_string(&config).unwrap());
        assert!(!shown.contains("hunter2"), "{shown}");
    }
}
