//! `ai_models`: the models that read photos, from `models.deployed`. Of one version the newest event stands, of one model the
//! version with the newest event is active.

use futures::FutureExt as _;
use futures::future::BoxFuture;
use runtime::Envelope;
use rust_decimal::RoundingStrategy;
use schemas::events::ModelDeployed;
use schemas::ids::natural;
use sqlx::{PgConnection, query};

use super::event::UploadEvent;
use super::writer::{WriteError, Writer, picked};
use crate::database::{Table, column};

/// Writes the models.
pub(super) struct Models;

impl Writer for Models {
    fn tables(&self) -> &'static [Table] {
        &[Table { name: "ai_models", key: "id" }]
    }

    fn write<'a>(
        &'a self,
        tx: &'a mut PgConnection,
        batch: &'a [Envelope<UploadEvent>],
    ) -> BoxFuture<'a, Result<(), WriteError>> {
        async {
            let events = picked(batch, |event| match event {
                UploadEvent::Deployed(event) => Some(event.as_ref()),
                _ => None,
            });
            Ok(deployed(tx, &events).await?)
        }
        .boxed()
    }
}

/// Bytes of the megabyte that `model_size` counts.
const MEGABYTE: i64 = 1_000_000;

// A size that the column cannot hold is the server's to refuse: it names the column.
const MODEL: &str = "
insert into ai_models as m (id, model_name, model_version, model_type, accuracy_score, processing_speed, model_size,
    deployment_date, last_updated, created_at)
values ($1, $2, $3, $4::text::ai_models_model_type, $5, $6, $7::bigint::integer, $8, $9, $10)
on conflict (model_name, model_version) do update set
    (model_type, accuracy_score, processing_speed, model_size, created_at) = (select
        case when newer then excluded.model_type else m.model_type end,
        case when newer then excluded.accuracy_score else m.accuracy_score end,
        case when newer then excluded.processing_speed else m.processing_speed end,
        case when newer then excluded.model_size else m.model_size end,
        case when newer then excluded.created_at else m.created_at end
        from (select excluded.last_updated > m.last_updated) as r (newer)),
    deployment_date = least(m.deployment_date, excluded.deployment_date),
    last_updated = greatest(m.last_updated, excluded.last_updated)";

const ACTIVE: &str = "
update ai_models m set is_active = m.model_version = newest.model_version
from (
    select distinct on (model_name) model_name, model_version from ai_models where model_name = any($1)
    order by model_name, last_updated desc, model_version desc
) newest
where m.model_name = newest.model_name and m.is_active is distinct from (m.model_version = newest.model_version)";

/// Folds the events, in any order. Which version is active is seen from all rows of a model, so that one batch at a time writes.
async fn deployed(tx: &mut PgConnection, events: &[&ModelDeployed]) -> sqlx::Result<()> {
    if events.is_empty() {
        return Ok(());
    }
    query("lock table ai_models in share row exclusive mode").execute(&mut *tx).await?;
    for event in events {
        model(tx, event).await?;
    }
    query(ACTIVE).bind(column(events, |event| event.model_name.clone())).execute(tx).await?;
    Ok(())
}

async fn model(tx: &mut PgConnection, event: &ModelDeployed) -> sqlx::Result<()> {
    let (name, version) = (&event.model_name, &event.model_version);
    query(MODEL)
        .bind(natural(&format!("ai_models/{name}/{version}")))
        .bind(name)
        .bind(version)
        .bind(event.model_type.label())
        .bind(event.accuracy.round_dp_with_strategy(2, RoundingStrategy::ToZero))
        .bind(event.cpu_ms)
        .bind(event.file_size / MEGABYTE + i64::from(event.file_size % MEGABYTE > 0))
        .bind(event.first_deployed_at.to_utc())
        .bind(event.occurred_at.to_utc())
        .bind(event.built_at.to_utc())
        .execute(tx)
        .await?;
    Ok(())
}
