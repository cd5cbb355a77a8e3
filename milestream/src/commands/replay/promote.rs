//! `milestream replay promote`: what a replay found is carried over into the live books. Each reward is cancelled, lowered or asked to be
//! raised in one transaction with its record for the topics, its line in the audit log and the note that it is promoted, so that one that
//! is interrupted goes on. What gives back goes first: a raise may need its room.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use processors::chain_submission::adjust::{self, Adjuster, Standing};
use processors::chain_submission::operate::{self, Done, Order, Refused};
use processors::replay::promote::Move;
use processors::replay::spec::Name;
use processors::replay::{promote, report, tables};
use runtime::clock::{Clock as _, SystemClock};
use runtime::registry::Registry;
use rust_decimal::Decimal;
use schemas::events::RewardCalculated;
use schemas::ids::{RewardId, UploadId};
use serde_json::json;
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

use super::{hold, show};
use crate::audit::{Action, audit};
use crate::commands::payouts;
use crate::config::Config;
use crate::database;

/// Differences that are looked at together.
const ROUND: i64 = 500;
/// How long the stages may take to answer the last adjustment.
const ANSWERED: Duration = Duration::from_secs(120);
/// Between two looks at what is open.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// As `system_audit_logs` has it.
const PROMOTE: Action = Action { module: "rewards", action: "replay.promote", severity: "critical" };

/// Moves the books by what the replay found, and says of each reward that stays as it is why.
pub async fn promote(config: &Config, name: &Name, reason: &str) -> Result<()> {
    let live = database::pool(config)?;
    show::known(&live, name).await?;
    let _held = hold(&live, name).await?;
    let shadow = database::pool_of(config, &name.schema())?;
    let mut connection = shadow.acquire().await?;
    let summary = report::summary(&mut connection, &name.to_string()).await?;
    ensure!(summary.is_finished, "replay {name} has not come to its end: there is nothing to promote yet");
    tables::create(&mut connection).await?;
    let publisher = payouts::publisher(config).await?;
    let registry = Registry::new(&config.registry_client())?;
    let calculated = registry.id_of::<RewardCalculated>(&config.kafka.topic_prefix).await?;
    let promotion = promote::promotion(&mut connection, &name.to_string()).await?;
    let mut promoting = Promoting {
        live: &live,
        adjuster: Adjuster { publisher, calculated },
        name,
        reason,
        promotion: &promotion,
        done: BTreeMap::new(),
        stay: 0,
    };
    promoting.repeat(&mut connection).await?;
    for raises in [false, true] {
        promoting.all(&mut connection, raises).await?;
    }
    promoting.end().await
}

/// A promotion under way.
struct Promoting<'a> {
    live: &'a PgPool,
    adjuster: Adjuster,
    name: &'a Name,
    reason: &'a str,
    promotion: &'a str,
    /// Rewards and B3TR by what was done.
    done: BTreeMap<&'static str, (u64, Decimal)>,
    /// Rewards that stay as they are.
    stay: u64,
}

impl Promoting<'_> {
    /// Publishes again what an earlier run has begun and nobody has answered yet.
    async fn repeat(&self, shadow: &mut PgConnection) -> Result<()> {
        let open: Vec<Uuid> =
            self.undone().await?.iter().filter(|one| one.is_open()).map(|one| one.reward_id).collect();
        for found in promote::of_rewards(shadow, self.promotion, &open).await? {
            let Some(wanted) = &found.wanted else { continue };
            let mut tx = self.live.begin().await?;
            self.adjuster.repeat(&mut tx, wanted, SystemClock.now().to_utc()).await?;
            tx.commit().await?;
        }
        Ok(())
    }

    async fn all(&mut self, shadow: &mut PgConnection, raises: bool) -> Result<()> {
        let mut behind = String::new();
        loop {
            let open = promote::open(shadow, self.promotion, (raises, &behind), ROUND).await?;
            let Some(last) = open.last() else { return Ok(()) };
            behind.clone_from(&last.effect);
            for found in open {
                self.one(&found).await?;
            }
        }
    }

    async fn one(&mut self, found: &Move) -> Result<()> {
        let reward = RewardId::of(UploadId(found.upload_id)).0;
        let mut tx = self.live.begin().await?;
        let done = match self.carry_out(&mut tx, reward, found).await {
            Ok(done) => done,
            Err(Refused::Stage(error)) => return Err(error.into()),
            Err(error) => {
                self.stay += 1;
                println!("{}: {error}", found.effect);
                return Ok(());
            }
        };
        let after = json!({
            "payout": done.after, "granted": found.granted_before, "replay": self.name.to_string(), "why": self.reason
        });
        audit(&mut tx, PROMOTE, &reward.to_string(), Some(done.before), after).await?;
        promote::note(&mut tx, &self.name.schema(), &found.effect).await?;
        tx.commit().await?;
        let (what, by) = match &found.wanted {
            None => ("cancelled", found.granted_before),
            Some(wanted) if wanted.granted < wanted.granted_before => {
                ("lowered", wanted.granted_before - wanted.granted)
            }
            Some(wanted) => ("asked to be raised", wanted.granted - wanted.granted_before),
        };
        let (rewards, moved) = self.done.entry(what).or_default();
        (*rewards, *moved) = (*rewards + 1, *moved + by);
        Ok(())
    }

    async fn carry_out(&self, tx: &mut PgConnection, reward: Uuid, found: &Move) -> Result<Done, Refused> {
        let now = SystemClock.now().to_utc();
        let Some(wanted) = &found.wanted else {
            let why = format!("replay {}: {}", self.name, self.reason);
            let order = Order::Cancel { settled: false };
            return operate::carry_out(tx, &self.adjuster.publisher, reward, (&order, &why), now).await;
        };
        self.adjuster.begin(tx, wanted, now).await
    }

    /// Waits until every adjustment is answered, and says what has come of it.
    async fn end(mut self) -> Result<()> {
        let until = Instant::now() + ANSWERED;
        let undone = loop {
            let undone = self.undone().await?;
            if !undone.iter().any(Standing::is_open) || Instant::now() > until {
                break undone;
            }
            tokio::time::sleep(LOOK_EVERY).await;
        };
        for (what, (rewards, moved)) in &self.done {
            println!("{rewards} rewards are {what}: {} B3TR", moved.normalize());
        }
        for one in undone.iter().filter(|one| !one.is_open()) {
            self.stay += 1;
            println!("reward {}: {}", one.reward_id, one.told());
        }
        let open = undone.iter().filter(|one| one.is_open()).count();
        if open > 0 {
            bail!(
                "{open} adjustments wait for limit_check and chain_submission: promote it again once they have come to them"
            );
        }
        if self.stay > 0 {
            bail!("{} rewards stay as they are, for what is said of each", self.stay);
        }
        Ok(())
    }

    async fn undone(&self) -> Result<Vec<Standing>> {
        Ok(adjust::undone(&mut *self.live.acquire().await?, self.promotion).await?)
    }
}
