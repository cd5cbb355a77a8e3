//! What stops planning and signing although nodes, contracts and funds are well.

use chrono::{DateTime, Utc};
use runtime::switches::{Flag, Switches};
use sqlx::PgPool;

use super::lease::Lease;
use super::obstacle::Obstacle;
use super::policy::Violation;
use super::sign::Planned;
use super::{RoundError, Submitter, sign};
use crate::chain_submission::ledger::rows::{self, IncidentCause};

/// What is switched so that nothing new is signed.
async fn switched_off(pool: &PgPool) -> Result<Option<&'static str>, sqlx::Error> {
    let switches = Switches::load(pool).await?;
    let off = !switches.is_on(Flag::BlockchainIntegration);
    Ok(match switches.maintenance {
        true => Some("maintenance_mode is on"),
        false => off.then_some("the flag blockchain_integration is off"),
    })
}

impl Submitter {
    /// Passes unless an incident is unresolved, or an operator has paused payments or switched them off. What is planned and unsigned is
    /// given up then: it was planned by books that may be wrong.
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
            (Some((incidents, first, cause)), _) if cause == IncidentCause::Policy.label() => {
                Obstacle::Policy { incidents, first }
            }
            (Some((incidents, first, _)), _) => Obstacle::Incident { incidents, first },
            (None, Some(reason)) => Obstacle::Stopped(reason),
            (None, None) => match switched_off(&self.pool).await? {
                Some(what) => Obstacle::SwitchedOff(what),
                None => return Ok(()),
            },
        };
        self.give_up_plans(lease, self.clock.now().to_utc()).await?;
        Err(obstacle.into())
    }

    /// Stores that a plan may not be signed: an incident, since whoever planned it should have known. It is given up with all others.
    pub(super) async fn refuse(
        &self,
        lease: &Lease,
        planned: &Planned,
        violation: &Violation,
    ) -> Result<(), RoundError> {
        let (genesis, now) = (self.settings.genesis.to_string(), self.clock.now().to_utc());
        let what = format!("policy: {violation}");
        let mut tx = self.pool.begin().await?;
        lease.hold(&mut tx).await?;
        let cause = IncidentCause::Policy;
        rows::incident(&mut tx, (&genesis, &planned.tx_id), (cause, &what), now).await?;
        tx.commit().await?;
        tracing::error!(tx = planned.tx_id, what, "it is not signed");
        self.metrics.payout_steps.with_label_values(&[cause.label()]).inc();
        self.gate(lease).await
    }

    async fn give_up_plans(&self, lease: &Lease, now: DateTime<Utc>) -> Result<(), RoundError> {
        for planned in sign::unsigned(&self.pool, self.signer.address()).await? {
            sign::abandon(&self.pool, lease, &planned, self.schemas, now).await?;
            self.metrics.payout_steps.with_label_values(&["abandoned"]).inc();
        }
        Ok(())
    }
}
