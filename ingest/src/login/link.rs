//! Linking a further wallet to an account, by its signature; and what is recorded when one is removed, or is to be paid to.

use schemas::ids::EventId;
use schemas::logs::LogDocument as _;
use sqlx::{PgConnection, PgTransaction};
use uuid::Uuid;

use super::SignIn;
use super::challenge::Purpose;
use super::enter::prove_wallet;
use super::look::Question;
use super::proof::Proof;
use super::records::Trace;
use crate::accounts::level::raise;
use crate::auth::admission::Caller;
use crate::http::problem::{ApiError, CHALLENGE_EXPIRED, INTERNAL};
use crate::outbox::announce;

impl SignIn {
    /// Links the wallet that signed the caller's challenge; the open transaction, and the wallet's id.
    ///
    /// # Errors
    /// What is wrong with the proof, which is counted and recorded like an attempt to sign in.
    pub(crate) async fn link_wallet(
        &self,
        caller: &Caller,
        agent: Option<String>,
        proof: &Proof,
    ) -> Result<(PgTransaction<'static>, Uuid), ApiError> {
        let mut trace = Trace::by(caller, "wallet_connect", agent).with("method", proof.method());
        let linked = self.link(caller, proof, &mut trace).await;
        if let Err(error) = &linked {
            self.refused(error, &trace).await;
        }
        linked
    }

    async fn link(
        &self,
        caller: &Caller,
        proof: &Proof,
        trace: &mut Trace,
    ) -> Result<(PgTransaction<'static>, Uuid), ApiError> {
        let network = self.network()?;
        let now = self.clock.now();
        let challenge = self.open(proof.ticket());
        *trace = trace.clone().about(challenge.as_ref());
        let question = Question {
            challenge: challenge.as_ref().map(|challenge| challenge.id),
            ..Question::from(caller.address, now.to_utc())
        };
        self.look(question).await?.check(now.to_utc())?;
        let challenge = challenge.ok_or_else(|| CHALLENGE_EXPIRED.error())?;
        let wallet = self.signer(proof, &challenge, Purpose::LinkWallet(caller.user), trace).await?;
        let mut tx = self.pool.begin().await?;
        // So that two first wallets cannot both be the primary one.
        sqlx::query("select from users where id = $1 for update")
            .bind(caller.user.0)
            .execute(&mut *tx)
            .await?;
        let id = prove_wallet(&mut tx, caller.user, wallet, network, now).await?;
        raise(&mut tx, self.schemas.account_changed, caller.user, now).await?;
        challenge.consume(&mut tx, caller.address, now.to_utc()).await?;
        let log = trace.clone().with("network", network.label).success(now)?;
        announce(&mut tx, self.schemas.activity_logged, &log, now).await?;
        Ok((tx, id))
    }

    /// Records that another wallet is to become the primary one, of which its owner is told.
    pub(crate) async fn warn_of_wallet_change(
        &self,
        tx: &mut PgConnection,
        caller: &Caller,
        agent: Option<String>,
        address: &str,
    ) -> Result<(), ApiError> {
        let now = self.clock.now();
        let mut trace = Trace::by(caller, "wallet_change", agent);
        trace.wallet = address.parse().ok();
        let event = trace.event("wallet_change", "medium");
        let record =
            event.activity(EventId(Uuid::now_v7()), 0, now).map_err(|error| INTERNAL.caused_by(error))?;
        announce(tx, self.schemas.activity_logged, &record, now).await?;
        Ok(())
    }

    /// Records that a wallet was removed.
    pub(crate) async fn log_disconnected(
        &self,
        tx: &mut PgConnection,
        caller: &Caller,
        agent: Option<String>,
        address: &str,
    ) -> Result<(), ApiError> {
        let now = self.clock.now();
        let mut trace = Trace::by(caller, "wallet_disconnect", agent);
        trace.wallet = address.parse().ok();
        let log = trace.success(now)?;
        announce(tx, self.schemas.activity_logged, &log, now).await?;
        Ok(())
    }
}
