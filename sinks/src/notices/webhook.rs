//! A notice as a webhook: a signed POST. Headers and signature are those of the Standard Webhooks specification (`v1`, HMAC-SHA256), so
//! that its libraries verify them.

use std::time::Duration;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, SecondsFormat, Utc};
use hmac::{Hmac, Mac as _};
use reqwest::redirect::Policy;
use serde_json::json;
use sha2::Sha256;

use super::reach::{Reach, Unreachable};
use super::service::Delivery;

/// Why a webhook was not taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum WebhookError {
    #[error("unreachable: {0}")]
    Unreachable(#[from] Unreachable),
    // The driver's own words would hold the URL, which may be a secret.
    #[error("no_response: {0}")]
    NoResponse(&'static str),
    #[error("refused: the receiver responds with {0}")]
    Refused(u16),
}

/// A webhook on its way.
pub(super) struct Webhook {
    pub(super) body: String,
    timestamp: i64,
}

impl Webhook {
    /// The request of a delivery: its body is the same in each attempt, its time is that of this one.
    pub(super) fn of(delivery: &Delivery, now: DateTime<Utc>) -> Self {
        let body = json!({
            "id": delivery.id, "type": delivery.kind, "user_id": delivery.user_id,
            "occurred_at": delivery.occurred_at.to_rfc3339_opts(SecondsFormat::Micros, true), "data": delivery.document,
        });
        Self { body: body.to_string(), timestamp: now.timestamp() }
    }

    /// The signature over id, time and body. Without the id a notice could pass for another, without the time for a new one.
    fn signature(&self, delivery: &Delivery, secret: &[u8]) -> String {
        let signed = format!("{}.{}.{}", delivery.id, self.timestamp, self.body);
        // An HMAC takes a key of any length.
        let mac = Hmac::<Sha256>::new_from_slice(secret)
            .map(|mac| mac.chain_update(signed).finalize().into_bytes());
        format!("v1,{}", mac.map(|mac| STANDARD.encode(mac)).unwrap_or_default())
    }

    /// Sends it; the receiver's status where it has taken it.
    pub(super) async fn send(
        &self,
        delivery: &Delivery,
        reach: &Reach,
        secret: &[u8],
        timeout: Duration,
    ) -> Result<u16, WebhookError> {
        // One for each: its connections lead to these addresses alone, and to nobody else afterwards.
        let client = reqwest::Client::builder()
            .timeout(timeout)
            .redirect(Policy::none())
            .no_proxy()
            .user_agent(concat!("milestream/", env!("CARGO_PKG_VERSION")))
            .resolve_to_addrs(&reach.host, &reach.addresses)
            .build()
            .map_err(|_| WebhookError::NoResponse("no client"))?;
        let response = client
            .post(reach.url.clone())
            .header("content-type", "application/json")
            .header("webhook-id", delivery.id.to_string())
            .header("webhook-timestamp", self.timestamp.to_string())
            .header("webhook-signature", self.signature(delivery, secret))
            .body(self.body.clone())
            .send()
            .await
            .map_err(|error| WebhookError::NoResponse(what(&error)))?;
        // What it says beside its status is not read: it may be of any length.
        let status = response.status();
        if status.is_success() { Ok(status.as_u16()) } else { Err(WebhookError::Refused(status.as_u16())) }
    }
}

fn what(error: &reqwest::Error) -> &'static str {
    if error.is_timeout() {
        "it takes too long"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    }
}
