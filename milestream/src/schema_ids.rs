//! Registry ids of what the gateway writes.

use anyhow::Result;
use ingest::SchemaIds;
use runtime::Engine;
use runtime::registry::Registry;
use schemas::events::{
    AccountChanged, ActivityLogged, BlockAdopted, BlockUndone, OdometerRead, RewardClaimed, UploadReceived,
};

/// As the registry has them now.
///
/// # Errors
/// When the registry does not respond, or a schema is not registered.
pub async fn registered(registry: &Registry, prefix: &str) -> Result<SchemaIds> {
    Ok(SchemaIds {
        upload_received: registry.id_of::<UploadReceived>(prefix).await?,
        activity_logged: registry.id_of::<ActivityLogged>(prefix).await?,
        account_changed: registry.id_of::<AccountChanged>(prefix).await?,
        reward_claimed: registry.id_of::<RewardClaimed>(prefix).await?,
        odometer_read: registry.id_of::<OdometerRead>(prefix).await?,
        block_adopted: registry.id_of::<BlockAdopted>(prefix).await?,
        block_undone: registry.id_of::<BlockUndone>(prefix).await?,
    })
}

/// The same, waiting while the registry is not reachable.
///
/// # Errors
/// When a schema is not registered.
pub async fn awaited(engine: &Engine) -> Result<SchemaIds> {
    Ok(SchemaIds {
        upload_received: engine.schema_id::<UploadReceived>().await?,
        activity_logged: engine.schema_id::<ActivityLogged>().await?,
        account_changed: engine.schema_id::<AccountChanged>().await?,
        reward_claimed: engine.schema_id::<RewardClaimed>().await?,
        odometer_read: engine.schema_id::<OdometerRead>().await?,
        block_adopted: engine.schema_id::<BlockAdopted>().await?,
        block_undone: engine.schema_id::<BlockUndone>().await?,
    })
}
