//! The topics of a shadow: what a replay has decided, as the stages would have published it.

use std::sync::Arc;

use runtime::StageError;
use runtime::producer::{Ack, Message, Outbound, send};
use schemas::codec;
use schemas::events::{Event, RewardCalculated, RewardGranted, UploadDecided};
use schemas::topic::Topic;
use tokio::sync::oneshot;

use super::items::Led;

/// The topics that a replay writes to.
pub const TOPICS: [Topic; 3] = [UploadDecided::TOPIC, RewardCalculated::TOPIC, RewardGranted::TOPIC];

/// Publishes to a shadow's topics.
pub struct Publisher {
    /// Where to.
    pub outbound: Arc<dyn Outbound>,
    /// In front of the topics' names: the shadow's own.
    pub prefix: String,
    /// Schema ids of decisions, calculations and grants.
    pub schemas: [u32; 3],
}

impl Publisher {
    /// Publishes what a batch has led to, in order, and waits until Kafka has it. A batch that is repeated publishes the same event ids
    /// again.
    ///
    /// # Errors
    /// [`StageError`].
    pub(super) async fn publish<'a>(&self, led: impl Iterator<Item = &'a Led>) -> Result<(), StageError> {
        let mut waiting = Vec::new();
        let [decided, calculated, granted] = self.schemas;
        for led in led {
            waiting.extend(self.send(decided, led.decided.as_ref()).await?);
            waiting.extend(self.send(calculated, led.calculated.as_ref()).await?);
            waiting.extend(self.send(granted, led.granted.as_ref()).await?);
        }
        for acknowledged in waiting {
            let acknowledged = acknowledged.await.map_err(failed)?;
            acknowledged.map_err(failed)?;
        }
        Ok(())
    }

    async fn send<E: Event>(
        &self,
        schema: u32,
        event: Option<&E>,
    ) -> Result<Option<oneshot::Receiver<Acknowledged>>, StageError> {
        let Some(event) = event else { return Ok(None) };
        let topic = format!("{}{}", self.prefix, E::TOPIC.name());
        let (key, payload) = (event.key(), codec::encode(schema, event).map_err(failed)?);
        let message =
            Message { topic: &topic, key: Some(key.as_bytes()), payload: Some(&payload), headers: &[] };
        let (sender, receiver) = oneshot::channel();
        send(self.outbound.as_ref(), &message, Ack::Waiter(sender)).await.map_err(failed)?;
        Ok(Some(receiver))
    }
}

type Acknowledged = Result<runtime::Delivered, runtime::PublishError>;

fn failed(error: impl std::error::Error + Send + Sync + 'static) -> StageError {
    StageError::new("publish to a shadow's topic", error)
}
