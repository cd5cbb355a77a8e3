//! Publishes what a batch has decided: together, and one by one where Kafka refuses one of them.

use std::sync::Arc;

use schemas::reason::Reason;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::DecidingWorker;
use crate::failpoint::{self, Step};
use crate::fence::Fence;
use crate::ledger::Ledger;
use crate::producer::Ack;
use crate::publish::{Delivered, PublishError};
use crate::source::RawRecord;
use crate::stage::{Decider, Position};
use crate::stored::{StoredRecord, unpack};
use crate::worker::{Halt, Retrying};

impl<D: Decider> DecidingWorker<D> {
    /// Publishes the stored outputs of records that were decided before.
    pub(super) async fn republish(
        &self,
        fence: &Fence,
        records: &[RawRecord],
        stop: &CancellationToken,
    ) -> Result<(), Halt> {
        let Some(first) = records.first() else { return Ok(()) };
        let offsets: Vec<i64> = records.iter().map(|record| record.position.offset).collect();
        let mut retrying = Retrying::new(&first.position, stop);
        let outputs = loop {
            match fence.outputs(&self.pool, &offsets).await {
                Ok(outputs) => break outputs,
                Err(error) => self.context.retry(&mut retrying, "postgres", &error).await?,
            }
        };
        let stored = offsets
            .iter()
            .map(|offset| {
                outputs.get(offset).map(Vec::as_slice).ok_or_else(|| {
                    Halt::Operator(format!(
                        "offset {offset} lies below decided_upto but has no stored outcome"
                    ))
                })
            })
            .collect::<Result<Vec<_>, _>>()?;
        for _ in &stored {
            self.context.outcome("republish", "none");
        }
        self.publish(stored.into_iter()).await?;
        failpoint::at(Step::DecideRepublished);
        Ok(())
    }

    pub(super) async fn publish(&self, outputs: impl Iterator<Item = &[u8]>) -> Result<(), Halt> {
        let records = outputs
            .map(|output| unpack(output).map_err(|error| Halt::Operator(format!("stored output: {error}"))))
            .collect::<Result<Vec<_>, _>>()?;
        match self.publish_together(&records).await {
            Ok(()) => Ok(()),
            Err(PublishError::Refused(_)) => self.publish_one_by_one(records.into_iter().flatten()).await,
            Err(error) => Err(error.into()),
        }
    }

    async fn publish_together(&self, outputs: &[Vec<StoredRecord>]) -> Result<(), PublishError> {
        let ledger = Arc::new(Ledger::starting_at(0));
        for (offset, records) in (0..).zip(outputs) {
            ledger.begin(offset, records.len());
            for record in records {
                let ack = Ack::Ledger(ledger.clone(), offset);
                record.send(self.context.outbound.as_ref(), ack).await?;
            }
        }
        failpoint::at(Step::DecideSent);
        ledger.at_most_in_flight(0).await.map_err(|(_, error)| error)
    }

    /// Publishes each for itself; one that Kafka refuses for good, e.g. as too large, becomes a dead letter.
    async fn publish_one_by_one(&self, records: impl Iterator<Item = StoredRecord>) -> Result<(), Halt> {
        for record in records {
            let (sender, receiver) = oneshot::channel();
            let sent = record.send(self.context.outbound.as_ref(), Ack::Waiter(sender)).await;
            match acknowledged(sent, receiver).await {
                Ok(()) => {}
                Err(PublishError::Refused(detail)) => {
                    let refused = RawRecord {
                        // It has no place: it was never on its topic.
                        position: Position { topic: record.topic.into(), partition: -1, offset: -1 },
                        key: record.key,
                        payload: record.payload,
                        headers: record.headers,
                        timestamp_ms: -1,
                    };
                    let (sender, receiver) = oneshot::channel();
                    let sent = self
                        .context
                        .dead_letter(&refused, Reason::ProcessingFailed, &detail, Ack::Waiter(sender))
                        .await;
                    sent?;
                    acknowledged(Ok(()), receiver).await?;
                }
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }
}

async fn acknowledged(
    sent: Result<(), PublishError>,
    receiver: oneshot::Receiver<Result<Delivered, PublishError>>,
) -> Result<(), PublishError> {
    sent?;
    let acknowledged =
        receiver.await.unwrap_or_else(|_| Err(PublishError::Fatal("the producer is gone".into())));
    acknowledged.map(drop)
}
