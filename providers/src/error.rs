//! Why a call brought no answer.

use std::borrow::Cow;

use schemas::events::Fault;

/// Why a call brought no answer. The text holds neither address nor key nor anything that the service said.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No answer in time.
    #[error("no answer within {0} ms")]
    Timeout(u128),
    /// Another service answered first, and this one was not waited for.
    #[error("not waited for: another service answered first")]
    Abandoned,
    /// The service's quota is used up, or our own budget for it.
    #[error("{0}")]
    RateLimited(&'static str),
    /// The service does not know our key, or does not allow it this call.
    #[error("the service refuses our credentials")]
    Unauthorized,
    /// The service failed too often just now and is left alone.
    #[error("the service failed {0} times in a row and is left alone for a while")]
    CircuitOpen(u32),
    /// An answer that does not say what it should.
    #[error("{0}")]
    BadResponse(&'static str),
    /// Another HTTP status than success.
    #[error("HTTP status {0}")]
    Http(u16),
    /// No connection, or a fault of ours.
    #[error("{0}")]
    Internal(&'static str),
    /// The photo cannot be decoded: no service can help.
    #[error("{}", .0.detail)]
    Photo(Fault),
}

impl CallError {
    /// The code in `ai_service_logs.error_code`.
    #[must_use]
    pub fn code(&self) -> Cow<'static, str> {
        match self {
            Self::Timeout(_) | Self::Abandoned => "timeout".into(),
            Self::RateLimited(_) => "rate_limited".into(),
            Self::Unauthorized => "unauthorized".into(),
            Self::CircuitOpen(_) => "circuit_open".into(),
            Self::BadResponse(_) => "bad_response".into(),
            Self::Http(status) => format!("http_{status}").into(),
            Self::Internal(_) | Self::Photo(_) => "internal".into(),
        }
    }

    /// Whether the service may charge for such a call: it worked, or may have, and only its answer is of no use.
    #[must_use]
    pub fn may_cost(&self) -> bool {
        matches!(self, Self::Timeout(_) | Self::Abandoned | Self::BadResponse(_))
    }

    /// Whether it speaks against the service. Being left behind, a full budget of ours and a broken photo do not.
    #[must_use]
    pub fn blames_service(&self) -> bool {
        !matches!(self, Self::Abandoned | Self::CircuitOpen(_) | Self::Photo(_))
    }
}
