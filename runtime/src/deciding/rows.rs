//! The rows of `decisions` that a batch stores, each with the records that are published from it.

use schemas::codec;
use schemas::events::Event;
use schemas::ids;
use schemas::reason::Reason;
use uuid::Uuid;

use super::DecidingWorker;
use crate::dead_letter;
use crate::fence::Stored;
use crate::producer::Message;
use crate::source::RawRecord;
use crate::stage::{Decided, Decider, Decision, Envelope};
use crate::stored::pack;
use crate::worker::{Halt, TRACEPARENT};

impl<D: Decider> DecidingWorker<D> {
    pub(super) fn stored_decision(
        &self,
        record: &RawRecord,
        event: &Envelope<D::In>,
        decision: Decision<D::Out>,
    ) -> Result<Stored, Halt> {
        let mut output = Vec::new();
        let trace = [(TRACEPARENT, event.traceparent.as_deref().map(str::as_bytes))];
        let headers = if event.traceparent.is_some() { &trace[..] } else { &[] };
        if let Ok(out) = &decision.outcome {
            let payload = codec::encode(self.output_schema, out)
                .map_err(|error| Halt::Operator(format!("output of {}: {error}", D::NAME)))?;
            let key = out.key();
            pack(
                &mut output,
                &Message { topic: &self.output, key: Some(key.as_bytes()), payload: Some(&payload), headers },
            );
        }
        for log in &decision.logs {
            if let Some(payload) = self.context.encode_log(log) {
                let key = log.key();
                let topic = &self.context.activity_logs;
                pack(
                    &mut output,
                    &Message { topic, key: Some(key.as_bytes()), payload: Some(&payload), headers },
                );
            }
        }
        Ok(stored(key_of(event), record.position.offset, decision, output))
    }

    pub(super) fn stored_dead_letter(&self, record: &RawRecord, reason: Reason, detail: &str) -> Stored {
        let headers = dead_letter::headers(record, D::NAME, reason, detail, self.context.clock.now());
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_deref())).collect();
        let mut output = Vec::new();
        pack(
            &mut output,
            &Message {
                topic: &self.context.dead_letters,
                key: record.key.as_deref(),
                payload: record
                    .payload
                    .as_deref()
                    .map(|bytes| &bytes[..bytes.len().min(dead_letter::PAYLOAD_MAX)]),
                headers: &headers,
            },
        );
        Stored { outcome: "dead_letter", reason: Some(reason.label()), output, ..stored_repeat(record) }
    }
}

/// A decision about the record at an offset, with what is published of it.
pub(crate) fn stored<O>(
    (input_event_id, redrive): (Uuid, i32),
    offset: i64,
    decision: Decision<O>,
    output: Vec<u8>,
) -> Stored {
    let dropped = decision.outcome.err();
    Stored {
        input_event_id,
        redrive,
        effect_id: decision.effect_id,
        offset,
        outcome: if dropped.is_some() { "drop" } else { "emit" },
        reason: dropped.or(decision.reason).map(Reason::label),
        rules_version: decision.rules_version,
        evidence: decision.evidence,
        output,
    }
}

/// A record whose event was decided before, under another offset: nothing is published, but its position is accounted for.
pub(crate) fn stored_repeat(record: &RawRecord) -> Stored {
    let position = &record.position;
    Stored {
        input_event_id: ids::natural(&format!(
            "{}/{}/{}",
            position.topic, position.partition, position.offset
        )),
        redrive: 0,
        effect_id: None,
        offset: position.offset,
        outcome: "drop",
        reason: Some(Reason::DuplicateEvent.label()),
        rules_version: String::new(),
        evidence: serde_json::Value::Null,
        output: Vec::new(),
    }
}

/// What a decision is unique by.
pub(crate) fn key_of<E: Decided>(event: &Envelope<E>) -> (Uuid, i32) {
    (event.payload.id().0, i32::try_from(event.redrive).unwrap_or(i32::MAX))
}
