//! What is counted of a watcher.

use chain::follow::Checkpoint;
use schemas::payouts::ChainStep;

runtime::metrics! {
    /// What is counted of a watcher.
    pub struct WatchMetrics {
        /// `adopted`, `undone`, `retold`.
        steps: Counter["step"] = "milestream_watch_steps_total", "Steps that the gateway took of this watcher";
        /// Act when no node responds.
        node_up: Gauge["node"] = "milestream_watch_node_up", "1 while the node responds as it should";
        /// Act when it stands still for a minute.
        block_timestamp: Gauge[] = "milestream_watch_block_timestamp", "Unix time of the newest block that was sent to the gateway";
        /// `watched` and `watched_finalized`, as this watcher sent them.
        chain_block: Gauge["block"] = "milestream_chain_block_number", "Height of the chain";
    }
}

impl WatchMetrics {
    /// Counts steps that the gateway has taken; `checkpoint` is where the watcher then stands.
    pub(crate) fn taken(&self, steps: &[ChainStep], checkpoint: &Checkpoint) {
        for step in steps {
            let label = match step {
                ChainStep::Adopted(step) if step.retold => "retold",
                ChainStep::Adopted(_) => "adopted",
                ChainStep::Undone(_) => "undone",
            };
            self.steps.with_label_values(&[label]).inc();
            if label == "retold" {
                // Its block is an old one.
                continue;
            }
            if let ChainStep::Adopted(step) = step {
                self.block_timestamp.with_label_values(&[]).set(step.block.timestamp.0.div_euclid(1_000_000));
            }
        }
        let head = checkpoint.tip().map_or(0, |tip| tip.number());
        self.chain_block.with_label_values(&["watched"]).set(head.into());
    }
}
