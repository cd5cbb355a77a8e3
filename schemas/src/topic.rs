//! The topics. One line of [`topics!`] names a topic; its key, partition count and retention stand in
//! `topics/<name>.yaml`, and the records on it in `events!`.

use serde::{Deserialize, Serialize};

macro_rules! topics {
    ($($topic:ident = $name:literal;)*) => {
        /// A topic of the pipeline.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Topic {
            $(#[doc = concat!("`", $name, "`: see `topics/", $name, ".yaml`.")] $topic,)*
        }

        impl Topic {
            /// Every topic.
            pub const ALL: [Topic; [$($name,)*].len()] = [$(Topic::$topic,)*];

            /// The name in Kafka, without the environment's prefix.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Topic::$topic => $name,)* }
            }

            /// The text of the topic's YAML file, as built in.
            #[must_use]
            pub fn yaml(self) -> &'static str {
                match self { $(Topic::$topic => include_str!(concat!("../topics/", $name, ".yaml")),)* }
            }
        }
    };
}

topics! {
    UploadsReceived = "uploads.received";
    UploadsGraded = "uploads.graded";
    UploadsReadings = "uploads.readings";
    UploadsDecided = "uploads.decided";
    RewardsCalculated = "rewards.calculated";
    RewardsGranted = "rewards.granted";
    PayoutsUpdated = "payouts.updated";
    ChainEvents = "chain.events";
    ActivityLogs = "activity.logs";
    DeadLetters = "dead-letters";
    AccountsChanged = "accounts.changed";
    ModelsDeployed = "models.deployed";
}

/// What `topics/*.yaml` says of a topic.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TopicSpec {
    /// What a record means, in a sentence.
    pub description: String,
    /// What the record key is.
    pub key: String,
    /// The partition count where it is not the deployment's: a start on another count is refused.
    pub partitions: Option<i32>,
    /// Milliseconds that a record is kept; -1 for good.
    pub retention_ms: i64,
    /// `delete` or `compact`.
    pub cleanup_policy: String,
    /// The registry's compatibility rule for its subjects.
    pub compatibility: String,
}

impl Topic {
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
    fn every_topic_has_a_specification() {
        for topic in Topic::ALL {
            let spec = topic.spec().unwrap();
            assert!(spec.partitions.is_none_or(|partitions| partitions > 0));
            assert!(["delete", "compact"].contains(&spec.cleanup_policy.as_str()));
        }
    }

    #[test]
    fn topics_with_the_user_as_key_have_the_deployments_partition_count() {
        for topic in Topic::ALL {
            let spec = topic.spec().unwrap();
            assert!(!spec.key.starts_with("user_id") || spec.partitions.is_none(), "{topic:?}");
        }
    }
}
