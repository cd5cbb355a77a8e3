//! `milestream replay promote`: what a replay found is carried over into the live books. Each reward is cancelled in one transaction with
//! its record for the topics, its line in the audit log and the note that it is promoted, so that one that is interrupted goes on.

use anyhow::{Result, bail, ensure};
use processors::chain_submission::operate::{self, Order, Refused};
use processors::replay::spec::Name;
use processors::replay::{promote, report};
use runtime::clock::{Clock as _, SystemClock};
use rust_decimal::Decimal;
use schemas::ids::{RewardId, UploadId};
use serde_json::json;

use super::{hold, show};
use crate::audit::{Action, audit};
use crate::commands::payouts;
use crate::config::Config;
use crate::database;

/// Differences that are looked at together.
const ROUND: i64 = 500;
/// As `system_audit_logs` has it.
const PROMOTE: Action = Action { module: "rewards", action: "replay.promote", severity: "critical" };

/// Cancels what would not be granted any more, and says of each that cannot be cancelled why.
pub async fn promote(config: &Config, name: &Name, reason: &str) -> Result<()> {
    let live = database::pool(config)?;
    show::known(&live, name).await?;
    let _held = hold(&live, name).await?;
    let shadow = database::pool_of(config, &name.schema())?;
    let mut connection = shadow.acquire().await?;
    let summary = report::summary(&mut connection, &name.to_string()).await?;
    ensure!(summary.is_finished, "replay {name} has not come to its end: there is nothing to promote yet");
    let publisher = payouts::publisher(config).await?;
    let (mut behind, mut cancelled, mut moved, mut refused) = (String::new(), 0_u64, Decimal::ZERO, 0_u64);
    loop {
        let open = promote::open(&mut connection, &behind, ROUND).await?;
        let Some((last, ..)) = open.last() else { break };
        behind.clone_from(last);
        for (effect, upload, granted) in open {
            let reward = RewardId::of(UploadId(upload)).0;
            let mut tx = live.begin().await?;
            let (order, now) = (Order::Cancel { settled: false }, SystemClock.now().to_utc());
            let why = format!("replay {name}: {reason}");
            let done = match operate::carry_out(&mut tx, &publisher, reward, (&order, &why), now).await {
                Ok(done) => done,
                Err(Refused::Stage(error)) => return Err(error.into()),
                Err(error) => {
                    refused += 1;
                    println!("{effect}: {error}");
                    continue;
                }
            };
            let after =
                json!({"payout": done.after, "granted": granted, "replay": name.to_string(), "why": reason});
            audit(&mut tx, PROMOTE, &reward.to_string(), Some(done.before), after).await?;
            promote::note(&mut tx, &name.schema(), &effect).await?;
            tx.commit().await?;
            cancelled += 1;
            moved += granted;
        }
    }
    println!("{cancelled} rewards of {} B3TR are cancelled", moved.normalize());
    if refused > 0 {
        bail!("{refused} rewards are not cancelled: what is signed or paid stays");
    }
    Ok(())
}
