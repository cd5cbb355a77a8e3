//! `milestream restore`: what the database alone holds, again from topics and chain after the database was lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::builder::NonEmptyStringValueParser;
use clap::{Args, Subcommand};
use processors::chain_submission::ledger::outbox::Schemas;
use processors::chain_submission::metrics::PayoutMetrics;
use processors::chain_submission::rebuild::{Rebuild, Topics};
use processors::chain_submission::submit::guard::GuardTopic;
use processors::fraud_check::FraudCheck;
use processors::fraud_check::rules::Rules;
use processors::limit_check::LimitCheck;
use processors::reward_rules::RuleSource;
use runtime::clock::{Clock, SystemClock};
use runtime::producer::{DeliveryTimeout, KafkaProducer};
use runtime::refold::Refold;
use runtime::registry::Registry;
use runtime::snapshot;
use schemas::events::{ActivityLogged, PaymentsAudited, PayoutUpdated, RewardCancelled, SignatureAnnounced};
use schemas::topic::Topic;
use serde_json::json;

use crate::audit::{Action, audit};
use crate::config::Config;
use crate::{database, payments};

/// Longest wait for Kafka to take a record.
const DELIVERY: Duration = Duration::from_secs(10);

/// What to restore.
#[derive(Debug, Subcommand)]
pub enum Restore {
    /// What the stages that decide remember, where the database is older than their offsets: decisions, vehicles, budgets and reviews, from
    /// what they have published since. Those stages have to be stopped. Nothing is decided or published by it; one that is interrupted goes
    /// on where it was when it is run again. Prints what was folded back as JSON.
    Decisions(Forgotten),
    /// Payouts and their transactions, from the topics and the chain, where the database holds none. Accounts, wallets, nodes and
    /// contracts have to be back before, and chain_submission, watch and the gateway stopped. Prints what there is as JSON. Nothing is
    /// paid by it; refused where the database holds payouts.
    Payouts(Lost),
}

/// Why decisions are folded back.
#[derive(Debug, Args)]
pub struct Forgotten {
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

/// How much was lost.
#[derive(Debug, Args)]
pub struct Lost {
    /// Kafka has lost nothing: every signature that may still come into a block is announced there. Without it nothing is signed until
    /// what may have been signed cannot be valid any more.
    #[arg(long)]
    kafka_whole: bool,
    /// Why, for the audit log.
    #[arg(long, value_name = "TEXT", value_parser = NonEmptyStringValueParser::new())]
    reason: String,
}

impl Restore {
    /// Does it.
    pub async fn run(&self, config: &Config) -> Result<()> {
        match self {
            Self::Decisions(forgotten) => forgotten.run(config).await,
            Self::Payouts(lost) => lost.run(config).await,
        }
    }
}

impl Forgotten {
    async fn run(&self, config: &Config) -> Result<()> {
        let (kafka, prefix) = (config.kafka_client(), config.kafka.topic_prefix.clone());
        let (pool, registry) = (database::pool(config)?, Registry::new(&config.registry_client())?);
        let owner = "milestream restore decisions";
        let refold = Refold { pool: &pool, kafka: &kafka, prefix: &prefix, schemas: &registry, owner };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let rules = Arc::new(RuleSource::tables(pool.clone()));
        let mut refolded = refold.run(&FraudCheck::new(Rules::current(), clock.clone())).await?;
        refolded.extend(refold.run(&LimitCheck::new(clock, rules)).await?);
        let refolded = serde_json::to_value(refolded)?;
        let mut tx = pool.begin().await?;
        let what = Action { module: "pipeline", action: "restore.decisions", severity: "critical" };
        audit(&mut tx, what, "decisions", None, json!({"refolded": refolded, "why": self.reason})).await?;
        tx.commit().await?;
        println!("{refolded}");
        Ok(())
    }
}

impl Lost {
    async fn run(&self, config: &Config) -> Result<()> {
        let paying = payments::config(config)?.context("chain.genesis_id is empty: nothing is paid")?;
        let registry = Arc::new(Registry::new(&config.registry_client())?);
        let (kafka, prefix) = (config.kafka_client(), config.kafka.topic_prefix.clone());
        let topic = format!("{prefix}{}", Topic::PayoutsGuard.name());
        let read = kafka.clone();
        let guard = GuardTopic {
            outbound: Arc::new(KafkaProducer::new(&kafka, DeliveryTimeout::After(DELIVERY))?),
            read: Arc::new(move |topic| snapshot::read(&read, topic)),
            schemas: registry.clone(),
            topic,
            signature_announced: registry.id_of::<SignatureAnnounced>(&prefix).await?,
            payments_audited: registry.id_of::<PaymentsAudited>(&prefix).await?,
        };
        let schemas = Schemas {
            payout_updated: registry.id_of::<PayoutUpdated>(&prefix).await?,
            activity_logged: registry.id_of::<ActivityLogged>(&prefix).await?,
            reward_cancelled: registry.id_of::<RewardCancelled>(&prefix).await?,
        };
        let topics = Topics {
            each: Arc::new(move |topic, take| snapshot::each(&kafka, topic, take)),
            schemas: registry,
            prefix,
        };
        let pool = database::pool(config)?;
        let rebuild = Rebuild {
            pool: &pool,
            genesis: paying.genesis,
            terms: &paying.terms,
            topics: &topics,
            guard: &guard,
            schemas,
            clock: Arc::new(SystemClock),
            metrics: PayoutMetrics::new()?,
            topics_whole: self.kafka_whole,
        };
        let rebuilt = serde_json::to_value(rebuild.run().await?)?;
        let mut tx = pool.begin().await?;
        let what = Action { module: "chain", action: "restore.payouts", severity: "critical" };
        let after = json!({"rebuilt": rebuilt, "why": self.reason, "kafka_whole": self.kafka_whole});
        audit(&mut tx, what, &paying.genesis.to_string(), None, after).await?;
        tx.commit().await?;
        println!("{rebuilt}");
        Ok(())
    }
}
