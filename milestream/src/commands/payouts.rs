//! `milestream payouts`: looks at payouts, and gives those a way out that wait for a person. Each change is recorded in
//! `system_audit_logs`, in the same transaction.

use anyhow::{Context as _, Result, ensure};
use clap::builder::{NonEmptyStringValueParser, PossibleValuesParser};
use clap::{Args, Subcommand};
use processors::chain_submission::ledger::outbox::Schemas;
use processors::chain_submission::ledger::publish::Publisher;
use processors::chain_submission::operate::{self, Order};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use schemas::events::{ActivityLogged, PayoutState, PayoutUpdated, RewardCancelled};
use serde_json::{Value, json};
use uuid::Uuid;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, payments};

/// What to do with payouts.
#[derive(Debug, Subcommand)]
pub enum Payouts {
    /// List payouts: reward, state, B3TR in wei, reason; then unresolved incidents. Without a state those that wait for a person, and those
    /// that are ready and wait for a reason of their own.
    List {
        /// Only those in this state.
        #[arg(long, value_parser = PossibleValuesParser::new(PayoutState::ALL.map(PayoutState::label)))]
        state: Option<String>,
        /// Payouts at most.
        #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(i64).range(1..=10_000))]
        limit: i64,
    },
    /// Print a payout with its transactions and their incidents as JSON.
    Show {
        /// The reward.
        reward: Uuid,
    },
    /// Plan a payout that is ready with the next transaction, without the pause after a failure.
    Retry(Target),
    /// Plan a quarantined payout again, its cause being gone.
    Release(Target),
    /// Cancel a payout that no transaction can pay any more. The driver's budgets get back what it was charged, each in the period that
    /// was charged.
    Cancel {
        /// Which, and why.
        #[command(flatten)]
        target: Target,
        /// The reward was settled in another way: its budgets stay charged.
        #[arg(long)]
        settled: bool,
    },
    /// Say what became of a transaction that did otherwise than planned: of each of its rewards whether it was paid, then of the
    /// transaction as a whole. Signing goes on once no incident is left.
    Resolve {
        /// The transaction.
        transaction: String,
        /// Decide on this reward of it.
        #[arg(long, requires = "outcome")]
        reward: Option<Uuid>,
        /// Whether the transaction paid the reward; one that was not paid is planned again.
        #[arg(long = "as", value_name = "OUTCOME", value_parser = ["paid", "unpaid"], requires = "reward", id = "outcome")]
        outcome: Option<String>,
        /// What was found, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Stop planning and signing. What was signed is posted on and followed.
    Pause {
        /// Why, for the audit log.
        #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
        reason: String,
    },
    /// Plan and sign again.
    Resume,
}

/// A payout, and why it is changed.
#[derive(Debug, Args)]
pub struct Target {
    /// The reward.
    reward: Uuid,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

impl Payouts {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::List { state, limit } => list(config, state.as_deref(), *limit).await,
            Self::Show { reward } => show(config, *reward).await,
            Self::Retry(target) => target.carry_out(config, &Order::Retry, "payout.retry").await,
            Self::Release(target) => target.carry_out(config, &Order::Release, "payout.release").await,
            Self::Cancel { target, settled } => {
                target.carry_out(config, &Order::Cancel { settled: *settled }, "payout.cancel").await
            }
            Self::Resolve { transaction, reward: Some(reward), outcome, reason } => {
                let tx_id = transaction.clone();
                let paid = outcome.as_deref() == Some("paid");
                let order = if paid { Order::Paid { tx_id } } else { Order::Unpaid { tx_id } };
                let target = Target { reward: *reward, reason: reason.clone() };
                target.carry_out(config, &order, "payout.resolve").await
            }
            Self::Resolve { transaction, reason, .. } => resolve(config, transaction, reason).await,
            Self::Pause { reason } => pause(config, Some(reason)).await,
            Self::Resume => pause(config, None).await,
        }
    }
}

impl Target {
    async fn carry_out(&self, config: &Config, order: &Order, action: &'static str) -> Result<()> {
        let publisher = publisher(config).await?;
        let mut tx = database::pool(config)?.begin().await?;
        let now = SystemClock.now().to_utc();
        let done = operate::carry_out(&mut tx, &publisher, self.reward, (order, &self.reason), now).await?;
        let mut after = done.after;
        after["why"] = json!(self.reason);
        let what = Action { module: "chain", action, severity: "warning" };
        audit(&mut tx, what, &self.reward.to_string(), Some(done.before), after.clone()).await?;
        tx.commit().await?;
        println!("{} {}", self.reward, after["state"].as_str().unwrap_or_default());
        Ok(())
    }
}

