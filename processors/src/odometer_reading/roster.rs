//! The reading services of `ai_service_configs` as a cascade, read anew every half minute: a service that an operator adds, changes
//! or disables is known without a restart. Breakers and budgets live on.

use std::sync::Arc;
use std::time::Duration;

use providers::vault::{Keys, Vault, VaultError};
use providers::{Cascade, Credentials, Limits, Now, Protocol, ServiceConfig};
use reading::{AUTO_ACCEPT, Reader};
use runtime::{Clock, StageError};
use rust_decimal::Decimal;
use schemas::ids::Micros;
use sqlx::FromRow;
use sqlx::types::Json;
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::models::SERVICE;

/// How long the services are taken as known; microseconds.
const KNOWN_US: i64 = 30_000_000;
/// Longest wait for a service, where a row does not set it.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A row of `ai_service_configs`.
#[derive(Clone, Debug, FromRow)]
pub struct ServiceRow {
    /// `id`: with the column's name, the place that a sealed key opens in.
    pub id: Uuid,
    /// `service_name`.
    pub service_name: String,
    /// `protocol`; a row without one cannot be asked.
    pub protocol: Option<String>,
    /// `endpoint_url`.
    pub endpoint_url: Option<String>,
    /// `model`.
    pub model: Option<String>,
    /// `priority`.
    pub priority: Option<i32>,
    /// `accuracy_threshold`.
    pub accuracy_threshold: Option<Decimal>,
    /// `cost_per_request`, USD.
    pub cost_per_request: Option<Decimal>,
    /// `rate_limit`.
    pub rate_limit: Option<Json<Limits>>,
    /// `timeout_ms`.
    pub timeout_ms: i32,
    /// `hedge_ms`.
    pub hedge_ms: Option<i32>,
    /// `api_key`, sealed.
    pub api_key: Option<String>,
    /// `api_secret`, sealed.
    pub api_secret: Option<String>,
}

/// Why a row is no service.
#[derive(Debug, thiserror::Error)]
enum RowError {
    #[error("it has no protocol")]
    NoProtocol,
    #[error(transparent)]
    Vault(#[from] VaultError),
}

impl ServiceRow {
    /// What is asked. The embedded reader is always part of the cascade. Sixteen services are more than anybody waits for.
    pub(super) const ACTIVE: &str = "select id, service_name, protocol, endpoint_url, model, priority, accuracy_threshold,
            cost_per_request, rate_limit, timeout_ms, hedge_ms, api_key, api_secret
        from ai_service_configs where is_active or protocol = 'embedded' order by priority, service_name limit 16";

    fn protocol(&self) -> Option<Protocol> {
        self.protocol.as_deref().and_then(Protocol::of)
    }

    fn config(&self, vault: &Vault) -> Result<ServiceConfig, RowError> {
        let protocol = self.protocol().ok_or(RowError::NoProtocol)?;
        let opened = |column: &str, stored: &Option<String>| {
            stored.as_deref().map(|stored| vault.open(self.id, column, stored)).transpose()
        };
        let millis = |ms: i32| Duration::from_millis(u64::try_from(ms).unwrap_or_default());
        Ok(ServiceConfig {
            name: self.service_name.clone(),
            protocol,
            endpoint: self.endpoint_url.clone().unwrap_or_default(),
            model: self.model.clone(),
            priority: self.priority.unwrap_or(i32::MAX),
            // Without one nothing is good enough, and a person decides.
            threshold: self.accuracy_threshold.unwrap_or(Decimal::ONE),
            cost: self.cost_per_request.unwrap_or_default(),
            limits: self.rate_limit.map(|Json(limits)| limits).unwrap_or_default(),
            timeout: millis(self.timeout_ms),
            hedge: self.hedge_ms.map(millis),
            credentials: Credentials {
                key: opened("api_key", &self.api_key)?,
                secret: opened("api_secret", &self.api_secret)?,
            },
        })
    }
}

/// The cascade as it was last read.
pub(super) struct Roster {
    keys: Keys,
    clock: Arc<dyn Clock>,
    /// The embedded reader, where no row sets it otherwise.
    embedded: ServiceConfig,
    known: Mutex<Option<(Micros, Arc<Cascade>)>>,
}

impl Roster {
    pub fn new(keys: Keys, clock: Arc<dyn Clock>, reader: &Reader) -> Self {
        let embedded = ServiceConfig {
            name: SERVICE.to_owned(),
            protocol: Protocol::Embedded,
            endpoint: endpoint(reader.version()),
            model: Some(reader.version().to_owned()),
            // Before every row's.
            priority: 0,
            threshold: AUTO_ACCEPT,
            cost: Decimal::ZERO,
            limits: Limits::default(),
            timeout: TIMEOUT,
            hedge: None,
            credentials: Credentials::default(),
        };
        Self { keys, clock, embedded, known: Mutex::default() }
    }

    /// The cascade to read the next photo with.
    ///
    /// # Errors
    /// Those of `rows`, which reads the services.
    pub async fn cascade(
        &self,
        rows: impl Future<Output = Result<Vec<ServiceRow>, StageError>>,
    ) -> Result<Arc<Cascade>, StageError> {
        let mut known = self.known.lock().await;
        let now = self.clock.now();
        if let Some((read_at, cascade)) = &*known
            && now.0.saturating_sub(read_at.0) < KNOWN_US
        {
            return Ok(cascade.clone());
        }
        let configs = self.configs(&rows.await?);
        let before = known.take().map(|(_, cascade)| cascade);
        let cascade = match before {
            Some(cascade) if cascade.is_of(&configs) => cascade,
            before => self.build(configs, before.as_deref()),
        };
        *known = Some((now, cascade.clone()));
        Ok(cascade)
    }

    fn build(&self, configs: Vec<ServiceConfig>, before: Option<&Cascade>) -> Arc<Cascade> {
        let clock = self.clock.clone();
        let now: Now = Arc::new(move || clock.now());
        let (cascade, left_out) = Cascade::new(configs, before, now);
        for (service, error) in left_out {
            tracing::error!(service, error = %error, "reading service cannot be asked");
        }
        tracing::info!(cascade = cascade.id(), "reading services");
        Arc::new(cascade)
    }

    /// The rows' services, and the embedded reader in any case. One whose key does not open is left out.
    fn configs(&self, rows: &[ServiceRow]) -> Vec<ServiceConfig> {
        // The keys file is read each time: a rotation puts another key in front of it.
        let vault = self.keys.vault().unwrap_or_else(|error| {
            tracing::error!(error = %error, "keys of reading services cannot be opened");
            Vault::default()
        });
        let mut configs = Vec::new();
        let mut embedded = self.embedded.clone();
        for row in rows {
            match row.config(&vault) {
                Ok(config) if config.protocol == Protocol::Embedded => {
                    embedded.priority = config.priority;
                    embedded.threshold = config.threshold;
                    embedded.hedge = config.hedge;
                }
                Ok(config) => configs.push(config),
                Err(error) => {
                    tracing::error!(service = row.service_name, error = %error, "reading service cannot be asked");
                }
            }
        }
        configs.push(embedded);
        configs
    }
}

/// `embedded:<models>` as in `ai_service_configs.endpoint_url`, of a reader's version.
#[must_use]
pub fn endpoint(reader_version: &str) -> String {
    let names = reader_version.split(',').map(|model| model.split('@').next().unwrap_or(model));
    format!("embedded:{}", names.collect::<Vec<_>>().join(","))
}
