//! `milestream reconcile`: the chain's own logs against the books.

use anyhow::{Context as _, Result, ensure};
use chain::node::Limits;
use clap::Args;
use processors::chain_submission::network::Network;
use processors::chain_submission::reconcile::reconcile;
use serde_json::json;

use crate::config::Config;
use crate::{database, payments};

/// What to compare.
#[derive(Debug, Args)]
pub struct Reconcile {
    /// The first block; without it since the deployment's first payment.
    #[arg(long, value_name = "BLOCK")]
    from: Option<u32>,
    /// The last block; without it as far as the chain is final. What is not final may still change.
    #[arg(long, value_name = "BLOCK")]
    to: Option<u32>,
}

impl Reconcile {
    /// Prints each difference, then a summary, as JSON lines.
    pub async fn run(&self, config: &Config) -> Result<()> {
        let genesis = payments::genesis(config)?.context("chain.genesis_id is empty: nothing is paid")?;
        let pool = database::pool(config)?;
        let network = Network::load(&pool, genesis, Limits::default()).await?;
        let node = network.nodes.first().context("no node of the network is active")?;
        let report = reconcile(&pool, node, &network, (self.from, self.to)).await?;
        for finding in &report.findings {
            println!("{}", serde_json::to_string(finding)?);
        }
        let (differences, paid_wei) = (report.findings.len(), report.paid_wei.to_string());
        let summary = json!({
            "from": report.from, "to": report.to, "payments": report.payments, "paid_wei": paid_wei,
            "resolved": report.resolved, "differences": differences,
        });
        println!("{summary}");
        ensure!(differences == 0, "chain and books differ in {differences} payments");
        Ok(())
    }
}
