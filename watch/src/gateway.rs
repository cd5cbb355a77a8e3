//! The watcher's side of `POST /v1/chain/events`.

use std::sync::Arc;
use std::time::Duration;

use chain::node::Snippet;
use reqwest::header::CONTENT_TYPE;
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use runtime::clock::{Clock, SystemClock};
use runtime::signature::{HEAD_SIGNATURE_HEADER, SIGNATURE_HEADER, TIME_HEADER, head, signature};
use schemas::payouts::{ChainBatch, ChainResponse};
use secrecy::SecretString;
use url::Url;

/// Time to connect.
const CONNECT: Duration = Duration::from_secs(3);
/// Time for a whole call: the gateway writes a batch to its database before it responds.
const CALL: Duration = Duration::from_secs(20);
/// Bytes of a response that are read: a checkpoint of 400 ids takes 27 KiB, a result of a step 40 bytes.
const RESPONSE_BYTES: usize = 1024 * 1024;

/// Why a batch was not taken.
#[derive(Debug, thiserror::Error)]
pub enum GatewayError {
    /// No response, or one that means "later"; whether the batch was taken is not known.
    #[error("the gateway does not respond: {0}")]
    Unavailable(Snippet),
    /// 409: the steps do not follow those that it has. Another watcher was faster; ask where to go on.
    #[error("the gateway has other steps: {0}")]
    Gap(Snippet),
    /// The gateway refuses the batch: a wrong secret, a wrong network, a clock that is off. An operator has to look.
    #[error("the gateway refuses with {status}: {detail}")]
    Refused {
        /// HTTP status.
        status: u16,
        /// Its words.
        detail: Snippet,
    },
    /// The address is no address, or TLS cannot be set up.
    #[error("watch.gateway_url: {0}")]
    Config(Snippet),
}

/// Where batches go.
pub trait Gateway: Send + Sync {
    /// Posts a batch; an empty one asks where to go on.
    fn post(&self, batch: &ChainBatch) -> impl Future<Output = Result<ChainResponse, GatewayError>> + Send;
}

/// The real gateway.
pub struct HttpGateway {
    url: Url,
    http: reqwest::Client,
    secret: SecretString,
    clock: Arc<dyn Clock>,
}

