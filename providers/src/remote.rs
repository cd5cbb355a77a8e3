//! One call of a service outside: one HTTP request with a time limit and a bounded answer. Nothing is tried again here: the next
//! service is.

use std::time::Duration;

use reading::Line;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::redirect::Policy;
use reqwest::{Response, StatusCode};
use schemas::ids::Micros;
use secrecy::{ExposeSecret as _, SecretString};
use serde::de::DeserializeOwned;
use url::Url;

use crate::config::{ConfigError, Protocol, ServiceConfig};
use crate::rekognition::Signer;
use crate::{CallError, Sent, google, openai, rekognition};

/// Bytes of an answer that are read: a page full of text with a box around each letter has 1 MiB.
const ANSWER_MAX: usize = 4 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// Characters that are kept of what a service calls its model or a request.
const NAME_MAX: usize = 64;

/// What a service read: quads as shares of width and height, each line with the service's own confidence.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Answer {
    pub lines: Vec<Line>,
    /// `name@version`.
    pub model: String,
}

/// What a call brought.
#[derive(Debug)]
pub(crate) struct Call {
    pub http_status: Option<u16>,
    pub request_id: Option<String>,
    pub answer: Result<Answer, CallError>,
}

/// What is sent, and where the answer has the call's name.
pub(crate) struct Request {
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

enum Kind {
    Google { key: SecretString },
    Rekognition(Signer),
    OpenAi { key: SecretString, model: String },
}

/// A service outside.
pub(crate) struct Remote {
    url: Url,
    http: reqwest::Client,
    kind: Kind,
}

impl Remote {
    /// The client that all services share.
    pub fn client() -> Result<reqwest::Client, ConfigError> {
        // The first provider installed stays; an error only says that there is one.
        let _ = rustls::crypto::ring::default_provider().install_default();
        reqwest::Client::builder()
            .user_agent(concat!("milestream/", env!("CARGO_PKG_VERSION")))
            .redirect(Policy::none())
            .connect_timeout(CONNECT)
            .build()
            .map_err(|_| ConfigError::Client)
    }

    /// A service, if its address and keys will do.
    pub fn new(config: &ServiceConfig, http: reqwest::Client) -> Result<Self, ConfigError> {
        let url = config.url()?;
        let key = || config.credentials.key.clone().ok_or(ConfigError::Missing("the API key"));
        let kind = match config.protocol {
            Protocol::Embedded => return Err(ConfigError::Endpoint("of the embedded reader is no URL")),
            Protocol::GoogleVision => Kind::Google { key: key()? },
            Protocol::OpenAi => Kind::OpenAi {
                key: key()?,
                model: config.model.clone().ok_or(ConfigError::Missing("the model"))?,
            },
            Protocol::AwsRekognition => {
                let secret =
                    config.credentials.secret.clone().ok_or(ConfigError::Missing("the secret access key"))?;
                Kind::Rekognition(Signer::new(&url, key()?, secret)?)
            }
        };
        Ok(Self { url, http, kind })
    }

    /// Asks for the text on a photo.
    pub async fn call(&self, sent: &Sent, now: Micros) -> Call {
        let mut call = Call { http_status: None, request_id: None, answer: Err(CallError::Timeout(0)) };
        call.answer = self.ask(sent, now, &mut call.http_status, &mut call.request_id).await;
        call
    }

    async fn ask(
        &self,
        sent: &Sent,
        now: Micros,
        http_status: &mut Option<u16>,
        request_id: &mut Option<String>,
    ) -> Result<Answer, CallError> {
        let request = match &self.kind {
            Kind::Google { key } => google::request(sent, key)?,
            Kind::Rekognition(signer) => rekognition::request(sent, signer, &self.url, now)?,
            Kind::OpenAi { key, model } => openai::request(sent, key, model)?,
        };
        let asked = self.http.post(self.url.clone()).headers(request.headers).body(request.body);
        let answer = asked.send().await.map_err(|error| lost(&error))?;
        let status = answer.status();
        *http_status = Some(status.as_u16());
        *request_id = request_name(answer.headers());
        let body = read(answer).await?;
        if !status.is_success() {
            return Err(match &self.kind {
                Kind::Rekognition(_) => rekognition::refusal(status, &body),
                _ => refusal(status),
            });
        }
        match &self.kind {
            Kind::Google { .. } => google::answer(&body, sent.jpeg.size),
            Kind::Rekognition(_) => rekognition::answer(&body),
            Kind::OpenAi { model, .. } => openai::answer(&body, model),
        }
    }
}

/// What an HTTP status other than success says.
pub(crate) fn refusal(status: StatusCode) -> CallError {
    match status {
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => CallError::Unauthorized,
        StatusCode::TOO_MANY_REQUESTS => CallError::RateLimited("the service's quota is used up"),
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => CallError::Http(status.as_u16()),
        status => CallError::Http(status.as_u16()),
    }
}

/// The whole body, or an error as soon as it exceeds the limit; a stated length is not trusted and not waited for.
async fn read(mut answer: Response) -> Result<Vec<u8>, CallError> {
    let mut body = Vec::new();
    while let Some(chunk) = answer.chunk().await.map_err(|error| lost(&error))? {
        if body.len() + chunk.len() > ANSWER_MAX {
            return Err(CallError::BadResponse("the answer is longer than 4 MiB"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// No connection, or one that broke; the error's own text may hold the address.
fn lost(error: &reqwest::Error) -> CallError {
    if error.is_connect() {
        CallError::Internal("no connection to the service")
    } else {
        CallError::BadResponse("the connection broke before the answer was whole")
    }
}

/// The service's own name of the call, from whichever header has it.
fn request_name(headers: &HeaderMap) -> Option<String> {
    let names = ["x-amzn-requestid", "x-request-id", "x-goog-request-id"];
    names.iter().find_map(|name| headers.get(*name)?.to_str().ok()).map(plain).filter(|name| !name.is_empty())
}

/// A name that a service gave, fit for a log: letters, digits and `-_.:/`, at most 64.
pub(crate) fn plain(name: &str) -> String {
    name.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.:/".contains(*c)).take(NAME_MAX).collect()
}

/// Parses JSON. What is wrong with it may quote what stands in the photo, so only the kind is told.
pub(crate) fn parse<T: DeserializeOwned>(body: &[u8]) -> Result<T, CallError> {
    serde_json::from_slice(body).map_err(|error| {
        CallError::BadResponse(match error.classify() {
            serde_json::error::Category::Data => "the answer is JSON of another shape than documented",
            _ if body.is_empty() => "the answer is empty",
            _ => "the answer is no JSON",
        })
    })
}

/// A header whose value is a secret: HTTP clients and logs leave it out.
pub(crate) fn secret_header(
    headers: &mut HeaderMap,
    name: &'static str,
    before: &str,
    secret: &SecretString,
) -> Result<(), CallError> {
    let text = zeroize::Zeroizing::new(format!("{before}{}", secret.expose_secret()));
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| CallError::Internal("the key holds characters that no header may"))?;
    value.set_sensitive(true);
    headers.insert(HeaderName::from_static(name), value);
    Ok(())
}

/// A point as a share of width and height; what lies beyond an edge is put on it.
pub(crate) fn share(x: f32, y: f32) -> Option<[f32; 2]> {
    (x.is_finite() && y.is_finite()).then(|| [x.clamp(0.0, 1.0), y.clamp(0.0, 1.0)])
}
