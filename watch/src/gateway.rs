//! The watcher's side of `POST /v1/chain/events`.

use std::time::Duration;

use chrono::Utc;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use schemas::payouts::{ChainAnswer, ChainBatch};
use secrecy::SecretString;
use url::Url;

use runtime::signature::{SIGNATURE_HEADER, TIME_HEADER, signature};

/// Time for a whole call: the gateway writes a batch to its database before it answers.
const CALL: Duration = Duration::from_secs(20);
/// Characters of a refusal that are shown.
const SHOWN: usize = 300;

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No answer, or one that says "later".
    #[error("the gateway does not answer: {0}")]
    Unavailable(String),
    /// 409: the steps do not follow those that it has. Another watcher was faster; ask where to go on.
    #[error("the gateway has other steps: {0}")]
    Gap(String),
    /// The gateway refuses the batch: a wrong secret, a wrong network, a clock that is off. An operator has to look.
    #[error("the gateway refuses with {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        detail: String,
    },
    /// The address is no address, or TLS cannot be set up.
    #[error("watch.gateway_url: {0}")]
    Config(String),
}

/// Where batches go.
pub trait Gateway: Send + Sync {
    /// Posts a batch; an empty one asks where to go on.
    fn post(&self, batch: &ChainBatch) -> impl Future<Output = Result<ChainAnswer, GatewayError>> + Send;
}

/// The real gateway.
pub struct HttpGateway {
    url: Url,
    http: reqwest::Client,
    secret: SecretString,
}

impl HttpGateway {
    /// A client of the gateway at `base`.
    ///
    /// # Errors
    /// [`GatewayError::Config`].
    pub fn new(base: &str, secret: SecretString) -> Result<Self, GatewayError> {
        let config = |error: String| GatewayError::Config(error);
        let base = Url::parse(base).map_err(|error| config(error.to_string()))?;
        let url = base.join("/v1/chain/events").map_err(|error| config(error.to_string()))?;
        // The first provider installed stays; an error only says that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder().redirect(Policy::none()).timeout(CALL).build();
        Ok(Self { url, http: http.map_err(|error| config(error.without_url().to_string()))?, secret })
    }
}

impl Gateway for HttpGateway {
    async fn post(&self, batch: &ChainBatch) -> Result<ChainAnswer, GatewayError> {
        let unavailable = |error: reqwest::Error| GatewayError::Unavailable(error.without_url().to_string());
        let body = serde_json::to_vec(batch).map_err(|error| GatewayError::Config(error.to_string()))?;
        let time = Utc::now().timestamp().to_string();
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(TIME_HEADER, &time)
            .header(SIGNATURE_HEADER, signature(&self.secret, &time, &body))
            .body(body);
        let answer = request.send().await.map_err(unavailable)?;
        let status = answer.status();
        let text = answer.text().await.map_err(unavailable)?;
        if status.is_success() {
            return serde_json::from_str(&text).map_err(|error| GatewayError::Unavailable(error.to_string()));
        }
        let detail: String = text.chars().take(SHOWN).collect();
        match status.as_u16() {
            409 => Err(GatewayError::Gap(detail)),
            429 | 500..=599 => Err(GatewayError::Unavailable(format!("{status}: {detail}"))),
            status => Err(GatewayError::Refused { status, detail }),
        }
    }
}
