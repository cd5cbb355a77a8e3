//! Registry ids of the schemas that the gateway writes.

/// The ids.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SchemaIds {
    /// Of `UploadReceived`.
    pub upload_received: u32,
    /// Of `ActivityLogged`.
    pub activity_logged: u32,
    /// Of `AccountChanged`.
    pub account_changed: u32,
    /// Of `RewardClaimed`.
    pub reward_claimed: u32,
    /// Of `OdometerRead`.
    pub odometer_read: u32,
    /// Of `BlockAdopted`.
    pub block_adopted: u32,
    /// Of `BlockUndone`.
    pub block_undone: u32,
}
