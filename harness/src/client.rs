//! A client of the gateway, as an app would be.

use std::time::Duration;

use anyhow::{Context as _, Result};
use reqwest::StatusCode;
use reqwest::multipart::{Form, Part};
use rust_decimal::Decimal;
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// An upload as the gateway shows it; decimals are strings.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UploadView {
    /// Its id.
    pub upload_id: Uuid,
    /// `uploaded`, `processing`, `verified`, `rejected` or `failed`.
    pub status: String,
    /// Where it is on its way.
    pub stage: Option<String>,
    /// Verdict, once decided.
    pub verdict: Option<String>,
    /// Reason of a verdict other than verified.
    pub reason: Option<String>,
    /// What the driver can do.
    pub advice: Option<String>,
    /// The mileage.
    pub reading: Option<String>,
    /// Its unit.
    pub unit: Option<String>,
    /// 0.00-1.00.
    pub confidence: Option<String>,
    /// Kilometres since the last verified reading.
    pub distance_km: Option<String>,
    /// The reward.
    pub reward: Option<RewardView>,
    /// Its payment.
    pub payout: Option<PayoutView>,
}

impl UploadView {
    /// Whether a reward is to be expected: a distance other than zero.
    #[must_use]
    pub fn earns(&self) -> bool {
        self.distance_km.as_deref().is_some_and(|km| km.contains(|digit| ('1'..='9').contains(&digit)))
    }
}

impl RewardView {
    /// Whether it is paid, or will not be.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.status.as_deref().is_some_and(|status| ["distributed", "cancelled"].contains(&status))
    }
}

/// A reward as the gateway shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct RewardView {
    /// B3TR.
    pub total: Option<String>,
    /// `calculated`, `pending`, `distributed`, `failed` or `cancelled`.
    pub status: Option<String>,
}

/// A payment as the gateway shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct PayoutView {
    /// Transaction id.
    pub tx_id: Option<String>,
    /// `pending`, `confirmed`, `failed` or `reverted`.
    pub status: Option<String>,
    /// 0-12.
    pub confirmations: Option<i32>,
}

/// What the gateway responded to a photo.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Posted {
    /// 202, or 200 for the same photo again.
    Accepted {
        /// The status.
        status: u16,
        /// The upload.
        upload_id: Uuid,
    },
    /// A problem document.
    Refused {
        /// The status.
        status: u16,
        /// The problem's code.
        code: String,
        /// The problem's detail.
        detail: String,
    },
}

/// A photo with what a driver says of it.
#[derive(Clone, Debug, Default)]
pub struct Photo {
    /// File name.
    pub file_name: String,
    /// What the application says of the file's format; nothing where it is left to the bytes.
    pub media_type: Option<String>,
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The vehicle.
    pub vehicle_id: Option<Uuid>,
    /// Mileage that the driver typed.
    pub claimed_mileage: Option<String>,
    /// `km` or `miles`.
    pub unit: Option<String>,
    /// RFC 3339.
    pub captured_at: Option<String>,
}

/// What waits for a person, as the queue shows it.
#[derive(Clone, Debug, Deserialize)]
pub struct ReviewItem {
    /// The upload.
    pub upload_id: Uuid,
    /// The best reading; none where nothing was read.
    pub reading: Option<Decimal>,
}

/// Talks to one gateway.
#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    base: String,
}

#[derive(Deserialize)]
struct Accepted {
    upload_id: Uuid,
}

#[derive(Deserialize)]
struct Problem {
    #[serde(default)]
    code: String,
    #[serde(default)]
    detail: String,
}