/// By which an order is published.
///
/// # Errors
/// The registry's.
pub async fn publisher(config: &Config) -> Result<Publisher> {
    let registry = Registry::new(&config.registry_client())?;
    let prefix = &config.kafka.topic_prefix;
    let schemas = Schemas {
        payout_updated: registry.id_of::<PayoutUpdated>(prefix).await?,
        activity_logged: registry.id_of::<ActivityLogged>(prefix).await?,
        reward_cancelled: registry.id_of::<RewardCancelled>(prefix).await?,
    };
    Ok(Publisher { schemas, gas_ceiling: 0 })
}

/// Prints payouts, one per line, and unresolved incidents.
async fn list(config: &Config, state: Option<&str>, limit: i64) -> Result<()> {
    let pool = database::pool(config)?;
    let rows: Vec<(Uuid, String, String, Option<String>)> = sqlx::query_as(
        "select reward_id, state, amount_wei::text, reason from payouts
         where case when $1::text is null
                then state = 'quarantined' or (state = 'ready' and reason is not null and ready_at > now())
                else state = $1 end
         order by updated_at, reward_id limit $2",
    )
    .bind(state)
    .bind(limit)
    .fetch_all(&pool)
    .await?;
    for (reward, state, amount, reason) in rows {
        println!("{reward} {state} {amount} {}", reason.unwrap_or_default());
    }
    let incidents: Vec<(String, String)> = sqlx::query_as(
        "select tx_id, what from payout_incidents where resolved_at is null order by found_at, tx_id limit $1",
    )
    .bind(limit)
    .fetch_all(&pool)
    .await?;
    for (transaction, what) in incidents {
        println!("{transaction} {what}");
    }
    Ok(())
}

async fn show(config: &Config, reward: Uuid) -> Result<()> {
    let found: Option<Value> = sqlx::query_scalar(
        "select to_jsonb(p) - 'header' - 'stamp' || jsonb_build_object(
            'transactions', (select coalesce(jsonb_agg(to_jsonb(a) - 'raw' - 'body' - 'history' || jsonb_build_object(
                    'live', r.live, 'clause_index', r.clause_index, 'receiver', r.receiver,
                    'incidents', (select coalesce(jsonb_agg(to_jsonb(i)), '[]') from payout_incidents i where i.tx_id = a.tx_id))
                order by r.attempt_no), '[]')
             from payout_attempt_rewards r join payout_attempts a using (tx_id) where r.reward_id = p.reward_id))
         from payouts p where p.reward_id = $1",
    )
    .bind(reward)
    .fetch_optional(&database::pool(config)?)
    .await?;
    let found = found.with_context(|| format!("there is no payout of reward {reward}"))?;
    println!("{}", serde_json::to_string_pretty(&found)?);
    Ok(())
}

/// Resolves the incidents of a transaction.
async fn resolve(config: &Config, transaction: &str, reason: &str) -> Result<()> {
    let mut tx = database::pool(config)?.begin().await?;
    let resolved = operate::resolve(&mut tx, transaction, reason, SystemClock.now().to_utc()).await?;
    let what = Action { module: "chain", action: "payout.resolve", severity: "warning" };
    audit(&mut tx, what, transaction, None, json!({"resolved": resolved, "why": reason})).await?;
    tx.commit().await?;
    println!("{transaction} resolved");
    Ok(())
}

/// Stops planning and signing for a reason, or goes on without one.
async fn pause(config: &Config, reason: Option<&str>) -> Result<()> {
    let genesis =
        payments::genesis(config)?.context("chain.genesis_id is empty: nothing is paid")?.to_string();
    let mut tx = database::pool(config)?.begin().await?;
    let before: Option<String> =
        sqlx::query_scalar("select reason from payout_pauses where genesis_id = $1 for update")
            .bind(&genesis)
            .fetch_optional(&mut *tx)
            .await?;
    match reason {
        Some(reason) => {
            sqlx::query(
                "insert into payout_pauses (genesis_id, reason) values ($1, $2)
                 on conflict (genesis_id) do update set reason = excluded.reason",
            )
            .bind(&genesis)
            .bind(reason)
            .execute(&mut *tx)
            .await?;
        }
        None => {
            ensure!(before.is_some(), "payments are not paused");
            sqlx::query("delete from payout_pauses where genesis_id = $1")
                .bind(&genesis)
                .execute(&mut *tx)
                .await?;
        }
    }
    let action = if reason.is_some() { "payout.pause" } else { "payout.resume" };
    let what = Action { module: "chain", action, severity: "warning" };
    audit(&mut tx, what, &genesis, Some(json!({"paused": before})), json!({"paused": reason})).await?;
    tx.commit().await?;
    println!("{}", if reason.is_some() { "paused within a second" } else { "going on" });
    Ok(())
}
