//! Sending what is due. A notice is taken for a minute, sent, and marked: a process that dies in between leaves it to be sent again by
//! another, under the same id.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::future::join_all;
use runtime::outbox::OutboxRows;
use runtime::switches::{Flag, Switches};
use runtime::{Clock, StageError};
use schemas::ids::{EventId, Micros};
use schemas::logs::{IntegrationLog, LogDocument as _};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::codes;
use super::config::{NoticesConfig, WEBHOOKS};
use super::email::{Mail, Mailer, SmtpError};
use super::offers;
use super::reach::Reach;
use super::service::{self, Delivery};
use super::webhook::{Webhook, WebhookError};

/// For how long a notice is taken: well above the longest attempt.
const LEASE: Duration = Duration::from_secs(60);
/// Notices that are sent side by side.
const ROUND: i64 = 16;
/// Between two looks where nothing is due.
const LOOK: Duration = Duration::from_secs(1);

runtime::metrics! {
    /// What is counted of notices.
    pub struct NoticeMetrics {
        /// `delivered`, `failed` (and sent again later), `given_up`.
        /// A code that proves an address counts as the channel `email_code`.
        notices: Counter["channel", "outcome"] = "milestream_notices_total", "Attempts to tell somebody something, by how they ended";
        /// After a day of failures.
        disabled: Counter["channel"] = "milestream_notice_channels_disabled_total", "Ways of telling somebody that are used no more after a day of failures";
    }
}

/// Sends notices.
pub struct Deliverer {
    pool: PgPool,
    config: NoticesConfig,
    clock: Arc<dyn Clock>,
    metrics: NoticeMetrics,
    mailer: Option<Mailer>,
    /// The registry's id of `ActivityLogged`.
    activity_schema: u32,
}

/// How an attempt ended.
struct Attempt {
    service: &'static str,
    request: Value,
    /// The receiver's status, or why it has not taken the notice, as `code: sentence`.
    outcome: Result<u16, String>,
}

impl Deliverer {
    /// A deliverer; several may run.
    ///
    /// # Errors
    /// [`SmtpError`].
    pub fn new(
        (pool, activity_schema): (PgPool, u32),
        config: NoticesConfig,
        clock: Arc<dyn Clock>,
        metrics: NoticeMetrics,
    ) -> Result<Self, SmtpError> {
        runtime::registry::install_tls();
        let mailer = config.smtp.as_ref().map(|smtp| Mailer::new(smtp, &config.public_url, config.timeout));
        Ok(Self { pool, mailer: mailer.transpose()?, config, clock, metrics, activity_schema })
    }

