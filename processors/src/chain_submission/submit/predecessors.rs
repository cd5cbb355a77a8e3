//! Distributors before this one. What an earlier key signed is posted on until it is in a block or proven dead, under that key's own
//! lease; what it only planned is given up, since nobody can sign it any more. Its address is enough for that, and the books hold it.

use schemas::events::AttemptState;

use super::lease::Lease;
use super::obstacle::Obstacle;
use super::{Memory, RoundError, Submitter, sign};

/// What is left of earlier distributors.
#[derive(Debug)]
pub(super) struct Unfinished {
    /// Transactions that are in no block and not proven dead.
    transactions: i64,
    /// The distributor of the oldest.
    signer: String,
}

impl Submitter {
    /// Takes the leases of earlier distributors whose work has no end yet, as far as no process of theirs holds them, and gives up
    /// those that are not needed any more. Returns what may still pay.
    pub(super) async fn predecessors(
        &self,
        memory: &mut Memory,
        lease: &Lease,
    ) -> Result<Option<Unfinished>, RoundError> {
        // The pending ones, and those whose rewards are freed once two nodes say that they failed for good.
        let found: Vec<(String, i64)> = sqlx::query_as(
            "select signer, count(*) filter (where state <> $3) from payout_attempts a
             where genesis_id = $1 and signer <> $2 and (state in ('planned', 'signed', 'sent')
                or (state = $3 and exists (select 1 from payout_attempt_rewards r where r.tx_id = a.tx_id and r.live)))
             group by signer order by min(planned_at)",
        )
        .bind(self.settings.genesis.to_string())
        .bind(&lease.signer)
        .bind(AttemptState::RevertedFinal.label())
        .fetch_all(&self.pool)
        .await?;
        let needed = |signer: &str| found.iter().any(|(found, _)| found == signer);
        let (mut kept, done): (Vec<Lease>, Vec<Lease>) =
            std::mem::take(&mut memory.predecessors).into_iter().partition(|held| needed(&held.signer));
        for held in done {
            held.release(&self.pool).await?;
            tracing::info!(signer = held.signer, "an earlier distributor's work has ended");
        }
        let mut still = Vec::with_capacity(found.len());
        for held in kept.drain(..) {
            // Another process may have taken it meanwhile.
            if held.renew(&self.pool).await.is_ok() {
                still.push(held);
            }
        }
        for (signer, _) in &found {
            if still.iter().any(|held| held.signer == *signer) {
                continue;
            }
            if let Some(taken) = Lease::take(&self.pool, signer, &self.settings.owner).await? {
                tracing::info!(signer, "an earlier distributor's work is brought to its end");
                still.push(taken);
            }
        }
        memory.predecessors = still;
        let transactions = found.iter().map(|(_, pending)| pending).sum();
        let first = found.into_iter().find(|(_, pending)| *pending > 0);
        Ok(first.map(|(signer, _)| Unfinished { transactions, signer }))
    }

    /// Gives up what earlier distributors planned, posts what they signed, and asks about what has ended. Passes once nothing of theirs
    /// may still pay.
    pub(super) async fn finish(
        &self,
        memory: &mut Memory,
        unfinished: Option<Unfinished>,
    ) -> Result<(), RoundError> {
        for lease in memory.predecessors.clone() {
            let signer = lease.signer.parse();
            let signer =
                signer.map_err(|error| runtime::StageError::new("read a signer's address", error))?;
            for planned in sign::unsigned(&self.pool, signer).await? {
                let now = self.clock.now().to_utc();
                sign::abandon(&self.pool, &lease, &planned, self.schemas, now).await?;
                self.metrics.payout_steps.with_label_values(&["abandoned"]).inc();
            }
            self.post_all(memory, &lease).await?;
            self.settle_all(memory, &lease).await?;
        }
        let Some(Unfinished { transactions, signer }) = unfinished else { return Ok(()) };
        // A process of theirs may still announce signatures: they are read again once there are none left.
        (memory.guarded, memory.audited) = (None, None);
        Err(Obstacle::Predecessor { transactions, signer }.into())
    }
}
