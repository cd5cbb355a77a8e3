//! The row of a reading service in `ai_service_configs`, as far as commands change it.

use anyhow::Result;
use processors::models::SERVICE;
use processors::odometer_reading::endpoint;
use providers::Protocol;
use providers::vault::Vault;
use reading::AUTO_ACCEPT;
use rust_decimal::Decimal;
use schemas::ids::natural;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

/// Priority of a new service: in the middle, so that others go in front and behind.
pub const PRIORITY: i32 = 5;
/// Threshold of a new service outside: sure of itself, and looking like a mileage.
const THRESHOLD: Decimal = Decimal::from_parts(70, 0, 0, false, 2);
/// Milliseconds to wait for a new service.
const TIMEOUT_MS: i32 = 10_000;

/// A row, as far as commands change it.
#[derive(Clone, Debug, sqlx::FromRow)]
pub struct Row {
    pub id: Uuid,
    pub service_name: String,
    pub protocol: Option<String>,
    pub endpoint_url: Option<String>,
    pub model: Option<String>,
    pub is_active: bool,
    pub priority: Option<i32>,
    pub rate_limit: Option<Value>,
    pub cost_per_request: Option<Decimal>,
    pub accuracy_threshold: Option<Decimal>,
    pub timeout_ms: i32,
    pub hedge_ms: Option<i32>,
    pub api_key: Option<String>,
    pub api_secret: Option<String>,
}

/// Rows, all or the one of a name, locked.
pub const ROWS: &str = "select id, service_name, protocol, endpoint_url, model, coalesce(is_active, false) as is_active, priority,
        rate_limit, cost_per_request, accuracy_threshold, timeout_ms, hedge_ms, api_key, api_secret
    from ai_service_configs where service_name = coalesce($1, service_name) order by priority, service_name for update";

impl Row {
    /// A new service's, with nothing known of it.
    pub fn new(name: &str) -> Self {
        Self {
            id: natural(name),
            service_name: name.to_owned(),
            protocol: None,
            endpoint_url: None,
            model: None,
            is_active: true,
            priority: Some(PRIORITY),
            rate_limit: None,
            cost_per_request: None,
            accuracy_threshold: Some(THRESHOLD),
            timeout_ms: TIMEOUT_MS,
            hedge_ms: None,
            api_key: None,
            api_secret: None,
        }
    }

    /// The embedded reader's, as the stage takes it where there is no row.
    pub fn embedded() -> Result<Self> {
        // The manifest names the reader's models; none is loaded for it.
        let models: Vec<String> = reading::models()?.into_iter().map(|model| model.name).collect();
        Ok(Self {
            protocol: Some(Protocol::Embedded.label().to_owned()),
            endpoint_url: Some(endpoint(&models.join(","))),
            priority: Some(1),
            rate_limit: Some(json!({"per_minute": null, "per_hour": null, "per_day": null})),
            cost_per_request: Some(Decimal::ZERO),
            accuracy_threshold: Some(AUTO_ACCEPT),
            ..Self::new(SERVICE)
        })
    }

    /// What the audit log and an operator may see: everything but the keys, which are named by the key that seals them.
    pub fn shown(&self, vault: &Vault) -> Value {
        let sealed_with =
            |stored: &Option<String>| stored.as_deref().and_then(|stored| vault.key_of(stored).ok());
        json!({
            "protocol": self.protocol, "endpoint_url": self.endpoint_url, "model": self.model,
            "is_active": self.is_active, "priority": self.priority, "rate_limit": self.rate_limit,
            "cost_per_request": self.cost_per_request, "accuracy_threshold": self.accuracy_threshold,
            "timeout_ms": self.timeout_ms, "hedge_ms": self.hedge_ms,
            "api_key": sealed_with(&self.api_key), "api_secret": sealed_with(&self.api_secret),
        })
    }
}

/// Inserts the row, or updates it.
pub async fn write(tx: &mut PgConnection, row: &Row) -> Result<()> {
    let service_type = row.protocol.as_deref().and_then(Protocol::of).map(Protocol::service_type);
    sqlx::query(
        "insert into ai_service_configs (id, service_name, service_type, api_key, api_secret, endpoint_url, is_active, priority,
            rate_limit, cost_per_request, accuracy_threshold, created_at, updated_at, protocol, model, timeout_ms, hedge_ms)
         values ($1, $2, $3::ai_service_configs_service_type, $4, $5, $6, $7, $8, $9, $10, $11, now(), now(), $12, $13, $14, $15)
         on conflict (service_name) do update set service_type = excluded.service_type, api_key = excluded.api_key,
            api_secret = excluded.api_secret, endpoint_url = excluded.endpoint_url, is_active = excluded.is_active,
            priority = excluded.priority, rate_limit = excluded.rate_limit, cost_per_request = excluded.cost_per_request,
            accuracy_threshold = excluded.accuracy_threshold, updated_at = now(), protocol = excluded.protocol,
            model = excluded.model, timeout_ms = excluded.timeout_ms, hedge_ms = excluded.hedge_ms",
    )
    .bind(row.id)
    .bind(&row.service_name)
    .bind(service_type)
    .bind(&row.api_key)
    .bind(&row.api_secret)
    .bind(&row.endpoint_url)
    .bind(row.is_active)
    .bind(row.priority)
    .bind(&row.rate_limit)
    .bind(row.cost_per_request)
    .bind(row.accuracy_threshold)
    .bind(&row.protocol)
    .bind(&row.model)
    .bind(row.timeout_ms)
    .bind(row.hedge_ms)
    .execute(tx)
    .await?;
    Ok(())
}
