//! What is recorded of attempts: `auth_logs`, and `security_events` for what somebody should look at.

use std::net::IpAddr;

use chain::Address;
use schemas::events::ActivityLogged;
use schemas::ids::{EventId, Micros, UserId};
use schemas::logs::{AuthLog, LogDocument as _, SecurityEvent};
use serde_json::{Value, json};
use uuid::Uuid;

use super::challenge::Challenge;
use crate::auth::admission::Caller;
use crate::http::problem::{
    ACCOUNT_LOCKED, ApiError, CHALLENGE_EXPIRED, CHALLENGE_USED, INTERNAL, REFRESH_INVALID, REFRESH_REUSED,
    SIGNATURE_REFUSED, STALE_CERTIFICATE, WRONG_DOMAIN,
};
use crate::http::request_id;

/// Who did something, and from where, as far as it is known.
#[derive(Clone, Debug)]
pub(crate) struct Trace {
    pub(crate) action: &'static str,
    pub(crate) user: Option<UserId>,
    pub(crate) wallet: Option<Address>,
    pub(crate) address: IpAddr,
    pub(crate) agent: Option<String>,
    /// Milliseconds of a session that ends.
    pub(crate) session_duration: Option<i64>,
    pub(crate) metadata: Value,
}

impl Trace {
    pub(crate) fn new(action: &'static str, address: IpAddr, agent: Option<String>) -> Self {
        let metadata = json!({ "request_id": request_id::current() });
        Self { action, user: None, wallet: None, address, agent, session_duration: None, metadata }
    }

    /// Of somebody who is signed in.
    pub(crate) fn by(caller: &Caller, action: &'static str, agent: Option<String>) -> Self {
        let mut trace =
            Self::new(action, caller.address, agent).with("session_id", caller.session.to_string());
        trace.user = Some(caller.user);
        trace
    }

    /// Adds to the metadata.
    pub(crate) fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.metadata[name] = value.into();
        self
    }

    /// Of an attempt with this challenge, where it is one.
    pub(super) fn about(mut self, challenge: Option<&Challenge>) -> Self {
        let Some(challenge) = challenge else { return self };
        self.wallet = Some(challenge.wallet);
        self.with("challenge_id", challenge.id.to_string())
    }

    /// Of a session that ends since a login is one more than a user has.
    pub(super) fn made_room(&self, session: Uuid) -> Self {
        let revoked = Self { action: "session_revoke", ..self.clone() };
        revoked.with("session_id", session.to_string()).with("cause", "too_many")
    }

    /// The document of what succeeded, or of why it did not.
    pub(crate) fn log(&self, error_message: Option<String>) -> AuthLog {
        AuthLog {
            user_id: self.user.map(|user| user.to_string()),
            action: self.action.to_owned(),
            wallet_address: self.wallet.map(|wallet| wallet.to_string()),
            ip_address: Some(self.address.to_string()),
            user_agent: self.agent.clone(),
            success: error_message.is_none(),
            error_message,
            session_duration: self.session_duration,
            metadata: self.metadata.clone(),
        }
    }

    /// The record of what succeeded, for the outbox.
    pub(crate) fn success(&self, now: Micros) -> Result<ActivityLogged, ApiError> {
        let record = self.log(None).activity(EventId(Uuid::now_v7()), 0, now);
        record.map_err(|error| INTERNAL.caused_by(error))
    }

    /// A document for those who watch over security.
    pub(crate) fn event(&self, event_type: &'static str, severity: &'static str) -> SecurityEvent {
        SecurityEvent {
            user_id: self.user.map(|user| user.to_string()),
            event_type: event_type.to_owned(),
            severity: severity.to_owned(),
            ip_address: Some(self.address.to_string()),
            location_data: location(self.address),
            device_info: device(self.agent.as_deref().unwrap_or_default()),
            resolved: false,
            admin_notes: None,
        }
    }
}

/// `error_message` of an attempt that was refused: `code: sentence`; none where it was our own fault or no attempt at all.
pub(crate) fn error_message(error: &ApiError) -> Option<String> {
    let code = match error.problem() {
        SIGNATURE_REFUSED => "bad_signature",
        WRONG_DOMAIN => "wrong_domain",
        CHALLENGE_EXPIRED | STALE_CERTIFICATE => "challenge_expired",
        CHALLENGE_USED => "challenge_used",
        REFRESH_INVALID => "token_invalid",
        REFRESH_REUSED => "token_reused",
        ACCOUNT_LOCKED => "locked",
        _ => return None,
    };
    Some(format!("{code}: {error}"))
}

/// Where an address is: no database of places is asked.
fn location(address: IpAddr) -> Value {
    let private = match address.to_canonical() {
        IpAddr::V4(v4) => v4.is_private() || v4.is_loopback() || v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_loopback() || v6.is_unique_local() || v6.is_unicast_link_local(),
    };
    let source = if private { "private" } else { "unknown" };
    json!({ "country": null, "city": null, "coordinates": null, "source": source })
}

/// Names that stand in a `User-Agent`, and what they mean; the first that is found counts, since later ones claim to be earlier ones.
const BROWSERS: [(&str, &str); 6] = [
    ("Edg", "Edge"),
    ("OPR/", "Opera"),
    ("Firefox/", "Firefox"),
    ("Chrome/", "Chrome"),
    ("Safari/", "Safari"),
    ("curl/", "curl"),
];
const SYSTEMS: [(&str, &str); 6] = [
    ("Android", "Android"),
    ("iPhone", "iOS"),
    ("iPad", "iPadOS"),
    ("Windows", "Windows"),
    ("Mac OS", "macOS"),
    ("Linux", "Linux"),
];
const KINDS: [(&str, &str); 8] = [
    ("bot", "bot"),
    ("curl/", "bot"),
    ("iPad", "tablet"),
    ("Tablet", "tablet"),
    ("Mobi", "mobile"),
    ("Windows", "desktop"),
    ("Mac OS", "desktop"),
    ("Linux", "desktop"),
];

/// What a `User-Agent` says of itself.
fn device(agent: &str) -> Value {
    let named = |names: &[(&str, &'static str)]| {
        names.iter().find(|(part, _)| agent.contains(part)).map_or("unknown", |(_, name)| *name)
    };
    json!({ "browser": named(&BROWSERS), "os": named(&SYSTEMS), "device_type": named(&KINDS) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_is_what_its_agent_says() {
        let phone = "Mozilla/5.0 (Linux; Android 14) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0 Mobile Safari/537.36";
        assert_eq!(device(phone), json!({ "browser": "Chrome", "os": "Android", "device_type": "mobile" }));
        assert_eq!(device(""), json!({ "browser": "unknown", "os": "unknown", "device_type": "unknown" }));
        assert_eq!(device("curl/8.0")["device_type"], "bot");
    }

    #[test]
    fn an_address_of_our_own_house_is_private() {
        let source = |text: &str| location(text.parse().unwrap())["source"].clone();
        assert_eq!(
            (source("10.0.0.1"), source("::1"), source("203.0.113.1")),
            (json!("private"), json!("private"), json!("unknown"))
        );
    }
}
