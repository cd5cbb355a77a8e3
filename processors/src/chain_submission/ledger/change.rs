//! The changes of a transaction, as they are counted and logged.

/// What happened to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Its bytes are stored.
    Signed,
    /// It was posted for the first time.
    Sent,
    /// It is in a block.
    Included,
    /// It has another confirmation.
    Deeper,
    /// Its block does not count any more.
    Undone,
    /// 12 confirmations, and it paid what was planned.
    Confirmed,
    /// 12 confirmations, and all its clauses failed.
    Reverted,
    /// Its block is final.
    Final,
    /// No block can hold it any more, and none is known to.
    Expired,
    /// Something that must not happen did, such as 12 confirmations of something else than planned: a person must look.
    Incident,
    /// It is proven to be in no block for good, and its payouts are planned again.
    Dead,
    /// It is reverted for good; its payouts are planned again, but for those at fault.
    Replanned,
}

impl Change {
    /// Metric label.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Signed => "signed",
            Self::Sent => "sent",
            Self::Included => "included",
            Self::Deeper => "deeper",
            Self::Undone => "undone",
            Self::Confirmed => "confirmed",
            Self::Reverted => "reverted",
            Self::Final => "final",
            Self::Expired => "expired",
            Self::Incident => "incident",
            Self::Dead => "dead",
            Self::Replanned => "replanned",
        }
    }

    /// The name in `transaction_monitoring_logs.monitoring_stage`; none for a mere confirmation.
    #[must_use]
    pub fn stage(self) -> Option<&'static str> {
        match self {
            Self::Signed => Some("signed"),
            Self::Sent => Some("submitted"),
            Self::Included => Some("pending"),
            Self::Deeper | Self::Expired | Self::Replanned => None,
            Self::Undone => Some("undone"),
            Self::Confirmed => Some("confirmed"),
            Self::Reverted => Some("reverted"),
            Self::Final => Some("finalized"),
            Self::Incident => Some("stray"),
            Self::Dead => Some("dead"),
        }
    }
}
