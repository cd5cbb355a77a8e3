//! What stops planning and signing although nodes, contracts and funds are well.

use chrono::{DateTime, Utc};

use super::lease::Lease;
use super::obstacle::Obstacle;
use super::{RoundError, Submitter, sign};
use crate::chain_submission::ledger::rows::IncidentCause;

impl Submitter {
    /// Passes unless an incident is unresolved or an operator has paused payments. What is planned and unsigned is given up then: it
    /// was planned by books that may be wrong.
    pub(super) async fn gate(&self, lease: &Lease) -> Result<(), RoundError> {
        let genesis = self.settings.genesis.to_string();
        let incident: Option<(i64, String, String)> = sqlx::query_as(
            "select count(*) over (), tx_id || ': ' || what, cause from payout_incidents
             where genesis_id = $1 and resolved_at is null order by found_at, tx_id limit 1",
        )
        .bind(&genesis)
        .fetch_optional(&self.pool)
        .await?;
        let paused: Option<String> =
            sqlx::query_scalar("select reason from payout_pauses where genesis_id = $1")
                .bind(&genesis)
                .fetch_optional(&self.pool)
                .await?;
        let obstacle = match (incident, paused) {
            (Some((incidents, first, cause)), _) if cause == IncidentCause::UnknownPayment.label() => {
                Obstacle::UnknownPayment { incidents, first }
            }
            (Some((incidents, first, _)), _) => Obstacle::Incident { incidents, first },
            (None, Some(reason)) => Obstacle::Stopped(reason),
            (None, None) => return Ok(()),
        };
        self.give_up_plans(lease, self.clock.now().to_utc()).await?;
        Err(obstacle.into())
    }

    async fn give_up_plans(&self, lease: &Lease, now: DateTime<Utc>) -> Result<(), RoundError> {
        for planned in sign::unsigned(&self.pool, self.signer.address()).await? {
            sign::abandon(&self.pool, lease, &planned, now).await?;
            self.metrics.payout_steps.with_label_values(&["abandoned"]).inc();
        }
        Ok(())
    }
}
