//! What is kept of payments outside of the database, on `payouts.guard`: each transaction before it is signed, and up to which final
//! block the books were held against the chain. A database that was set back cannot know by itself that it was.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use runtime::producer::{Message, Outbound, send_and_wait};
use runtime::registry::SchemaSource;
use runtime::snapshot::SnapshotError;
use runtime::source::RawRecord;
use runtime::{Clock, FromRecord, StageError};
use schemas::codec::{self, RecordSchema};
use schemas::events::{Event, PaymentsAudited, SignatureAnnounced};
use schemas::ids::{EventId, natural};
use tokio::time::timeout;

/// Longest wait for Kafka to take a record: shorter than the life of the lease, under which it is awaited.
pub const SEND: Duration = Duration::from_secs(5);

/// Reads every record of a topic up to its present end. Blocks.
pub type ReadTopic = dyn Fn(&str) -> Result<Vec<RawRecord>, SnapshotError> + Send + Sync;

/// The topic.
#[derive(Clone)]
pub struct GuardTopic {
    /// Takes records.
    pub outbound: Arc<dyn Outbound>,
    /// Reads the topic.
    pub read: Arc<ReadTopic>,
    /// By which records are read.
    pub schemas: Arc<dyn SchemaSource>,
    /// The topic's name, with the environment's prefix.
    pub topic: String,
    /// Registry id of [`SignatureAnnounced`].
    pub signature_announced: u32,
    /// Registry id of [`PaymentsAudited`].
    pub payments_audited: u32,
}

/// The topic's content about one network. Which distributor signed makes no difference to what may still be paid: the key may have been
/// changed since.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Guarded {
    /// How far the books were held against the chain, whoever paid; none before the first time.
    pub checkpoint: Option<Checkpoint>,
    /// Transactions that were announced and may not be final or dead, with their last valid blocks.
    pub announced: BTreeMap<String, i64>,
    /// Distributors of this deployment, the present one and earlier ones.
    pub signers: BTreeSet<String>,
}

/// How far the books were held against the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// The block after which the first payment was made.
    pub began_at: u32,
    /// The books hold every payment up to this block.
    pub checked_upto: u32,
}

/// Whose records are meant.
#[derive(Clone, Copy, Debug)]
pub struct Payer<'a> {
    /// The network.
    pub genesis_id: &'a str,
    /// The distributor.
    pub signer: &'a str,
}

impl GuardTopic {
    /// Reads what the topic says of a network, to its end.
    ///
    /// # Errors
    /// Kafka's, the registry's, or of a record that does not decode.
    pub async fn load(&self, genesis_id: &str) -> Result<Guarded, StageError> {
        let (read, topic) = (self.read.clone(), self.topic.clone());
        let records = tokio::task::spawn_blocking(move || read(&topic))
            .await
            .map_err(|error| StageError::new("read", error))?
            .map_err(|error| StageError::new("read", error))?;
        // The newest of each key: a topic is compacted late.
        let newest: HashMap<Option<Vec<u8>>, Option<Vec<u8>>> =
            records.into_iter().map(|record| (record.key, record.payload)).collect();
        let mut guarded = Guarded::default();
        for payload in newest.into_values().flatten() {
            let (id, datum) = codec::unframe(&payload).map_err(|error| StageError::new("read", error))?;
            let schema = self.schemas.schema(id).await.map_err(|error| StageError::new("schema", error))?;
            guarded.take(genesis_id, &schema, id, datum)?;
        }
        Ok(guarded)
    }

    /// Announces a signature; returns once Kafka has acknowledged it.
    ///
    /// # Errors
    /// Kafka's: nothing may be signed then.
    pub async fn announce(
        &self,
        payer: Payer<'_>,
        clock: &dyn Clock,
        (tx_id, last_valid): (&str, i64),
    ) -> Result<(), StageError> {
        let event = SignatureAnnounced {
            event_id: EventId(natural(&format!("signature_announced/{tx_id}"))),
            occurred_at: clock.now(),
            genesis_id: payer.genesis_id.to_owned(),
            signer: payer.signer.to_owned(),
            tx_id: tx_id.to_owned(),
            last_valid,
        };
        self.publish(self.signature_announced, &event).await
    }

    /// Publishes how far the books were held against the chain.
    ///
    /// # Errors
    /// Kafka's.
    pub async fn audited(
        &self,
        payer: Payer<'_>,
        clock: &dyn Clock,
        checkpoint: Checkpoint,
    ) -> Result<(), StageError> {
        let Payer { genesis_id, signer } = payer;
        let event = PaymentsAudited {
            event_id: EventId(natural(&format!(
                "payments_audited/{genesis_id}/{signer}/{}",
                checkpoint.checked_upto
            ))),
            occurred_at: clock.now(),
            genesis_id: genesis_id.to_owned(),
            signer: signer.to_owned(),
            began_at: checkpoint.began_at.into(),
            checked_upto: checkpoint.checked_upto.into(),
        };
        self.publish(self.payments_audited, &event).await
    }

    /// Forgets transactions that are final or dead.
    ///
    /// # Errors
    /// Kafka's.
    pub async fn forget(&self, tx_ids: &[String]) -> Result<(), StageError> {
        for id in tx_ids {
            self.send(id.as_bytes(), None).await?;
        }
        Ok(())
    }

    async fn publish<E: Event>(&self, schema: u32, event: &E) -> Result<(), StageError> {
        let payload = codec::encode(schema, event).map_err(|error| StageError::new("encode", error))?;
        self.send(event.key().as_bytes(), Some(&payload)).await
    }

    async fn send(&self, key: &[u8], payload: Option<&[u8]>) -> Result<(), StageError> {
        let message = Message { topic: &self.topic, key: Some(key), payload, headers: &[] };
        // While its client is built anew, the producer takes nothing.
        let sent = timeout(SEND, send_and_wait(self.outbound.as_ref(), &message)).await;
        let sent = sent.map_err(|error| StageError::new("publish", error))?;
        sent.map(drop).map_err(|error| StageError::new("publish", error))
    }
}

impl Guarded {
    fn take(
        &mut self,
        genesis_id: &str,
        schema: &RecordSchema,
        id: u32,
        datum: &[u8],
    ) -> Result<(), StageError> {
        let wrong = |error| StageError::new("read", error);
        match schema.name() {
            SignatureAnnounced::NAME => {
                let Some(event) = SignatureAnnounced::from_record(schema, id, datum) else { return Ok(()) };
                let event = event.map_err(wrong)?;
                if event.genesis_id == genesis_id {
                    self.announced.insert(event.tx_id, event.last_valid);
                    self.signers.insert(event.signer);
                }
            }
            PaymentsAudited::NAME => {
                let Some(event) = PaymentsAudited::from_record(schema, id, datum) else { return Ok(()) };
                let event = event.map_err(wrong)?;
                if event.genesis_id == genesis_id {
                    let height = |number| u32::try_from(number).unwrap_or(0);
                    let (began_at, checked_upto) = (height(event.began_at), height(event.checked_upto));
                    let before = self.checkpoint.unwrap_or(Checkpoint { began_at, checked_upto });
                    self.checkpoint = Some(Checkpoint {
                        began_at: before.began_at.min(began_at),
                        checked_upto: before.checked_upto.max(checked_upto),
                    });
                    self.signers.insert(event.signer);
                }
            }
            // Of a later release, which knows what to do with it.
            _ => {}
        }
        Ok(())
    }
}
