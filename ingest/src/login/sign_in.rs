//! `POST /v1/auth/login`: a wallet's signature for tokens. The first login makes the account, with the wallet as its primary one.

use std::sync::Arc;

use schemas::ids::Micros;
use uuid::Uuid;

use super::SignIn;
use super::challenge::{Challenge, Purpose};
use super::lockout::Lockout;
use super::look::{Known, Question};
use super::plain::{Entered, Plain};
use super::proof::Proof;
use super::records::{Trace, error_message};
use super::tokens::{Tokens, make};
use crate::accounts::session::fingerprint;
use crate::auth::admission::{Agent, Entrant};
use crate::auth::keys::SigningKey;
use crate::auth::rate::Key;
use crate::http::problem::{
    ACCOUNT_LOCKED, ApiError, CHALLENGE_EXPIRED, CHALLENGE_USED, Problem, REGISTRATIONS_CLOSED,
    SIGN_IN_DELAYED, SIGN_IN_UNAVAILABLE, WALLET_TAKEN,
};
use crate::http::reply::Uncached;
use crate::http::request::{Dependency, JsonBody};
use crate::outbox::Row;

/// What the route itself refuses, beside what is wrong with a proof.
pub(crate) const REFUSALS: &[Problem] =
    &[SIGN_IN_UNAVAILABLE, SIGN_IN_DELAYED, ACCOUNT_LOCKED, WALLET_TAKEN, REGISTRATIONS_CLOSED];
/// From this many attempts in vain on they are more than slips.
const MANY: i32 = 5;

/// The route.
pub(crate) async fn post(
    Dependency(sign_in): Dependency<Arc<SignIn>>,
    Entrant(from): Entrant,
    Agent(agent): Agent,
    JsonBody(proof): JsonBody<Proof>,
) -> Result<Uncached<Tokens>, ApiError> {
    let mut trace = Trace::new("login", from, agent).with("method", proof.method());
    match sign_in.sign_in(&proof, &mut trace).await {
        Ok(tokens) => Ok(Uncached(tokens)),
        Err(error) => {
            sign_in.refused(&error, &trace).await;
            Err(error)
        }
    }
}

impl SignIn {
    async fn sign_in(&self, proof: &Proof, trace: &mut Trace) -> Result<Tokens, ApiError> {
        let (key, network) = (self.key()?, self.network()?);
        let challenge = self.open(proof.ticket());
        *trace = trace.clone().with("network", network.label).about(challenge.as_ref());
        let now = self.clock.now();
        let question = Question {
            address: trace.address,
            wallet: trace.wallet,
            network: Some(network.label),
            challenge: challenge.as_ref().map(|challenge| challenge.id),
            now: now.to_utc(),
        };
        let seen = self.look(question).await?;
        seen.check(now.to_utc())?;
        let challenge = challenge.ok_or_else(|| CHALLENGE_EXPIRED.error())?;
        let wallet = self.signer(proof, &challenge, Purpose::SignIn, trace).await?;

        // The signature is the wallet's own: what others try in its name does not count.
        self.admission.take(Key::LoginWallet(wallet))?;

        if let Some(known) = seen.known()
            && let Some(tokens) = self.enter_plainly(&key, known, &challenge, trace, now).await?
        {
            return Ok(tokens);
        }
        self.enter(&key, (wallet, network), &challenge, trace, now).await
    }

    /// Writes the login as one of a batch; none where that is left to the transaction.
    async fn enter_plainly(
        &self,
        key: &SigningKey,
        known: Known,
        challenge: &Challenge,
        trace: &Trace,
        now: Micros,
    ) -> Result<Option<Tokens>, ApiError> {
        let session = Uuid::now_v7();
        let (tokens, expires_at) = make(key, (known.user, known.role, session), now.to_utc(), now)?;
        let trace = Trace { user: Some(known.user), ..trace.clone() };
        let mut logs = vec![trace.clone().with("session_id", session.to_string()).success(now)?];
        for ended in &known.surplus {
            logs.push(trace.made_room(*ended).success(now)?);
        }
        let records = logs.iter().map(|log| Row::of(self.schemas.activity_logged, log));
        let records = records.collect::<Result<_, _>>()?;
        let plain = Plain {
            known,
            challenge: challenge.clone(),
            session,
            access: fingerprint(tokens.access_token.as_bytes()),
            refresh: fingerprint(tokens.refresh_token.as_bytes()),
            expires_at,
            address: trace.address,
            agent: trace.agent,
            records,
            now: now.to_utc(),
        };
        // Lost, it may be written all the same, and its challenge is used then: the client asks for another. The session whose tokens
        // nobody has makes room for others, and ends.
        match self.plains.ask(plain).await? {
            Some(Entered::Yes) => Ok(Some(tokens)),
            Some(Entered::ChallengeUsed) => Err(CHALLENGE_USED.error()),
            Some(Entered::No) | None => Ok(None),
        }
    }

    /// Counts an attempt in vain and records it. What goes wrong here is logged: the client has its refusal already.
    pub(super) async fn refused(&self, error: &ApiError, trace: &Trace) {
        let Some(message) = error_message(error) else { return };
        self.log.write(&trace.log(Some(message)));
        let now = self.clock.now().to_utc();
        let failed = match Lockout::new(&self.pool, trace.address, trace.wallet).failed(now).await {
            Ok(failed) => failed,
            Err(error) => {
                tracing::error!(error = %error, "an attempt in vain was not counted");
                return;
            }
        };
        match error.problem() {
            CHALLENGE_USED => self.log.write(&trace.event("challenge_replay", "medium")),
            ACCOUNT_LOCKED => self.log.write(&trace.event("account_locked", "high")),
            _ => {
                let severity = if failed.failures >= MANY { "medium" } else { "low" };
                self.log.write(&trace.event("failed_login", severity));
            }
        }
        if failed.wallet_delayed {
            self.log.write(&trace.event("account_locked", "high"));
        }
        if failed.network_delayed {
            self.log.write(&trace.event("rate_limited", "low"));
        }
    }
}
