//! Settings of the sink, and which ways of telling there are.

use std::time::Duration;

use secrecy::SecretString;
use sqlx::PgPool;

use super::sink::NoticesSink;

/// The ways that go by a webhook: whoever sends short messages or pushes to phones takes it there.
pub(super) const WEBHOOKS: [&str; 3] = ["webhook", "sms", "push"];

/// A mail server.
#[derive(Clone, Debug)]
pub struct Smtp {
    /// `smtps://host` or `smtp://host?tls=required`; `smtp://host:port` alone is for a server on this machine.
    pub url: String,
    /// User and password, where it asks for them.
    pub credentials: Option<(String, SecretString)>,
    /// `Milestream <notices@example.org>`.
    pub from: String,
}

/// Settings of the sink.
#[derive(Clone, Debug)]
pub struct NoticesConfig {
    /// The mail server; nobody is told by e-mail where there is none.
    pub smtp: Option<Smtp>,
    /// Whether webhooks may go to private addresses and without TLS: where all who sign in are trusted, as on a developer's machine.
    pub private_webhooks: bool,
    /// Where drivers reach the pages; e-mails name it.
    pub public_url: String,
    /// Longest wait for a receiver. 10 s in production.
    pub timeout: Duration,
}

impl NoticesConfig {
    /// The ways of telling there are.
    #[must_use]
    pub fn channels(&self) -> Vec<&'static str> {
        let email = self.smtp.as_ref().map(|_| "email");
        email.into_iter().chain(WEBHOOKS).collect()
    }

    /// The sink.
    #[must_use]
    pub fn build(&self, pool: PgPool) -> NoticesSink {
        NoticesSink::new(pool, self.channels())
    }
}
