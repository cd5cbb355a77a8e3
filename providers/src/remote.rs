//! One call of a service outside: one HTTP request with a time limit and a bounded answer. Nothing is tried again here: the next
//! service is.

use std::time::Duration;

use reqwest::Response;
use reqwest::header::HeaderMap;
use reqwest::redirect::Policy;
use schemas::ids::Micros;
use secrecy::SecretString;
use url::Url;

use crate::call::{Answer, Call, plain, refusal};
use crate::config::{ConfigError, Protocol, ServiceConfig};
use crate::rekognition::Signer;
use crate::{CallError, Sent, google, openai, rekognition};

/// Bytes of an answer that are read: a page full of text with a box around each letter has 1 MiB.
const ANSWER_MAX: usize = 4 << 20;
/// Longest wait for a connection.
const CONNECT: Duration = Duration::from_secs(3);

enum Kind {
    Google { key: SecretString },
    Rekognition(Signer),
    OpenAi { key: SecretString, model: String },
}

impl ServiceConfig {
    /// Whether the service can be called: address, keys and model are there and fit.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn check(&self) -> Result<(), ConfigError> {
        Remote::new(self, Remote::client()?).map(drop)
    }
}

/// An external service.
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
