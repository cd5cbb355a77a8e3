//! The topics, each declared once: one line of `topics!` is its name, key, partition count and retention; the records on it
//! stand in `events!`.

/// The key of what belongs to a user: one user's records stay in order. Equal partition counts keep users together.
const USER: &str = "user_id, lower-case UUID text";

macro_rules! topics {
    ($($(#[$meaning:meta])+ $topic:ident = $name:literal, $specification:expr;)*) => {
        /// A topic of the pipeline.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Topic {
            $(#[doc = concat!("`", $name, "`")] #[doc = ""] $(#[$meaning])+ $topic,)*
        }

        impl Topic {
            /// Every topic.
            pub const ALL: [Topic; [$($name,)*].len()] = [$(Topic::$topic,)*];

            /// The name in Kafka, without the environment's prefix.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Topic::$topic => $name,)* }
            }

            /// How the topic is kept.
            #[must_use]
            pub const fn spec(self) -> TopicSpec {
                match self { $(Topic::$topic => $specification,)* }
            }
        }
    };
}

topics! {
    /// A photo was accepted with 202: it is durable in the photo store and will be decided exactly once.
    UploadsReceived = "uploads.received", TopicSpec::keyed(USER);
    /// The photo's quality was measured; an unreadable photo travels on with its fault.
    UploadsGraded = "uploads.graded", TopicSpec::keyed(USER);
    /// What was read from the photo: the best reading and all candidates, or why there is none.
    UploadsReadings = "uploads.readings", TopicSpec::keyed(USER);
    /// What was decided about the upload, with the evidence; one final decision per upload.
    UploadsDecided = "uploads.decided", TopicSpec::keyed(USER);
    /// What an upload earns by the tariff, with every factor; before any budget.
    RewardsCalculated = "rewards.calculated", TopicSpec::keyed(USER);
    /// What of a reward is granted within the daily, weekly and monthly budgets, with the charge to each; and drivers' claims.
    RewardsGranted = "rewards.granted", TopicSpec::keyed(USER);
    /// How a granted reward is paid: a snapshot of the payout and of its newest transaction at every change.
    PayoutsUpdated = "payouts.updated", TopicSpec::keyed("reward_id, lower-case UUID text");
    /// Blocks of the chain as they are adopted and undone, with the transactions that have to do with our app. One partition:
    /// the chain itself carries less than 30 rewards a second.
    ChainEvents = "chain.events", TopicSpec::keyed("the network's genesis id").partitions(1);
    /// Documents for the log collections.
    ActivityLogs = "activity.logs", TopicSpec::keyed("the document's own event id").kept_days(7).unordered();
    /// Records that a role could not process: original key, bytes and headers, with the cause in further headers.
    DeadLetters = "dead-letters", TopicSpec::keyed("the original key").of_any_bytes();
    /// The newest state of each account: ids and flags only.
    AccountsChanged = "accounts.changed", TopicSpec::keyed(USER).compacted();
    /// What became of accounts: erased, held, released. Ids only; kept for good, so that what was erased stays erased.
    AccountsEvents = "accounts.events", TopicSpec::keyed(USER);
    /// Which versions of which models read photos. One partition: one record per model and deployment, and the same again at
    /// every start.
    ModelsDeployed = "models.deployed",
        TopicSpec::keyed("model_name and model_version, joined by @").partitions(1).compacted();
    /// What is known of payments outside of the database: transactions before they are signed, until they are final or dead, and
    /// up to which block what was paid was held against the books. One partition: a record per transaction of up to 40 rewards.
    PayoutsGuard = "payouts.guard",
        TopicSpec::keyed("the transaction's id, or genesis id and distributor, joined by /").partitions(1).compacted();
}

/// How a topic is kept. Without further words its records are kept for good, in as many partitions as the deployment has chosen,
/// and a new schema must be readable by every earlier one and read every earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    /// What the record key is.
    pub key: &'static str,
    /// The partition count where it is not the deployment's: a start on another count is refused.
    pub partitions: Option<i32>,
    /// Milliseconds that a record is kept; -1 for good.
    pub retention_ms: i64,
    /// `delete` or `compact`.
    pub cleanup_policy: &'static str,
    /// The registry's compatibility rule for its subjects.
    pub compatibility: &'static str,
    /// Whether a record must not come before an earlier one of its key. Where it may, nobody waits for the one before.
    pub ordered: bool,
}

impl TopicSpec {
    const fn keyed(key: &'static str) -> Self {
        Self {
            key,
            partitions: None,
            retention_ms: -1,
            cleanup_policy: "delete",
            compatibility: "FULL_TRANSITIVE",
            ordered: true,
        }
    }

    /// Whether a record's key is the user whom it belongs to.
    #[must_use]
    pub fn is_keyed_by_user(&self) -> bool {
        self.key == USER
    }

    /// Records of one key have nothing to do with each other: each is a whole of its own.
    const fn unordered(self) -> Self {
        Self { ordered: false, ..self }
    }

    const fn partitions(self, count: i32) -> Self {
        Self { partitions: Some(count), ..self }
    }

    const fn kept_days(self, days: i64) -> Self {
        Self { retention_ms: days * 24 * 60 * 60 * 1_000, ..self }
    }

    const fn compacted(self) -> Self {
        Self { cleanup_policy: "compact", ..self }
    }

    /// Its records have no schema of ours.
    const fn of_any_bytes(self) -> Self {
        Self { compatibility: "NONE", ..self }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topics_with_the_user_as_key_have_the_deployments_partition_count() {
        for topic in Topic::ALL {
            let spec = topic.spec();
            assert!(!spec.is_keyed_by_user() || spec.partitions.is_none(), "{topic:?}");
        }
    }
}
