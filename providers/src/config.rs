//! One service as `ai_service_configs` describes it.

use std::time::Duration;

use rust_decimal::Decimal;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use url::{Host, Url};

/// Most characters of an address, as the column holds them.
const ENDPOINT_MAX: usize = 500;

/// How a service is talked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// The embedded reader: no network.
    Embedded,
    /// Google Cloud Vision, `images:annotate`.
    GoogleVision,
    /// Amazon Rekognition, `DetectText`.
    AwsRekognition,
    /// An OpenAI-compatible `chat/completions` that takes pictures.
    OpenAi,
}

impl Protocol {
    /// Every protocol.
    pub const ALL: [Self; 4] = [Self::Embedded, Self::GoogleVision, Self::AwsRekognition, Self::OpenAi];

    /// The label in `ai_service_configs.protocol`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Embedded => "embedded",
            Self::GoogleVision => "google_vision",
            Self::AwsRekognition => "aws_rekognition",
            Self::OpenAi => "openai",
        }
    }

    /// The protocol of a label.
    #[must_use]
    pub fn of(label: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|protocol| protocol.label() == label)
    }

    /// The label in `ai_service_configs.service_type`: a chat model looks at the whole picture, the others read text.
    #[must_use]
    pub fn service_type(self) -> &'static str {
        if self == Self::OpenAi { "image_recognition" } else { "ocr" }
    }
}

/// Calls that a service may be sent within a UTC minute, hour and day; `None` is no limit. They count in this process alone.
/// As JSON it is `ai_service_configs.rate_limit`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Limits {
    /// In a minute.
    pub per_minute: Option<u32>,
    /// In an hour.
    pub per_hour: Option<u32>,
    /// In a day.
    pub per_day: Option<u32>,
}

/// What a service wants to see; never printed.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    /// Google's and OpenAI's API key, AWS' access key id.
    pub key: Option<SecretString>,
    /// AWS' secret access key.
    pub secret: Option<SecretString>,
}

/// One service.
#[derive(Clone, Debug)]
pub struct ServiceConfig {
    /// `service_name`, which is unique.
    pub name: String,
    /// How it is talked to.
    pub protocol: Protocol,
    /// Its address; `embedded:<models>` for the embedded reader.
    pub endpoint: String,
    /// The model that is asked for, where the protocol has several.
    pub model: Option<String>,
    /// 1 is asked first; ties go by name.
    pub priority: i32,
    /// Confidence, 0-0.99, below which the next service is asked.
    pub threshold: Decimal,
    /// USD a call, at the list price.
    pub cost: Decimal,
    /// Our own budget of calls.
    pub limits: Limits,
    /// Longest wait for an answer.
    pub timeout: Duration,
    /// After this wait the next service is asked as well; `None`: never.
    pub hedge: Option<Duration>,
    /// What it wants to see.
    pub credentials: Credentials,
}

/// Why a service cannot be asked. Holds no secret and no address.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    /// The address cannot be used.
    #[error("the address {0}")]
    Endpoint(&'static str),
    /// A key is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// The HTTP client cannot be set up.
    #[error("the HTTP client cannot be set up")]
    Client,
}

impl ServiceConfig {
    /// The service's share of the key of kept answers: what decides about the answer. Limits, cost and keys do not.
    pub(crate) fn identity(&self) -> String {
        let model = self.model.as_deref().unwrap_or_default();
        let Self { name, protocol, endpoint, threshold, .. } = self;
        format!("{name}\n{}\n{endpoint}\n{model}\n{}\n", protocol.label(), threshold.normalize())
    }

    /// Distinguishes two configurations in anything, keys included; one cannot go back from it to a key.
    pub(crate) fn fingerprint(&self) -> [u8; 32] {
        let exposed = |secret: &Option<SecretString>| {
            secret.as_ref().map(|secret| Sha256::digest(secret.expose_secret().as_bytes()))
        };
        let Self { cost, limits, timeout, hedge, priority, credentials, .. } = self;
        let rest = format!(
            "{}{cost}\n{limits:?}\n{timeout:?}\n{hedge:?}\n{priority}\n{:?}\n{:?}",
            self.identity(),
            exposed(&credentials.key),
            exposed(&credentials.secret)
        );
        Sha256::digest(rest).into()
    }

    /// The address, if it may be asked: https, or http to this machine alone; no login, no query, no fragment.
    pub(crate) fn url(&self) -> Result<Url, ConfigError> {
        if self.endpoint.len() > ENDPOINT_MAX {
            return Err(ConfigError::Endpoint("is longer than 500 characters"));
        }
        let url = Url::parse(&self.endpoint).map_err(|_| ConfigError::Endpoint("is no URL"))?;
        let local = match url.host() {
            Some(Host::Domain(name)) => name == "localhost",
            Some(Host::Ipv4(address)) => address.is_loopback(),
            Some(Host::Ipv6(address)) => address.is_loopback(),
            None => false,
        };
        match url.scheme() {
            "https" => {}
            "http" if local => {}
            _ => return Err(ConfigError::Endpoint("must begin with https://")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(ConfigError::Endpoint("holds a login, which belongs into the keys"));
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(ConfigError::Endpoint("has a query or a fragment, where keys would show in logs"));
        }
        Ok(url)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A service with the usual settings and a key.
    pub(crate) fn service(name: &str, protocol: Protocol, endpoint: &str) -> ServiceConfig {
        ServiceConfig {
            name: name.to_owned(),
            protocol,
            endpoint: endpoint.to_owned(),
            model: None,
            priority: 5,
            threshold: Decimal::new(70, 2),
            cost: Decimal::new(15, 4),
            limits: Limits::default(),
            timeout: Duration::from_secs(10),
            hedge: None,
            credentials: Credentials { key: Some("the-key".into()), secret: Some("the-secret".into()) },
        }
    }

    fn complaint(endpoint: &str) -> Option<String> {
        service("a", Protocol::GoogleVision, endpoint).url().err().map(|error| error.to_string())
    }

    #[test]
    fn only_https_is_asked_and_http_on_this_machine() {
        for fine in
            ["https://vision.googleapis.com/v1/images:annotate", "http://127.0.0.1:9/x", "http://[::1]:9/"]
        {
            assert_eq!(complaint(fine), None, "{fine}");
        }
        assert_eq!(complaint("http://vision.example/").unwrap(), "the address must begin with https://");
        assert_eq!(complaint("file:///etc/passwd").unwrap(), "the address must begin with https://");
        assert_eq!(complaint("vision").unwrap(), "the address is no URL");
        assert!(complaint("https://u:p@vision.example/").unwrap().contains("login"));
        assert!(complaint("https://vision.example/?key=k").unwrap().contains("query"));
        assert!(complaint(&format!("https://a/{}", "x".repeat(500))).unwrap().contains("longer"));
    }

    #[test]
    fn what_an_answer_depends_on_is_in_the_identity_and_a_new_key_only_in_the_fingerprint() {
        let one = service("a", Protocol::GoogleVision, "https://a/");
        let mut other = one.clone();
        other.credentials.key = Some("another".into());
        assert_eq!(one.identity(), other.identity());
        assert_ne!(one.fingerprint(), other.fingerprint());
        other.threshold = Decimal::new(71, 2);
        assert_ne!(one.identity(), other.identity());
        assert_eq!(one.fingerprint(), one.clone().fingerprint());
        assert!(!format!("{one:?}").contains("the-key"));
    }
}
