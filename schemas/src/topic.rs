//! The topics. Their names, keys, partition counts and retention stand in `topics/*.yaml`; this enum names them in code.

use serde::{Deserialize, Serialize};

/// A topic of the pipeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Topic {
    /// Photos accepted with 202, by the gateway.
    UploadsReceived,
    /// The same with the photo's quality, by `quality_check`.
    UploadsGraded,
    /// The same with what was read, by `odometer_reading`.
    UploadsReadings,
    /// What was decided, by `fraud_check` alone.
    UploadsDecided,
    /// What an upload earns by the tariff, by `reward_calculation`.
    RewardsCalculated,
    /// What of it is granted within the budgets, by `limit_check`.
    RewardsGranted,
    /// How granted rewards are paid, by `chain_submission`.
    PayoutsUpdated,
    /// Blocks of the chain as they come and go, by the gateway for the watcher.
    ChainEvents,
    /// Documents for the log collections, by every role.
    ActivityLogs,
    /// Records that cannot be processed, with their original bytes.
    DeadLetters,
    /// The newest state of each account, ids and flags only.
    AccountsChanged,
    /// Which models read photos, by `odometer_reading`.
    ModelsDeployed,
}

/// What `topics/*.yaml` says of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// The topic's name in Kafka.
    pub name: String,
    /// What a record means, in a sentence.
    pub description: String,
    /// What the record key is.
    pub key: String,
    /// The partition count, chosen once: a start on another count is refused.
    pub partitions: i32,
    /// Milliseconds that a record is kept; -1 for good.
    pub retention_ms: i64,
    /// `delete` or `compact`.
    pub cleanup_policy: String,
    /// Full names of the Avro records on it; empty where the bytes are another topic's.
    pub records: Vec<String>,
    /// The registry's compatibility rule for its subjects.
    pub compatibility: String,
}

impl Topic {
    /// Every topic.
    pub const ALL: [Topic; 12] = [
        Topic::UploadsReceived,
        Topic::UploadsGraded,
        Topic::UploadsReadings,
        Topic::UploadsDecided,
        Topic::RewardsCalculated,
        Topic::RewardsGranted,
        Topic::PayoutsUpdated,
        Topic::ChainEvents,
        Topic::ActivityLogs,
        Topic::DeadLetters,
        Topic::AccountsChanged,
        Topic::ModelsDeployed,
    ];

    /// The name in Kafka, without the environment's prefix.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Topic::UploadsReceived => "uploads.received",
            Topic::UploadsGraded => "uploads.graded",
            Topic::UploadsReadings => "uploads.readings",
            Topic::UploadsDecided => "uploads.decided",
            Topic::RewardsCalculated => "rewards.calculated",
            Topic::RewardsGranted => "rewards.granted",
            Topic::PayoutsUpdated => "payouts.updated",
            Topic::ChainEvents => "chain.events",
            Topic::ActivityLogs => "activity.logs",
            Topic::DeadLetters => "dead-letters",
            Topic::AccountsChanged => "accounts.changed",
            Topic::ModelsDeployed => "models.deployed",
        }
    }

    /// The text of the topic's YAML file, as built in.
    #[must_use]
    pub fn yaml(self) -> &'static str {
        match self {
            Topic::UploadsReceived => include_str!("../topics/uploads.received.yaml"),
            Topic::UploadsGraded => include_str!("../topics/uploads.graded.yaml"),
            Topic::UploadsReadings => include_str!("../topics/uploads.readings.yaml"),
            Topic::UploadsDecided => include_str!("../topics/uploads.decided.yaml"),
            Topic::RewardsCalculated => include_str!("../topics/rewards.calculated.yaml"),
            Topic::RewardsGranted => include_str!("../topics/rewards.granted.yaml"),
            Topic::PayoutsUpdated => include_str!("../topics/payouts.updated.yaml"),
            Topic::ChainEvents => include_str!("../topics/chain.events.yaml"),
            Topic::ActivityLogs => include_str!("../topics/activity.logs.yaml"),
            Topic::DeadLetters => include_str!("../topics/dead-letters.yaml"),
            Topic::AccountsChanged => include_str!("../topics/accounts.changed.yaml"),
            Topic::ModelsDeployed => include_str!("../topics/models.deployed.yaml"),
        }
    }

    /// The topic's specification.
    ///
    /// # Errors
    /// When the built-in YAML does not parse; a unit test holds that it does.
    pub fn spec(self) -> Result<TopicSpec, serde_yaml_ng::Error> {
        serde_yaml_ng::from_str(self.yaml())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_topic_has_a_specification_under_its_own_name() {
        for topic in Topic::ALL {
            let spec = topic.spec().unwrap();
            assert_eq!(spec.name, topic.name());
            assert!(spec.partitions > 0);
            assert!(["delete", "compact"].contains(&spec.cleanup_policy.as_str()));
        }
    }

    #[test]
    fn topics_with_the_user_as_key_have_equal_partition_counts() {
        let counts: Vec<i32> = Topic::ALL
            .iter()
            .map(|topic| topic.spec().unwrap())
            .filter(|spec| spec.name.starts_with("uploads.") || spec.name.starts_with("rewards."))
            .map(|spec| spec.partitions)
            .collect();
        assert_eq!(counts.len(), 6);
        assert!(counts.iter().all(|count| *count == counts[0]), "{counts:?}");
    }
}