impl Client {
    /// A client of the gateway at `base`.
    ///
    /// # Errors
    /// When no HTTP client can be made.
    pub fn new(base: &str) -> Result<Self> {
        runtime::registry::install_tls();
        let http = reqwest::Client::builder().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { http, base: base.to_owned() })
    }

    /// Posts a photo.
    ///
    /// # Errors
    /// When the photo's media type is none, or the gateway does not respond or responds with what is neither an acceptance nor a problem
    /// document.
    pub async fn post(&self, token: &str, photo: &Photo) -> Result<Posted> {
        let mut file = Part::bytes(photo.bytes.clone()).file_name(photo.file_name.clone());
        if let Some(media_type) = &photo.media_type {
            file = file.mime_str(media_type).context("the photo's media type")?;
        }
        let mut form = Form::new();
        let vehicle = photo.vehicle_id.map(|id| id.to_string());
        let fields = [
            ("vehicle_id", vehicle.as_deref()),
            ("claimed_mileage", photo.claimed_mileage.as_deref()),
            ("unit", photo.unit.as_deref()),
            ("captured_at", photo.captured_at.as_deref()),
        ];
        for (name, value) in fields {
            if let Some(value) = value {
                form = form.text(name, value.to_owned());
            }
        }
        let request = self.http.post(format!("{}/v1/uploads", self.base)).bearer_auth(token);
        let response = request.multipart(form.part("photo", file)).send().await.context("post a photo")?;
        let status = response.status();
        let body = response.bytes().await.context("read the response")?;
        let shown = || String::from_utf8_lossy(&body).into_owned();
        if status.is_success() {
            let accepted: Accepted = serde_json::from_slice(&body).with_context(shown)?;
            return Ok(Posted::Accepted { status: status.as_u16(), upload_id: accepted.upload_id });
        }
        let problem: Problem = serde_json::from_slice(&body).with_context(shown)?;
        Ok(Posted::Refused { status: status.as_u16(), code: problem.code, detail: problem.detail })
    }

    /// What waits for a person.
    ///
    /// # Errors
    /// When the gateway does not respond sensibly.
    pub async fn reviews(&self, token: &str) -> Result<Vec<ReviewItem>> {
        #[derive(Deserialize)]
        struct Page {
            items: Vec<ReviewItem>,
        }
        let request = self.http.get(format!("{}/v1/reviews?limit=100", self.base)).bearer_auth(token);
        let response = request.send().await.context("ask for reviews")?;
        let page: Page = response.error_for_status()?.json().await.context("read a page of reviews")?;
        Ok(page.items)
    }

    /// Asks for a reward to be paid; the status of the response.
    ///
    /// # Errors
    /// When the gateway does not respond.
    pub async fn claim(&self, token: &str, reward: Uuid) -> Result<u16> {
        let request = self.http.post(format!("{}/v1/rewards/{reward}/claim", self.base)).bearer_auth(token);
        Ok(request.send().await.context("claim a reward")?.status().as_u16())
    }

    /// Has a driver's rewards paid without being claimed, or not.
    ///
    /// # Errors
    /// When the gateway does not respond sensibly.
    pub async fn auto_claim(&self, token: &str, on: bool) -> Result<()> {
        let url = format!("{}/v1/preferences", self.base);
        let response = self.http.get(&url).bearer_auth(token).send().await;
        let response =
            response.and_then(reqwest::Response::error_for_status).context("ask for preferences")?;
        let mut preferences: Value = response.json().await.context("read preferences")?;
        preferences["reward_preferences"]["auto_claim"] = on.into();
        let request = self.http.put(&url).bearer_auth(token).body(preferences.to_string());
        let response = request.send().await;
        response.and_then(reqwest::Response::error_for_status).context("change preferences").map(drop)
    }

    /// Decides a review; the status of the response.
    ///
    /// # Errors
    /// When the gateway does not respond.
    pub async fn decide(&self, token: &str, id: Uuid, decision: &Value) -> Result<u16> {
        let request = self.http.post(format!("{}/v1/reviews/{id}", self.base)).bearer_auth(token);
        let response = request.body(decision.to_string()).send().await.context("decide a review")?;
        Ok(response.status().as_u16())
    }

    /// An upload's state; `None` where the gateway does not know it.
    ///
    /// # Errors
    /// When the gateway does not respond sensibly.
    pub async fn upload(&self, token: &str, id: Uuid) -> Result<Option<UploadView>> {
        let request = self.http.get(format!("{}/v1/uploads/{id}", self.base)).bearer_auth(token);
        let response = request.send().await.context("ask for an upload")?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let response = response.error_for_status().context("ask for an upload")?;
        Ok(Some(response.json().await.context("read an upload")?))
    }

    /// Says what a vehicle runs on: `petrol`, `electric`, …; it holds for photos that are accepted from then on.
    ///
    /// # Errors
    /// When the gateway does not respond sensibly.
    pub async fn vehicle_runs_on(&self, token: &str, vehicle: Uuid, kind: &str) -> Result<()> {
        let request = self.http.patch(format!("{}/v1/vehicles/{vehicle}", self.base)).bearer_auth(token);
        let response = request.body(serde_json::json!({ "kind": kind }).to_string()).send().await;
        response.and_then(reqwest::Response::error_for_status).context("change a vehicle").map(drop)
    }

    /// A page that anybody may see: its status, the type of its content, and the text.
    ///
    /// # Errors
    /// When nobody responds there.
    pub async fn page(&self, address: &str) -> Result<(u16, String, String)> {
        let response = self.http.get(address).send().await.context("ask for a page")?;
        let kind = response.headers().get("content-type").and_then(|value| value.to_str().ok());
        let (status, kind) = (response.status().as_u16(), kind.unwrap_or_default().to_owned());
        Ok((status, kind, response.text().await.context("read a page")?))
    }
}
