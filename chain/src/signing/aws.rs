//! Who asks AWS: credentials from the environment or of the instance's role, and Signature Version 4 with them. They are never shown.

use std::fmt;
use std::time::{Duration, Instant, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use tokio::sync::Mutex;
use url::Url;

use super::SigningError;
use super::endpoint::{self, Endpoint, Plain, SignerLimits};

/// Where an instance is told the credentials of its role (`IMDSv2`).
pub const INSTANCE_METADATA: &str = "http://169.254.169.254";
const ROLES: &str = "latest/meta-data/iam/security-credentials/";
/// How long a role's credentials are used before they are asked for again: new ones are there at least 5 minutes before the old end.
const KEPT: Duration = Duration::from_secs(60);
/// The metadata service is on the machine's own link: it responds at once or never.
const LIMITS: SignerLimits = SignerLimits { connect: Duration::from_secs(1), call: Duration::from_secs(2) };

/// Who asks.
#[derive(Clone)]
struct Identity {
    key: SecretString,
    secret: SecretString,
    session: Option<SecretString>,
}

/// Where the credentials come from.
pub struct AwsCredentials {
    source: Source,
}

enum Source {
    Fixed(Identity),
    Instance { metadata: Endpoint, kept: Mutex<Option<(Instant, Identity)>> },
}

impl AwsCredentials {
    /// Those in `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY` and, where there is one, `AWS_SESSION_TOKEN`; without them those of the
    /// instance's role.
    ///
    /// # Errors
    /// [`SigningError::Config`] where one of the two is set alone.
    pub fn from_environment() -> Result<Self, SigningError> {
        let of = |name| std::env::var(name).ok().filter(|value| !value.is_empty()).map(SecretString::from);
        match (of("AWS_ACCESS_KEY_ID"), of("AWS_SECRET_ACCESS_KEY")) {
            (Some(key), Some(secret)) => Ok(Self::fixed(key, secret, of("AWS_SESSION_TOKEN"))),
            (None, None) => Self::instance(INSTANCE_METADATA),
            _ => {
                Err(SigningError::config("set both AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or neither"))
            }
        }
    }

    /// These.
    #[must_use]
    pub fn fixed(key: SecretString, secret: SecretString, session: Option<SecretString>) -> Self {
        Self { source: Source::Fixed(Identity { key, secret, session }) }
    }

    /// Those of the role of the instance that this process runs on, asked at `metadata`, [`INSTANCE_METADATA`] but for tests.
    ///
    /// # Errors
    /// [`SigningError::Config`].
    pub fn instance(metadata: &str) -> Result<Self, SigningError> {
        let metadata = Endpoint::new(metadata, LIMITS, Plain::LinkLocal)?;
        Ok(Self { source: Source::Instance { metadata, kept: Mutex::default() } })
    }

    async fn identity(&self) -> Result<Identity, SigningError> {
        match &self.source {
            Source::Fixed(identity) => Ok(identity.clone()),
            Source::Instance { metadata, kept } => {
                let mut kept = kept.lock().await;
                if let Some((_, identity)) = kept.as_ref().filter(|(since, _)| since.elapsed() < KEPT) {
                    return Ok(identity.clone());
                }
                let identity = of_instance(metadata).await?;
                *kept = Some((Instant::now(), identity.clone()));
                Ok(identity)
            }
        }
    }

    /// Adds to the headers what proves who asks: for a POST of `body` to `url`, which is `service`'s in `region`.
    pub(super) async fn sign(
        &self,
        (service, region): (&str, &str),
        url: &Url,
        headers: &mut HeaderMap,
        (body, now): (&[u8], SystemTime),
    ) -> Result<(), SigningError> {
        let cannot = || SigningError::config("the question to AWS cannot be signed");
        let Identity { key, secret, session } = self.identity().await?;
        let session = session.map(|session| session.expose_secret().to_owned());
        let identity =
            Credentials::new(key.expose_secret(), secret.expose_secret(), session, None, "milestream").into();
        let params = SigningParams::builder()
            .identity(&identity)
            .region(region)
            .name(service)
            .time(now)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| cannot())?
            .into();
        let signed = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new("POST", url.as_str(), signed, SignableBody::Bytes(body));
        let (instructions, _) =
            sign(request.map_err(|_| cannot())?, &params).map_err(|_| cannot())?.into_parts();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| cannot())?;
            let mut value = HeaderValue::from_str(value).map_err(|_| cannot())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }
}

impl fmt::Debug for AwsCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.source {
            Source::Fixed(_) => "AwsCredentials(environment)",
            Source::Instance { .. } => "AwsCredentials(instance)",
        })
    }
}

/// The role's present credentials.
async fn of_instance(metadata: &Endpoint) -> Result<Identity, SigningError> {
    #[derive(Deserialize)]
    #[serde(rename_all = "PascalCase")]
    struct OfRole {
        access_key_id: String,
        secret_access_key: SecretString,
        token: SecretString,
    }
    let ask = async |method: Method, path: &str, header: (&'static str, &str)| {
        let value =
            HeaderValue::from_str(header.1).map_err(|_| SigningError::wrong("no token of the instance"))?;
        let headers = HeaderMap::from_iter([(HeaderName::from_static(header.0), value)]);
        let url = metadata.url.join(path).map_err(|_| SigningError::wrong("no role of the instance"))?;
        let (status, body) = metadata.ask(method, url, headers, Vec::new()).await?;
        if status.is_success() { Ok(body) } else { Err(endpoint::by_status(status)) }
    };
    let text = |body: Vec<u8>| {
        String::from_utf8(body).map_err(|_| SigningError::wrong("no text of the instance's metadata"))
    };
    let ttl = ("x-aws-ec2-metadata-token-ttl-seconds", "60");
    let session = text(ask(Method::PUT, "latest/api/token", ttl).await?)?;
    let with = ("x-aws-ec2-metadata-token", session.trim());
    let roles = text(ask(Method::GET, ROLES, with).await?)?;
    let role = roles.lines().next().map(str::trim).unwrap_or_default();
    if role.is_empty() || role.contains(['/', '?', '#']) {
        return Err(SigningError::config("the instance has no role, and AWS_ACCESS_KEY_ID is not set"));
    }
    let found: OfRole = endpoint::json(&ask(Method::GET, &format!("{ROLES}{role}"), with).await?)?;
    Ok(Identity {
        key: found.access_key_id.into(),
        secret: found.secret_access_key,
        session: Some(found.token),
    })
}