impl HttpGateway {
    /// A client of the gateway at `base`, e.g. `https://gateway.example`, whose batches are signed with `secret`.
    ///
    /// # Errors
    /// [`GatewayError::Config`].
    pub fn new(base: &str, secret: SecretString) -> Result<Self, GatewayError> {
        // The address may carry a password, so it is in no error.
        let config = |reason: &str| GatewayError::Config(Snippet::new(reason));
        let mut url = Url::parse(base).map_err(|error| config(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") || url.cannot_be_a_base() {
            return Err(config("the address must begin with http:// or https://"));
        }
        if !url.path().ends_with('/') {
            url.set_path(&format!("{}/", url.path()));
        }
        let url = url.join("v1/chain/events").map_err(|error| config(&error.to_string()))?;
        // The first provider installed stays; an error only says that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = reqwest::Client::builder()
            .user_agent(concat!("milestream-watch/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .timeout(CALL)
            .build()
            .map_err(|error| config(&error.without_url().to_string()))?;
        Ok(Self { url, http, secret, clock: Arc::new(SystemClock) })
    }
}

impl Gateway for HttpGateway {
    async fn post(&self, batch: &ChainBatch) -> Result<ChainResponse, GatewayError> {
        let body = serde_json::to_vec(batch).map_err(|error| refused(0, &error.to_string()))?;
        let time = self.clock.now().0.div_euclid(1_000_000).to_string();
        let request = self
            .http
            .post(self.url.clone())
            .header(CONTENT_TYPE, "application/json")
            .header(TIME_HEADER, &time)
            .header(SIGNATURE_HEADER, signature(&self.secret, &time, &body))
            .header(HEAD_SIGNATURE_HEADER, signature(&self.secret, &time, head(body.len() as u64).as_bytes()))
            .body(body);
        let response = request.send().await.map_err(lost)?;
        let status = response.status();
        let body = read(response).await?;
        if status == StatusCode::OK {
            return serde_json::from_slice(&body).map_err(|error| unavailable(&error.to_string()));
        }
        let text = String::from_utf8_lossy(&body);
        match status.as_u16() {
            409 => Err(GatewayError::Gap(Snippet::new(&text))),
            408 | 429 | 500..=599 => Err(unavailable(&format!("{status}: {text}"))),
            status => Err(refused(status, &text)),
        }
    }
}

async fn read(mut response: Response) -> Result<Vec<u8>, GatewayError> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(lost)? {
        if body.len() + chunk.len() > RESPONSE_BYTES {
            return Err(unavailable("its response is too long"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

fn lost(error: reqwest::Error) -> GatewayError {
    unavailable(&error.without_url().to_string())
}

fn unavailable(text: &str) -> GatewayError {
    GatewayError::Unavailable(Snippet::new(text))
}

fn refused(status: u16, text: &str) -> GatewayError {
    GatewayError::Refused { status, detail: Snippet::new(text) }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use bytes::Bytes;
    use runtime::ManualClock;
    use runtime::signature::is_signed;
    use schemas::ids::Micros;
    use tokio::net::TcpListener;
    use warp::Filter as _;
    use warp::http::HeaderMap;
    use warp::path::FullPath;

    use super::*;

    const SECRET: &str = "a secret of thirty-two characters";
    const RESPONSE: &str = r#"{"results":[],"highest_seq":7,"checkpoint":null}"#;

    /// What a server that gives `response` is asked, and what the client makes of it.
    async fn asked(
        status: u16,
        response: &'static str,
    ) -> ((String, HeaderMap, Bytes), Result<ChainResponse, GatewayError>) {
        let kept = Arc::new(Mutex::new(None));
        let keep = kept.clone();
        let route = warp::path::full().and(warp::header::headers_cloned()).and(warp::body::bytes()).map(
            move |path: FullPath, headers: HeaderMap, body: Bytes| {
                *keep.lock().unwrap() = Some((path.as_str().to_owned(), headers, body));
                warp::reply::with_status(response, warp::http::StatusCode::from_u16(status).unwrap())
            },
        );
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(warp::serve(route).incoming(listener).run());
        let gateway = HttpGateway {
            clock: Arc::new(ManualClock::at(Micros(1_700_000_000_999_999))),
            ..HttpGateway::new(&format!("http://user:sesame@{address}/behind"), SecretString::from(SECRET))
                .unwrap()
        };
        let batch = ChainBatch { genesis_id: "0x00".into(), steps: vec![], checkpoint: None };
        let result = gateway.post(&batch).await;
        server.abort();
        (kept.lock().unwrap().take().unwrap(), result)
    }

    #[tokio::test]
    async fn a_batch_is_signed_as_published_and_posted_below_the_gateways_own_path() {
        let ((path, headers, body), result) = asked(200, RESPONSE).await;
        assert_eq!(result.unwrap().highest_seq, 7);
        assert_eq!(path, "/behind/v1/chain/events");
        assert_eq!(body, r#"{"genesis_id":"0x00","steps":[],"checkpoint":null}"#);
        assert_eq!(headers[TIME_HEADER], "1700000000");
        // printf '1700000000.{"genesis_id":"0x00","steps":[],"checkpoint":null}' |
        //   openssl dgst -sha256 -hmac 'a secret of thirty-two characters'
        assert_eq!(headers[SIGNATURE_HEADER], VECTOR);
        assert!(is_signed(&SecretString::from(SECRET), "1700000000", &body, VECTOR));
    }

    #[tokio::test]
    async fn what_the_gateway_responds_is_later_or_other_steps_or_a_matter_for_an_operator() {
        let kind = |result: Result<ChainResponse, GatewayError>| match result.unwrap_err() {
            GatewayError::Unavailable(_) => "later",
            GatewayError::Gap(_) => "other steps",
            GatewayError::Refused { .. } => "operator",
            GatewayError::Config(_) => "config",
        };
        for status in [400, 401, 403, 404, 413, 422, 302] {
            assert_eq!(kind(asked(status, "no").await.1), "operator", "{status}");
        }
        for status in [408, 429, 500, 502, 503] {
            assert_eq!(kind(asked(status, "no").await.1), "later", "{status}");
        }
        assert_eq!(kind(asked(409, "chain_gap").await.1), "other steps");
        assert_eq!(kind(asked(200, "<html>").await.1), "later");
    }

    #[tokio::test]
    async fn neither_the_secret_nor_a_password_in_the_address_is_in_an_error() {
        let gateway = HttpGateway::new("http://user:sesame@127.0.0.1:1", SecretString::from(SECRET)).unwrap();
        let batch = ChainBatch { genesis_id: "0x00".into(), steps: vec![], checkpoint: None };
        let error = gateway.post(&batch).await.unwrap_err();
        let malformed = HttpGateway::new("http://user:sesame@:x", SecretString::from(SECRET)).err().unwrap();
        for text in [format!("{error} {error:?}"), format!("{malformed} {malformed:?}")] {
            assert!(!text.contains("sesame") && !text.contains("secret"), "{text}");
        }
        for address in ["", "127.0.0.1:8080", "ftp://x"] {
            assert!(HttpGateway::new(address, SecretString::from(SECRET)).is_err(), "{address}");
        }
    }

    const VECTOR: &str = "sha256=bc1ab5b907420aaa8bac7b6273890397598cccfceb11df669492dfb03a2f6303";
}