    /// Sends what becomes due, until stopped.
    pub async fn run(&self, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let more = match self.round().await {
                Ok(sent) => sent > 0,
                Err(error) => {
                    tracing::warn!(error = %error, "notices wait");
                    false
                }
            };
            if !more {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = tokio::time::sleep(LOOK) => {}
                }
            }
        }
    }

    /// Sends what is due now, once each, codes before notices, since somebody waits for them; how many were taken. Dropped at any point it
    /// leaves what a crash there would leave.
    ///
    /// # Errors
    /// Postgres'.
    pub async fn round(&self) -> Result<usize, StageError> {
        if !Switches::load(&self.pool).await?.is_on(Flag::Notifications) {
            return Ok(0);
        }
        let codes = codes::take(&self.pool, self.clock.now().to_utc(), LEASE, ROUND).await?;
        for outcome in join_all(codes.iter().map(|asked| self.prove(asked))).await {
            outcome?;
        }
        let now = self.clock.now().to_utc();
        offers::tell(&self.pool, &self.config.channels(), now, ROUND)
            .await
            .map_err(|error| StageError::new("an offer", error))?;
        let taken = service::take(&self.pool, self.clock.now().to_utc(), LEASE, ROUND).await?;
        let count = codes.len() + taken.len();
        for outcome in join_all(taken.iter().map(|delivery| self.deliver(delivery))).await {
            outcome?;
        }
        Ok(count)
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), StageError> {
        let now = self.clock.now();
        let counted = |outcome| self.metrics.notices.with_label_values(&[&delivery.channel, outcome]).inc();
        let started = Instant::now();
        let attempt = match self.attempt(delivery, now).await {
            Ok(attempt) => attempt,
            Err(why) => {
                service::give_up(&self.pool, delivery, why, now.to_utc()).await?;
                counted("given_up");
                return Ok(());
            }
        };
        let log = self.log((delivery.id, delivery.attempts), &attempt, started.elapsed(), now)?;
        match attempt.outcome {
            Ok(_) => {
                service::delivered(&self.pool, delivery, log, now.to_utc()).await?;
                counted("delivered");
            }
            Err(why) => {
                let failed = service::failed(&self.pool, delivery, (&why, log), now.to_utc()).await?;
                counted(if failed.given_up { "given_up" } else { "failed" });
                if failed.disabled {
                    self.metrics.disabled.with_label_values(&[&delivery.channel]).inc();
                }
            }
        }
        Ok(())
    }

    /// Sends a notice, or says why it goes nowhere, as `code: sentence`.
    async fn attempt(&self, delivery: &Delivery, now: Micros) -> Result<Attempt, &'static str> {
        if !delivery.wanted {
            return Err("not_wanted: this way of telling is off, or has failed for a day");
        }
        let target = delivery.target.as_deref();
        if WEBHOOKS.contains(&delivery.channel.as_str()) {
            let target = target.ok_or("no_target: the preferences name no URL")?;
            let secret = delivery.secret.as_deref();
            let secret = secret
                .ok_or("no_secret: nothing signs the webhook before POST /v1/notices/secret was asked")?;
            return Ok(self.webhook(delivery, (target, secret), now).await);
        }
        let mailer = self.mailer.as_ref().ok_or("no_server: no e-mail is sent here")?;
        let to = delivery.email.as_deref().ok_or("no_target: the account has no e-mail address")?;
        // Anybody can put anybody's address in: what has not shown that it is the owner's is written to with a code alone.
        if !delivery.email_proven {
            return Err("not_proven: the account's e-mail address is not proven by a code yet");
        }
        if target.is_some_and(|target| !target.eq_ignore_ascii_case(to)) {
            return Err(
                "not_proven: the address of the preferences is not the account's, which alone can be proven",
            );
        }
        Ok(self.email(mailer, (Mail::notice(delivery), &delivery.kind), to).await)
    }

    async fn email(&self, mailer: &Mailer, (mail, summary): (Mail, &str), to: &str) -> Attempt {
        let outcome = mailer.send(mail, to).await.map_err(|error| error.to_string());
        let request = json!({ "method": "SMTP", "url": self.config.smtp.as_ref().map(|smtp| host(&smtp.url)), "summary": summary });
        Attempt { service: "smtp", request, outcome }
    }

    /// Draws a code, keeps its hash, and sends it. A code that is sent again is another one: the one before is known to nobody here.
    async fn prove(&self, asked: &codes::Asked) -> Result<(), StageError> {
        let now = self.clock.now();
        let counted = |outcome| self.metrics.notices.with_label_values(&["email_code", outcome]).inc();
        let sendable = asked.address(now.to_utc()).and_then(|to| {
            let mailer = self.mailer.as_ref().ok_or("no_server: no e-mail is sent here")?;
            Ok((mailer, to))
        });
        let (mailer, to) = match sendable {
            Ok(sendable) => sendable,
            Err(why) => {
                codes::give_up(&self.pool, asked, why).await?;
                counted("given_up");
                return Ok(());
            }
        };
        let Some(code) = codes::draw(&self.pool, asked, to, now.to_utc()).await? else { return Ok(()) };
        let (id, started) = (Uuid::now_v7(), Instant::now());
        let attempt = self.email(mailer, (Mail::code(id, &code), "email_code"), to).await;
        let log = self.log((id, asked.attempts), &attempt, started.elapsed(), now)?;
        let sent = attempt.outcome.is_ok();
        codes::sent(&self.pool, asked, (attempt.outcome.err(), log), now.to_utc()).await?;
        counted(if sent { "delivered" } else { "failed" });
        Ok(())
    }

    async fn webhook(&self, delivery: &Delivery, (target, secret): (&str, &[u8]), now: Micros) -> Attempt {
        let webhook = Webhook::of(delivery, now.to_utc());
        // The host alone: a path may be a secret.
        let request = json!({
            "method": "POST", "url": host(target), "bytes": webhook.body.len(),
            "sha256": hex::encode(Sha256::digest(&webhook.body)), "summary": delivery.kind,
        });
        let sent = async {
            let reach = Reach::of(target, self.config.private_webhooks).await?;
            webhook.send(delivery, &reach, secret, self.config.timeout).await
        };
        Attempt {
            service: "webhook",
            request,
            outcome: sent.await.map_err(|error: WebhookError| error.to_string()),
        }
    }

    fn log(
        &self,
        (request, attempts): (Uuid, i32),
        attempt: &Attempt,
        took: Duration,
        now: Micros,
    ) -> Result<OutboxRows, StageError> {
        let document = IntegrationLog {
            integration_type: "external_api".to_owned(),
            service_name: attempt.service.to_owned(),
            request_id: request.to_string(),
            request_data: attempt.request.clone(),
            response_data: attempt.outcome.as_ref().map_or(json!({}), |status| json!({ "status": status })),
            response_time: took.as_secs_f64() * 1_000.0,
            success: attempt.outcome.is_ok(),
            error_details: attempt.outcome.as_ref().err().cloned(),
            retry_count: i64::from(attempts - 1).min(10),
        };
        let id = EventId(Uuid::now_v7());
        let record = document.activity(id, 0, now).map_err(|error| StageError::new("a document", error))?;
        let mut rows = OutboxRows::created_at(now.to_utc());
        rows.push(self.activity_schema, &record, id.0)
            .map_err(|error| StageError::new("a document", error))?;
        Ok(rows)
    }
}

/// Scheme and host of a URL.
fn host(url: &str) -> Option<String> {
    let url = url::Url::parse(url).ok()?;
    Some(format!("{}://{}", url.scheme(), url.host_str()?))
}
