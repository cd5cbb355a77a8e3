//! A client beside the one that works: whether the brokers respond to a fresh client, and where partitions end.

use std::time::Duration;

use rdkafka::config::{ClientConfig, RDKafkaLogLevel};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::{KafkaError, KafkaResult, RDKafkaErrorCode};
use rdkafka::{Offset, TopicPartitionList};

/// Longest wait for a response.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Asks the brokers, with a client that is made anew after every failure: it may be the client that is at fault.
pub(crate) struct Probe {
    config: ClientConfig,
    client: Option<BaseConsumer>,
}

impl Probe {
    /// A probe of the cluster that `base` names; with a group, of its coordinator, too. It joins nothing.
    pub(crate) fn new(base: &ClientConfig, group: Option<&str>) -> Self {
        let mut config = base.clone();
        config.set("client.id", "milestream-probe");
        config.set("enable.auto.commit", "false").set("isolation.level", "read_committed");
        config.set("queued.max.messages.kbytes", "64").set_log_level(RDKafkaLogLevel::Critical);
        if let Some(group) = group {
            config.set("group.id", group);
        }
        Self { config, client: None }
    }

    /// Whether a fresh client learns of at least one broker.
    pub(crate) fn brokers_respond(&mut self) -> bool {
        self.forget();
        let response = self.ask(|client| client.fetch_metadata(None, TIMEOUT));
        response.is_ok_and(|metadata| !metadata.brokers().is_empty())
    }

    /// Whether a fresh client gets a response of the group's coordinator.
    pub(crate) fn coordinator_responds(&mut self, topic: &str) -> bool {
        self.forget();
        let mut list = TopicPartitionList::new();
        list.add_partition(topic, 0);
        self.ask(|client| client.committed_offsets(list.clone(), TIMEOUT)).is_ok()
    }

    /// The end of each partition, as a reader of committed records sees it.
    pub(crate) fn ends(&mut self, partitions: &[(&str, i32)]) -> KafkaResult<Vec<i64>> {
        let mut list = TopicPartitionList::new();
        for (topic, partition) in partitions {
            list.add_partition_offset(topic, *partition, Offset::End)?;
        }
        let found = self.ask(|client| client.offsets_for_times(list.clone(), TIMEOUT))?;
        let end = |(topic, partition): &(&str, i32)| {
            let found = found.find_partition(topic, *partition);
            match found.map(|found| (found.error(), found.offset())) {
                Some((Ok(()), Offset::Offset(end))) => Ok(end),
                Some((Err(error), _)) => Err(error),
                _ => Err(KafkaError::OffsetFetch(RDKafkaErrorCode::NoOffset)),
            }
        };
        let ends: KafkaResult<Vec<i64>> = partitions.iter().map(end).collect();
        if ends.is_err() {
            self.forget();
        }
        ends
    }

    fn ask<T>(&mut self, question: impl FnOnce(&BaseConsumer) -> KafkaResult<T>) -> KafkaResult<T> {
        if self.client.is_none() {
            self.client = Some(self.config.create()?);
        }
        let response = self.client.as_ref().map_or(Err(KafkaError::Canceled), question);
        if response.is_err() {
            self.forget();
        }
        response
    }

    fn forget(&mut self) {
        if let Some(client) = self.client.take() {
            drop_aside(client);
        }
    }
}

/// Drops a client on a thread of its own: librdkafka may wait for brokers that do not respond. A client that never ends costs
/// its memory; waiting for it would cost the role.
pub(crate) fn drop_aside<T: Send + 'static>(client: T) {
    let dropped = std::thread::Builder::new().name("kafka-drop".to_owned()).spawn(move || drop(client));
    if let Err(error) = dropped {
        tracing::warn!(error = %error, "no thread to drop a kafka client on");
    }
}
