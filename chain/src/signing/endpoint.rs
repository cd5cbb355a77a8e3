//! An HTTP service that is asked for signatures: TLS unless it is on this machine, bounded in time and in what is read, no redirects.

use std::fmt;
use std::time::Duration;

use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use reqwest::{Client, Method, StatusCode};
use serde::de::DeserializeOwned;
use url::{Host, Url};

use super::SigningError;

/// A signature and its wrapping have some hundred bytes.
const MOST_BYTES: usize = 64 * 1024;

/// Bounds of one question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SignerLimits {
    /// Time to connect.
    pub connect: Duration,
    /// Time for a whole call, the response's last byte included.
    pub call: Duration,
}

impl Default for SignerLimits {
    /// 2 s and 5 s: half of the life of a submitter's lease.
    fn default() -> Self {
        Self { connect: Duration::from_secs(2), call: Duration::from_secs(5) }
    }
}

/// The service.
#[derive(Clone)]
pub(super) struct Endpoint {
    pub url: Url,
    http: Client,
}

/// Whether a plain http address is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Plain {
    /// Of this machine alone.
    Loopback,
    /// Of the machine's own link too: where a cloud tells an instance its credentials.
    LinkLocal,
}

impl Endpoint {
    pub fn new(url: &str, limits: SignerLimits, plain: Plain) -> Result<Self, SigningError> {
        // The address may carry a token: neither it nor what the parser says of it is shown.
        let url = Url::parse(url).map_err(|_| SigningError::config("the address is no URL"))?;
        let near = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(ip)) => ip.is_loopback() || (plain == Plain::LinkLocal && ip.is_link_local()),
            Some(Host::Ipv6(ip)) => ip.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if near => {}
            "http" => {
                return Err(SigningError::config(
                    "without TLS only a signer of this machine is asked: use https://",
                ));
            }
            _ => return Err(SigningError::config("the address must begin with https://")),
        }
        // rustls needs a process-wide provider of cryptography; the first one installed stays.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let http = Client::builder()
            .redirect(Policy::none())
            .connect_timeout(limits.connect)
            .timeout(limits.call)
            .build()
            .map_err(|_| SigningError::config("no HTTP client can be made"))?;
        Ok(Self { url, http })
    }

    /// The status and the whole body.
    pub async fn ask(
        &self,
        method: Method,
        url: Url,
        headers: HeaderMap,
        body: Vec<u8>,
    ) -> Result<(StatusCode, Vec<u8>), SigningError> {
        let sent = self.http.request(method, url).headers(headers).body(body).send().await;
        let mut response = sent.map_err(unavailable)?;
        let (status, mut body) = (response.status(), Vec::new());
        while let Some(chunk) = response.chunk().await.map_err(unavailable)? {
            if body.len() + chunk.len() > MOST_BYTES {
                return Err(SigningError::wrong("it is longer than any signature"));
            }
            body.extend_from_slice(&chunk);
        }
        Ok((status, body))
    }
}

impl fmt::Debug for Endpoint {
    /// Host and port alone: the rest may carry a token.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}",
            self.url.host_str().unwrap_or_default(),
            self.url.port_or_known_default().unwrap_or(0)
        )
    }
}

/// What a status says where the body says no more: to be asked again later, or refused.
pub(super) fn by_status(status: StatusCode) -> SigningError {
    let text = format!("status {}", status.as_u16());
    if status.is_server_error()
        || status == StatusCode::TOO_MANY_REQUESTS
        || status == StatusCode::REQUEST_TIMEOUT
    {
        SigningError::unavailable(&text)
    } else {
        SigningError::refused(&text)
    }
}

/// A JSON body of this form. What it holds instead is not shown.
pub(super) fn json<T: DeserializeOwned>(body: &[u8]) -> Result<T, SigningError> {
    serde_json::from_slice(body).map_err(|_| SigningError::wrong("it is not the JSON of the protocol"))
}

fn unavailable(error: reqwest::Error) -> SigningError {
    let what = if error.is_timeout() {
        "the time is over"
    } else if error.is_connect() {
        "no connection"
    } else {
        "the connection broke"
    };
    SigningError::unavailable(what)
}
