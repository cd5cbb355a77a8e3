//! What the sink reads, and what of it is told.

use runtime::FromRecord;
use schemas::codec::{self, CodecError, RecordSchema};
use schemas::events::{ActivityLogged, Event as _, PayoutState, PayoutUpdated, UploadDecided, Verdict};
use schemas::ids::{Micros, natural};
use serde_json::{Value, json};
use uuid::Uuid;

/// Low events are left out: anybody who tries to sign in as somebody else would have them written to.
const TOLD: [&str; 3] = ["medium", "high", "critical"];

/// The record types of `uploads.decided`, `payouts.updated` and `activity.logs`.
#[derive(Clone, Debug)]
pub enum NoticeEvent {
    /// An upload was decided, or put before a person.
    Decided(Box<UploadDecided>),
    /// A payout has changed.
    Paid(Box<PayoutUpdated>),
    /// A document for a log collection.
    Logged(Box<ActivityLogged>),
}

impl FromRecord for NoticeEvent {
    fn from_record(schema: &RecordSchema, id: u32, datum: &[u8]) -> Option<Result<Self, CodecError>> {
        match schema.name() {
            UploadDecided::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Decided(Box::new(event))))
            }
            PayoutUpdated::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Paid(Box::new(event))))
            }
            ActivityLogged::NAME => {
                Some(codec::decode(schema, id, datum).map(|event| Self::Logged(Box::new(event))))
            }
            _ => None,
        }
    }
}

/// Something that is told.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Told {
    /// The same for the same happening, whatever is read again.
    pub key: Uuid,
    /// Whose it is.
    pub user: Uuid,
    pub kind: &'static str,
    pub document: Value,
    pub occurred_at: Micros,
}

impl NoticeEvent {
    /// What is told of it; none where nothing is.
    pub(super) fn told(&self) -> Option<Told> {
        match self {
            Self::Decided(event) => {
                let header = &event.header;
                let settled = event.verdict != Verdict::Review;
                let document = if settled {
                    json!({ "upload_id": header.upload_id, "verdict": event.verdict, "reason": event.reason })
                } else {
                    json!({ "upload_id": header.upload_id })
                };
                Some(Told {
                    key: header.event_id.0,
                    user: header.user_id.0,
                    kind: if settled { "upload_settled" } else { "review_needed" },
                    document,
                    occurred_at: header.occurred_at,
                })
            }
            // A block that is undone and comes again pays the same reward: it is told once.
            Self::Paid(event) if event.state == PayoutState::Paid => Some(Told {
                key: natural(&format!("reward_paid/{}", event.reward_id)),
                user: event.header.user_id.0,
                kind: "reward_paid",
                document: json!({
                    "upload_id": event.header.upload_id,
                    "reward_id": event.reward_id,
                    "amount": event.amount.normalize().to_string(),
                    "tx_id": event.transaction.as_ref().map(|transaction| &transaction.tx_id),
                }),
                occurred_at: event.header.occurred_at,
            }),
            // What is told once before, and once after.
            Self::Paid(event) => {
                let (code, said) = event.reason.as_deref()?.split_once(": ")?;
                let kind = match (event.state, code) {
                    (PayoutState::Waiting, "claim_expires") => "reward_expiring",
                    (PayoutState::Cancelled, "claim_expired") => "reward_expired",
                    _ => return None,
                };
                Some(Told {
                    key: natural(&format!("{kind}/{}", event.reward_id)),
                    user: event.header.user_id.0,
                    kind,
                    document: json!({
                        "upload_id": event.header.upload_id,
                        "reward_id": event.reward_id,
                        "amount": event.amount.normalize().to_string(),
                        "detail": said,
                    }),
                    occurred_at: event.header.occurred_at,
                })
            }
            Self::Logged(event) if event.collection == "security_events" => {
                let document: Value = serde_json::from_str(&event.document).ok()?;
                let user = document["user_id"].as_str()?.parse().ok()?;
                let severity = document["severity"].as_str().filter(|severity| TOLD.contains(severity))?;
                Some(Told {
                    key: natural(&format!("security_event/{}/{}", event.event_id, event.ordinal)),
                    user,
                    kind: "security_event",
                    document: json!({ "event_type": document["event_type"], "severity": severity }),
                    occurred_at: event.occurred_at,
                })
            }
            Self::Logged(_) => None,
        }
    }
}
