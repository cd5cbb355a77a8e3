//! What is counted of payouts.

use runtime::metrics::MINUTES;

runtime::metrics! {
    /// What is counted of payouts.
    pub struct PayoutMetrics {
        /// `quarantined` waits for a person.
        payouts: Gauge["state"] = "milestream_payouts", "Payouts by state";
        /// `lowered`, `raised`, `refused` (the budgets do not hold the difference), `late` (a transaction pays it as it was). Act on the
        /// last: what is paid is not what is charged.
        adjustments: Counter["outcome"] = "milestream_payout_adjustments_total", "Adjustments of rewards by how they have ended";
        /// Each is in the log every few seconds, and is tried again.
        corrections_failing: Gauge[] = "milestream_payout_corrections_failing", "Rewards of corrected readings that could not be cancelled, while the others were";
        /// Act: it names what is missing (funds, VTHO, a node, a role).
        payout_obstacle: Gauge["cause"] = "milestream_payout_obstacle", "1 while nothing is signed for this cause";
        /// `signed`, `sent`, `included`, `undone`, `confirmed`, `reverted`, `final`, `quarantined`, `abandoned`, `dead`, `replanned`,
        /// `incident`, `restored` (taken from the chain), `withheld` (the passport takes the receiver for a cheater), `unknown_payment`,
        /// `policy`. Act on the last two and on `incident`.
        payout_steps: Counter["step"] = "milestream_payout_steps_total", "Steps of payouts and their transactions";
        /// `signed` (after the grant), `included` (after signing), `confirmed` (after inclusion).
        payout_step_seconds: Histogram["step"] = "milestream_payout_step_seconds", "Seconds from the step before to this one", MINUTES;
        /// `taken`, `known`, `refused`, `malformed`, `unavailable`.
        broadcasts: Counter["result"] = "milestream_broadcasts_total", "Posts of signed transactions to nodes";
        /// `head` and `finalized`, as `chain.events` states them. Act when the head stands still for a minute.
        chain_block: Gauge["block"] = "milestream_chain_block_number", "Height of the chain";
    }
}
