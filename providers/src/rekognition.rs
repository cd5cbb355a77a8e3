//! Amazon Rekognition, `DetectText` over JSON 1.1, signed with Signature Version 4
//! (<https://docs.aws.amazon.com/rekognition/latest/APIReference/API_DetectText.html>).

use std::time::{Duration, UNIX_EPOCH};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4::SigningParams;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reading::{Line, Role};
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use schemas::ids::Micros;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::json;
use url::Url;

use crate::call::{Answer, Request, parse, plain, refusal as by_status, share};
use crate::{CallError, ConfigError, Sent};

const TARGET: &str = "RekognitionService.DetectText";
const JSON_1_1: &str = "application/x-amz-json-1.1";

/// Signs requests to one region.
pub(crate) struct Signer {
    region: String,
    key: SecretString,
    secret: SecretString,
}

impl Signer {
    /// For the region that the address names.
    pub fn new(url: &Url, key: SecretString, secret: SecretString) -> Result<Self, ConfigError> {
        Ok(Self { region: region(url)?, key, secret })
    }

    /// Adds what proves that the request is ours.
    fn sign(&self, url: &Url, headers: &mut HeaderMap, body: &[u8], now: Micros) -> Result<(), CallError> {
        let unsigned = |_| CallError::Internal("the request cannot be signed");
        let (key, secret) = (self.key.expose_secret(), self.secret.expose_secret());
        let identity = Credentials::new(key, secret, None, None, "ai_service_configs").into();
        let seconds = Duration::from_micros(u64::try_from(now.0).unwrap_or_default());
        let params = SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name("rekognition")
            .time(UNIX_EPOCH + seconds)
            .settings(SigningSettings::default())
            .build()
            .map_err(|_| CallError::Internal("the request cannot be signed"))?
            .into();
        let signed = headers.iter().filter_map(|(name, value)| Some((name.as_str(), value.to_str().ok()?)));
        let request = SignableRequest::new("POST", url.as_str(), signed, SignableBody::Bytes(body))
            .map_err(unsigned)?;
        let (instructions, _) = sign(request, &params).map_err(unsigned)?.into_parts();
        for (name, value) in instructions.headers() {
            let name = HeaderName::from_bytes(name.as_bytes());
            let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_str(value)) else {
                return Err(CallError::Internal("the request cannot be signed"));
            };
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(())
    }
}

/// The region behind `rekognition` in a host name: `rekognition.eu-central-1.amazonaws.com`, also through a private endpoint. A host
/// of this machine is no region's.
fn region(url: &Url) -> Result<String, ConfigError> {
    let host = url.host_str().unwrap_or_default();
    let mut labels = host.split('.').skip_while(|label| !label.starts_with("rekognition"));
    match (labels.next(), labels.next()) {
        (Some(_), Some(region)) => Ok(region.to_owned()),
        _ if url.scheme() == "http" => Ok("us-east-1".to_owned()),
        _ => Err(ConfigError::Endpoint("names no region: write https://rekognition.REGION.amazonaws.com/")),
    }
}

/// The signed request.
pub(crate) fn request(sent: &Sent, signer: &Signer, url: &Url, now: Micros) -> Result<Request, CallError> {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON_1_1));
    headers.insert(HeaderName::from_static("x-amz-target"), HeaderValue::from_static(TARGET));
    let body = json!({"Image": {"Bytes": STANDARD.encode(&sent.jpeg.bytes)}}).to_string().into_bytes();
    signer.sign(url, &mut headers, &body, now)?;
    Ok(Request { headers, body })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detected {
    text_detections: Vec<Detection>,
    text_model_version: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Detection {
    detected_text: String,
    r#type: String,
    /// Percent.
    confidence: f32,
    geometry: Geometry,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Geometry {
    polygon: Vec<Point>,
}

/// Shares of width and height.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Point {
    x: f32,
    y: f32,
}

/// The lines of an answer; its words are parts of them.
pub(crate) fn answer(body: &[u8]) -> Result<Answer, CallError> {
    let detected: Detected = parse(body)?;
    let mut lines = Vec::new();
    for detection in detected.text_detections.into_iter().filter(|detection| detection.r#type == "LINE") {
        let points: Vec<_> =
            detection.geometry.polygon.iter().filter_map(|point| share(point.x, point.y)).collect();
        let quad =
            points.try_into().map_err(|_| CallError::BadResponse("a line's box has not four corners"))?;
        let confidence = detection.confidence / 100.0;
        lines.push(Line { quad, text: detection.detected_text, confidence, role: Role::Other });
    }
    let version = detected.text_model_version.as_deref().map(plain).unwrap_or_default();
    Ok(Answer { lines, model: format!("rekognition_text@{version}") })
}

/// What an error answer says: most come with status 400 and their name in `__type`, at times behind a `#`.
pub(crate) fn refusal(status: StatusCode, body: &[u8]) -> CallError {
    #[derive(Deserialize)]
    struct Exception {
        #[serde(rename = "__type")]
        name: String,
    }
    let name = parse::<Exception>(body).map(|exception| exception.name).unwrap_or_default();
    match name.rsplit('#').next().unwrap_or_default() {
        "ThrottlingException" | "ProvisionedThroughputExceededException" | "LimitExceededException" => {
            CallError::RateLimited("the service's quota is used up")
        }
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidSignatureException"
        | "IncompleteSignatureException"
        | "MissingAuthenticationTokenException"
        | "ExpiredTokenException" => CallError::Unauthorized,
        _ => by_status(status),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_region_stands_behind_the_services_name() {
        let of = |url: &str| region(&Url::parse(url).unwrap());
        assert_eq!(of("https://rekognition.eu-central-1.amazonaws.com/").unwrap(), "eu-central-1");
        assert_eq!(of("https://rekognition-fips.us-east-2.amazonaws.com/").unwrap(), "us-east-2");
        assert_eq!(of("https://vpce-1-x.rekognition.us-west-2.vpce.amazonaws.com/").unwrap(), "us-west-2");
        assert_eq!(of("http://127.0.0.1:9/").unwrap(), "us-east-1");
        assert!(of("https://proxy.example/").is_err());
    }

    #[test]
    fn errors_are_known_by_their_name() {
        let of = |status: u16, name: &str| {
            let body = json!({"__type": name, "Message": "m"}).to_string();
            refusal(StatusCode::from_u16(status).unwrap(), body.as_bytes()).code().into_owned()
        };
        assert_eq!(of(400, "ThrottlingException"), "rate_limited");
        assert_eq!(
            of(400, "com.amazonaws.rekognition#ProvisionedThroughputExceededException"),
            "rate_limited"
        );
        assert_eq!(of(400, "UnrecognizedClientException"), "unauthorized");
        assert_eq!(of(400, "InvalidImageFormatException"), "http_400");
        assert_eq!(of(500, "InternalServerError"), "http_500");
        assert_eq!(refusal(StatusCode::BAD_GATEWAY, b"<html>").code(), "http_502");
    }
}
